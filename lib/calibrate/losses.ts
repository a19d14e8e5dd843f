/** Answers of networks, and how far those of a policy are from those that it promises. */
import { ResidualSkipError } from '../errors.js';
import { argMax } from '../numeric/softmax.js';
import { cosineDistance, relativeError } from '../numeric/vectors.js';
import { maxLoss, type VectorMetric } from '../skip/promise.js';

export function className(index: number, labels: readonly string[] | undefined): string {
  return labels?.[index] ?? `class ${index}`;
}

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

/** Vectors of the same items, in full and with blocks left out. */
export interface Pairs {
  readonly full: readonly Float32Array[];
  readonly skipping: readonly Float32Array[];
}

/**
 * The loss of each item, in [0, maxLoss(metric)]; NaN among its numbers counts as the most.
 * @param rest where neighbours are looked for; when left out, among the other items; with the `full` of the items, never the item itself
 */
export function lossesOf(metric: VectorMetric, items: Pairs, rest?: Pairs): number[] {
  const max = maxLoss(metric);
  const bounded = (loss: number) => (Number.isNaN(loss) ? max : Math.min(loss, max));
  const each = (distance: (a: Float32Array, b: Float32Array) => number) =>
    items.full.map((vector, i) => bounded(distance(items.skipping[i]!, vector)));
  if (metric === 'cosine') return each(cosineDistance);
  if (metric === 'relative') return each(relativeError);
  const count = Number(metric.slice('recall@'.length));
  const [full, skipping] = [items.full, items.skipping].map((vectors) => vectors.map(unit));
  const among = rest ? [rest.full, rest.skipping].map((vectors) => vectors.map(unit)) : [full!, skipping!];
  return full!.map((vector, i) => {
    const own = rest && rest.full !== items.full ? -1 : i;
    const before = nearest(vector, among[0]!, count, own);
    const after = new Set(nearest(skipping![i]!, among[1]!, count, own));
    return 1 - before.filter((index) => after.has(index)).length / count;
  });
}

/** Scaled to the length 1; a vector of zeros stays. */
function unit(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
  return length > 0 ? vector.map((x) => x / length) : vector;
}

/** Indices of the `count` vectors with the largest cosine to `vector`, without `own`; of equal ones, the lower index. */
function nearest(vector: Float32Array, among: readonly Float32Array[], count: number, own: number): number[] {
  const found: number[] = [];
  const cosines: number[] = [];
  for (const [index, other] of among.entries()) {
    let cosine = 0;
    for (let c = 0; c < other.length; c++) cosine += other[c]! * vector[c]!;
    // NaN is no neighbour.
    if (index === own || Number.isNaN(cosine)) continue;
    if (found.length === count && cosine <= cosines[count - 1]!) continue;
    let place = Math.min(found.length, count - 1);
    for (; place > 0 && cosine > cosines[place - 1]!; place--) {
      [found[place], cosines[place]] = [found[place - 1]!, cosines[place - 1]!];
    }
    [found[place], cosines[place]] = [index, cosine];
  }
  return found;
}
