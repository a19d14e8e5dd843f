import type { Command } from 'commander';
import { ResidualSkipError } from '../errors.js';
import type { Io } from './io.js';
import { positiveInteger } from './options.js';
import { addQueueOptions, type QueueOptions, untilSignal, withQueue, wordsOf } from './queue.js';
import { plural } from './table.js';

interface EnqueueOptions extends QueueOptions {
  readonly maxWaiting?: number;
}

/** Default limit on the waiting jobs of a server, which holds them in memory; a folder takes any number. */
const MAX_ON_SERVER = 100_000;
/** Problems that the error message describes; the others are only counted. */
const SHOWN = 5;

export function addEnqueueCommand(program: Command, io: Io): void {
  addQueueOptions(
    program
      .command('enqueue')
      .description('add images to a queue, which residual-skip work reads')
      .argument(
        '<sources...>',
        'images, folders, URLs, NDJSON lists of {"image", "name"}, or - for one on stdin',
      ),
  )
    .option(
      '--max-waiting <n>',
      `pause while this many jobs wait (default: ${MAX_ON_SERVER} on a server, unlimited in a folder)`,
      positiveInteger,
    )
    .action((sources: string[], options: EnqueueOptions) => enqueue(sources, options, io));
}

async function enqueue(sources: readonly string[], options: EnqueueOptions, io: Io): Promise<void> {
  const { json, queue: where } = options;
  const maxWaiting = options.maxWaiting ?? (where.includes('://') ? MAX_ON_SERVER : Number.POSITIVE_INFINITY);
  const shown: string[] = [];
  let unusable = 0;
  const { signal, release } = untilSignal();
  await withQueue('enqueue', options, async (queue, module) => {
    const { read, added } = await module.enqueue(queue, sources, {
      ...{ stdin: process.stdin, maxWaiting, signal },
      onProblem: ({ message }: Error) => {
        unusable++;
        if (shown.length < SHOWN) shown.push(message);
      },
    });
    if (json) io.out(`${JSON.stringify({ read, added, unusable })}\n`);
    else io.out(`${plural(read, 'image')}, ${added} of them new; ${wordsOf(await queue.counts())}\n`);
    if (signal.aborted) {
      throw new ResidualSkipError(
        'ABORTED',
        'enqueue: it was stopped before the end; run it again for the rest',
      );
    }
  }).finally(release);
  if (unusable === 0) return;
  const more = unusable > SHOWN ? `; and ${unusable - SHOWN} more` : '';
  const problems = `${plural(unusable, 'image')} can't be used: ${shown.join('; ')}${more}`;
  throw new ResidualSkipError('INVALID_DATA', `${problems}; the other images are in the queue`);
}
