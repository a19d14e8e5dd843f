/** The answer of class scores, and the distance between answers. */
import { ResidualSkipError } from '../errors.js';
import { argMax } from '../numeric/softmax.js';
import { type Meaning, probabilities } from '../skip/scores.js';

/** Index of the largest score; -1 when any is NaN. */
export function answerOf(scores: Float32Array): number {
  return scores.some(Number.isNaN) ? -1 : argMax(scores);
}

/** @throws ResidualSkipError INVALID_DATA when the network answers NaN */
export function checkedAnswer(scores: Float32Array): number {
  const answer = answerOf(scores);
  if (answer >= 0) return answer;
  throw new ResidualSkipError(
    'INVALID_DATA',
    'model: it answers NaN for an item; check its weights and the preprocessing',
  );
}

/**
 * Half the sum of the differences between the probabilities of two rows of class scores, in [0, 1]. NaN scores have
 * the largest distance from any others.
 */
export function totalVariation(a: Float32Array, b: Float32Array, meaning: Meaning): number {
  const [p, q] = [probabilities(a, meaning), probabilities(b, meaning)];
  const distance = p.reduce((sum, value, i) => sum + Math.abs(value - q[i]!), 0) / 2;
  return Number.isNaN(distance) ? 1 : Math.min(1, distance);
}
