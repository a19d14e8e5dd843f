import { softmax } from '../skip/scores.js';

/** One class of an answer. */
export interface Prediction {
  readonly index: number;
  readonly label: string;
  readonly probability: number;
}

/**
 * Probabilities of the classes: the softmax of the scores, or the scores themselves where the network ends in a
 * softmax of its own (none negative, and their sum is 1).
 */
export function probabilities(scores: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(scores);
  const total = values.reduce((sum, value) => sum + value, 0);
  if (Math.abs(total - 1) < 1e-3 && values.every((value) => value >= 0)) return values;
  return softmax(values);
}

/** The `count` most probable classes, most probable first; equals in order of index. */
export function topClasses(
  scores: ArrayLike<number>,
  labels: readonly string[],
  count: number,
): Prediction[] {
  return Array.from(probabilities(scores), (probability, index) => ({
    index,
    label: labels[index]!,
    probability,
  }))
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
    .slice(0, count);
}
