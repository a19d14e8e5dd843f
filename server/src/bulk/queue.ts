import { setTimeout as sleep } from 'node:timers/promises';
import { ResidualSkipError } from 'residual-skip';
import type { Binding, BulkJob, BulkResult, DeadLetter } from './job.js';

/** Jobs by what became of them. */
export interface Counts {
  /** Those whose next attempt is due later are among them. */
  readonly waiting: number;
  readonly running: number;
  readonly answered: number;
  readonly failed: number;
}

export interface WorkOptions {
  /** Jobs under way at a time. */
  readonly concurrency: number;
  /** After so many a job is given up. */
  readonly attempts: number;
  /** Milliseconds before the second attempt; twice as many before each further one. */
  readonly backoff: number;
  /** Return once no job is left, those that wait for another attempt included. */
  readonly untilEmpty: boolean;
  /** Return once the jobs under way have ended. */
  readonly signal: AbortSignal;
  /** What went wrong without ending the work. */
  readonly onProblem: (error: Error) => void;
}

/** Jobs, their answers and those that were given up, kept where a killed process loses none of them. */
export interface BulkQueue {
  /**
   * Declares what the queue is answered with; the first to do so decides.
   * @throws ResidualSkipError INVALID_ARGUMENT where that was something else
   */
  bind(binding: Binding): Promise<void>;
  /** Adds the jobs that the queue doesn't know; resolves to their number once they are stored. */
  add(jobs: readonly BulkJob[]): Promise<number>;
  counts(): Promise<Counts>;
  /** Answers jobs. A job whose worker was killed is answered by another one, or by the next. */
  work(answer: (job: BulkJob) => Promise<BulkResult>, options: WorkOptions): Promise<void>;
  /** Jobs that were given up. */
  failed(): AsyncIterable<DeadLetter>;
  /** Puts those back; resolves to their number. */
  retryFailed(): Promise<number>;
  /** Pages of answers that were not yet returned, as lines of JSON with the `id` first. */
  results(): AsyncIterable<readonly string[]>;
  /** Declares that the answers with these ids are stored elsewhere: the queue may forget all but the ids. */
  collected(ids: readonly string[]): Promise<void>;
  close(): Promise<void>;
}

/** @param url `redis://` or `rediss://` URL of a Valkey or Redis server, or a folder */
export async function openQueue(url: string, name: string): Promise<BulkQueue> {
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(url)) {
    const { FolderQueue } = await import('./folder-queue.js');
    return FolderQueue.open(url);
  }
  if (!/^rediss?:\/\//i.test(url) || !URL.canParse(url)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `queue ${url}: expected redis://HOST:PORT, rediss://HOST:PORT or a folder`,
    );
  }
  const { RedisQueue } = await import('./redis-queue.js');
  return RedisQueue.open(url, name);
}

/** Milliseconds before the next attempt, at random between half of it and all, so that not all try at once. */
export function delayAfter(attempt: number, backoff: number): number {
  return Math.min(backoff * 2 ** (attempt - 1), 60_000) * (0.5 + Math.random() / 2);
}

/** Resolves after `ms`, or when the signal is aborted. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}

/** The error of a worker whose model or policy isn't the queue's. */
export function otherBinding(queue: string, theirs: Binding, ours: Binding): ResidualSkipError {
  const words = ({ model, setting, policy }: Binding) =>
    `model ${model.slice(0, 12)}, setting ${setting}, policy ${policy.slice(0, 12)}`;
  const other = words(theirs) === words(ours) ? 'other labels or another preprocessing' : words(theirs);
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    `queue ${queue}: it is answered with ${other}, not ${words(ours)}; take another queue`,
  );
}
