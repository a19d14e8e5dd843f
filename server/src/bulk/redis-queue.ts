import { type Job, Queue, UnrecoverableError, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { ResidualSkipError } from 'residual-skip';
import {
  type Binding,
  type BulkJob,
  type BulkResult,
  bulkJobSchema,
  type DeadLetter,
  failureSchema,
  JobFailure,
  jsonOf,
  parseBinding,
} from './job.js';
import { answersAmong } from './line-file.js';
import { type BulkQueue, type Counts, delayAfter, otherBinding, pause, type WorkOptions } from './queue.js';

const PAGE = 1000;
const POLL_MS = 250;
const CONNECT_MS = 10_000;
/** If a worker doesn't renew a job's lock for this long, the next check for stalled jobs gives the job to another worker. */
const LOCK_MS = 10_000;
const STALLED_MS = 5000;
/** A job is given up after this many workers died while they ran it. */
const MAX_DEATHS = 20;
/** Running jobs get this long to end, even if the server is unreachable. */
const CLOSE_MS = 30_000;

type Data = Omit<BulkJob, 'id'>;
type Bull = Job<Data, BulkResult>;

/** A queue on a Valkey or Redis server, built on BullMQ, for any number of workers. */
export class RedisQueue implements BulkQueue {
  readonly #queue: Queue<Data, BulkResult>;
  /** Number of answers that were returned and are still on the server. */
  #handedOut = 0;

  private constructor(
    private readonly where: string,
    private readonly redis: Redis,
    private readonly name: string,
  ) {
    this.#queue = new Queue<Data, BulkResult>(name, { connection: redis });
    // The client reconnects and resends; what it can't recover makes the next command fail.
    this.#queue.on('error', () => {});
  }

  /** @throws ResidualSkipError UNAVAILABLE; INVALID_ARGUMENT for a name that BullMQ rejects */
  static async open(url: string, name: string): Promise<RedisQueue> {
    const where = `${new URL(url).host}/${name}`;
    if (!/^[\w.-]+$/.test(name)) {
      throw new ResidualSkipError('INVALID_ARGUMENT', `queue name ${name}: take letters, digits, - and _`);
    }
    const redis = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: null });
    let reason = 'it does not answer';
    redis.on('error', (error) => {
      reason = error.message || String((error as NodeJS.ErrnoException).code);
    });
    const late = new AbortController();
    const connected = await Promise.race([
      redis.connect().then(
        () => true,
        () => false,
      ),
      pause(CONNECT_MS, late.signal).then(() => false),
    ]);
    late.abort();
    if (connected) return new RedisQueue(where, redis, name);
    redis.disconnect();
    throw new ResidualSkipError(
      'UNAVAILABLE',
      `queue ${where}: the server can't be reached (${reason}); start it, or check the URL`,
    );
  }

  async bind(binding: Binding): Promise<void> {
    const key = this.#key('binding');
    await this.redis.set(key, JSON.stringify(binding), 'NX');
    const theirs = await this.redis.get(key);
    if (theirs === JSON.stringify(binding)) return;
    throw otherBinding(this.where, parseBinding(theirs ?? '', `queue ${this.where}: its binding`), binding);
  }

  async add(jobs: readonly BulkJob[]): Promise<number> {
    const unknown = await this.#unknown(jobs);
    await this.#queue.addBulk(
      unknown.map(({ id: jobId, ...data }) => ({
        name: 'image',
        data,
        // The worker decides when to give a job up.
        opts: { jobId, attempts: Number.MAX_SAFE_INTEGER, backoff: { type: 'custom' } },
      })),
    );
    return unknown.length;
  }

  async counts(): Promise<Counts> {
    const counts = await this.#queue.getJobCounts('waiting', 'delayed', 'active', 'completed', 'failed');
    const { waiting = 0, delayed = 0, active = 0, completed = 0, failed = 0 } = counts;
    const collected = await this.redis.scard(this.#key('collected'));
    return { waiting: waiting + delayed, running: active, answered: completed + collected, failed };
  }

  async work(
    answer: (job: BulkJob) => Promise<BulkResult>,
    { concurrency, attempts, backoff, untilEmpty, signal, onProblem }: WorkOptions,
  ): Promise<void> {
    const run = async ({ id, data, attemptsMade }: Bull): Promise<BulkResult> => {
      try {
        return await answer(jobOf(id!, data));
      } catch (error) {
        const { code = 'INTERNAL', message, retry = false } = error as Partial<JobFailure>;
        const text = JSON.stringify({ code, message });
        throw retry && attemptsMade + 1 < attempts ? new Error(text) : new UnrecoverableError(text);
      }
    };
    const worker = new Worker<Data, BulkResult>(this.name, run, {
      connection: this.redis,
      concurrency,
      lockDuration: LOCK_MS,
      stalledInterval: STALLED_MS,
      maxStalledCount: MAX_DEATHS,
      settings: { backoffStrategy: (attempt) => delayAfter(attempt, backoff) },
    });
    worker.on('error', onProblem);
    while (!signal.aborted) {
      await pause(POLL_MS, signal);
      if (!untilEmpty || signal.aborted) continue;
      const { waiting, running } = await this.counts();
      if (waiting + running === 0) break;
    }
    const closed = new AbortController();
    await Promise.race([worker.close(), pause(CLOSE_MS, closed.signal)]);
    closed.abort();
  }

  async *failed(): AsyncGenerator<DeadLetter> {
    for (let from = 0; ; from += PAGE) {
      const jobs = await this.#page('failed', from);
      for (const job of jobs) if (job) yield letterOf(job);
      if (jobs.length < PAGE) return;
    }
  }

  async retryFailed(): Promise<number> {
    for (let count = 0; ; ) {
      const jobs = await this.#page('failed', 0);
      const found = jobs.filter((job) => job !== undefined);
      if (found.length === 0) return count;
      await Promise.all(found.map((job) => job.retry('failed', { resetAttemptsMade: true })));
      count += found.length;
    }
  }

  async *results(): AsyncGenerator<readonly string[]> {
    for (;;) {
      const jobs = await this.#page('completed', this.#handedOut);
      if (jobs.length === 0) return;
      this.#handedOut += jobs.length;
      // Other programs may have put anything into the queue.
      yield answersAmong(jobs.map((job) => JSON.stringify(job?.returnvalue) ?? ''));
    }
  }

  async collected(ids: readonly string[]): Promise<void> {
    // Record the ids before the jobs are removed: a job that is enqueued again in between counts as answered. Until it
    // is removed, `counts` includes it twice.
    await this.redis.sadd(this.#key('collected'), ids.map(binary));
    await Promise.all(ids.map((id) => this.#queue.remove(id)));
    this.#handedOut -= ids.length;
  }

  async close(): Promise<void> {
    await this.#queue.close();
    this.redis.disconnect();
  }

  /** The jobs that are new to the server, without duplicates. */
  async #unknown(jobs: readonly BulkJob[]): Promise<BulkJob[]> {
    const distinct = [...new Map(jobs.map((job) => [job.id, job])).values()];
    if (distinct.length === 0) return [];
    const pipeline = this.redis.pipeline();
    for (const { id } of distinct) {
      pipeline.exists(this.#queue.toKey(id)).sismember(this.#key('collected'), binary(id));
    }
    const answers = (await pipeline.exec()) ?? [];
    return distinct.filter((_, i) => answers[2 * i]?.[1] === 0 && answers[2 * i + 1]?.[1] === 0);
  }

  /** Undefined stands for a job whose record is missing. */
  async #page(state: 'failed' | 'completed', from: number): Promise<(Bull | undefined)[]> {
    const jobs = this.#queue.getJobs([state], from, from + PAGE - 1, true);
    return jobs.catch((cause: Error) => {
      if (!(cause instanceof SyntaxError)) throw cause;
      const message = `queue ${this.where}: the record of a job is no JSON (${cause.message}); remove the job`;
      throw new ResidualSkipError('INVALID_DATA', message, { cause });
    });
  }

  #key(what: string): string {
    return `residual-skip:${this.name}:${what}`;
  }
}

/** The raw bytes take half the space of the digits. */
const binary = (id: string) => Buffer.from(id, 'hex');

/** @throws JobFailure for what another program has added to the queue */
function jobOf(id: string, data: Data): BulkJob {
  const job = bulkJobSchema.safeParse({ ...data, id });
  if (job.success) return job.data;
  throw new JobFailure('INVALID_DATA', `job ${id}: it wasn't added by enqueue; remove it`, false);
}

function letterOf({ id, data, attemptsMade, failedReason }: Bull): DeadLetter {
  const name = String((data as Data | null)?.name ?? id);
  const error = failureSchema.safeParse(jsonOf(failedReason));
  // BullMQ's own message, for a job whose workers died.
  const other = { code: 'UNAVAILABLE', message: `image ${name}: ${failedReason}` };
  return { id: id!, name, attempts: attemptsMade, error: error.success ? error.data : other };
}
