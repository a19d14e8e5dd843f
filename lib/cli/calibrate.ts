import { type Command, InvalidArgumentError, Option } from 'commander';
import { NativeBackend } from '../backends/native.js';
import { ReferenceBackend } from '../backends/reference.js';
import { calibrate } from '../calibrate/calibrate.js';
import type { CalibrationOptions } from '../calibrate/options.js';
import { renderCalibrationReport } from '../calibrate/report.js';
import type { Calibration } from '../calibrate/result.js';
import { ResumableBackend } from '../calibrate/resume.js';
import { recordUse } from '../calibrate/uses.js';
import { encodeThumbnail } from '../data/image.js';
import { findModel } from '../data/model-files.js';
import { compileModel } from '../model/compile.js';
import { loadModel } from '../model/load.js';
import { loadVega } from '../report/charts.js';
import { bindFeeds } from '../session/feeds.js';
import type { SkipPolicy } from '../skip/policy.js';
import { METRICS, type Metric } from '../skip/promise.js';
import {
  type CalibrationData,
  type DataOptions,
  openFitImages,
  readCalibrationData,
} from './calibration-data.js';
import { drawCalibration } from './calibration-table.js';
import { Classifier } from './classifier.js';
import { checkWritable, writeResult } from './files.js';
import { type Io, startProgress } from './io.js';
import {
  addBackendOptions,
  addLimitOptions,
  type BackendOptions,
  fraction,
  positiveInteger,
} from './options.js';

interface CalibrateOptions extends BackendOptions, DataOptions {
  readonly fit?: string;
  readonly output: string;
  readonly maxDisagreement?: number;
  readonly limits?: readonly number[];
  readonly maxGroupDisagreement?: number;
  readonly confidence: number;
  readonly metric?: Metric;
  readonly perClass?: boolean;
  readonly budget?: number;
  readonly budgetMs?: number;
  readonly guard?: readonly string[];
  readonly margin: number;
  readonly settings: number;
  readonly copies: number;
  readonly seed: number;
  readonly state?: string;
  readonly report?: string;
  readonly json?: boolean;
}

const LIMITS = ['maxDisagreement', 'limits', 'maxGroupDisagreement', 'perClass', 'groups'];

export function addCalibrateCommand(program: Command, io: Io): void {
  addLimitOptions(
    addBackendOptions(
      program
        .command('calibrate')
        .description(
          'make a policy that skips, for any residual network, with a certified limit on changed answers',
        )
        .argument('<model>', 'ONNX file, or a folder with one')
        .requiredOption(
          '--data <dir>',
          'images: any folder of them (labels are not needed), or what eval takes',
        )
        .requiredOption('-o, --output <file>', 'policy file to write')
        .option(
          '--fit <dir>',
          'further images, without labels, that heads are fitted on and nothing else: those the network was trained on, say',
        )
        .option(
          '--max-disagreement <rate>',
          'most answers that may change, as a fraction (default: 0.01)',
          fraction,
        )
        .addOption(
          new Option(
            '--limits <rates>',
            'or several such limits, as 0.005,0.01,0.02: a setting for each in one policy; all promises hold together',
          )
            .argParser((text) => text.split(',').map(fraction))
            .conflicts('maxDisagreement'),
        )
        .option('--confidence <level>', 'probability that all limits hold', fraction, 0.95)
        .addOption(
          new Option(
            '--metric <name>',
            'what the limit is for: changed answers, right answers lost (needs labels), or mean change of the probabilities (default: disagreement, with --labels accuracy)',
          ).choices(METRICS),
        )
        .option('--labels [file]', 'the data is labelled: by its folders, or by a CSV or JSON file')
        .option('--per-class', 'keep the limit for every class as well')
        .option(
          '--groups <source>',
          "and for every group: 'folder', or a CSV or JSON file with a name for each image",
        )
        .option(
          '--max-group-disagreement <rate>',
          'another limit for classes and groups (default: that of all)',
          fraction,
        )
        .addOption(
          new Option('--budget <share>', 'instead of a limit: spend at most this share of the multiply-adds')
            .argParser(fraction)
            .conflicts([...LIMITS, 'budgetMs']),
        )
        .addOption(
          new Option(
            '--budget-ms <time>',
            'instead of a limit: take at most this long, as the median of one image',
          )
            .argParser(positiveNumber)
            .conflicts(LIMITS),
        )
        .option('--guard <label...>', 'answers that are verified by the full network')
        .option(
          '--margin <p>',
          'guard also when the label is within this probability of the best',
          fraction,
          0,
        )
        .option('--report <file>', 'HTML page to write that shows what was tested and chosen')
        .option('--settings <n>', 'settings between none and bold that are tried', settingsCount, 96)
        .option('--copies <n>', 'shifted copies of each image to fit on, at most', wholeNumber, 15)
        .option('--seed <n>', 'seed of the split', positiveInteger, 1)
        .option(
          '--state <dir>',
          'keep what was computed here, for other calibrations too (default: beside the policy, until it is written)',
        ),
    ),
  ).action((model: string, options: CalibrateOptions) => run(model, options, io));
}

function settingsCount(text: string): number {
  const value = positiveInteger(text);
  if (value > 1) return value;
  throw new InvalidArgumentError('It must be at least 2.');
}

function wholeNumber(text: string): number {
  return text.trim() === '0' ? 0 : positiveInteger(text);
}

function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0 && Number.isFinite(value)) return value;
  throw new InvalidArgumentError('It must be a number above 0.');
}

async function run(path: string, options: CalibrateOptions, io: Io): Promise<void> {
  const { output, isa, threads } = options;
  for (const file of [output, options.report]) if (file !== undefined) await checkWritable(file);
  if (options.report !== undefined) await loadVega();
  const metric = options.metric ?? (options.labels === undefined ? 'disagreement' : 'accuracy');
  const labels = options.labels ?? (metric === 'accuracy' ? true : undefined);
  const watched = options.json !== true;
  const classifier = await Classifier.open(path, { backend: 'reference' }, io);
  try {
    const data = await readCalibrationData(classifier, { ...options, labels }, io, watched);
    const engine =
      options.backend === 'reference' ? new ReferenceBackend() : new NativeBackend({ isa, threads });
    const backend = await ResumableBackend.open(engine, options.state ?? `${output}.state`);
    try {
      const result = await counted(
        await calibrateModel(path, classifier, backend, data, { ...options, metric }, io),
        io,
      );
      await writeResult(output, `${JSON.stringify(result.policy, null, 2)}\n`);
      if (options.report !== undefined) {
        const thumbnails = await thumbnailsOf(result, data);
        const page = await renderCalibrationReport(result, { model: classifier.name, thumbnails });
        await writeResult(options.report, page);
      }
      if (options.state === undefined) await backend.forget();
      const resumed = backend.counts;
      io.out(
        options.json
          ? `${JSON.stringify({ ...summary(result), resumed }, null, 2)}\n`
          : drawCalibration(result, { output, resumed: resumed.taken }, io),
      );
    } finally {
      backend.release();
    }
  } finally {
    await classifier.release();
  }
}

async function calibrateModel(
  path: string,
  classifier: Classifier,
  backend: ResumableBackend,
  { items, first }: CalibrationData,
  options: CalibrateOptions,
  io: Io,
): Promise<Calibration> {
  const files = await findModel(path);
  const model = await loadModel(files.model);
  const program = compileModel(model, bindFeeds(model, classifier.feeds(first)).binding);
  const { guard, margin, maxDisagreement, limits, maxGroupDisagreement, confidence, metric } = options;
  const { perClass, budget, budgetMs, seed, settings, copies } = options;
  const fit = options.fit === undefined ? undefined : await openFitImages(classifier, options.fit, options);
  const progress = startProgress(io, 100, 'Calibrating', options.json !== true);
  let shown = 0;
  const asked: CalibrationOptions = {
    ...{
      maxDisagreement,
      limits,
      maxGroupDisagreement,
      confidence,
      metric,
      perClass,
      budget,
      budgetMs,
      seed,
      settings,
      copies,
      fit,
    },
    labels: files.labels,
    guards: guard?.length ? [{ labels: [...guard], action: 'verify', margin }] : undefined,
    onProgress: (done, total) => {
      for (; shown < Math.floor((100 * done) / total); shown++) progress.advance();
    },
  };
  try {
    return await calibrate(backend, program, model.sha256, items, asked);
  } finally {
    progress.stop();
    const leftOut = fit?.unusable.describe();
    if (leftOut !== undefined) io.err(`note: of ${options.fit}, ${leftOut}; they are left out\n`);
  }
}

/** With the number of policies that these images have certified in the promise. */
async function counted(result: Calibration, io: Io): Promise<Calibration> {
  const { policy, certifiedOn } = result;
  try {
    const uses = await recordUse(policy, certifiedOn);
    const used = (one: SkipPolicy): SkipPolicy => {
      const promise = one.promise!;
      return { ...one, promise: { ...promise, data: { ...promise.data, uses } } };
    };
    const { settings } = policy;
    return { ...result, policy: { ...used(policy), ...(settings && { settings: settings.map(used) }) } };
  } catch (error) {
    io.err(`note: how often these images have certified isn't counted: ${(error as Error).message}\n`);
    return result;
  }
}

async function thumbnailsOf({ examples }: Calibration, data: CalibrationData): Promise<Map<string, string>> {
  const hashes = [...examples.most, ...examples.least].map(({ sha256 }) => sha256);
  const images = hashes.map(async (sha256) => encodeThumbnail(await data.load(sha256)));
  const encoded = await Promise.all(images);
  return new Map(hashes.map((sha256, i) => [sha256, encoded[i]!]));
}

function summary({ policy, examples: _, certifiedOn: __, bolder: ___, ...rest }: Calibration) {
  const told = ({ promise, expected }: SkipPolicy) => ({ promise, expected });
  const { settings } = policy;
  return { ...told(policy), ...(settings && { bolder: settings.map(told) }), ...rest };
}
