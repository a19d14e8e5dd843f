/** Whether a network can be calibrated, and by which metrics. */

import type { DataModel } from '../classify/data-model.js';
import {
  architectureTask,
  defaultMetric,
  doubtOf,
  metricsInstead,
  provenTask,
  TASKS,
  type TaskName,
} from '../classify/task.js';
import { ResidualSkipError } from '../errors.js';
import { NONE, type Program, type ValueId } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { readAlike } from '../skip/losses.js';
import {
  complete,
  DEFAULT_BOXES,
  isOfPixels,
  isVectorMetric,
  type Limit,
  type Metric,
  type Promised,
  partsOf,
} from '../skip/promise.js';
import { classScoresOf, endOf, meaningOf } from '../skip/scores.js';
import { suggest } from '../util/suggest.js';
import { exitPoints } from './fit/exit-points.js';
import { type CalibrateOptions, limitsByMetric } from './options.js';
import { hasGates } from './task.js';

/** @throws ResidualSkipError UNSUPPORTED_MODEL when nothing can be skipped */
export function checkSkippable({ blocks }: Program): void {
  if (blocks.some(({ skippable }) => skippable)) return;
  throw new ResidualSkipError(
    'UNSUPPORTED_MODEL',
    `model: none of its ${blocks.length} residual blocks has an identity shortcut, so none can be skipped; ` +
      '`inspect` shows the blocks',
  );
}

/**
 * @param anyway answers can change even if no block can be skipped: there is an original, a front, or an exit of the model's own
 * @throws ResidualSkipError UNSUPPORTED_MODEL when nothing can be skipped, or the output is not class scores
 */
export function checkProgram(program: Program, anyway: boolean): void {
  if (!anyway) checkSkippable(program);
  const { inputs, outputs, values } = program;
  const shape = outputs[0] && values[outputs[0].value]!.shape;
  if (inputs.length < 1 || outputs.length !== 1 || shape?.length !== 2) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      'model: calibration needs an image or texts as its input, and one output of class scores, float32 [batch, classes]',
    );
  }
}

/** What is promised: by which metric, of which outputs. */
export interface Promisable extends Pick<Promised, 'outputs' | 'notPromised' | 'boxes'> {
  readonly metric: Metric;
  /** As they were asked for; by metric, with the thresholds that were left out, and the first of them is `metric`. */
  readonly limits: CalibrateOptions['limits'];
  /** Indices of the outputs that are promised, among the program's. */
  readonly indices: readonly number[];
  /** Whether the same blocks are left out for all items; otherwise there are exits. */
  readonly byBlocks: boolean;
}

/**
 * What to promise of a network: what is asked for, or what its answers are proven to be.
 * @param labelled whether the labels of the data are read
 * @throws ResidualSkipError INVALID_ARGUMENT when nothing says what the answers are, or a metric doesn't fit them
 */
export function promisable(
  asked: CalibrateOptions,
  opened: DataModel,
  program: Program,
  labelled: boolean,
): Promisable {
  const names = opened.session.outputNames;
  // Behind the program, stages make outputs whose lengths only a run knows.
  const staged = names.some((name) => !program.outputs.some((output) => output.name === name));
  const unknown = asked.outputs?.find((name) => !names.includes(name));
  if (unknown !== undefined)
    throw refused(`outputs: the model has no output '${unknown}'; ${suggest(unknown, names)}`);
  // What is known of one output says nothing of another.
  const model = { ...opened, output: asked.outputs?.[0] ?? opened.output };
  const several = limitsByMetric(asked.limits);
  if (several && asked.metric !== undefined)
    throw refused('limits: they name the metrics themselves; omit metric, or give a list of limits for it');
  const task = model.task ?? (asked.loss && asked.metric === undefined ? 'custom' : undefined);
  const given =
    several?.[0].metric ??
    asked.metric ??
    defaultMetric(task ?? (staged ? namedTask(model) : inferred(model, program, labelled)));
  for (const { metric } of several ?? [{ metric: given }]) checkTask(task, metric);
  checkLoss(given, asked);
  if (staged && (!isVectorMetric(given) || given === 'custom')) {
    throw refused(
      `metric: '${given}' needs answers of known lengths, but those of ${model.name} depend on the input; take boxes for a detector`,
    );
  }
  if (!isVectorMetric(given)) checkClasses(given, model, program, labelled);
  const all = given === 'custom' || partsOf(given).name === 'boxes';
  const outputs = asked.outputs ?? (all ? names : [model.output]);
  const indices = outputs.map((name) => names.indexOf(name));
  const value = staged ? NONE : program.outputs[indices[0]!]!.value;
  const channels = program.values[value]?.shape[1] ?? 1;
  const byChannel = isOfPixels(given) && channels > 1;
  const completed = (one: Metric) =>
    byChannel ? one : complete(one, !staged && meaningOf(program, value) === 'probabilities' ? 0.5 : 0);
  const metric = completed(given);
  const others = names.filter((name) => !outputs.includes(name));
  const boxes = {
    ...DEFAULT_BOXES,
    ...(asked.boxes && { form: asked.boxes }),
    ...(asked.score !== undefined && { score: asked.score }),
  };
  return {
    limits: several ? togetherOf(several, completed) : asked.limits,
    ...{ metric, indices, byBlocks: staged || leavesOutBlocks(metric, program, asked) },
    ...(names.length > 1 && { outputs: [...outputs] }),
    ...(others.length > 0 && { notPromised: others }),
    ...(partsOf(metric).name === 'boxes' && { boxes }),
  };
}

function checkTask(task: TaskName | undefined, metric: Metric): void {
  const instead = task && metricsInstead(task, metric);
  if (instead !== undefined)
    throw refused(`metric: '${metric}' isn't about the task ${task}; take ${instead}`);
}

function checkLoss(metric: Metric, { loss }: CalibrateOptions): void {
  if ((metric === 'custom') === (loss !== undefined)) return;
  throw refused(
    loss
      ? `loss: it is for the metric 'custom', not for '${metric}'; omit one of them`
      : "loss: the metric 'custom' needs it; give a function (full, skipped, item) => 0 to 1",
  );
}

/** Limits by metric, completed. @throws ResidualSkipError INVALID_ARGUMENT for metrics that don't go together */
function togetherOf(
  several: readonly Limit[],
  completed: (metric: Metric) => Metric,
): CalibrateOptions['limits'] {
  const [first, ...others] = several.map(({ metric }) => completed(metric)) as [Metric, ...Metric[]];
  const other = others.find(
    (metric, i) => !readAlike(first, metric) || [first, ...others].indexOf(metric) !== i + 1,
  );
  if (other === undefined)
    return Object.fromEntries(several.map(({ metric, limit }) => [completed(metric), limit]));
  throw refused(
    `limits: '${first}' and '${other}' can't be promised together: different metrics can that read an item's answer alike, as missed and ` +
      'added at one threshold, or relative and absolute@TOLERANCE; make a policy for each',
  );
}

/** Whether blocks are left out for all items: exits can't give the answers that are promised, or there is no place for one. */
function leavesOutBlocks(metric: Metric, main: Program, options: CalibrateOptions): boolean {
  if (isVectorMetric(metric) || main.outputs.length > 1) return true;
  const { fit, original, guards, budget, perClass } = options;
  const needsClasses =
    main.ownExits || hasGates(main) || fit || original || guards || perClass || budget !== undefined;
  return !needsClasses && main.blocks.some(({ skippable }) => skippable) && exitPoints(main, 0).length === 0;
}

/** What the files beside a network with stages say; nothing in its program does. */
function namedTask({ architecture, name }: DataModel): TaskName {
  const named = architectureTask(architecture);
  if (named) return named;
  throw refused(`task: nothing says what the outputs of ${name} are; say so, --task (task) detection`);
}

/** @throws ResidualSkipError INVALID_ARGUMENT, with the way out */
function inferred(model: DataModel, program: Program, labelled: boolean): TaskName {
  if (!doubtOf(model, classScoresOf(program, model.output), labelled)) return 'single-label';
  const proven = provenTask(model, program);
  if (proven) return proven;
  throw refused(
    `task: nothing says what output '${model.output}' of ${model.name} is: the graph doesn't end in a softmax, a sigmoid or a ` +
      'normalisation of several values, no config.json beside it has problem_type, architectures or id2label, and no labels of the data ' +
      `were read; say so, --task (task) ${TASKS.join(', ')}; or give a metric, as --metric absolute@TOLERANCE for numbers`,
  );
}

function refused(message: string): ResidualSkipError {
  return new ResidualSkipError('INVALID_ARGUMENT', message);
}

/**
 * Checks that the network's answers are classes, as a metric about changed answers needs.
 * @param labelled whether the labels of the data are read
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function checkClasses(metric: Metric, model: DataModel, program: Program, labelled: boolean): void {
  // Right answers need labels, and an item without one is refused by itself.
  const doubt = doubtOf(model, classScoresOf(program, model.output), labelled || metric === 'accuracy');
  if (!doubt) return;
  const { value } = program.outputs.find(({ name }) => name === model.output)!;
  const others =
    sizeOf(program.values[value]!.shape) === 1
      ? 'absolute@TOLERANCE or relative'
      : 'cosine, relative or recall@10';
  const remedy = doubt.remedy ? `, or, ${doubt.remedy}` : '';
  throw refused(`metric: '${metric}' is about classes, but ${doubt.reason}; take ${others}${remedy}`);
}

/**
 * Checks that two networks answer the same question.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function checkOriginal(program: Program, original: Program): void {
  const described = (one: Program) => {
    const shapes = (ports: Program['inputs']) =>
      ports.map(({ value }) => `[${one.values[value]!.shape.join(', ')}]`).join(', ');
    // Both are probabilities, but only one is of classes that exclude each other.
    const meaning = (value: ValueId) =>
      endOf(one, value) === 'sigmoid' ? 'probabilities by a sigmoid' : meaningOf(one, value);
    const meanings = one.outputs.map(({ value }) => meaning(value)).join(', ');
    return `${shapes(one.inputs)} to ${meanings} ${shapes(one.outputs)}`;
  };
  const [own, other] = [program, original].map(described);
  if (own === other) return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `original: it takes ${other}, but the model takes ${own}; give the float network that the model was made from`,
  );
}
