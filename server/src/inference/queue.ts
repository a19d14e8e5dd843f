import type { Caller } from '../caller.js';
import { ServerError } from '../errors.js';
import { Shares } from './shares.js';

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
  /** It is a part: its request has several jobs, and keeps its place in the queue meanwhile. */
  readonly more?: boolean;
  /** It isn't the first job of its request. */
  readonly later?: boolean;
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
  /** Maximum number of waiting requests; more are refused with BUSY. */
  readonly capacity: number;
  /** Number of concurrent calls of `run`. */
  readonly concurrency: number;
  /** Maximum number of items per call when more jobs wait than threads are free. */
  readonly maxItems: number;
  /** Maximum expected duration of a call with several jobs, in milliseconds. */
  readonly longestJoinedMs: number;
}

/** A request with more items runs in parts that probably take this many milliseconds, so that others come between. */
const PART_MS = 5;
/** A part has at least this many items for each call at a time. */
const MIN_PART = 2;

/**
 * A bounded queue in front of the engine. No job waits for a batch to fill: while a call is free, the next job runs at
 * once. Jobs are joined only when more of them wait than calls are free, and only into short calls: that saves part of
 * the time that handing a call to the engine takes, but the first job then waits for the last. Jobs are ordered by priority,
 * then by the engine time that their model and then their client have used so far, least first. Jobs of one client on one model keep
 * their order. Parts of long requests leave one call free, so that a request with a single job needn't wait for the end of one. When
 * the queue is full, the client with the most requests in it gives places to the others.
 */
export class JobQueue<T> {
  readonly #options: QueueOptions;
  readonly #run: RunJobs<T>;
  readonly #waiting: Waiting<T>[] = [];
  /** By client: requests that have a place in the queue, because they wait or will wait, from the oldest to the newest. */
  readonly #places = new Map<string, Set<Caller>>();
  #placed = 0;
  readonly #models = new Shares();
  readonly #clients = new Shares();
  /** Mean time of an item by model, exponentially smoothed, in milliseconds. */
  readonly #itemMs = new Map<string, number>();
  readonly #idle: (() => void)[] = [];
  #running = 0;
  #runningItems = 0;
  #draining = false;
  /** Is called when a place is free. */
  onRoom: (() => void) | undefined;

  constructor(options: QueueOptions, run: RunJobs<T>) {
    this.#options = options;
    this.#run = run;
  }

  get concurrency(): number {
    return this.#options.concurrency;
  }

  /** Number of requests that wait: no job of theirs has begun. */
  get length(): number {
    return this.#waiting.filter(({ job }) => !job.later).length;
  }

  /** Number of running items. */
  get running(): number {
    return this.#runningItems;
  }

  /** How long the oldest job has waited, in milliseconds. */
  get age(): number {
    const now = performance.now();
    return now - this.#waiting.reduce((oldest, { since }) => Math.min(oldest, since), now);
  }

  /**
   * Resolves when the job has run.
   * @throws ServerError BUSY; UNAVAILABLE while draining; CANCELLED or TIMEOUT if the caller left before the job
   * ran; the job's own error
   */
  push(job: Job<T>): Promise<void> {
    const { caller } = job;
    if (caller.reason) throw caller.reason;
    this.enter(caller);
    this.#catchUp(job);
    return new Promise<void>((resolve, reject) => {
      const waiting: Waiting<T> = {
        job,
        since: performance.now(),
        settle: (error) => (error === undefined ? resolve() : reject(error)),
      };
      caller.onLeave = () => {
        // A request may have several jobs.
        for (const one of this.#waiting.filter((other) => other.job.caller === caller)) {
          this.#waiting.splice(this.#waiting.indexOf(one), 1);
          one.settle(caller.reason);
        }
        this.exit(caller);
        this.#settleIdle();
      };
      this.#waiting.push(waiting);
      this.#fill();
    });
  }

  /**
   * Gives a request a place in the queue, which it has until its last job runs or until `exit`. In a full queue it takes the place of
   * the newest request of the client with the most; throws BUSY if there is no client with more than its own would have.
   */
  enter(caller: Caller): void {
    let own = this.#places.get(caller.client);
    // A request that is under way when the queue is drained ends as usual.
    if (own?.has(caller)) return;
    if (this.#draining)
      throw new ServerError('UNAVAILABLE', 'server: it is shutting down; send the request to another');
    const retryAfter = caller.admitted ? undefined : this.retryAfter(caller.client);
    if (retryAfter !== undefined) throw new ServerError('BUSY', QUEUE_FULL, { retryAfter });
    if (this.#placed >= this.#options.capacity && !caller.admitted) {
      const newest = [...this.#largest()!].at(-1)!;
      this.exit(newest);
      newest.leave(new ServerError('BUSY', QUEUE_FULL, { retryAfter: 1 }));
      own = this.#places.get(caller.client);
    }
    own ??= new Set();
    own.add(caller);
    this.#places.set(caller.client, own);
    this.#placed++;
  }

  exit(caller: Caller): void {
    const own = this.#places.get(caller.client);
    if (!own?.delete(caller)) return;
    this.#placed--;
    if (own.size === 0) this.#places.delete(caller.client);
    this.onRoom?.();
  }

  get isHalfEmpty(): boolean {
    return this.#placed < this.#options.capacity / 2;
  }

  /** Seconds until a request of the client should be sent again; undefined if there is room for it. */
  retryAfter(client: string): number | undefined {
    if (this.#placed < this.#options.capacity) return undefined;
    const own = this.#places.get(client)?.size ?? 0;
    if (this.#largest()!.size > own + 1) return undefined;
    const next = this.#waiting[0]?.job.model;
    const itemMs = (next !== undefined && this.#itemMs.get(next)) || 1;
    const seconds = (this.#placed * itemMs) / this.#options.concurrency / 1000;
    return Math.max(1, Math.ceil(seconds));
  }

  /** The number of items in which a longer request should be run at a time. */
  partOf(model: string): number {
    const each = this.#itemMs.get(model) ?? Number.POSITIVE_INFINITY;
    return Math.max(MIN_PART * this.#options.concurrency, Math.floor(PART_MS / each));
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
    for (let first = this.#next(); first; first = this.#next()) void this.#start(this.#take(first));
  }

  /** The job that runs next; undefined if there is none, or no call for it. */
  #next(): Waiting<T> | undefined {
    const { concurrency } = this.#options;
    const free = concurrency - this.#running;
    if (free <= 0) return undefined;
    let next: Waiting<T> | undefined;
    for (const one of this.#waiting) {
      if (one.job.more && free === 1 && concurrency > 1) continue;
      if (!next || this.#before(one.job, next.job)) next = one;
    }
    return next;
  }

  /** `first`, together with compatible jobs if more of them wait than calls are free. */
  #take(first: Waiting<T>): Waiting<T>[] {
    const { key, model, priority } = first.job;
    const { concurrency, maxItems, longestJoinedMs } = this.#options;
    const each = this.#itemMs.get(model) ?? 0;
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
    this.#models.serve(model);
    for (const one of taken) {
      this.#clients.serve(one.job.caller.client);
      this.#waiting.splice(this.#waiting.indexOf(one), 1);
      if (one.job.more) continue;
      one.job.caller.onLeave = undefined;
      this.exit(one.job.caller);
    }
    return taken;
  }

  #before(a: Job<T>, b: Job<T>): boolean {
    if (a.priority !== b.priority) return a.priority < b.priority;
    if (a.model !== b.model) return this.#models.of(a.model) < this.#models.of(b.model);
    const [first, second] = [a.caller.client, b.caller.client];
    return first !== second && this.#clients.of(first) < this.#clients.of(second);
  }

  #largest(): Set<Caller> | undefined {
    let largest: Set<Caller> | undefined;
    for (const callers of this.#places.values()) if (callers.size > (largest?.size ?? 0)) largest = callers;
    return largest;
  }

  #catchUp({ model, caller: { client } }: Job<T>): void {
    if (!this.#waiting.some(({ job }) => job.model === model)) this.#models.enter(model);
    if (!this.#waiting.some(({ job }) => job.caller.client === client)) this.#clients.enter(client);
  }

  async #start(taken: readonly Waiting<T>[]): Promise<void> {
    const items = taken.reduce((sum, { job }) => sum + job.items, 0);
    const { model } = taken[0]!.job;
    this.#running++;
    this.#runningItems += items;
    const start = performance.now();
    const itemMs = this.#itemMs.get(model);
    const jobs = taken.map(({ job }) => job);
    const errors = await this.#run(jobs, itemMs && items * itemMs).catch((error: unknown) =>
      taken.map(() => error),
    );
    const took = performance.now() - start;
    this.#running--;
    this.#runningItems -= items;
    this.#count(jobs, took, items);
    for (const [i, one] of taken.entries()) one.settle(errors[i]);
    this.#fill();
    this.#settleIdle();
  }

  #count(jobs: readonly Job<T>[], took: number, items: number): void {
    const each = took / Math.max(1, items);
    const { model } = jobs[0]!;
    const known = this.#itemMs.get(model) ?? each;
    this.#itemMs.set(model, known + (each - known) / 16);
    this.#models.add(model, took);
    for (const job of jobs) this.#clients.add(job.caller.client, each * job.items);
  }

  #settleIdle(): void {
    if (this.#waiting.length > 0 || this.#running > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
