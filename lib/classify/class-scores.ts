/** Outputs with a score for each class, and what they say. */
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { sigmoid } from '../numeric/softmax.js';
import type { TensorMetadata } from '../session/metadata.js';
import type { InferenceSession } from '../session/session.js';
import { topClasses } from '../skip/scores.js';
import { isFloatType } from '../tensor/tensor.js';
import { late } from '../util/late.js';
import { problemTask } from './task.js';

/** Labels by class index, as a caller gives them. */
export const labelsSchema = late(() => z.array(z.string()).optional());

/** One class of an answer. */
export interface Prediction {
  /** Index of the class. */
  readonly index: number;
  /** Its label; the index as text if the model has no labels. */
  readonly label: string;
  /** 0 to 1; those of all classes add up to 1, unless an item may belong to several (`problem_type` in config.json, or a sigmoid). */
  readonly probability: number;
}

/** What predictions need to know of a classifier. */
interface Classifier {
  readonly name: string;
  readonly session: InferenceSession;
  readonly output: string;
  readonly labels: readonly string[];
}

/**
 * The `count` most probable classes by an item's scores, most probable first; ties are in the order of their indices.
 * @param problem as config.json beside the model says
 * @throws ResidualSkipError INVALID_ARGUMENT when the model's output holds no class scores
 */
export function predictions(
  { name, session, output, labels }: Classifier,
  scores: Float32Array,
  count: number,
  problem: string | undefined,
): Prediction[] {
  const { classScores } = session.context;
  if (classScores?.name !== output) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${name}: output '${output}' holds no class scores, floats [batch, classes] with two classes at least`,
    );
  }
  const { meaning } = classScores;
  // An item may belong to several classes: each logit has a sigmoid of its own.
  const apart = problemTask(problem) === 'multi-label' && meaning === 'logits';
  return topClasses(scores, meaning, count).map(([index, probability]) => ({
    index,
    label: labels[index]!,
    probability: apart ? sigmoid(scores[index]!) : probability,
  }));
}

/** The output with a score for each class: `logits`, or else the first output of floats of at least two dimensions. */
export function classOutput(
  outputs: readonly TensorMetadata[],
  labels: number | undefined,
  model: string,
  { labelsFrom }: { labelsFrom: string },
): { output: string; classes: number } {
  const fitting = outputs.filter(({ type, shape }) => isFloatType(type) && shape.length >= 2);
  const chosen = fitting.find(({ name }) => name === 'logits') ?? fitting[0];
  const declared = chosen?.shape[1];
  const classes = typeof declared === 'number' ? declared : labels;
  if (chosen === undefined || classes === undefined) {
    throw new ResidualSkipError('INVALID_ARGUMENT', `${model}: it has no output of floats [batch, classes]`);
  }
  if (labels !== undefined && labels !== classes) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `${model}: ${labelsFrom} has ${labels} labels, but output '${chosen.name}' has ${classes} classes`,
    );
  }
  return { output: chosen.name, classes };
}

/** The first output, of a network whose answers are spread over all. */
export const firstOutput: typeof answerOutput = ([first]) => ({ output: first!.name, classes: undefined });

/** Outputs with a vector for each image, which the first of all may not have. */
export const VECTORS_OF_IMAGES = ['image_embeds', 'pooler_output'] as const;

/**
 * The output with the answer of a network of any task: `logits`, or else one that is named as vectors are, or the first of floats of at
 * least two dimensions, or else the first. `classes` is undefined where it is no row of scores.
 */
export function answerOutput(
  outputs: readonly TensorMetadata[],
  labels: number | undefined,
  model: string,
  from: { labelsFrom: string },
): { output: string; classes: number | undefined } {
  const floats = outputs.filter(({ type, shape }) => isFloatType(type) && shape.length >= 2);
  const named = ['logits', ...VECTORS_OF_IMAGES].flatMap((known) =>
    floats.filter(({ name }) => name === known),
  );
  const chosen = named[0] ?? floats[0] ?? outputs[0]!;
  const row = floats.includes(chosen) && chosen.shape.slice(2).every((length) => length === 1);
  const known = labels !== undefined || typeof chosen.shape[1] === 'number';
  if (row && known && chosen.shape[1] !== 1) return classOutput(outputs, labels, model, from);
  return { output: chosen.name, classes: undefined };
}
