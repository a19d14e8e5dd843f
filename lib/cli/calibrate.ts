import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { NativeBackend } from '../backends/native.js';
import { ReferenceBackend } from '../backends/reference.js';
import { calibrate } from '../calibrate/calibrate.js';
import type { Calibration, CalibrationItem } from '../calibrate/calibration.js';
import { openDataset, openImages } from '../data/dataset.js';
import type { RawImage } from '../data/image.js';
import { findModel } from '../data/model-files.js';
import { bindFeeds } from '../feeds.js';
import { loadModel } from '../model/load.js';
import { compileModel } from '../model/lower.js';
import type { Isa } from '../options.js';
import type { Tensor } from '../tensor.js';
import { Classifier } from './classifier.js';
import { type Io, paint, startProgress } from './io.js';
import { addEngineOptions, positiveInteger } from './options.js';
import { type Column, formatTable, percent, plural } from './table.js';

interface CalibrateOptions {
  readonly data: string;
  readonly output: string;
  readonly maxDisagreement: number;
  readonly confidence: number;
  readonly metric: 'disagreement' | 'accuracy';
  readonly budget?: number;
  readonly guard?: readonly string[];
  readonly margin: number;
  readonly seed: number;
  readonly backend?: 'native' | 'reference';
  readonly isa?: Isa;
  readonly threads?: number;
  readonly json?: boolean;
}

export function addCalibrateCommand(program: Command, io: Io): void {
  addEngineOptions(
    program
      .command('calibrate')
      .description(
        'make a policy that skips, for any residual network, with a certified limit on changed answers',
      )
      .argument('<model>', 'ONNX file, or a folder with one')
      .requiredOption('--data <dir>', 'images: any folder of them (labels are not needed), or IDX files')
      .requiredOption('-o, --output <file>', 'policy file to write')
      .option('--max-disagreement <rate>', 'most answers that may change, as a fraction', fraction, 0.01)
      .option('--confidence <level>', 'probability that the limit holds', fraction, 0.95)
      .addOption(
        new Option('--metric <name>', 'what may not happen more often than the limit')
          .choices(['disagreement', 'accuracy'])
          .default('disagreement'),
      )
      .option(
        '--budget <share>',
        'spend at most this share of the multiply-adds, and report the risk',
        fraction,
      )
      .option('--guard <label...>', 'answers that are verified by the full network')
      .option('--margin <p>', 'guard also when the label is within this probability of the best', fraction, 0)
      .option('--seed <n>', 'seed of the split', positiveInteger, 1),
  ).action((model: string, options: CalibrateOptions) => run(model, options, io));
}

function fraction(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0 && value < 1) return value;
  throw new InvalidArgumentError('It must be a number between 0 and 1.');
}

async function run(path: string, options: CalibrateOptions, io: Io): Promise<void> {
  const { guard, margin, isa, threads, metric, budget } = options;
  const files = await findModel(path);
  const classifier = await Classifier.open(path, { backend: 'reference' }, io);
  const items: CalibrationItem[] = [];
  let first: Tensor | undefined;
  try {
    const samples = await imagesOf(options.data, classifier.labels, metric === 'accuracy');
    const reading = startProgress(io, samples.length, 'Reading', options.json !== true);
    for await (const { image, tensor } of classifier.prepare(samples)) {
      first ??= tensor;
      const input = tensor.data as Float32Array;
      const bytes = new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      items.push({ input, sha256, label: image.label });
      reading.advance();
    }
    reading.stop();
    const model = await loadModel(files.model);
    const program = compileModel(model, bindFeeds(model, classifier.feeds(first!)).binding);
    const backend =
      options.backend === 'reference' ? new ReferenceBackend() : new NativeBackend({ isa, threads });
    const progress = startProgress(io, 100, 'Calibrating', options.json !== true);
    let shown = 0;
    try {
      const result = await calibrate(backend, program, model.sha256, items, {
        maxDisagreement: budget === undefined ? options.maxDisagreement : undefined,
        confidence: options.confidence,
        metric,
        budget,
        seed: options.seed,
        labels: files.labels,
        guards: guard?.length ? [{ labels: [...guard], action: 'verify', margin }] : undefined,
        onProgress: (done, total) => {
          for (; shown < Math.floor((100 * done) / total); shown++) progress.advance();
        },
      });
      await writeFile(options.output, `${JSON.stringify(result.policy, null, 2)}\n`);
      io.out(
        options.json ? `${JSON.stringify(summary(result), null, 2)}\n` : draw(result, options.output, io),
      );
    } finally {
      progress.stop();
      backend.release();
    }
  } finally {
    await classifier.release();
  }
}

interface Image {
  readonly name: string;
  readonly label?: number;
  load(): Promise<RawImage>;
}

async function imagesOf(
  path: string,
  labels: readonly string[],
  labelled: boolean,
): Promise<readonly Image[]> {
  return labelled ? (await openDataset(path, labels)).samples : openImages(path, labels);
}

function summary({ policy, settings, chosen, classes }: Calibration) {
  return { promise: policy.promise, expected: policy.expected, chosen, settings, classes };
}

const COLUMNS: readonly Column[] = [
  { title: '' },
  { title: 'changed', align: 'right' },
  { title: 'at most', align: 'right' },
  { title: 'p', align: 'right' },
  { title: 'multiply-adds skipped', align: 'right' },
  { title: 'blocks skipped', align: 'right' },
];

function draw({ policy, settings, chosen }: Calibration, output: string, io: Io): string {
  const { limit, confidence, items } = policy.promise!;
  const rows = settings.map(({ events, upperBound, pValue, multiplyAddsSkipped, blocksSkipped }, i) => [
    i === chosen ? paint(io, 'green', '→') : '',
    `${events} of ${items}`,
    percent(upperBound, 2),
    pValue.toPrecision(2),
    percent(multiplyAddsSkipped),
    percent(blocksSkipped),
  ]);
  const verdict =
    chosen < 0
      ? `No setting keeps the limit of ${percent(limit, 2)}: the policy skips nothing.`
      : `Certified: at most ${percent(limit, 2)} of the answers change, with ` +
        `${percent(confidence, 0)} confidence; ${percent(policy.expected!.multiplyAddsSkipped)} of the multiply-adds are skipped.`;
  return `${formatTable(io, COLUMNS, rows)}\n${paint(io, 'bold', verdict)}\n${plural(items, 'item')} certified; policy: ${output}\n`;
}
