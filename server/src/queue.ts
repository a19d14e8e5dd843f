import { ServerError } from './errors.js';

/** A request that waits for the engine, or runs. */
export interface Job<T> {
  /** Jobs of one key may run in one call. */
  readonly key: string;
  /** The model it is for; models share the engine fairly. */
  readonly model: string;
  /** 1 is served first; the protocol's 0 stands for the default. */
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

/** Runs jobs of one key together; resolves to what each failed with, undefined where it did not. */
export type RunJobs<T> = (jobs: readonly Job<T>[]) => Promise<readonly unknown[]>;

export interface QueueOptions {
  /** Jobs that may wait; more are refused with BUSY. */
  readonly capacity: number;
  /** Calls of `run` at a time: the engine's threads. */
  readonly concurrency: number;
  /** Items that one call may take where more wait than there are threads. */
  readonly mostItems: number;
}

/**
 * A bounded queue in front of the engine. Nothing waits for a batch to fill: while a call is free, the next job runs at
 * once. Jobs are joined only where more of them wait than calls are free. Priorities go first; among jobs of the same
 * priority the model that has had the least of the engine's time goes first (start-time fair queueing, Goyal et al.
 * 1996), and jobs of one model keep their order.
 */
export class JobQueue<T> {
  readonly #options: QueueOptions;
  readonly #run: RunJobs<T>;
  readonly #waiting: Waiting<T>[] = [];
  /** Of each model, how much of the engine's time it has had, in milliseconds. */
  readonly #served = new Map<string, number>();
  readonly #idle: (() => void)[] = [];
  #running = 0;
  #runningItems = 0;
  #draining = false;
  /** Mean time of one item, exponentially smoothed: what a full queue is estimated by. */
  #itemMs = 1;

  constructor(options: QueueOptions, run: RunJobs<T>) {
    this.#options = options;
    this.#run = run;
  }

  /** Jobs that wait. */
  get length(): number {
    return this.#waiting.length;
  }

  /** Items that run. */
  get running(): number {
    return this.#runningItems;
  }

  /** How long the job that waits longest has waited, in milliseconds. */
  get age(): number {
    let oldest = performance.now();
    const now = oldest;
    for (const { since } of this.#waiting) oldest = Math.min(oldest, since);
    return now - oldest;
  }

  /**
   * Resolves when the job has run.
   * @throws ServerError BUSY, UNAVAILABLE while draining, CANCELLED or TIMEOUT (the reason of the signal) where the job
   * was given up on before it ran; what the job failed with
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

  /** BUSY where no job could be pushed if `more` were pushed before it. */
  checkRoom(more: number): void {
    const ahead = this.#waiting.length + more;
    if (ahead < this.#options.capacity) return;
    const seconds = (ahead * this.#itemMs) / this.#options.concurrency / 1000;
    throw new ServerError('BUSY', `${ahead} requests are waiting already; try again later`, {
      retryAfter: Math.max(1, Math.ceil(seconds)),
    });
  }

  /** Takes no more jobs; resolves when those that wait have run. */
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

  /** The next job, with others that may run with it where calls are scarce. */
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

  /** A model that was idle has saved up no claim on the engine: it begins where the least served of the others is. */
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
