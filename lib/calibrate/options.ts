/** Options of a calibration: types, defaults and the command's flags all follow from one schema. */
import { z } from 'zod';
import type { Data } from '../classify/data-model.js';
import type { ImageClassifierOptions } from '../classify/image-options.js';
import type { DataOptions } from '../classify/images.js';
import type { TaskOptions } from '../classify/task.js';
import type { WorkOptions } from '../classify/work.js';
import { ResidualSkipError } from '../errors.js';
import { PRECISIONS, type Program } from '../model/program/program.js';
import { guardSchema } from '../skip/guards.js';
import {
  BOX_FORMS,
  isOfLabels,
  type Limit,
  METRICS,
  type Metric,
  metricSchema,
  type Promised,
} from '../skip/promise.js';
import type { CustomLoss } from '../skip/run-loss.js';
import { flagged, number } from '../util/flags.js';
import { expectation, parseStrict } from '../util/validation.js';
import type { Programs } from './run/evaluator.js';
import type { CalibrationItem, Choice, FitImages, VectorOf } from './run/items.js';

export const DEFAULT_LIMIT = 0.01;

const fraction = z.number().refine((value) => value > 0 && value < 1, {
  error: ({ input }) => `expected a number between 0 and 1, received ${input}`,
});
const count = (min: number) => z.int({ error: `expected a whole number of at least ${min}` }).min(min);
/** A limit for each of several settings, or for each of several metrics that are promised together. */
export type Limits = readonly number[] | Readonly<Partial<Record<Metric, number>>>;

const listed = z.array(fraction).min(1, { error: 'expected at least one limit' });
const byMetric = z
  .record(metricSchema(), fraction)
  .refine((all) => Object.keys(all).length > 0, { error: 'expected at least one limit' });
const limits = z.unknown().superRefine((value, context) => {
  const schema = typeof value === 'object' && !Array.isArray(value) ? byMetric : listed;
  const { error } = schema.safeParse(value, { error: expectation });
  for (const { message, path } of error?.issues ?? []) context.addIssue({ code: 'custom', message, path });
}) as unknown as z.ZodType<Limits, Limits>;

/** `0.01,0.02`, or `missed=0.01,added=0.05`. */
function readLimits(text: string): unknown {
  const parts = text.split(',').map((part) => part.split('='));
  if (parts.every(({ length }) => length === 1)) return parts.map(([limit]) => number(limit!));
  return Object.fromEntries(parts.map(([metric, limit = '']) => [metric!.trim(), number(limit)]));
}

/** Of limits by metric, each; undefined where they are of several settings. */
export function limitsByMetric(all: Limits | undefined): readonly [Limit, ...Limit[]] | undefined {
  if (all === undefined || Array.isArray(all)) return undefined;
  return Object.entries(all as Readonly<Record<Metric, number>>).map(([metric, limit]) => ({
    metric: metric as Metric,
    limit,
  })) as [Limit, ...Limit[]];
}

/** Options of what is certified, and how it is chosen. */
const shape = {
  /** Limit on the rate of changed answers, or on the mean loss; 0.01 when left out. */
  maxDisagreement: flagged(
    fraction.optional(),
    '--max-disagreement <rate>',
    `share of the answers that may change (default: ${DEFAULT_LIMIT})`,
    number,
  ),
  /**
   * Several such limits instead: the policy then has a setting for each of them, and all promises hold together. Or a limit for each of
   * several metrics, in the place of `metric`: every setting keeps them all, as `{ missed: 0.01, added: 0.05 }`.
   */
  limits: flagged(
    limits.optional(),
    '--limits <rates>',
    'several limits instead: 0.005,0.01,0.02 makes a policy with a setting for each; missed=0.01,added=0.05 keeps one for each metric; ' +
      'all of them hold together',
    readLimits,
  ),
  /** Probability that all limits hold; 0.95 when left out. */
  confidence: flagged(
    fraction.default(0.95),
    '--confidence <level>',
    'probability that all limits hold',
    number,
  ),
  /**
   * What counts as a loss, from the full network's answer; see docs/tasks.md. When left out, that of the task: of single labels
   * `disagreement`, of several `labels`, of numbers `relative`, of grades `ordinal`, of embeddings `cosine`, of maps `pixels`, of boxes
   * `boxes`, of sequences `tokens`, of rankings `ranking`. A number behind `@` is a tolerance, a threshold or a count.
   */
  metric: flagged(
    metricSchema().optional(),
    '--metric <name>',
    `what the limit is for: ${METRICS} (default: that of the task; accuracy with --labels); see docs/tasks.md`,
  ),
  /** Also make a promise for each class: by label if every item has one, otherwise by the full network's answer. */
  perClass: flagged(z.boolean().optional(), '--per-class', 'keep the limit for every class as well'),
  /** Limit for every class and group; `maxDisagreement`, or each of `limits`, when left out. */
  maxGroupDisagreement: flagged(
    fraction.optional(),
    '--max-group-disagreement <rate>',
    'limit for each class and group (default: the limit for all)',
    number,
  ),
  /** Instead of a limit: the most that the policy may spend, as a fraction of the full network's multiply-adds. */
  budget: flagged(
    fraction.optional(),
    '--budget <share>',
    'instead of a limit: use at most this share of the multiply-adds',
    number,
  ),
  /**
   * Only estimate what would be saved: on 300 items spread over the data, or on the first 300 of an iterable, and more only if a low
   * limit needs them. The policy holds with a probability of one half, and that these items were read isn't counted.
   */
  dryRun: flagged(
    z.boolean().optional(),
    '--dry-run',
    'estimate from 300 items what would be saved, and how many items would certify it; nothing is written',
  ),
  /** Answers that are checked against the full network. */
  guards: z.array(guardSchema()).readonly().optional(),
  /** Seed of the split into parts; 1 when left out. */
  seed: flagged(count(0).default(1), '--seed <n>', 'seed of the split', number),
  /**
   * Most altered copies of an image to fit heads on; 0 for the images alone.
   * @internal
   */
  copies: flagged(count(0).default(15), '--copies <n>', 'altered copies to fit on', number, true),
  /**
   * Number of penalties to try; see order/thresholds.ts.
   * @internal
   */
  penalties: flagged(count(2).default(96), '--penalties <n>', 'penalties of changed answers', number, true),
};

/** Options that name further files, and say how the outputs are read. */
const inputShape = {
  /**
   * Further images or texts that are used only to fit heads, such as those that the network was trained on. Labels are not needed. If the
   * model has exits of its own, these order the settings instead, and all of the data certifies. What can't be used is left out,
   * with a note; so is what is also among the data.
   */
  fit: flagged(
    z.custom<Data>().optional(),
    '--fit <path>',
    'further images or texts, without labels, to fit heads on, such as those the network was trained on; ' +
      'for a model with exits of its own, they choose thresholds, and all of the data certifies',
  ),
  /**
   * Names of the outputs that the promise is about. When left out, the one called logits, or else the first; for boxes and the
   * task `custom`, all. The others are named in the policy as not promised.
   */
  outputs: flagged(
    z.array(z.string().min(1)).min(1).readonly().optional(),
    '--outputs <names>',
    'outputs that the promise is about, such as boxes,scores (default: logits, or else the first; for boxes all)',
    (text) => text.split(','),
  ),
  /** How the outputs hold boxes, for the task `detection`: `corners` (x1, y1, x2, y2; the default), `centres`, `detr` or `yolo`. */
  boxes: flagged(
    z.enum(BOX_FORMS).optional(),
    '--boxes <form>',
    `how outputs hold boxes: ${BOX_FORMS.join(', ')} (default: corners)`,
  ),
  /** Boxes with a higher score count; 0.5 when left out. */
  score: flagged(
    z.number().optional(),
    '--score <s>',
    'only boxes with a higher score count (default: 0.5)',
    number,
  ),
  /** The loss of an item, for the task `custom`. */
  loss: z
    .custom<CustomLoss>((value) => typeof value === 'function', { error: 'expected a function' })
    .optional(),
  /**
   * ONNX file, or a folder with one, of the network whose answers are promised: for an 8-bit network the float one that it was made
   * from. When left out, the answers are those of the model itself with every block run.
   */
  original: flagged(
    z.string().min(1).optional(),
    '--original <model>',
    'network whose answers are promised, such as the float form of an 8-bit model (default: the model in full)',
  ),
  /**
   * The precision that the policy is for. In bfloat16 the answers that are promised are those of the network in float32, or of
   * `original`; float32 by default.
   */
  precision: flagged(
    z.enum(PRECISIONS).optional(),
    '--precision <name>',
    'precision that the policy is for: float32, bfloat16 or bfloat16-amx; the promise is about the answers in float32 (default: float32)',
  ),
  /**
   * Folder for intermediate results, created if it doesn't exist. If a calibration is killed, the next call with the same
   * arguments resumes from them.
   */
  state: flagged(
    z.string().min(1).optional(),
    '--state <dir>',
    'folder for intermediate results, which other calibrations can use (default: beside the policy, until it is written)',
  ),
};

/** The schema of `calibrate`'s own options; see CalibrateOptions. */
export const optionShape = { ...inputShape, ...shape };
type Input = z.input<z.ZodObject<typeof optionShape>>;

/** `labels`, `preprocessor`, `backend`, `isa` and `threads` are those of ImageClassifier.from. */
export interface CalibrateOptions
  extends Readonly<Input>,
    Pick<ImageClassifierOptions, 'labels' | 'preprocessor' | 'backend' | 'isa' | 'threads'>,
    DataOptions,
    TaskOptions,
    WorkOptions {}

/** Options that replace others. */
const LIMITING = ['maxDisagreement', 'limits', 'maxGroupDisagreement', 'perClass', 'groupsFrom'] as const;
export const CONFLICTS: Readonly<Record<string, readonly string[]>> = {
  limits: ['maxDisagreement'],
  budget: LIMITING,
};

/** @throws ResidualSkipError INVALID_ARGUMENT */
export function checkConflicts(options: Readonly<Record<string, unknown>>): void {
  for (const [name, others] of Object.entries(CONFLICTS)) {
    const other = options[name] !== undefined && others.find((each) => options[each] ?? false);
    if (!other) continue;
    throw new ResidualSkipError('INVALID_ARGUMENT', `${name}: it replaces ${other}; give one of the two`);
  }
}

/**
 * Options of networks with classes, for a metric of vectors.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function checkForVectors(options: CalibrateOptions): void {
  const { metric, budget, perClass, guards, original, precision } = options;
  const labels = isOfLabels(metric!);
  const forClasses = { budget, perClass: (perClass && !labels) || undefined, guards, original, precision };
  const name = Object.entries(forClasses).find(([, value]) => value !== undefined)?.[0];
  if (name === undefined) return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${name}: it doesn't go with the metric '${metric}', which is about the output itself, not about classes; omit it`,
  );
}

/** Options of a calibration on prepared items. */
export interface CalibrationOptions extends Readonly<z.input<z.ZodObject<typeof shape>>> {
  /** The network whose answers are promised, and with which guards verify, and its SHA-256. */
  readonly original?: { readonly program: Program | Programs; readonly sha256: string } | undefined;
  readonly labels?: readonly string[] | undefined;
  /** As in CalibrateOptions; of a model with exits of its own, at most 2,000 of them order the settings. */
  readonly fit?: FitImages | undefined;
  /** Instead of exits that are fitted, and settings that are ordered, here. */
  readonly choice?: Choice | undefined;
  /** Reads what is promised, where that isn't one class; all elements of the first output when left out. */
  readonly vectorOf?: VectorOf | undefined;
  /** Whether `vectorOf` makes one vector of those of a text's tokens. */
  readonly pools?: boolean | undefined;
  /** For losses that need more than what `vectorOf` reads: `custom`, and `accuracy` without exits. */
  readonly lossOf?:
    | ((skipping: Float32Array, full: Float32Array, item: CalibrationItem) => number)
    | undefined;
  /** What prepared the images, for the policy. */
  readonly preprocessing?: string | undefined;
  /** What the promise says of the outputs. */
  readonly about?: Pick<Promised, 'outputs' | 'notPromised' | 'boxes'> | undefined;
  /** Called with the items done and the total, over all passes over the data. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

export type ParsedOptions = Omit<CalibrationOptions, 'metric' | 'limits'> &
  Omit<z.output<z.ZodObject<typeof shape>>, 'limits'> & {
    readonly metric: Metric;
    readonly limits: readonly number[];
    /** Of the lowest limit, and those by other metrics that are promised with it. */
    readonly promises: readonly [Limit, ...Limit[]];
  };

/**
 * The options with their defaults.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function parseOptions(options: CalibrationOptions): ParsedOptions {
  checkConflicts({ ...options });
  const parsed = parseStrict(z.looseObject(shape), options);
  const several = limitsByMetric(parsed.limits);
  if (several) {
    const [{ metric, limit }] = several;
    return { ...options, ...parsed, limits: [limit], metric, promises: several };
  }
  const { metric = 'disagreement', maxDisagreement = DEFAULT_LIMIT } = parsed;
  const limits = (parsed.limits as readonly number[] | undefined) ?? [maxDisagreement];
  const promises = [{ metric, limit: Math.min(...limits) }] as const;
  return { ...options, ...parsed, limits, metric, promises };
}
