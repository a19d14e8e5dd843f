/** What class scores say. */

/** Index of the largest score; the first of equals. */
export function argMax(scores: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[best]!) best = i;
  return best;
}

/** Probabilities that the softmax gives to scores. */
export function softmax(scores: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(scores);
  const largest = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const exponentials = values.map((value) => Math.exp(value - largest));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / sum);
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
