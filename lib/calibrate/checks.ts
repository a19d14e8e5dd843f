/** Whether a network can be calibrated, and by which metrics. */
import { doubtOf } from '../classify/class-scores.js';
import type { DataModel } from '../classify/data-model.js';
import { ResidualSkipError } from '../errors.js';
import type { Program, ValueId } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import type { Metric } from '../skip/promise.js';
import { classScoresOf, endOf, meaningOf } from '../skip/scores.js';

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
