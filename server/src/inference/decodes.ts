import { setImmediate } from 'node:timers/promises';
import type { Caller } from '../caller.js';
import { ServerError } from '../errors.js';
import { Shares } from './shares.js';

/** An image that waits or is being decoded. */
interface Decode {
  /** Of the client's images, the one with the least is next. */
  readonly due: number;
  readonly bytes: number;
  readonly caller: Caller;
  /** Is aborted when the caller leaves. */
  readonly controller: AbortController;
  start(): void;
  drop(): void;
}

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
  #waiting: Decode[] = [];
  readonly #running = new Set<Decode>();
  #bytes = 0;

  constructor(max: number, maxBytes: number) {
    this.#most = max;
    this.#maxBytes = maxBytes;
  }

  /** Number of images that are being decoded. */
  get running(): number {
    return this.#running.size;
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
   * Calls `decode` for an image that takes so many bytes when there is room for it. Its signal is aborted when the caller leaves. A decoder
   * can't be interrupted, so the room is taken until `decode` has ended.
   * @param name of the image in messages
   * @throws ServerError TOO_LARGE; why the caller left, if it did
   */
  async run<T>(
    name: string,
    bytes: number,
    caller: Caller,
    decode: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    if (caller.reason) throw caller.reason;
    const limit = this.#maxBytes * (1 - LARGE);
    if (bytes > limit) {
      throw new ServerError(
        'TOO_LARGE',
        `image ${name}: decoding it takes ${bytes >> 20} MiB, and this server has ${limit >> 20} MiB for that; send it smaller`,
      );
    }
    const own = await new Promise<Decode>((start, reject) => {
      const { client } = caller;
      if (!this.#waiting.some((one) => one.caller.client === client)) this.#shares.enter(client);
      const due = this.#shares.of(client) + bytes;
      const controller = new AbortController();
      const drop = () => reject(caller.reason);
      const waiting: Decode = { due, bytes, caller, controller, start: () => start(waiting), drop };
      this.#waiting.push(waiting);
      caller.onLeave = () => this.#drop();
      this.#fill();
    });
    try {
      return await decode(own.controller.signal);
    } catch (error) {
      throw caller.reason ?? error;
    } finally {
      // Its pixels are freed in the next turn of the event loop.
      if (this.#isLarge(own)) await setImmediate();
      this.#running.delete(own);
      this.#bytes -= bytes;
      this.#fill();
    }
  }

  #fill(): void {
    while (this.#running.size < this.#most) {
      const large = [...this.#running].some((one) => this.#isLarge(one));
      const fitting = this.#waiting.filter((one) => !(large && this.#isLarge(one)));
      if (fitting.length === 0) return;
      const next = fitting.reduce((best, other) => (this.#before(other, best) ? other : best));
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.#running.add(next);
      this.#bytes += next.bytes;
      this.#shares.serve(next.caller.client);
      this.#shares.add(next.caller.client, next.bytes);
      next.start();
    }
  }

  #before(a: Decode, b: Decode): boolean {
    const [first, second] = [a, b].map(({ caller }) => caller.client) as [string, string];
    if (first !== second) return this.#shares.of(first) < this.#shares.of(second);
    return a.due < b.due;
  }

  #isLarge({ bytes }: Decode): boolean {
    return bytes > this.#maxBytes * LARGE;
  }

  #drop(): void {
    const left = this.#waiting.filter(({ caller }) => caller.reason);
    this.#waiting = this.#waiting.filter(({ caller }) => !caller.reason);
    for (const { drop } of left) drop();
    for (const { caller, controller } of this.#running) if (caller.reason) controller.abort(caller.reason);
    this.#fill();
  }
}

/** Of the process. */
export const decodes = new Decodes(2, 160 << 20);
