import type { Command } from 'commander';
import { auditLog } from '../audit/log.js';
import { openDataset, takeEvenly } from '../data/dataset.js';
import { Classifier } from './classifier.js';
import { type Io, startProgress } from './io.js';
import { addEngineOptions, type EngineOptions, positiveInteger } from './options.js';
import { plural } from './table.js';

interface RecordOptions extends EngineOptions {
  readonly data: string;
  readonly output: string;
  readonly limit?: number;
  readonly json?: boolean;
}

export function addRecordCommand(program: Command, io: Io): void {
  addEngineOptions(
    program
      .command('record')
      .description('run labelled images and write an audit log of what each one ran and skipped')
      .argument('<model>', 'ONNX file, or a folder with one')
      .requiredOption('--data <dir>', 'folder with a folder of images per class, or with IDX files')
      .requiredOption('-o, --output <file>', 'audit log to append to')
      .option('--limit <n>', 'items to use, spread evenly over the data', positiveInteger),
  ).action((model: string, options: RecordOptions) => record(model, options, io));
}

async function record(model: string, options: RecordOptions, io: Io): Promise<void> {
  const { output: path } = options;
  const classifier = await Classifier.open(model, options, io, (labels) => [auditLog({ path, labels })]);
  try {
    const { samples } = await openDataset(options.data, classifier.labels);
    const chosen = takeEvenly(samples, options.limit ?? samples.length);
    const progress = startProgress(io, chosen.length, 'Recording', options.json !== true);
    try {
      for await (const { tensor } of classifier.prepare(chosen)) {
        await classifier.session.run(classifier.feeds(tensor));
        progress.advance();
      }
    } finally {
      progress.stop();
    }
  } finally {
    await classifier.release();
  }
  const { auditLog: log } = classifier.session.stats() as ReturnType<ReturnType<typeof auditLog>['stats']>;
  const lost = log.lost > 0 ? `; ${plural(log.lost, 'item')} lost: ${log.lastError}` : '';
  io.out(
    options.json
      ? `${JSON.stringify({ path, ...log })}\n`
      : `${path}: ${plural(log.written, 'item')}${lost}\n`,
  );
}
