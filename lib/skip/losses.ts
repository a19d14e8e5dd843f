/**
 * What of an item's outputs a promise is about, and how far that is from what the full network answers: one pair of functions for each
 * metric, which calibration, evaluation and the monitor share. See docs/tasks.md.
 */
import { ResidualSkipError } from '../errors.js';
import { sizeOf } from '../numeric/shapes.js';
import { argMax } from '../numeric/softmax.js';
import { mean } from '../numeric/statistics.js';
import { cosineDistance, relativeError } from '../numeric/vectors.js';
import { boxReader, unmatched } from './boxes.js';
import type { Form, Part, Reader } from './parts.js';
import {
  type Boxes,
  DEFAULT_BOXES,
  isOfLabels,
  isOfNumbers,
  isOfPixels,
  type Limit,
  type Metric,
  maxLoss,
  partsOf,
} from './promise.js';
import { probabilities, totalVariation } from './scores.js';

/** How far what was read is from the full network's; in [0, maxLoss(metric)]. */
export type Loss = (skipping: Float32Array, full: Float32Array) => number;

/** Index of the largest score; -1 when any is NaN. */
export function answerOf(scores: Float32Array): number {
  return scores.some(Number.isNaN) ? -1 : argMax(scores);
}

const BOX_ROWS = 'boxes, floats [boxes, 4], with scores, floats [boxes] or [boxes, classes],';
const ROW = 'a row of two scores or more, floats [scores]';
const EXPECTED_BOXES: Readonly<Record<Boxes['form'], string>> = {
  ...{ corners: BOX_ROWS, centres: BOX_ROWS, detr: BOX_ROWS },
  yolo: 'one output, floats [4 + classes, boxes],',
  yolov5: 'one output, floats [boxes, 5 + classes],',
};
/** Most scores whose pairs are compared. */
const MAX_RANKED = 2000;

/**
 * @param boxes for the metric `boxes`
 * @returns what the loss of the metric takes: numbers as they are, or classes of pixels and tokens, or rows of a box each
 * @throws ResidualSkipError INVALID_ARGUMENT when outputs of this form can't be read so
 */
export function readerOf(metric: Metric, form: readonly Form[], boxes = DEFAULT_BOXES): Reader {
  const { name, at } = partsOf(metric);
  const [first, ...others] = form as [Form, ...Form[]];
  if (name === 'boxes') {
    const reader = boxReader(form, boxes);
    if (reader) return reader;
    throw unreadable(metric, EXPECTED_BOXES[boxes.form], form);
  }
  if (name === 'excess' && at === 0) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `metric: '${metric}' is in units of its tolerance; take one above 0`,
    );
  }
  if (name === 'absolute' || name === 'excess' || name === 'relative') return joined;
  if (others.length > 0) throw unreadable(metric, 'one output', form);
  const size = sizeOf(first.dims);
  switch (name) {
    case 'cosine':
    case 'recall':
      if (size < 2) {
        const reason = 'is about angles of vectors, but the output is a single number';
        throw new ResidualSkipError(
          'INVALID_ARGUMENT',
          `metric: '${metric}' ${reason}; take absolute@TOLERANCE or relative`,
        );
      }
      return joined;
    case 'labels':
    case 'missed':
    case 'added':
      if (first.whole || first.dims[0] !== size)
        throw unreadable(metric, 'a row of scores, floats [labels]', form);
      return ([part]) => Float32Array.from(part!.data, (score) => above(score, at!));
    case 'pixels':
    case 'miou':
      if (!isMap(first))
        throw unreadable(metric, 'a map, floats [classes, height, width] or integers [height, width]', form);
      return ([part]) => (first.whole ? joined([part!]) : alongFirst(part!, at!));
    case 'tokens':
    case 'ctc':
      if (first.dims.length !== (first.whole ? 1 : 2))
        throw unreadable(metric, 'tokens, floats [tokens, classes] or integers [tokens]', form);
      return ([part]) => (first.whole ? joined([part!]) : alongLast(part!));
    case 'custom':
      return joined;
    case 'probability':
      if (!isRow(first)) throw unreadable(metric, ROW, form);
      return ([part]) => Float32Array.from(probabilities(part!.data, part!.meaning));
    default:
      // Classes and rankings.
      if (!isRow(first) || (name === 'ranking' && size > MAX_RANKED)) throw unreadable(metric, ROW, form);
      return joined;
  }
}

function unreadable(metric: Metric, expected: string, form: readonly Form[]): ResidualSkipError {
  const found = form
    .map(({ dims, whole }) => `${whole ? 'integers' : 'floats'} [${dims.join(', ')}]`)
    .join(' and ');
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    `metric: '${metric}' reads ${expected} of each item, but the network answers ${found}; take another metric, or name the output ` +
      '(outputs, --outputs)',
  );
}

const isRow = ({ dims, whole }: Form) => !whole && dims[0]! > 1 && dims[0] === sizeOf(dims);
const isMap = ({ dims, whole }: Form) => (whole ? dims.length === 2 || dims.length === 3 : dims.length === 3);

/** All numbers of all parts. */
function joined(parts: readonly Part[]): Float32Array {
  if (parts.length === 1 && parts[0]!.data instanceof Float32Array) return parts[0]!.data;
  return Float32Array.from(parts.flatMap(({ data }) => Array.from(data, Number)));
}

const above = (score: number, threshold: number) =>
  Number.isNaN(score) ? Number.NaN : Number(score > threshold);

/** The best class of each place; of a single channel, whether it is above the threshold. */
function alongFirst({ data, dims }: Part, threshold: number): Float32Array {
  const [classes = 1] = dims;
  const places = data.length / classes;
  if (classes === 1) return Float32Array.from(data, (score) => above(score, threshold));
  return best(places, classes, (place, c) => data[c * places + place]!);
}

/** The best class of each token. */
function alongLast({ data, dims }: Part): Float32Array {
  const classes = dims.at(-1)!;
  return best(data.length / classes, classes, (place, c) => data[place * classes + c]!);
}

/** NaN where a score is NaN. */
function best(places: number, classes: number, scoreOf: (place: number, c: number) => number): Float32Array {
  const found = new Float32Array(places);
  for (let place = 0; place < places; place++) {
    let [index, most] = [0, scoreOf(place, 0)];
    for (let c = 1; c < classes; c++) {
      const score = scoreOf(place, c);
      if (score > most || Number.isNaN(score)) [index, most] = [c, score];
    }
    found[place] = Number.isNaN(most) ? most : index;
  }
  return found;
}

const share = (values: Float32Array, counts: (value: number, i: number) => boolean) =>
  values.reduce((sum, value, i) => sum + Number(counts(value, i)), 0) / values.length;
const differing: Loss = (skipping, full) => share(full, (value, i) => value !== skipping[i]);
/** NaN where a difference is NaN. */
const largestError: Loss = (skipping, full) =>
  full.reduce((most, value, i) => Math.max(most, Math.abs(value - skipping[i]!)), 0);
const beyond = (error: number, tolerance: number) => Number(!(error <= tolerance));

/** The loss of each metric, with its parameter; NaN stands for the largest. */
const LOSSES: Readonly<Record<string, (at: number) => Loss>> = {
  disagreement: () => (skipping, full) => {
    const [answer, before] = [answerOf(skipping), answerOf(full)];
    return answer < 0 || before < 0 ? Number.NaN : Number(answer !== before);
  },
  ordinal: () => (skipping, full) => {
    const [answer, before] = [answerOf(skipping), answerOf(full)];
    return answer < 0 || before < 0 ? Number.NaN : Math.abs(answer - before) / (full.length - 1);
  },
  probability: () => (skipping, full) => totalVariation(skipping, full, 'probabilities'),
  cosine: () => cosineDistance,
  relative: (at) => (skipping, full) => {
    const error = relativeError(skipping, full);
    return Number.isNaN(at) ? error : beyond(error, at);
  },
  absolute: (at) => (skipping, full) => beyond(largestError(skipping, full), at),
  excess: (at) => (skipping, full) => Math.max(0, largestError(skipping, full) - at) / at,
  labels: () => (skipping, full) => Number(differing(skipping, full) > 0),
  missed: () => (skipping, full) => Number(full.some((label, i) => label !== 0 && skipping[i] !== 1)),
  added: () => (skipping, full) => Number(full.some((label, i) => label !== 1 && skipping[i] !== 0)),
  pixels: () => differing,
  tokens: () => differing,
  miou: () => (skipping, full) => 1 - meanOverlap(skipping, full),
  boxes: (at) => (skipping, full) => unmatched(skipping, full, at),
  ctc: (at) => (skipping, full) => {
    const [said, before] = [skipping, full].map((best) => spelled(best, at)) as [number[], number[]];
    return editDistance(said, before) / Math.max(1, said.length, before.length);
  },
  ranking: () => swappedPairs,
};

/**
 * The loss of an item by what `readerOf` read; NaN counts as the most.
 * @returns undefined for `accuracy`, `recall@k` and `custom`, which need more than an item's answers
 */
export function lossOf(metric: Metric): Loss | undefined {
  const { name, at = Number.NaN } = partsOf(metric);
  const most = maxLoss(metric);
  const loss = LOSSES[name]?.(at);
  return (
    loss &&
    ((skipping, full) => {
      const found = loss(skipping, full);
      return Number.isNaN(found) ? most : Math.min(found, most);
    })
  );
}

/** Whether two metrics can be promised together: both read the same of an item's own answer. */
export function readAlike(a: Metric, b: Metric): boolean {
  const [one, other] = [a, b].map(whatIsRead);
  return one !== undefined && one === other;
}

function whatIsRead(metric: Metric): string | undefined {
  const { name, at } = partsOf(metric);
  if (isOfLabels(metric)) return `labels above ${at}`;
  if (isOfPixels(metric)) return `classes of pixels above ${at}`;
  if (isOfNumbers(metric) && name !== 'recall') return 'numbers';
  if (name === 'tokens' || name === 'ctc') return 'tokens';
  return name === 'boxes' ? name : undefined;
}

/** Of several limits, how bad an item is: its largest loss, in units of the first limit. */
export function worstOf(
  [first, ...others]: readonly [Limit, ...Limit[]],
  lossBy: (metric: Metric) => Loss,
): Loss {
  const own = lossBy(first.metric);
  if (others.length === 0) return own;
  const more = others.map(({ metric, limit }) => ({ loss: lossBy(metric), scale: first.limit / limit }));
  return (skipping, full) =>
    Math.max(own(skipping, full), ...more.map(({ loss, scale }) => scale * loss(skipping, full)));
}

/** What the loss of an item grows with, without tolerance or bound, so that a head can learn to predict it; NaN counts as the most. Numbers that are off by one metric are by the others. */
export function distanceOf(promises: readonly [Limit, ...Limit[]]): Loss {
  const [{ metric }] = promises;
  const { name } = partsOf(metric);
  // Neighbours get lost as vectors turn.
  const distance = {
    recall: cosineDistance,
    relative: relativeError,
    absolute: largestError,
    excess: largestError,
  }[name as string];
  if (!distance) return worstOf(promises, (one) => lossOf(one)!);
  return (skipping, full) => {
    const found = distance(skipping, full);
    return Number.isNaN(found) ? maxLoss(metric) : found;
  };
}

/** The mean over the classes of either map of their intersection over their union. */
function meanOverlap(skipping: Float32Array, full: Float32Array): number {
  const counts = new Map<number, { both: number; either: number }>();
  const of = (index: number) => {
    const known = counts.get(index) ?? { both: 0, either: 0 };
    counts.set(index, known);
    return known;
  };
  for (let i = 0; i < full.length; i++) {
    if (Number.isNaN(full[i])) return Number.NaN;
    const [answer, before] = [of(skipping[i]!), of(full[i]!)];
    before.either++;
    if (answer === before) before.both++;
    else answer.either++;
  }
  return mean([...counts.values()].map(({ both, either }) => both / either));
}

/** Of the best class of each step: repeats count once, and blanks aren't said (Graves et al. 2006). */
function spelled(best: Float32Array, blank: number): number[] {
  return [...best].filter((index, i) => index !== blank && index !== best[i - 1]);
}

/** Fewest insertions, deletions and replacements (Levenshtein). */
function editDistance(a: readonly number[], b: readonly number[]): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (const [i, one] of a.entries()) {
    const next = [i + 1];
    for (const [j, other] of b.entries()) {
      next.push(Math.min(next[j]! + 1, row[j + 1]! + 1, row[j]! + Number(one !== other)));
    }
    row = next;
  }
  return row[b.length]!;
}

/** The share of the pairs whose order isn't the full network's: half of 1 less Kendall's tau where no scores are equal. */
const swappedPairs: Loss = (skipping, full) => {
  let swapped = 0;
  for (let i = 0; i < full.length; i++) {
    for (let j = 0; j < i; j++) {
      swapped += Number(Math.sign(full[i]! - full[j]!) !== Math.sign(skipping[i]! - skipping[j]!));
    }
  }
  return (2 * swapped) / (full.length * (full.length - 1));
};
