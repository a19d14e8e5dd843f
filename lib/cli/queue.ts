import type { Command } from 'commander';
import { ResidualSkipError } from '../errors.js';
import { type Io, startProgress } from './io.js';
import { loadServer } from './serve.js';
import { plural } from './table.js';

export interface QueueOptions {
  readonly queue: string;
  readonly name: string;
  readonly json?: boolean;
}

interface ResultsOptions extends QueueOptions {
  readonly output?: string;
  readonly follow?: boolean;
}

export interface Counts {
  readonly waiting: number;
  readonly running: number;
  readonly answered: number;
  readonly failed: number;
}

/** The part of a queue of the package residual-skip-server that the commands use. */
export interface Queue {
  counts(): Promise<Counts>;
  failed(): AsyncIterable<object>;
  retryFailed(): Promise<number>;
  results(): AsyncIterable<readonly string[]>;
  close(): Promise<void>;
}

/** The part of that package that the queue commands use. */
export interface QueueModule {
  openQueue(url: string, name: string): Promise<Queue>;
  enqueue(
    queue: Queue,
    sources: readonly string[],
    options: object,
  ): Promise<{ readonly read: number; readonly added: number }>;
  work(queue: Queue, model: string, options: object): Promise<void>;
  collectResults(
    queue: Queue,
    path: string,
    options: { readonly follow: boolean; readonly signal: AbortSignal },
  ): Promise<number>;
}

/** Adds the options that select a queue, and `--json`. */
export function addQueueOptions(command: Command): Command {
  return command
    .option('--queue <where>', 'redis:// URL of a Valkey or Redis server, or a folder', 'residual-skip-queue')
    .option('--name <name>', 'name of the queue on the server', 'residual-skip')
    .option('--json', 'print JSON');
}

export function addQueueCommand(program: Command, io: Io): void {
  const queue = program
    .command('queue')
    .description('show the state of a queue of images, and fetch its answers');
  addQueueOptions(
    queue.command('status').description('show how many jobs wait, run, were answered and were given up'),
  ).action((options: QueueOptions) => withQueue('queue', options, (opened) => status(opened, options, io)));
  addQueueOptions(queue.command('failed').description('print the jobs that were given up, as NDJSON')).action(
    (options: QueueOptions) =>
      withQueue('queue', options, async (opened) => {
        for await (const letter of opened.failed()) io.out(`${JSON.stringify(letter)}\n`);
      }),
  );
  addQueueOptions(
    queue.command('retry').description('put the jobs that were given up back into the queue'),
  ).action((options: QueueOptions) =>
    withQueue('queue', options, async (opened) => {
      const jobs = await opened.retryFailed();
      io.out(options.json ? `${JSON.stringify({ jobs })}\n` : `${plural(jobs, 'job')} put back\n`);
    }),
  );
  addQueueOptions(queue.command('results').description('print the answers, as NDJSON'))
    .option('-o, --output <file>', 'append new answers to this file; a server then forgets them')
    .option('--follow', 'with -o: continue until no job is left')
    .action((options: ResultsOptions) =>
      withQueue('queue', options, (opened, module) => results(opened, module, options, io)),
    );
}

async function status(queue: Queue, { json }: QueueOptions, io: Io): Promise<void> {
  const counts = await queue.counts();
  io.out(json ? `${JSON.stringify(counts)}\n` : `${wordsOf(counts)}\n`);
}

async function results(
  queue: Queue,
  module: QueueModule,
  { output, follow = false, json }: ResultsOptions,
  io: Io,
): Promise<void> {
  if (output === undefined) {
    if (follow) throw new ResidualSkipError('INVALID_ARGUMENT', '--follow: it needs a file; give -o FILE');
    for await (const lines of queue.results()) io.out(lines.map((line) => `${line}\n`).join(''));
    return;
  }
  const { signal, release } = untilSignal();
  const stop = showProgress(queue, io, 'Answered', json !== true && follow);
  const added = await module.collectResults(queue, output, { follow, signal }).finally(stop).finally(release);
  io.out(json ? `${JSON.stringify({ added })}\n` : `${output}: ${plural(added, 'answer')} added\n`);
}

export function wordsOf({ waiting, running, answered, failed }: Counts): string {
  return `${waiting} waiting, ${running} running, ${answered} answered, ${failed} given up`;
}

/** Opens the queue, calls `use` with it, and closes it. */
export async function withQueue(
  command: string,
  { queue: where, name }: QueueOptions,
  use: (queue: Queue, module: QueueModule) => Promise<void>,
): Promise<void> {
  const module = await loadServer<QueueModule>(command);
  const queue = await module.openQueue(where, name);
  try {
    await use(queue, module);
  } finally {
    await queue.close();
  }
}

/** An AbortSignal that the first SIGTERM or SIGINT aborts; a second one ends the process. */
export function untilSignal(): { readonly signal: AbortSignal; release(): void } {
  const controller = new AbortController();
  const { signal } = controller;
  const names = ['SIGTERM', 'SIGINT'] as const;
  const end = (name: NodeJS.Signals) => {
    if (!signal.aborted) return controller.abort();
    release();
    process.kill(process.pid, name);
  };
  const release = () => {
    for (const name of names) process.off(name, end);
  };
  for (const name of names) process.on(name, end);
  return { signal, release };
}

const SHOW_MS = 500;

/** Shows the progress of all jobs of the queue, whichever worker answers them; returns a function that ends it. */
export function showProgress(queue: Queue, io: Io, what: string, wanted: boolean): () => void {
  if (!io.interactive || !wanted) return () => {};
  const progress = startProgress(io, Number.POSITIVE_INFINITY, what, true);
  const timer = setInterval(() => {
    queue.counts().then(
      ({ waiting, running, answered, failed }) =>
        progress.show(answered + failed, waiting + running + answered + failed),
      // The command itself reports what is wrong with the queue.
      () => {},
    );
  }, SHOW_MS);
  return () => {
    clearInterval(timer);
    progress.stop();
  };
}
