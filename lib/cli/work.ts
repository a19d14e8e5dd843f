import type { Command } from 'commander';
import type { Io } from './io.js';
import { policyHelp, positiveInteger } from './options.js';
import {
  addQueueOptions,
  type QueueOptions,
  showProgress,
  untilSignal,
  withQueue,
  wordsOf,
} from './queue.js';
import { duration } from './serve-options.js';

interface WorkOptions extends QueueOptions {
  readonly policy?: string;
  readonly setting?: string;
  readonly original?: string;
  readonly threads?: number;
  readonly concurrency?: number;
  readonly attempts: number;
  readonly backoff: number;
  readonly privateUrls?: boolean;
  readonly untilEmpty?: boolean;
}

export function addWorkCommand(program: Command, io: Io): void {
  addQueueOptions(
    program
      .command('work')
      .description('classify the images of a queue')
      .argument('<model>', 'ONNX file, or a folder with one'),
  )
    .option('--policy <policy>', policyHelp())
    .option('--setting <limit>', "a setting of the policy file, by its limit (default: the file's own)")
    .option('--original <model>', 'network that guards verify with: the float form of an 8-bit model')
    .option(
      '--threads <n>',
      'worker threads (default: as many cores as the process may use)',
      positiveInteger,
    )
    .option('--concurrency <n>', 'jobs at a time (default: twice the threads)', positiveInteger)
    .option('--attempts <n>', 'attempts after which a job is given up', positiveInteger, 5)
    .option('--backoff <time>', 'time before the second attempt; it doubles each time', duration, 1000)
    .option('--private-urls', 'let URLs of jobs lead to addresses that are not public')
    .option('--until-empty', 'stop when no job is left')
    .action((model: string, options: WorkOptions) => work(model, options, io));
}

async function work(model: string, options: WorkOptions, io: Io): Promise<void> {
  const { queue: where, name, json, untilEmpty = false, ...rest } = options;
  const { signal, release } = untilSignal();
  // An unreachable server causes the same problem many times a second.
  let last = '';
  const onProblem = ({ message }: Error) => {
    if (message !== last) io.err(json ? `${JSON.stringify({ problem: message })}\n` : `note: ${message}\n`);
    last = message;
  };
  await withQueue('work', options, async (queue, module) => {
    const stop = showProgress(queue, io, 'Answered by all workers', json !== true);
    await module.work(queue, model, { ...rest, untilEmpty, signal, onProblem }).finally(stop);
    const counts = await queue.counts();
    io.out(json ? `${JSON.stringify(counts)}\n` : `${wordsOf(counts)}\n`);
  }).finally(release);
}
