import type { JobQueue } from './queue.js';

/** Milliseconds that a request waits for room before it is refused, at most. */
const PATIENCE_MS = 1000;

interface Waiting {
  readonly client: string;
  readonly settle: (isIn: boolean) => void;
}

/**
 * Requests over REST that the queue has no room for wait here for a moment, with their bodies unread. A client that is refused at once sends its
 * next request at once, and reading and refusing it takes the time of those that are answered. There is one for each connection at most.
 */
export class Lobby {
  readonly #queue: Pick<JobQueue<unknown>, 'retryAfter' | 'isHalfEmpty'>;
  /** By connection, from the oldest to the newest. */
  readonly #waiting = new Map<object, Waiting>();

  readonly #patienceMs: number;

  /** @param targetMs a request that has waited so long can't be answered in time */
  constructor(
    queue: Pick<JobQueue<unknown>, 'retryAfter' | 'isHalfEmpty' | 'onRoom'>,
    targetMs = Number.POSITIVE_INFINITY,
  ) {
    this.#queue = queue;
    this.#patienceMs = Math.min(PATIENCE_MS, targetMs);
    queue.onRoom = () => this.#admit();
  }

  /** Number of requests that wait. */
  get size(): number {
    return this.#waiting.size;
  }

  /** Seconds until a new request of the client should be sent again; undefined if it has room. */
  retryAfter(client: string): number | undefined {
    const retryAfter = this.#queue.retryAfter(client);
    if (retryAfter !== undefined || this.#waiting.size === 0 || this.#queue.isHalfEmpty) return retryAfter;
    // Those that wait come first, apart from clients with little: they have room in a full queue, too.
    for (const waiting of this.#waiting.values()) if (waiting.client === client) return 1;
    return undefined;
  }

  /**
   * Waits until there is room for a request of the client.
   * @param left is told what to call when the client leaves
   * @returns whether there is
   */
  wait(connection: object, client: string, left: (leave: () => void) => void): Promise<boolean> {
    if (this.#waiting.has(connection)) return Promise.resolve(false);
    return new Promise((resolve) => {
      const settle = (isIn: boolean) => {
        clearTimeout(timer);
        this.#waiting.delete(connection);
        resolve(isIn);
      };
      const timer = setTimeout(settle, this.#patienceMs, false);
      this.#waiting.set(connection, { client, settle });
      left(() => settle(false));
    });
  }

  /** Of those that wait, the first for which there is room. */
  #admit(): void {
    for (const { client, settle } of this.#waiting.values()) {
      if (this.#queue.retryAfter(client) !== undefined) continue;
      settle(true);
      return;
    }
  }
}
