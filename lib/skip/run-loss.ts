/** The loss of an item by the outputs of two runs, as a monitor and an evaluation see them; and losses of the caller's. */
import { ResidualSkipError } from '../errors.js';
import { isFloat, toFloat32 } from '../tensor/tensor.js';
import { lossOf, readerOf } from './losses.js';
import type { TensorMap } from './observer.js';
import { partOf, partsTogether } from './parts.js';
import { isVectorMetric, type Promised } from './promise.js';
import type { ClassScores } from './scores.js';

/**
 * The loss of an item, 0 to 1.
 * @param full the promised outputs of the full network, a batch of one
 * @param skipped those with skipping
 */
export type CustomLoss = (full: TensorMap, skipped: TensorMap, item: CustomItem) => number;

/** The item of a loss. */
export interface CustomItem {
  /** Its inputs. */
  readonly feeds: TensorMap;
  /** Its name; undefined for what has none. */
  readonly name: string | undefined;
  /** Index of its class; undefined without a label. */
  readonly label: number | undefined;
}

/** What a caller's loss gives. @throws ResidualSkipError INVALID_ARGUMENT unless it is 0 to 1 */
export function checkedLoss(found: unknown, what: string): number {
  if (typeof found === 'number' && found >= 0 && found <= 1) return found;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `loss: it gave ${String(found)} for ${what}; expected a number from 0 to 1`,
  );
}

/** The loss of an item, of at most maxLoss(metric), by its outputs with skipping and of the full network, and its inputs. */
export type RunLoss = (skipping: TensorMap, full: TensorMap, feeds: TensorMap) => number;

/**
 * How the loss of a promise follows from the outputs of runs.
 * @param names of the outputs, if the promise doesn't name its own
 * @param custom for the metric `custom`
 * @returns undefined where outputs of one item don't tell: for `accuracy` and `recall@k`, of classes without class scores, of several
 * outputs without a name
 */
export function runLoss(
  { metric, outputs, boxes }: Pick<Promised, 'metric' | 'outputs' | 'boxes'>,
  names: readonly string[],
  classScores: Pick<ClassScores, 'name' | 'meaning'> | null,
  custom?: CustomLoss,
): RunLoss | undefined {
  const ofClasses = !isVectorMetric(metric);
  const promised = outputs ?? (ofClasses && classScores ? [classScores.name] : names);
  if (metric === 'custom') {
    const picked = (all: TensorMap) => Object.fromEntries(promised.map((name) => [name, all[name]!]));
    const item = { name: undefined, label: undefined };
    return (
      custom &&
      ((skipping, full, feeds) =>
        checkedLoss(custom(picked(full), picked(skipping), { ...item, feeds }), 'an item'))
    );
  }
  const loss = lossOf(metric);
  if (!loss || (ofClasses && !classScores) || (!outputs && promised.length > 1)) return undefined;
  const tensorOf = (tensor: TensorMap[string]) => (isFloat(tensor) ? toFloat32(tensor) : tensor);
  const partsOfRun = (all: TensorMap) => {
    if (boxes) return partsTogether(promised.map((name) => tensorOf(all[name]!)));
    return promised.map((name) => {
      const { data, dims } = tensorOf(all[name]!);
      return partOf(data, dims, name === classScores?.name ? classScores.meaning : 'logits');
    });
  };
  return (skipping, full) => {
    const parts = partsOfRun(full);
    const read = readerOf(metric, parts, boxes);
    return loss(read(partsOfRun(skipping)), read(parts));
  };
}
