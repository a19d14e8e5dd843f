import { setTimeout as sleep } from 'node:timers/promises';
import { ResidualSkipError } from 'residual-skip';
import type { Binding, BulkJob, BulkResult, DeadLetter } from './job.js';

/** Number of jobs by state. */
export interface Counts {
  /** Includes jobs that wait for their next attempt. */
  readonly waiting: number;
  readonly running: number;
  readonly answered: number;
  readonly failed: number;
}

export interface WorkOptions {
  /** Jobs that may run at a time. */
  readonly concurrency: number;
  /** A job is given up after this many attempts. */
  readonly attempts: number;
  /** Milliseconds before the second attempt; doubled for each further attempt. */
  readonly backoff: number;
  /** Return once no job is left, including jobs that wait for another attempt. */
  readonly untilEmpty: boolean;
  /** When aborted, return once the running jobs have ended. */
  readonly signal: AbortSignal;
  /** Called for errors that don't end the work. */
  readonly onProblem: (error: Error) => void;
}

/** Stores jobs, answers and dead letters such that a killed process loses none of them. */
export interface BulkQueue {
  /**
   * Binds the queue to a model and its settings; the first call decides.
   * @throws ResidualSkipError INVALID_ARGUMENT if the queue is bound to something else
   */
  bind(binding: Binding): Promise<void>;
  /** Adds the jobs that are new to the queue; resolves to their number once they are stored. */
  add(jobs: readonly BulkJob[]): Promise<number>;
  counts(): Promise<Counts>;
  /** Answers jobs. If a worker is killed, another worker or the next one answers its jobs. */
  work(answer: (job: BulkJob) => Promise<BulkResult>, options: WorkOptions): Promise<void>;
  /** Jobs that were given up. */
  failed(): AsyncIterable<DeadLetter>;
  /** Enqueues failed jobs again; resolves to their number. */
  retryFailed(): Promise<number>;
  /** Yields pages of answers that were not returned before, as JSON lines that begin with the `id`. */
  results(): AsyncIterable<readonly string[]>;
  /** Tells the queue that these answers are stored elsewhere, so it may forget everything but their ids. */
  collected(ids: readonly string[]): Promise<void>;
  close(): Promise<void>;
}

/** Milliseconds before the next attempt, with jitter between half the delay and all of it, so that retries spread out. */
export function delayAfter(attempt: number, backoff: number): number {
  return Math.min(backoff * 2 ** (attempt - 1), 60_000) * (0.5 + Math.random() / 2);
}

/** Resolves after `ms`, or when the signal is aborted. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}

/** The error for a worker whose model or policy differs from the queue's. */
export function otherBinding(queue: string, theirs: Binding, ours: Binding): ResidualSkipError {
  const words = ({ model, setting, policy }: Binding) =>
    `model ${model.slice(0, 12)}, setting ${setting}, policy ${policy.slice(0, 12)}`;
  const other = words(theirs) === words(ours) ? 'other labels or another preprocessing' : words(theirs);
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    `queue ${queue}: it is answered with ${other}, not ${words(ours)}; take another queue`,
  );
}
