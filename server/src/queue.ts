import type { Caller } from './caller.js';
import { ServerError } from './errors.js';

/** A request that waits or runs. */
export interface Job<T> {
  /** Jobs with the same key may run in one call. */
  readonly key: string;
  /** Models share the engine fairly. */
  readonly model: string;
  /** 1 is served first; the protocol's 0 (the default) was replaced. */
  readonly priority: number;
  readonly items: number;
  readonly work: T;
  readonly caller: Caller;
}

/** What a job is told that finds no room. */
export const QUEUE_FULL = 'queue: it is full; try again later';

interface Waiting<T> {
  readonly job: Job<T>;
  readonly since: number;
  settle(error?: unknown): void;
}

/**
 * Runs jobs with the same key together; resolves to the error of each job, undefined if it succeeded.
 * @param expectedMs how long the call will probably take; undefined if unknown
 */
export type RunJobs<T> = (
  jobs: readonly Job<T>[],
  expectedMs: number | undefined,
) => Promise<readonly unknown[]>;

export interface QueueOptions {
  /** Maximum number of waiting jobs; more are refused with BUSY. */
  readonly capacity: number;
  /** Number of concurrent calls of `run`. */
  readonly concurrency: number;
  /** Maximum number of items per call when more jobs wait than threads are free. */
  readonly maxItems: number;
  /** Maximum expected duration of a call with several jobs, in milliseconds. */
  readonly longestJoinedMs: number;
}

/** What is known of a model from its calls so far, in milliseconds. */
interface Served {
  /** Engine time used. */
  totalMs: number;
  /** Mean time per item, exponentially smoothed; undefined before the first call. */
  itemMs: number | undefined;
}

/**
 * A bounded queue in front of the engine. No job waits for a batch to fill: while a call is free, the next job runs at
 * once. Jobs are joined only when more of them wait than calls are free, and only into short calls: that saves part of
 * the time that handing a call to the engine takes, but the first job then waits for the last. Jobs are ordered by priority,
 * then by the engine time that their model has used so far, least first (start-time fair queueing, Goyal et al. 1996).
 * Jobs of one model keep their order.
 */
export class JobQueue<T> {
  readonly #options: QueueOptions;
  readonly #run: RunJobs<T>;
  readonly #waiting: Waiting<T>[] = [];
  readonly #served = new Map<string, Served>();
  readonly #idle: (() => void)[] = [];
  #running = 0;
  #runningItems = 0;
  #draining = false;

  constructor(options: QueueOptions, run: RunJobs<T>) {
    this.#options = options;
    this.#run = run;
  }

  get concurrency(): number {
    return this.#options.concurrency;
  }

  /** Number of waiting jobs. */
  get length(): number {
    return this.#waiting.length;
  }

  /** Number of running items. */
  get running(): number {
    return this.#runningItems;
  }

  /** How long the oldest job has waited, in milliseconds. */
  get age(): number {
    let oldest = performance.now();
    const now = oldest;
    for (const { since } of this.#waiting) oldest = Math.min(oldest, since);
    return now - oldest;
  }

  /**
   * Resolves when the job has run.
   * @throws ServerError BUSY; UNAVAILABLE while draining; CANCELLED or TIMEOUT if the caller left before the job
   * ran; the job's own error
   */
  push(job: Job<T>): Promise<void> {
    if (this.#draining)
      throw new ServerError('UNAVAILABLE', 'server: it is shutting down; send the request to another');
    const { caller } = job;
    if (caller.reason) throw caller.reason;
    this.checkRoom(0);
    this.#catchUp(job.model);
    return new Promise<void>((resolve, reject) => {
      const waiting: Waiting<T> = {
        job,
        since: performance.now(),
        settle: (error) => {
          if (error === undefined) resolve();
          else reject(error);
        },
      };
      caller.onLeave = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        waiting.settle(caller.reason);
        this.#settleIdle();
      };
      this.#waiting.push(waiting);
      this.#fill();
    });
  }

  /** Seconds until a job should be pushed again; undefined if there is room for it after `more` jobs. */
  retryAfter(more: number): number | undefined {
    const ahead = this.#waiting.length + more;
    if (ahead < this.#options.capacity) return undefined;
    const next = this.#waiting[0]?.job.model;
    const itemMs = (next !== undefined && this.#served.get(next)?.itemMs) || 1;
    const seconds = (ahead * itemMs) / this.#options.concurrency / 1000;
    return Math.max(1, Math.ceil(seconds));
  }

  /** Throws BUSY if there is no room for another job after `more` jobs. */
  checkRoom(more: number): void {
    const retryAfter = this.retryAfter(more);
    if (retryAfter !== undefined) throw new ServerError('BUSY', QUEUE_FULL, { retryAfter });
  }

  /** Accepts no more jobs; resolves when the waiting jobs have run. */
  drain(): Promise<void> {
    this.#draining = true;
    return new Promise((resolve) => {
      this.#idle.push(resolve);
      this.#settleIdle();
    });
  }

  #fill(): void {
    while (this.#waiting.length > 0 && this.#running < this.#options.concurrency)
      void this.#start(this.#take());
  }

  /** The next job, together with compatible ones if more jobs wait than calls are free. */
  #take(): Waiting<T>[] {
    const first = this.#waiting.reduce((best, other) => (this.#before(other.job, best.job) ? other : best));
    const { key, model, priority } = first.job;
    const { concurrency, maxItems, longestJoinedMs } = this.#options;
    const each = this.#served.get(model)?.itemMs ?? 0;
    const share = Math.min(
      Math.ceil(this.#waiting.length / (concurrency - this.#running)),
      each > 0 ? Math.floor(longestJoinedMs / each) : maxItems,
      maxItems,
    );
    const taken = [first];
    let items = first.job.items;
    for (const other of this.#waiting) {
      if (items >= share) break;
      if (other === first || other.job.key !== key || other.job.priority !== priority) continue;
      taken.push(other);
      items += other.job.items;
    }
    for (const one of taken) {
      this.#waiting.splice(this.#waiting.indexOf(one), 1);
      one.job.caller.onLeave = undefined;
    }
    return taken;
  }

  #before(a: Job<T>, b: Job<T>): boolean {
    if (a.priority !== b.priority) return a.priority < b.priority;
    return a.model !== b.model && this.#totalMs(a.model) < this.#totalMs(b.model);
  }

  #totalMs(model: string): number {
    return this.#served.get(model)?.totalMs ?? 0;
  }

  /** A model gains no credit while it is idle: it starts at the level of the least served of the others. */
  #catchUp(model: string): void {
    if (this.#waiting.length === 0 || this.#waiting.some(({ job }) => job.model === model)) return;
    const least = Math.min(...this.#waiting.map(({ job }) => this.#totalMs(job.model)));
    const { totalMs = 0, itemMs } = this.#served.get(model) ?? {};
    this.#served.set(model, { totalMs: Math.max(totalMs, least), itemMs });
  }

  async #start(taken: readonly Waiting<T>[]): Promise<void> {
    const items = taken.reduce((sum, { job }) => sum + job.items, 0);
    const { model } = taken[0]!.job;
    this.#running++;
    this.#runningItems += items;
    const start = performance.now();
    const served = this.#served.get(model);
    const jobs = taken.map(({ job }) => job);
    const errors = await this.#run(jobs, served?.itemMs && items * served.itemMs).catch((error: unknown) =>
      taken.map(() => error),
    );
    const took = performance.now() - start;
    this.#running--;
    this.#runningItems -= items;
    this.#count(model, took, items);
    for (const [i, one] of taken.entries()) one.settle(errors[i]);
    this.#fill();
    this.#settleIdle();
  }

  #count(model: string, took: number, items: number): void {
    const each = took / Math.max(1, items);
    const { totalMs = 0, itemMs = each } = this.#served.get(model) ?? {};
    this.#served.set(model, { totalMs: totalMs + took, itemMs: itemMs + (each - itemMs) / 16 });
  }

  #settleIdle(): void {
    if (this.#waiting.length > 0 || this.#running > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
