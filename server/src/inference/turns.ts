import { Shares } from './shares.js';

/**
 * Does long work of clients one piece in each turn of the event loop, so that others' requests are read in between; a piece that is a
 * promise takes as many as it needs. Clients take turns.
 */
export class Turns {
  /** Milliseconds of rest for each millisecond of work. */
  readonly #rest: number;
  /** By client, from the oldest to the newest. */
  readonly #waiting = new Map<string, (() => void | Promise<void>)[]>();
  readonly #shares = new Shares();
  #busy = false;

  /** @param share how much of the event loop's time these turns may take, while more work waits */
  constructor(share = 1) {
    this.#rest = 1 / share - 1;
  }

  /** @param work must not throw or reject */
  wait(client: string, work: () => void | Promise<void>): void {
    if (this.#waiting.size === 0 && !this.#busy) setImmediate(() => this.#next());
    const own = this.#waiting.get(client);
    if (own) {
      own.push(work);
      return;
    }
    this.#waiting.set(client, [work]);
    this.#shares.enter(client);
  }

  async #next(): Promise<void> {
    const level = (client: string) => this.#shares.of(client);
    const client = [...this.#waiting.keys()].reduce((a, b) => (level(b) < level(a) ? b : a));
    const [work, ...rest] = this.#waiting.get(client)!;
    this.#waiting.set(client, rest);
    if (rest.length === 0) this.#waiting.delete(client);
    this.#shares.serve(client);
    this.#shares.add(client, 1);
    this.#busy = true;
    const start = performance.now();
    await work!();
    // What waits for a promise that the piece has resolved runs before this.
    setImmediate(() => {
      const restMs = this.#rest * (performance.now() - start);
      if (restMs > 0) setTimeout(() => this.#end(), restMs);
      else this.#end();
    });
  }

  #end(): void {
    this.#busy = false;
    if (this.#waiting.size > 0) void this.#next();
  }
}
