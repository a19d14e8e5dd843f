import { probabilities } from '../skip/scores.js';

/** One class of an answer. */
export interface Prediction {
  readonly index: number;
  readonly label: string;
  readonly probability: number;
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
