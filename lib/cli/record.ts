import type { Command } from 'commander';
import { auditLog } from '../audit/log.js';
import type { Item } from '../classify/images.js';
import { takeEvenly } from '../data/dataset.js';
import { findModel } from '../data/model-files.js';
import type { EnergyReport } from '../measure/energy.js';
import type { Tensor } from '../tensor/tensor.js';
import { openClassifier, openUnlabelled, wordPolicy } from './classifier.js';
import { checkWritable, unwritable } from './files.js';
import { type Io, startProgress } from './io.js';
import { addDataOptions, type EngineOptions, positiveInteger, type ReadingOptions } from './options.js';
import { plural } from './table.js';

interface RecordOptions extends EngineOptions, ReadingOptions {
  readonly data: string;
  readonly output: string;
  readonly limit?: number;
  readonly json?: boolean;
}

/** One in this many items is also timed in full, and its energy measured, so that the report can show the savings. */
const TIMED_EVERY = 10;
/** Most items whose energy is measured, apart from the log. */
const MAX_MEASURED = 100;

export function addRecordCommand(program: Command, io: Io): void {
  addDataOptions(
    program
      .command('record')
      .description('run images or texts and write an audit log of what each one ran and skipped')
      .argument('<model>', 'ONNX file, or a folder with one')
      .requiredOption(
        '--data <dir>',
        'images: any folder of them (labels are not needed), or what eval takes; or a file of texts',
      )
      .requiredOption('-o, --output <file>', 'audit log to append to')
      .option('--limit <n>', 'items to use, spread evenly over the data', positiveInteger),
  ).action((model: string, options: RecordOptions) => record(model, options, io));
}

async function record(model: string, options: RecordOptions, io: Io): Promise<void> {
  const { output: path } = options;
  await checkWritable(path);
  const { chosen, energy } = await measure(model, options, io);
  // Without notes: `measure` has written them already.
  const log = auditLog({ path, labels: (await findModel(model)).labels });
  const classifier = await openClassifier(model, options, { ...io, err: () => {} }, [log]);
  try {
    const progress = startProgress(io, chosen.length, 'Recording', options.json !== true);
    try {
      let items = 0;
      for await (const { tensor } of classifier.prepare(chosen)) {
        const feeds = classifier.feeds(tensor);
        await classifier.session.run(feeds);
        if (items++ % TIMED_EVERY === 0) await log.timeFull(feeds);
        progress.advance();
      }
      log.recordEnergy(energy);
    } finally {
      progress.stop();
    }
  } finally {
    await classifier.release();
  }
  const stats = log.stats().auditLog;
  const { policy } = classifier.session;
  const lost = stats.lost > 0 ? `; ${plural(stats.lost, 'item')} lost: ${stats.lastError}` : '';
  io.out(
    options.json
      ? `${JSON.stringify({ path, policy, ...stats })}\n`
      : `${path}: ${plural(stats.written, 'item')}${lost}\n${wordPolicy(policy)}\n`,
  );
  if (stats.errors > 0) throw unwritable(path, `${plural(stats.lost, 'item')} lost: ${stats.lastError}`);
  classifier.unusable.check();
}

/**
 * The items to record, and the energy that some of them take. Those run in a session of their own, so that the log
 * neither contains nor slows these runs.
 */
async function measure(
  model: string,
  options: RecordOptions,
  io: Io,
): Promise<{ chosen: readonly Item<Tensor>[]; energy: EnergyReport }> {
  const classifier = await openClassifier(model, options, io);
  try {
    const items = await openUnlabelled(classifier, options.data, options);
    const chosen = takeEvenly(items, options.limit ?? items.length);
    const measured = takeEvenly(chosen, Math.min(MAX_MEASURED, Math.ceil(chosen.length / TIMED_EVERY)));
    const tensors: Tensor[] = [];
    for await (const { tensor } of classifier.prepare(measured)) tensors.push(tensor);
    classifier.unusable.checkSome(tensors.length);
    classifier.warmUp(tensors[0]!);
    return { chosen, energy: classifier.measureEnergy(tensors) };
  } finally {
    await classifier.release();
  }
}
