/** Checks before a calibration runs anything. */
import { doubtOf } from '../classify/class-scores.js';
import type { DataModel } from '../classify/data-model.js';
import { ResidualSkipError } from '../errors.js';
import type { Program, ValueId } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import type { Metric } from '../skip/promise.js';
import { classScoresOf, endOf, meaningOf } from '../skip/scores.js';
import type { Rule } from './certify.js';
import type { CalibrationItem, CalibrationOptions } from './options.js';
import type { Programs } from './programs.js';
import { checkFraction } from './risk.js';

const DEFAULTS = { maxDisagreement: 0.01, confidence: 0.95, metric: 'disagreement' } as const;

/**
 * What to promise for each limit, the lowest first. Each of several limits is tested at an equal share of the error
 * that `confidence` leaves, so by Bonferroni's inequality all promises hold together with that confidence.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function rulesOf(options: CalibrationOptions): readonly [Rule, ...Rule[]] {
  const { budget, budgetMs, maxDisagreement, confidence = DEFAULTS.confidence } = options;
  const { limits = [maxDisagreement ?? DEFAULTS.maxDisagreement] } = options;
  if (options.limits && maxDisagreement !== undefined) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      'limits: they exclude maxDisagreement; give one of the two',
    );
  }
  for (const limit of limits) checkFraction(options.limits ? 'limits' : 'maxDisagreement', limit);
  checkFraction('maxGroupDisagreement', options.maxGroupDisagreement ?? DEFAULTS.maxDisagreement);
  checkFraction('confidence', confidence);
  if (budget !== undefined) checkFraction('budget', budget);
  if (budgetMs !== undefined && !(budgetMs > 0)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `budgetMs: expected a time above 0, received ${budgetMs}`,
    );
  }
  const limited = [
    maxDisagreement,
    options.limits,
    options.maxGroupDisagreement,
    options.perClass || undefined,
  ];
  const asked = [budget, budgetMs, limited.find((value) => value !== undefined)];
  if (asked.filter((value) => value !== undefined).length > 1) throw budgetAlone();
  const [lowest, ...higher] = [...new Set(limits)].sort((a, b) => a - b);
  if (lowest === undefined)
    throw new ResidualSkipError('INVALID_ARGUMENT', 'limits: expected at least one limit');
  const promises = 1 + higher.length;
  const ruleOf = (limit: number): Rule => ({
    metric: options.metric ?? DEFAULTS.metric,
    limit,
    groupLimit: options.maxGroupDisagreement ?? limit,
    delta: (1 - confidence) / promises,
    ...(promises > 1 && { joint: { promises, confidence } }),
  });
  return [ruleOf(lowest), ...higher.map(ruleOf)];
}

function budgetAlone(): ResidualSkipError {
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    'budget: it replaces limits; give only one of budget, budgetMs and limits (maxDisagreement, limits, ' +
      'maxGroupDisagreement, perClass, groups of items)',
  );
}

/**
 * Images of `fit` can order the settings of a model's own exits: they have no labels, and a budget must be kept on fresh items.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function checkOrdering({ metric, budget, budgetMs }: CalibrationOptions): void {
  const limited = budget ?? budgetMs;
  if (limited === undefined && metric !== 'accuracy') return;
  const reason =
    limited === undefined
      ? "they have no labels, which the metric 'accuracy' needs"
      : 'a budget has to be kept on images of the data';
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `fit: the model has exits of its own, whose settings its images would order, but ${reason}; omit it`,
  );
}

/** @throws ResidualSkipError UNSUPPORTED_MODEL when nothing can be skipped */
export function checkSkippable({ blocks }: Program): void {
  if (blocks.some(({ skippable }) => skippable)) return;
  throw new ResidualSkipError(
    'UNSUPPORTED_MODEL',
    `model: none of its ${blocks.length} residual blocks has an identity shortcut, so none can be skipped; ` +
      '`inspect` shows the blocks',
  );
}

/** @throws ResidualSkipError UNSUPPORTED_MODEL when nothing can be skipped, or the output is not class scores */
export function checkProgram(program: Program, reference?: Program): void {
  if (!reference) checkSkippable(program);
  const { inputs, outputs, values } = program;
  const shape = outputs[0] && values[outputs[0].value]!.shape;
  if (inputs.length < 1 || outputs.length !== 1 || shape?.length !== 2) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      'model: calibration needs an image or texts as its input, and one output of class scores, float32 [batch, classes]',
    );
  }
}

/**
 * Checks that the network's answers are classes, as a metric about changed answers needs.
 * @param labelled whether the labels of the data are read
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function checkClasses(metric: Metric, model: DataModel, program: Program, labelled: boolean): void {
  // Right answers need labels, and an item without one is refused by itself.
  const doubt = doubtOf(model, classScoresOf(program), labelled || metric === 'accuracy');
  if (!doubt) return;
  const { value } = program.outputs.find(({ name }) => name === model.output)!;
  const others = sizeOf(program.values[value]!.shape) === 1 ? 'relative' : 'cosine, relative or recall@10';
  const remedy = doubt.remedy ? `, or, ${doubt.remedy}` : '';
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `metric: '${metric}' is about classes, but ${doubt.reason}; take ${others}${remedy}`,
  );
}

/**
 * Checks that two networks answer the same question.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function checkReference(program: Program, reference: Program): void {
  const described = (one: Program) => {
    const shapes = (ports: Program['inputs']) =>
      ports.map(({ value }) => `[${one.values[value]!.shape.join(', ')}]`).join(', ');
    // Both are probabilities, but only one is of classes that exclude each other.
    const meaning = (value: ValueId) =>
      endOf(one, value) === 'sigmoid' ? 'probabilities by a sigmoid' : meaningOf(one, value);
    const meanings = one.outputs.map(({ value }) => meaning(value)).join(', ');
    return `${shapes(one.inputs)} to ${meanings} ${shapes(one.outputs)}`;
  };
  const [own, other] = [program, reference].map(described);
  if (own === other) return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `reference: it takes ${other}, but the model takes ${own}; give the float network that the model was made from`,
  );
}

/**
 * The items without duplicates: copies would wrongly count as independent evidence.
 * @throws ResidualSkipError INVALID_SHAPE, INVALID_DATA when an item doesn't fit the model or lacks a required label
 */
export function distinctItems(
  items: readonly CalibrationItem[],
  { main: { inputs, outputs, values }, shapes }: Programs,
  options: CalibrationOptions,
): CalibrationItem[] {
  const { metric = DEFAULTS.metric, labels } = options;
  const budget = options.budget ?? options.budgetMs;
  const size = sizeOf(values[inputs[0]!.value]!.shape);
  const classes = values[outputs[0]!.value]!.shape[1]!;
  const invalid = (why: string) => new ResidualSkipError('INVALID_DATA', why);
  if (labels && labels.length !== classes) {
    throw invalid(`labels: there are ${labels.length}, but the model has ${classes} classes`);
  }
  const known = new Map<string, CalibrationItem>();
  for (const [i, item] of items.entries()) {
    const { input, sha256, label, groups = [] } = item;
    if (budget !== undefined && groups.length > 0) throw budgetAlone();
    if (!shapes && input.length !== size) {
      throw new ResidualSkipError(
        'INVALID_SHAPE',
        `item ${i}: it has ${input.length} values, but the model takes ${size}; prepare all images to one size`,
      );
    }
    if (label === undefined && metric === 'accuracy') {
      throw invalid(`metric: 'accuracy' needs a label for every item, but item ${i} has none`);
    }
    if (label !== undefined && !(Number.isInteger(label) && label >= 0 && label < classes)) {
      throw invalid(`item ${i}: its label is ${label}, but the model's classes are 0 to ${classes - 1}`);
    }
    if (!known.has(sha256)) known.set(sha256, item);
  }
  return [...known.values()];
}

/**
 * @param answers of the full network, by class index
 * @throws ResidualSkipError INVALID_DATA when all are the same
 */
export function checkAnswers(answers: readonly number[], name: (index: number) => string): void {
  if (answers.length === 0 || answers.some((answer) => answer !== answers[0])) return;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `images: the network gives all ${answers.length} the same answer, '${name(answers[0]!)}', and a policy that saw one class ` +
      'promises nothing for the others; give images of all classes to expect, and check the preprocessing',
  );
}
