/** What a shadow run can test of a policy's promise: how far the answer of an item is from that of the full network. */
import { argMax } from '../numeric/softmax.js';
import { cosineDistance, relativeError } from '../numeric/vectors.js';
import type { RunEvent, TensorMap } from '../skip/observer.js';
import { isVectorMetric, type Metric, maxLoss, type Promised } from '../skip/promise.js';
import { totalVariation } from '../skip/scores.js';
import { isFloat, type Tensor, toFloat32 } from '../tensor/tensor.js';

/** What a monitor tests: that the mean loss of the metric is at most the limit. */
export interface Tested {
  readonly metric: Metric;
  /** Null where nothing is tested, only measured. */
  readonly limit: number | null;
}

/** Acceptable rate of changed answers where nothing is promised. */
const DEFAULT_LIMIT = 0.01;

/** @param maxDisagreement limit on changed answers; replaces the promise */
export function testedBy(maxDisagreement: number | undefined, promise: Promised | undefined): Tested {
  if (maxDisagreement !== undefined || !promise)
    return { metric: 'disagreement', limit: maxDisagreement ?? DEFAULT_LIMIT };
  const { metric, limit } = promise;
  // Changed answers are measured, but only labels tell which of them were right.
  return metric === 'accuracy' ? { metric: 'disagreement', limit: null } : { metric, limit };
}

/** The loss of an item, of at most maxLoss(metric), by all outputs with skipping and of the full network. */
export type ShadowLoss = (skipping: TensorMap, full: TensorMap) => number;

/** Undefined where the outputs don't tell: without class scores, or for neighbours and pooled vectors of texts. */
export function shadowLoss(
  metric: Metric,
  { context: { classScores }, inputs, outputs }: RunEvent,
): ShadowLoss | undefined {
  if (!isVectorMetric(metric)) {
    if (!classScores) return undefined;
    const { name, meaning } = classScores;
    return metric === 'probability'
      ? (skipping, full) => totalVariation(floatsOf(skipping[name]!), floatsOf(full[name]!), meaning)
      : (skipping, full) => Number(answerOf(skipping, name) !== answerOf(full, name));
  }
  const distance = { cosine: cosineDistance, relative: relativeError }[metric as string];
  const [name, ...others] = Object.keys(outputs);
  const ofTexts = !Object.values(inputs).every(isFloat);
  if (!distance || ofTexts || others.length > 0 || !isFloat(outputs[name!]!)) return undefined;
  const max = maxLoss(metric);
  return (skipping, full) => {
    const loss = distance(floatsOf(skipping[name!]!), floatsOf(full[name!]!));
    return Number.isNaN(loss) ? max : Math.min(loss, max);
  };
}

/** The best class by the output `name`. */
const answerOf = (outputs: TensorMap, name: string) => argMax(floatsOf(outputs[name]!));

function floatsOf(output: Tensor): Float32Array {
  return (isFloat(output) ? toFloat32(output) : output).data as Float32Array;
}
