import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Caller } from './caller.js';
import { ServerError } from './errors.js';
import { Shares } from './shares.js';

interface Waiting {
  /** Of the client's images, the one with the least is next. */
  readonly due: number;
  readonly bytes: number;
  readonly caller: Caller;
  start(): void;
  drop(): void;
}

setFlagsFromString('--expose-gc');
/**
 * Frees what nothing refers to: the pixels of a decoded image would be kept beside those of the next ones, since V8 doesn't count
 * them. It takes as long as a few rows of a large image.
 */
const collectGarbage = runInNewContext('gc') as () => void;

/** An image is large if it takes more than this share of the memory. */
const LARGE = 1 / 8;

/**
 * Bounds the images that are decoded at a time, in number and in bytes of memory. Clients have equal shares of these bytes. Of a
 * client's images, the next is the one whose arrival, counted in its bytes begun until then, plus own bytes is least: small images
 * overtake large ones, but only for as many bytes as the large one has. Only one large image is decoded at a time, so that small ones
 * needn't wait for it.
 */
export class Decodes {
  readonly #most: number;
  readonly #maxBytes: number;
  readonly #shares = new Shares();
  #waiting: Waiting[] = [];
  #running = 0;
  #bytes = 0;
  #large = 0;

  constructor(max: number, maxBytes: number) {
    this.#most = max;
    this.#maxBytes = maxBytes;
  }

  /** Number of images that are being decoded. */
  get running(): number {
    return this.#running;
  }

  /** The memory that they take, in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Number of images that wait. */
  get length(): number {
    return this.#waiting.length;
  }

  /**
   * Calls `decode` for an image that takes so many bytes when there is room for it.
   * @param name of the image in messages
   * @throws ServerError TOO_LARGE; why the caller left, if it did before
   */
  async run<T>(name: string, bytes: number, caller: Caller, decode: () => Promise<T>): Promise<T> {
    if (caller.reason) throw caller.reason;
    const limit = this.#maxBytes * (1 - LARGE);
    if (bytes > limit) {
      throw new ServerError(
        'TOO_LARGE',
        `image ${name}: decoding it takes ${bytes >> 20} MiB, and this server has ${limit >> 20} MiB for that; send it smaller`,
      );
    }
    await new Promise<void>((start, reject) => {
      const { client } = caller;
      if (!this.#waiting.some((one) => one.caller.client === client)) this.#shares.enter(client);
      const due = this.#shares.of(client) + bytes;
      this.#waiting.push({ due, bytes, caller, start, drop: () => reject(caller.reason) });
      caller.onLeave = () => this.#drop();
      this.#fill();
    });
    try {
      return await decode();
    } finally {
      this.#count(bytes, -1);
      if (this.#isLarge(bytes)) collectGarbage();
      this.#fill();
    }
  }

  #fill(): void {
    while (this.#running < this.#most) {
      const fitting = this.#waiting.filter(({ bytes }) => !(this.#isLarge(bytes) && this.#large > 0));
      if (fitting.length === 0) return;
      const next = fitting.reduce((best, other) => (this.#before(other, best) ? other : best));
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.#count(next.bytes, 1);
      this.#shares.serve(next.caller.client);
      this.#shares.add(next.caller.client, next.bytes);
      next.start();
    }
  }

  #before(a: Waiting, b: Waiting): boolean {
    const [first, second] = [a, b].map(({ caller }) => caller.client) as [string, string];
    if (first !== second) return this.#shares.of(first) < this.#shares.of(second);
    return a.due < b.due;
  }

  #isLarge(bytes: number): boolean {
    return bytes > this.#maxBytes * LARGE;
  }

  /** @param by 1 for an image that begins, -1 for one that ends */
  #count(bytes: number, by: 1 | -1): void {
    this.#running += by;
    this.#bytes += by * bytes;
    if (this.#isLarge(bytes)) this.#large += by;
  }

  #drop(): void {
    const left = this.#waiting.filter(({ caller }) => caller.reason);
    this.#waiting = this.#waiting.filter(({ caller }) => !caller.reason);
    for (const { drop } of left) drop();
    this.#fill();
  }
}

/** Of the process. The pixels of an image that was decoded may take memory until the next one is, so that the peak is higher. */
export const decodes = new Decodes(2, 160 << 20);
