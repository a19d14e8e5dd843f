/** What a shadow run can test of a policy's promise: how far the answer of an item is from that of the full network. */

import type { RunEvent } from '../skip/observer.js';
import { type Limit, type Metric, type Promised, partsOf } from '../skip/promise.js';
import { type CustomLoss, type RunLoss, runLoss } from '../skip/run-loss.js';
import { isFloat } from '../tensor/tensor.js';

/** What a monitor tests: that the mean loss of the metric is at most the limit. */
export type Tested = Pick<Limit, 'metric'> & {
  /** Null where nothing is tested, only measured. */
  readonly limit: number | null;
};

/** Acceptable rate of changed answers where nothing is promised. */
const DEFAULT_LIMIT = 0.01;

/** @param maxDisagreement limit on changed answers; replaces the promise */
export function testedBy(
  maxDisagreement: number | undefined,
  promise: Promised | undefined,
): readonly [Tested, ...Tested[]] {
  if (maxDisagreement !== undefined || !promise)
    return [{ metric: 'disagreement', limit: maxDisagreement ?? DEFAULT_LIMIT }];
  const { metric, limit, also = [] } = promise;
  const others = also.map((one) => ({ metric: one.metric, limit: one.limit }));
  // Changed answers are measured, but only labels tell which of them were right.
  return metric === 'accuracy' ? [{ metric: 'disagreement', limit: null }] : [{ metric, limit }, ...others];
}

/** What an item's outputs alone don't tell of a text: its vector is pooled from them, and some tokens only fill it up. */
const NOT_OF_TEXTS = ['cosine', 'relative', 'absolute', 'excess', 'tokens', 'ctc'];

/**
 * Undefined where the outputs don't tell: without class scores, for neighbours, for what is made of the outputs of texts, and for a loss
 * of the caller's that isn't given.
 * @param promise of the metric, if the policy promises it
 */
export function shadowLoss(
  metric: Metric,
  { context: { classScores }, inputs, outputs }: RunEvent,
  promise: Pick<Promised, 'outputs' | 'boxes'> | undefined,
  custom: CustomLoss | undefined,
): RunLoss | undefined {
  const ofTexts = !Object.values(inputs).some(isFloat) && NOT_OF_TEXTS.includes(partsOf(metric).name);
  return ofTexts ? undefined : runLoss({ ...promise, metric }, Object.keys(outputs), classScores, custom);
}
