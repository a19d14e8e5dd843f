import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lock } from 'proper-lockfile';
import { codeOfWriting, ResidualSkipError } from 'residual-skip';
import type { IdTable } from './id-table.js';
import {
  type Binding,
  type BulkJob,
  type BulkResult,
  bulkJobSchema,
  type DeadLetter,
  deadLetterSchema,
  JobFailure,
  jsonOf,
  parseBinding,
} from './job.js';
import { answersAmong, IdFile, idOf, LineAppender, linesFrom } from './line-file.js';
import { lockFs } from './lock-fs.js';
import { type BulkQueue, type Counts, delayAfter, otherBinding, pause, type WorkOptions } from './queue.js';

/** While this many jobs wait for another attempt or for the disk, no more are read. */
const MAX_OPEN = 1000;
/** Interval at which the file is polled for new jobs. */
const POLL_MS = 200;
/** The lock of a killed process expires after this time. */
const STALE_MS = 10_000;

/**
 * A queue in a folder, for one worker: the append-only files `jobs.ndjson`, `results.ndjson` and `failed.ndjson`, and
 * `binding.json`. A job is open until it is in the second or third file, so a killed process leaves nothing to repair.
 */
export class FolderQueue implements BulkQueue {
  readonly #jobs: IdFile;
  readonly #results: IdFile;
  readonly #failed: IdFile;
  #adding: { readonly lines: LineAppender; release(): Promise<void> } | undefined;
  /** Number of jobs that run in this process. */
  #running = 0;
  /** Bytes of the results file that were returned so far. */
  #handedOut = 0;

  private constructor(private readonly folder: string) {
    this.#jobs = new IdFile(join(folder, 'jobs.ndjson'));
    this.#results = new IdFile(join(folder, 'results.ndjson'));
    this.#failed = new IdFile(join(folder, 'failed.ndjson'));
  }

  /** @throws ResidualSkipError INVALID_ARGUMENT when the folder can't be created, WRITE_FAILED when the disk is full or fails */
  static async open(folder: string): Promise<FolderQueue> {
    await mkdir(folder, { recursive: true }).catch((cause: Error) => {
      throw new ResidualSkipError(codeOfWriting(cause), `queue ${folder}: ${cause.message}`, { cause });
    });
    return new FolderQueue(folder);
  }

  async bind(binding: Binding): Promise<void> {
    const path = join(this.folder, 'binding.json');
    const text = await readFile(path, 'utf8').catch(() => undefined);
    const own = JSON.stringify(binding);
    if (text === own) return;
    // A process that was killed here has left the beginning; no job ran before the rest was on disk.
    if (text === undefined || own.startsWith(text)) return writeFile(path, own, { flush: true });
    throw otherBinding(this.folder, parseBinding(text, `file ${path}`), binding);
  }

  async add(jobs: readonly BulkJob[]): Promise<number> {
    if (this.#adding === undefined) {
      const release = await this.#lock(this.#jobs.path, 'process that adds jobs');
      this.#adding = { lines: await LineAppender.open(this.#jobs.path), release };
      await this.#jobs.refresh();
    }
    const { lines } = this.#adding;
    const known = this.#jobs.ids;
    const ids = new Set<string>();
    const added = jobs.filter(({ id }) => !known.has(id) && !ids.has(id) && ids.add(id));
    await Promise.all(added.map((job) => lines.append(JSON.stringify(job))));
    await this.#jobs.refresh();
    return added.length;
  }

  async counts(): Promise<Counts> {
    const [jobs, results, failed] = [this.#jobs, this.#results, this.#failed];
    for (const file of [jobs, results, failed]) await file.refresh();
    const running = this.#running;
    const answered = results.ids.size;
    const waiting = Math.max(0, jobs.ids.size - answered - failed.ids.size - running);
    return { waiting, running, answered, failed: failed.ids.size };
  }

  async work(answer: (job: BulkJob) => Promise<BulkResult>, options: WorkOptions): Promise<void> {
    const broken = new AbortController();
    const signal = AbortSignal.any([options.signal, broken.signal]);
    const release = await this.#lock(this.#results.path, 'worker', (cause) => {
      const why = 'the lock of its worker was lost, as when the machine slept; start the worker again';
      broken.abort(new ResidualSkipError('BUSY', `queue ${this.folder}: ${why}`, { cause }));
    });
    const results = await LineAppender.open(this.#results.path);
    const failed = await LineAppender.open(this.#failed.path);
    // Jobs that are answered, given up or running; the file may hold several lines for one job.
    const taken = await new IdFile(this.#results.path).refresh();
    for (const id of await idsIn(this.#failed.path)) taken.add(id);
    const slots = new Slots(options.concurrency);
    const room = new Slots(MAX_OPEN);
    const open = new Set<Promise<void>>();
    const settle = async (job: BulkJob) => {
      const line = await this.#settle(job, answer, slots, { ...options, signal });
      // If the lock was lost, another worker may be writing to the files.
      if (line && !broken.signal.aborted) await (line.result ? results : failed).append(line.text);
    };
    try {
      for await (const job of this.#newJobs(taken, open, { ...options, signal })) {
        await room.take();
        await slots.take();
        if (signal.aborted) break;
        const settled = settle(job)
          .catch((error: unknown) => broken.abort(error))
          .finally(() => {
            open.delete(settled);
            room.give();
          });
        open.add(settled);
      }
      await Promise.all(open);
    } finally {
      await Promise.all([results.close(), failed.close()]);
      // A lock that was lost can't be released.
      await release().catch(() => {});
    }
    broken.signal.throwIfAborted();
  }

  async *failed(): AsyncGenerator<DeadLetter> {
    const answered = await this.#results.refresh();
    for await (const { lines } of linesFrom(this.#failed.path, 0)) {
      for (const line of lines) {
        const letter = deadLetterSchema.safeParse(jsonOf(line.toString()));
        if (letter.success && !answered.has(letter.data.id)) yield letter.data;
      }
    }
  }

  async retryFailed(): Promise<number> {
    const release = await this.#lock(this.#results.path, 'worker');
    try {
      const { size } = await this.#failed.refresh();
      await rm(this.#failed.path, { force: true });
      return size;
    } finally {
      await release();
    }
  }

  async *results(): AsyncGenerator<readonly string[]> {
    for await (const { lines, end } of linesFrom(this.#results.path, this.#handedOut)) {
      yield answersAmong(lines.map((line) => line.toString()));
      this.#handedOut = end;
    }
  }

  /** Keeps the answers: the file is the record of which jobs are done. */
  async collected(): Promise<void> {}

  async close(): Promise<void> {
    await this.#adding?.lines.close();
    await this.#adding?.release();
  }

  /** Yields jobs of the file that aren't in `taken` and adds them to it; waits for more unless the work should end. */
  async *#newJobs(
    taken: IdTable,
    open: ReadonlySet<Promise<void>>,
    { untilEmpty, signal, onProblem }: WorkOptions,
  ): AsyncGenerator<BulkJob> {
    for (let from = 0, found = true; !signal.aborted; ) {
      if (!found) {
        if (!untilEmpty) await pause(POLL_MS, signal);
        else if (open.size === 0) return;
        else await Promise.all(open);
      }
      found = false;
      for await (const { lines, end } of linesFrom(this.#jobs.path, from)) {
        for (const line of lines) {
          const job = bulkJobSchema.safeParse(jsonOf(line.toString()));
          if (!job.success) onProblem(new Error(`${this.#jobs.path}: a line before byte ${end} is no job`));
          else if (taken.add(job.data.id)) yield job.data;
        }
        from = end;
        found = true;
      }
    }
  }

  /** Answers a job that holds a slot, with retries. Undefined if the work ends before the next attempt. */
  async #settle(
    job: BulkJob,
    answer: (job: BulkJob) => Promise<BulkResult>,
    slots: Slots,
    { attempts, backoff, signal }: WorkOptions,
  ): Promise<{ result: boolean; text: string } | undefined> {
    for (let attempt = 1; ; attempt++) {
      this.#running++;
      try {
        return { result: true, text: JSON.stringify(await answer(job)) };
      } catch (error) {
        if (!(error instanceof JobFailure)) throw error;
        const { code, message, retry } = error;
        if (!retry || attempt >= attempts) {
          const letter: DeadLetter = {
            id: job.id,
            name: job.name,
            attempts: attempt,
            error: { code, message },
          };
          return { result: false, text: JSON.stringify(letter) };
        }
      } finally {
        this.#running--;
        slots.give();
      }
      await pause(delayAfter(attempt, backoff), signal);
      if (signal.aborted) return undefined;
      await slots.take();
    }
  }

  /** Locks the file; the lock expires a few seconds after its process was killed. */
  async #lock(
    file: string,
    who: string,
    onCompromised?: (error: Error) => void,
  ): Promise<() => Promise<void>> {
    const retries = { retries: 12, factor: 1, minTimeout: 1000 };
    return lock(file, {
      realpath: false,
      fs: lockFs(),
      stale: STALE_MS,
      retries,
      ...(onCompromised && { onCompromised }),
    }).catch((cause: Error) => {
      throw new ResidualSkipError(
        'BUSY',
        `queue ${this.folder}: it has another ${who}; wait for its end, or take a Valkey server for several`,
        { cause },
      );
    });
  }
}

async function idsIn(path: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const { lines } of linesFrom(path, 0)) {
    for (const line of lines) {
      const id = idOf(line);
      if (id) ids.push(id);
    }
  }
  return ids;
}

/** A counting semaphore; waiters are served in order. */
class Slots {
  readonly #waiting: (() => void)[] = [];

  constructor(private free: number) {}

  async take(): Promise<void> {
    if (this.free > 0) this.free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.free++;
  }
}
