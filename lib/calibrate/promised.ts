/** What is promised of an item: reads it from a run's outputs, and says how far off it is. */
import type { DataModel } from '../classify/data-model.js';
import type { Item } from '../classify/images.js';
import type { Program } from '../model/program/program.js';
import type { Model } from '../model/read/model.js';
import { sizeOf } from '../numeric/shapes.js';
import { bindFeeds } from '../session/feeds.js';
import type { Tail } from '../session/tail.js';
import { answerOf, readerOf } from '../skip/losses.js';
import type { TensorMap } from '../skip/observer.js';
import { type Part, partOf, partsTogether } from '../skip/parts.js';
import { isOfNumbers, type Metric } from '../skip/promise.js';
import { type CustomLoss, checkedLoss } from '../skip/run-loss.js';
import { meaningOf } from '../skip/scores.js';
import { allocate, Tensor, type TensorData } from '../tensor/tensor.js';
import type { Promisable } from './checks.js';
import type { CalibrationOptions } from './options.js';
import { preparedOf } from './prepared.js';
import type { Programs } from './run/evaluator.js';
import type { VectorOf } from './run/items.js';

/** Reads what is promised of an item; embeddings of texts are pooled. */
export function readingOf(
  opened: DataModel,
  programs: Programs,
  typical: Tensor,
  { metric, indices, boxes }: Pick<Promisable, 'metric' | 'indices' | 'boxes'>,
): VectorOf {
  const { outputs, values } = programs.main;
  const partsOfRun = (found: readonly ArrayLike<number>[], input: TensorData): Part[] => {
    const program = programs.at(input);
    return indices.map((index) => {
      const { value } = program.outputs[index]!;
      const part = partOf(
        found[index] as TensorData,
        program.values[value]!.shape,
        meaningOf(program, value),
      );
      const cut = opened.what === 'text' && metric !== 'custom';
      return cut ? ownTokens(part, preparedOf(opened, input, typical)) : part;
    });
  };
  if (poolsVectors(opened, metric)) return pooling(opened, programs.main, typical);
  const forms = indices.map((index) => {
    const { dtype, shape } = values[outputs[index]!.value]!;
    return partOf(allocate(dtype, 0), shape, meaningOf(programs.main, outputs[index]!.value));
  });
  const read = readerOf(metric, forms, boxes);
  return ({ outputs: found }, input) => read(partsOfRun(found, input));
}

/** The same of a network with stages behind its program, which run for each item. */
export function stagedReading(
  opened: DataModel,
  programs: Programs,
  typical: Tensor,
  { metric, indices, boxes }: Pick<Promisable, 'metric' | 'indices' | 'boxes'>,
  { model, tail }: Staged,
): VectorOf {
  return ({ outputs }, input) => {
    const { tensors } = bindFeeds(model, opened.feeds(preparedOf(opened, input, typical)));
    const answers = tail.runSync({ program: programs.at(input), tensors, outputs });
    const parts = partsTogether(indices.map((index) => answers[model.outputs[index]!.name]!));
    return readerOf(metric, parts, boxes)(parts);
  };
}

/** A network with stages behind its program. */
export interface Staged {
  readonly model: Model;
  readonly tail: Tail;
}

/** Whether the vector of a text is pooled from those of its tokens. */
export const poolsVectors = ({ what, labels }: DataModel, metric: Metric) =>
  what === 'text' && labels === null && isOfNumbers(metric);

/** Without the tokens that fill a text up to a fixed length. */
function ownTokens(part: Part, prepared: Tensor): Part {
  const [length = 0, ...rest] = part.dims;
  if (length !== prepared.dims[1]) return part;
  const marks = (prepared.data as Int32Array).subarray(length, 2 * length);
  const tokens = marks.reduce((sum, mark) => sum + mark, 0);
  const data = Float32Array.from(part.data).subarray(0, tokens * sizeOf(rest));
  return { ...part, data, dims: [tokens, ...rest] };
}

function pooling(opened: DataModel, { outputs }: Program, typical: Tensor): VectorOf {
  const index = outputs.findIndex(({ name }) => name === opened.output);
  return ({ outputs: found }, input) => {
    const data = found[index]!;
    const prepared = preparedOf(opened, input, typical);
    // Vectors of tokens, or of the text.
    const tokens = prepared.dims[1]!;
    const pooled =
      opened.session.outputMetadata.find(({ name }) => name === opened.output)!.shape.length === 2;
    const dims = pooled ? [1, data.length] : [1, tokens, data.length / tokens];
    return opened.answerOf({ [opened.output]: new Tensor('float32', data, dims) }, prepared);
  };
}

/** The loss of a caller, who sees tensors; what was read are the elements of all promised outputs. */
export function customLoss(
  loss: CustomLoss,
  opened: DataModel,
  programs: Programs,
  typical: Tensor,
  indices: readonly number[],
  byHash: ReadonlyMap<string, Item<Tensor>>,
): CalibrationOptions['lossOf'] {
  const tensorsOf = (elements: Float32Array, input: TensorData): TensorMap => {
    const { outputs, values } = programs.at(input);
    let from = 0;
    return Object.fromEntries(
      indices.map((index) => {
        const { name, value } = outputs[index]!;
        const { dtype, shape } = values[value]!;
        const own = elements.subarray(from, from + sizeOf(shape));
        from += own.length;
        const isBig = dtype === 'int64';
        const data = isBig ? BigInt64Array.from(own, (x) => BigInt(x)) : own;
        return [
          name,
          dtype === 'float32' || isBig
            ? new Tensor(dtype, data as never, shape)
            : new Tensor(dtype, Array.from(own) as never, shape),
        ];
      }),
    ) as TensorMap;
  };
  return (skipping, full, { input, sha256, label }) => {
    const prepared = preparedOf(opened, input, typical);
    const item = { feeds: opened.feeds(prepared), name: byHash.get(sha256)?.name, label };
    return checkedLoss(
      loss(tensorsOf(full, input), tensorsOf(skipping, input), item),
      item.name ?? 'an item',
    );
  };
}

/** `accuracy` needs labels. */
export function ownLossOf(metric: Metric): CalibrationOptions['lossOf'] {
  if (metric !== 'accuracy') return undefined;
  return (skipping, full, { label }) =>
    Number(answerOf(full) === label) - Number(answerOf(skipping) === label);
}
