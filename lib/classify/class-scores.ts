/** Outputs with a score for each class, and what they say. */
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import type { TensorMetadata } from '../session/metadata.js';
import type { InferenceSession } from '../session/session.js';
import { type ClassScores, topClasses } from '../skip/scores.js';
import { isFloatType } from '../tensor/tensor.js';

/** One class of an answer. */
export interface Prediction {
  /** Index of the class. */
  readonly index: number;
  /** Its label; the index as text if the model has no labels. */
  readonly label: string;
  /** 0 to 1. */
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
 * @throws ResidualSkipError INVALID_ARGUMENT when the model's output holds no class scores
 */
export function predictions(
  { name, session, output, labels }: Classifier,
  scores: Float32Array,
  count: number,
): Prediction[] {
  const { classScores } = session.context;
  if (classScores?.name !== output) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${name}: output '${output}' holds no class scores, floats [batch, classes] with two classes at least`,
    );
  }
  return topClasses(scores, classScores.meaning, count).map(([index, probability]) => ({
    index,
    label: labels[index]!,
    probability,
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

/** What the caller knows of a network's answers. */
export interface TaskOptions {
  /**
   * `classes`: each item belongs to one class, that of the largest score. Needed only where nothing else says so: a softmax at the
   * network's end, `id2label` in config.json beside it, labels of the data, or an output called logits, probabilities or scores.
   */
  readonly task?: 'classes' | undefined;
}

/** Schema fields of TaskOptions. */
export const taskShape = { task: z.literal('classes').optional() };

/** Names of outputs that say what they hold. */
const TELLING = ['logits', 'probabilities', 'scores'];
/** What config.json calls networks whose answer isn't one class. */
const OTHER_PROBLEMS = ['regression', 'multi_label_classification'];

/** What is known of a network's answers. */
interface Answers extends TaskOptions {
  readonly name: string;
  readonly output: string;
  /** Null for a network without classes. */
  readonly labels: readonly string[] | null;
  readonly labelsKnown: boolean;
  /** As config.json beside it says. */
  readonly problem: string | undefined;
}

/** Why a network's answers can't be compared as classes. */
export interface Doubt {
  readonly reason: string;
  /** How the caller can settle it; undefined where the network has no class scores. */
  readonly remedy: string | undefined;
}

/**
 * Why nothing says that each item belongs to the class of its largest score; undefined where something does.
 * @param scores the output with class scores; null if there is none
 * @param labelled whether the data has labels
 */
export function doubtOf(
  { name, output, labels, labelsKnown, problem, task }: Answers,
  scores: Pick<ClassScores, 'name' | 'end'> | null,
  labelled: boolean,
): Doubt | undefined {
  const what = `output '${output}' of ${name}`;
  if (scores?.name !== output) {
    const reason = labels ? `${what} isn't a row of two scores or more for each item` : `${name} has none`;
    return { reason, remedy: undefined };
  }
  if (task === 'classes') return undefined;
  const remedy = "if an item's class is that of the largest score, say so (--task classes, task: 'classes')";
  if (!labels) return { reason: `${name} has none`, remedy };
  if (scores.end === 'sigmoid') {
    return { reason: `${what} ends in a sigmoid, whose classes don't exclude each other`, remedy };
  }
  if (problem !== undefined && OTHER_PROBLEMS.includes(problem)) {
    return { reason: `config.json beside ${name} says problem_type ${problem}`, remedy };
  }
  if (scores.end === 'softmax' || labelsKnown || labelled || TELLING.includes(output)) return undefined;
  const reason =
    `nothing says that ${what} holds class scores: it doesn't end in a softmax, isn't called logits, probabilities or scores, ` +
    'no config.json beside it has id2label, and no labels of the data were read';
  return { reason, remedy };
}
