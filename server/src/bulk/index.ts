import { availableParallelism } from 'node:os';
import type { Readable } from 'node:stream';
import { ResidualSkipError } from 'residual-skip';
import { Answerer } from './answer.js';
import type { ImageOptions } from './job.js';
import { type BulkQueue, pause, type WorkOptions } from './queue.js';
import { jobsFrom } from './sources.js';

export { collectResults } from './collect.js';
export type { BulkJob, BulkResult, DeadLetter } from './job.js';
export type { BulkQueue, Counts } from './queue.js';

/** @param url `redis://` or `rediss://` URL of a Valkey or Redis server, or a folder */
export async function openQueue(url: string, name: string): Promise<BulkQueue> {
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(url)) {
    const { FolderQueue } = await import('./folder-queue.js');
    return FolderQueue.open(url);
  }
  if (!/^rediss?:\/\//i.test(url) || !URL.canParse(url)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `queue ${withoutPassword(url)}: expected redis://HOST:PORT, rediss://HOST:PORT or a folder`,
    );
  }
  const { RedisQueue } = await import('./redis-queue.js');
  return RedisQueue.open(url, name);
}

/** What is before the host may be a password. */
function withoutPassword(url: string): string {
  return url.replace(/\/\/.*@/s, '//***@');
}

/** Interval at which a full queue is polled. */
const FULL_MS = 250;

export interface EnqueueOptions {
  readonly stdin: Readable;
  /** No more jobs are added while this many wait. */
  readonly maxWaiting: number;
  /** Called for each source that can't become a job. */
  readonly onProblem: (error: ResidualSkipError) => void;
  /** Called after each batch with the total of jobs read, and of those that were new to the queue. */
  readonly onProgress?: (read: number, added: number) => void;
  readonly signal?: AbortSignal;
}

/** Adds the images of `sources` to a queue; see jobsFrom. */
export async function enqueue(
  queue: BulkQueue,
  sources: readonly string[],
  { stdin, maxWaiting, onProblem, onProgress, signal }: EnqueueOptions,
): Promise<{ read: number; added: number }> {
  let read = 0;
  let added = 0;
  for await (const jobs of jobsFrom(sources, stdin, onProblem)) {
    while (maxWaiting < Number.POSITIVE_INFINITY && (await queue.counts()).waiting >= maxWaiting) {
      await pause(FULL_MS, signal);
      if (signal?.aborted) break;
    }
    if (signal?.aborted) break;
    added += await queue.add(jobs);
    read += jobs.length;
    onProgress?.(read, added);
  }
  return { read, added };
}

export interface WorkerOptions extends Omit<WorkOptions, 'concurrency'>, ImageOptions {
  /** `model`, `full` or a policy file; by default the `policy.json` of the model's folder, or else `model`. */
  readonly policy?: string;
  /** A setting of the policy file, by its limit; by default the file's own. */
  readonly setting?: string;
  /** The network that guards verify with: the float form of an 8-bit model; an ONNX file. */
  readonly original?: string;
  readonly threads?: number;
  /** By default twice the threads: images are read and decoded while others run. */
  readonly concurrency?: number;
}

/** Answers the jobs of a queue with a model. */
export async function work(queue: BulkQueue, model: string, options: WorkerOptions): Promise<void> {
  const { threads = availableParallelism(), concurrency = 2 * threads } = options;
  const answerer = await Answerer.load(model, options);
  try {
    await queue.bind(answerer.binding);
    await queue.work((job) => answerer.answer(job), { ...options, concurrency });
  } finally {
    await answerer.release();
  }
}
