import { type Command, InvalidArgumentError, Option } from 'commander';
import { calibrate } from '../calibrate/calibrate.js';
import { renderCalibration } from '../calibrate/report.js';
import type { Calibration } from '../calibrate/result.js';
import { forgetState } from '../calibrate/resume.js';
import type { DataLimits } from '../data/limits.js';
import { findModel } from '../data/model-files.js';
import { loadVega } from '../report/charts.js';
import type { SkipPolicy } from '../skip/policy.js';
import { CLASS_METRICS, type Metric, metricSchema, VECTOR_METRICS } from '../skip/promise.js';
import { drawCalibration } from './calibration-table.js';
import { checkWritable, writeResult } from './files.js';
import { type Io, watchWork } from './io.js';
import {
  addBackendOptions,
  addLimitOptions,
  type BackendOptions,
  fraction,
  positiveInteger,
  taskOption,
} from './options.js';

interface CalibrateOptions extends BackendOptions, DataLimits {
  readonly data: string;
  /** True for the labels of the data set itself; otherwise a file with the label of each image by name. */
  readonly labels?: true | string;
  readonly groups?: string;
  readonly fit?: string;
  readonly reference?: string;
  readonly output: string;
  readonly maxDisagreement?: number;
  readonly limits?: readonly number[];
  readonly maxGroupDisagreement?: number;
  readonly confidence: number;
  readonly metric?: Metric;
  readonly task?: 'classes';
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

const METRICS = [...CLASS_METRICS, ...VECTOR_METRICS, 'recall@k'].join(', ');
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
          '--data <path>',
          'images: any folder of them (labels are not needed), or what eval takes; or a file of texts',
        )
        .requiredOption('-o, --output <file>', 'policy file to write')
        .option(
          '--fit <path>',
          'further images or texts, without labels, that heads are fitted on and nothing else: those the network was trained on, say; for a model with exits of its own, they choose thresholds, and all data certifies',
        )
        .option(
          '--reference <model>',
          'network whose answers are promised: the float one that an 8-bit model was made from (default: the model in full)',
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
            `what the limit is for: ${METRICS}. Of classes: changed answers, right answers lost (needs labels), mean change of the probabilities (default: disagreement, with --labels accuracy). Of vectors: mean cosine distance (the default), mean relative error, nearest neighbours lost`,
          ).argParser(metric),
        )
        .addOption(taskOption())
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

function metric(text: string): Metric {
  const { data } = metricSchema.safeParse(text);
  if (data !== undefined) return data;
  throw new InvalidArgumentError(`It must be one of ${METRICS}, with a whole number above 0 for k.`);
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
  const { output, data, guard, margin, labels, groups, report, json, ...asked } = options;
  for (const file of [output, report]) if (file !== undefined) await checkWritable(file);
  if (report !== undefined) await loadVega();
  const work = watchWork(io, json !== true);
  const state = options.state ?? `${output}.state`;
  const result = await calibrate(path, data, {
    ...asked,
    ...work.options,
    state,
    metric: options.metric ?? (labels === undefined ? undefined : 'accuracy'),
    labelsFrom: labels === true ? 'data' : labels,
    groupsFrom: groups,
    guards: guard?.length ? [{ labels: [...guard], margin }] : undefined,
  }).finally(work.stop);
  await writeResult(output, `${JSON.stringify(result.policy, null, 2)}\n`);
  if (report !== undefined) {
    const { name } = await findModel(path);
    await writeResult(report, await renderCalibration(result, { model: name }));
  }
  if (options.state === undefined) await forgetState(state);
  io.out(
    json
      ? `${JSON.stringify(summary(result), null, 2)}\n`
      : drawCalibration(result, { output, resumed: result.resumed!.taken }, io),
  );
}

function summary({ policy, examples: _, certifiedOn: __, bolder: ___, ...rest }: Calibration) {
  const told = ({ promise, expected }: SkipPolicy) => ({ promise, expected });
  const { settings } = policy;
  return { ...told(policy), ...(settings && { bolder: settings.map(told) }), ...rest };
}
