/** Answers of networks, and how far those of a policy are from those that it promises. */
import { ResidualSkipError } from '../errors.js';
import { answerOf, lossOf } from '../skip/losses.js';
import { isOfLabels, isOfNumbers, isVectorMetric, type Limit, type Metric } from '../skip/promise.js';

export function className(index: number, labels: readonly string[] | undefined): string {
  return labels?.[index] ?? `class ${index}`;
}

/** @throws ResidualSkipError INVALID_DATA when the network answers NaN */
export function checkedAnswer(scores: Float32Array): number {
  const answer = answerOf(scores);
  if (answer >= 0) return answer;
  throw unanswered('NaN');
}

function unanswered(what: string): ResidualSkipError {
  return new ResidualSkipError(
    'INVALID_DATA',
    `model: it answers ${what} for an item; check its weights, the data and the preprocessing`,
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

/**
 * The same of what is promised of items, as the metric reads it.
 * @throws ResidualSkipError INVALID_DATA when all are the same, or one isn't a number
 */
export function checkFull(
  metric: Metric,
  full: readonly Float32Array[],
  name: (index: number) => string,
): void {
  if (metric === 'custom') return;
  if (!isVectorMetric(metric)) {
    checkAnswers(full.map(checkedAnswer), name);
    return;
  }
  const unusable = isOfNumbers(metric) ? (x: number) => !Number.isFinite(x) : Number.isNaN;
  if (full.some((one) => one.some(unusable)))
    throw unanswered(isOfNumbers(metric) ? 'NaN or an infinity' : 'NaN');
  const [first, ...others] = full;
  if (!first || others.length === 0) return;
  const isFirst = (one: Float32Array) => one.length === first.length && one.every((x, i) => x === first[i]);
  if (!others.every(isFirst)) return;
  const what = first.some((x) => x !== 0) ? '' : isOfLabels(metric) ? ', no label' : ', nothing';
  throw new ResidualSkipError(
    'INVALID_DATA',
    `data: the network gives all ${full.length} items that order settings the same answer${what}, and a policy that saw one answer ` +
      'promises nothing for others; give items with all answers to expect, and check the preprocessing, and the threshold if there is one',
  );
}

/** What is promised of the same items, in full and with blocks left out. */
export interface Pairs {
  readonly full: readonly Float32Array[];
  readonly skipping: readonly Float32Array[];
  /** For losses that need more than an item's answers, `accuracy` and `custom`. */
  readonly lossOf?: ((skipping: Float32Array, full: Float32Array, index: number) => number) | undefined;
}

/**
 * The loss of each item, in [0, maxLoss(metric)], or -1 where `accuracy` gains an answer; NaN among its numbers counts as the most.
 * @param database where neighbours are looked for: vectors of the full network; when left out, those of the other items
 */
export function lossesOf(
  metric: Metric,
  { full, skipping, lossOf: own }: Pairs,
  database?: readonly Float32Array[],
): number[] {
  const loss = own ?? lossOf(metric);
  if (loss) return full.map((before, i) => loss(skipping[i]!, before, i));
  const count = Number(metric.slice('recall@'.length));
  const among = (database ?? full).map(unit);
  return full.map((vector, i) => {
    // Most items answer as in full, and searching takes long.
    if (vector.every((x, k) => x === skipping[i]![k])) return 0;
    const own = database ? -1 : i;
    const before = nearest(vector, among, count, own);
    const after = new Set(nearest(skipping[i]!, among, count, own));
    return 1 - before.filter((index) => after.has(index)).length / count;
  });
}

/** Of several limits, how bad each item is: its largest loss, in units of the first limit. */
export function worstLossesOf([first, ...others]: readonly [Limit, ...Limit[]], pairs: Pairs): number[] {
  const losses = lossesOf(first.metric, pairs);
  for (const { metric, limit } of others) {
    for (const [i, loss] of lossesOf(metric, pairs).entries())
      losses[i] = Math.max(losses[i]!, (loss * first.limit) / limit);
  }
  return losses;
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
