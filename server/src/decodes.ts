import type { Caller } from './caller.js';

interface Waiting {
  /** The least is next. */
  readonly due: number;
  readonly pixels: number;
  readonly caller: Caller;
  start(): void;
  drop(): void;
}

/**
 * Bounds the images that are decoded at a time, in number and in pixels, and so their memory and threads. The next is the one
 * whose arrival, counted in pixels begun until then, plus own pixels is least: small images overtake large ones, but only for
 * as many pixels as the large one has.
 */
export class Decodes {
  readonly #most: number;
  readonly #maxPixels: number;
  #waiting: Waiting[] = [];
  #running = 0;
  #pixels = 0;
  #begun = 0;

  /** @param maxPixels a larger image is decoded alone */
  constructor(most: number, maxPixels: number) {
    this.#most = most;
    this.#maxPixels = maxPixels;
  }

  /** Number of images that are being decoded. */
  get running(): number {
    return this.#running;
  }

  /** Their pixels. */
  get pixels(): number {
    return this.#pixels;
  }

  /** Number of images that wait. */
  get length(): number {
    return this.#waiting.length;
  }

  /**
   * Calls `decode` for an image of so many pixels when there is room for it.
   * @throws why the caller left, if it did before
   */
  async run<T>(pixels: number, caller: Caller, decode: () => Promise<T>): Promise<T> {
    if (caller.reason) throw caller.reason;
    await new Promise<void>((start, reject) => {
      const due = this.#begun + pixels;
      this.#waiting.push({ due, pixels, caller, start, drop: () => reject(caller.reason) });
      caller.onLeave = () => this.#drop();
      this.#fill();
    });
    try {
      return await decode();
    } finally {
      this.#running--;
      this.#pixels -= pixels;
      this.#fill();
    }
  }

  #fill(): void {
    while (this.#running < this.#most && this.#waiting.length > 0) {
      const next = this.#waiting.reduce((best, other) => (other.due < best.due ? other : best));
      if (this.#running > 0 && this.#pixels + next.pixels > this.#maxPixels) return;
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.#running++;
      this.#pixels += next.pixels;
      this.#begun += next.pixels;
      next.start();
    }
  }

  #drop(): void {
    const left = this.#waiting.filter(({ caller }) => caller.reason);
    this.#waiting = this.#waiting.filter(({ caller }) => !caller.reason);
    for (const { drop } of left) drop();
    this.#fill();
  }
}

/** Of the process: one image of the most pixels that a classifier takes (2^26), and a smaller one beside it. */
export const decodes = new Decodes(2, 1.5 * 2 ** 26);
