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
  readonly signal: AbortSignal;
}

interface Waiting<T> {
  readonly job: Job<T>;
  readonly since: number;
  settle(error?: unknown): void;
}

/** Runs jobs with the same key together; resolves to the error of each job, undefined if it succeeded. */
export type RunJobs<T> = (jobs: readonly Job<T>[]) => Promise<readonly unknown[]>;

export interface QueueOptions {
  /** Maximum number of waiting jobs; more are refused with BUSY. */
  readonly capacity: number;
  /** Number of concurrent calls of `run`: the engine's threads. */
  readonly concurrency: number;
  /** Maximum number of items per call when more jobs wait than threads are free. */
  readonly mostItems: number;
}

/**
 * A bounded queue in front of the engine. No job waits for a batch to fill: while a call is free, the next job runs at
 * once. Jobs are joined only when more of them wait than calls are free. Jobs are ordered by priority, then by the engine
 * time that their model has used so far, least first (start-time fair queueing, Goyal et al. 1996). Jobs of one model keep
 * their order.
 */
export class JobQueue<T> {
  readonly #options: QueueOptions;
  readonly #run: RunJobs<T>;
  readonly #waiting: Waiting<T>[] = [];
  /** Engine time that each model has used, in milliseconds. */
  readonly #served = new Map<string, number>();
  readonly #idle: (() => void)[] = [];
  #running = 0;
  #runningItems = 0;
  #draining = false;
  /** Mean time per item, exponentially smoothed, for the estimate of how long a full queue takes. */
  #itemMs = 1;

  constructor(options: QueueOptions, run: RunJobs<T>) {
    this.#options = options;
    this.#run = run;
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
   * @throws ServerError BUSY; UNAVAILABLE while draining; CANCELLED or TIMEOUT (the signal's reason) if the job was
   * aborted before it ran; the job's own error
   */
  push(job: Job<T>): Promise<void> {
    if (this.#draining) throw new ServerError('UNAVAILABLE', 'the server is shutting down');
    if (job.signal.aborted) throw job.signal.reason;
    this.checkRoom(0);
    this.#catchUp(job.model);
    return new Promise<void>((resolve, reject) => {
      const leave = () => {
        const at = this.#waiting.indexOf(waiting);
        if (at < 0) return;
        this.#waiting.splice(at, 1);
        waiting.settle(job.signal.reason);
        this.#settleIdle();
      };
      const waiting: Waiting<T> = {
        job,
        since: performance.now(),
        settle: (error) => {
          job.signal.removeEventListener('abort', leave);
          if (error === undefined) resolve();
          else reject(error);
        },
      };
      job.signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(waiting);
      this.#fill();
    });
  }

  /** Throws BUSY if there is no room for another job after `more` jobs. */
  checkRoom(more: number): void {
    const ahead = this.#waiting.length + more;
    if (ahead < this.#options.capacity) return;
    const seconds = (ahead * this.#itemMs) / this.#options.concurrency / 1000;
    throw new ServerError('BUSY', `${ahead} requests are waiting already; try again later`, {
      retryAfter: Math.max(1, Math.ceil(seconds)),
    });
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
    const { key, priority } = first.job;
    const free = this.#options.concurrency - this.#running;
    const share = Math.min(this.#options.mostItems, Math.ceil(this.#waiting.length / Math.max(1, free)));
    const taken = [first];
    let items = first.job.items;
    for (const other of this.#waiting) {
      if (items >= share) break;
      if (other === first || other.job.key !== key || other.job.priority !== priority) continue;
      taken.push(other);
      items += other.job.items;
    }
    for (const one of taken) this.#waiting.splice(this.#waiting.indexOf(one), 1);
    return taken;
  }

  #before(a: Job<T>, b: Job<T>): boolean {
    if (a.priority !== b.priority) return a.priority < b.priority;
    return a.model !== b.model && this.#servedTime(a.model) < this.#servedTime(b.model);
  }

  #servedTime(model: string): number {
    return this.#served.get(model) ?? 0;
  }

  /** A model gains no credit while it is idle: it starts at the level of the least served of the others. */
  #catchUp(model: string): void {
    const others = this.#waiting.map(({ job }) => job.model);
    if (others.length === 0 || others.includes(model)) return;
    const least = Math.min(...others.map((other) => this.#servedTime(other)));
    this.#served.set(model, Math.max(this.#servedTime(model), least));
  }

  async #start(taken: readonly Waiting<T>[]): Promise<void> {
    const items = taken.reduce((sum, { job }) => sum + job.items, 0);
    const { model } = taken[0]!.job;
    this.#running++;
    this.#runningItems += items;
    const start = performance.now();
    const errors = await this.#run(taken.map(({ job }) => job)).catch((error: unknown) =>
      taken.map(() => error),
    );
    const took = performance.now() - start;
    this.#running--;
    this.#runningItems -= items;
    this.#itemMs += (took / Math.max(1, items) - this.#itemMs) / 16;
    this.#served.set(model, this.#servedTime(model) + took);
    for (const [i, one] of taken.entries()) one.settle(errors[i]);
    this.#fill();
    this.#settleIdle();
  }

  #settleIdle(): void {
    if (this.#waiting.length > 0 || this.#running > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
