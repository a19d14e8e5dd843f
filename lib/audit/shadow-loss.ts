/** What a shadow run can test of a policy's promise: how far the answer of an item is from that of the full network. */

import { lossOf } from '../skip/losses.js';
import type { AnswerReader, RunEvent, TensorMap } from '../skip/observer.js';
import { type Limit, type Metric, type Promised, partsOf } from '../skip/promise.js';
import { type CustomLoss, type RunLoss, runLoss } from '../skip/run-loss.js';
import { isFloat, Tensor } from '../tensor/tensor.js';

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

/** What an item's outputs alone don't tell of a text, as its vector is pooled from them. */
const OF_VECTORS = ['cosine', 'relative', 'absolute', 'excess'];
/** Some tokens only fill a text up. */
const OF_TOKENS = ['tokens', 'ctc'];

/** Without the tokens that only fill a text up, which its `attention_mask` doesn't mark. */
function ownTokens(outputs: TensorMap, { attention_mask: marks }: TensorMap): TensorMap {
  const isOwn = Array.from(marks!.data, Number).map((mark) => mark !== 0);
  const tokens = isOwn.filter(Boolean).length;
  const cut = ({ type, data, dims }: Tensor): Tensor => {
    if (dims[1] !== isOwn.length) return new Tensor(type, data, dims);
    const size = data.length / isOwn.length;
    // Texts may be filled up on either side.
    const own = (data as Float32Array).filter((_, i) => isOwn[Math.floor(i / size)]);
    return new Tensor(type, own, dims.with(1, tokens));
  };
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, cut(tensor)]));
}

/**
 * Undefined where the outputs don't tell: without class scores, for neighbours, for what is made of the outputs of texts, for tokens that nothing
 * marks, and for a loss of the caller's that isn't given.
 * @param promise of the metric, if the policy promises it
 * @param more `custom`: the caller's loss; `reader`: makes vectors of the outputs of texts
 */
export function shadowLoss(
  metric: Metric,
  { context: { classScores }, inputs, outputs }: RunEvent,
  promise: Pick<Promised, 'outputs' | 'boxes'> | undefined,
  {
    custom,
    reader,
  }: { readonly custom?: CustomLoss | undefined; readonly reader?: AnswerReader | undefined } = {},
): RunLoss | undefined {
  const { name } = partsOf(metric);
  if (!Object.values(inputs).some(isFloat)) {
    if (OF_TOKENS.includes(name)) {
      const loss =
        inputs.attention_mask && runLoss({ ...promise, metric }, Object.keys(outputs), classScores);
      return (
        loss && ((skipping, full, feeds) => loss(ownTokens(skipping, feeds), ownTokens(full, feeds), feeds))
      );
    }
    const loss = OF_VECTORS.includes(name) ? lossOf(metric) : undefined;
    if (loss) {
      return reader && ((skipping, full, feeds) => loss(reader(skipping, feeds), reader(full, feeds)));
    }
  }
  return runLoss({ ...promise, metric }, Object.keys(outputs), classScores, custom);
}
