/** An item's parts of a network's outputs, of which losses are made. */
import { isBigData, type TensorData } from '../tensor/tensor.js';
import type { Meaning } from './scores.js';

/** What an item's part of an output looks like. */
export interface Form {
  /** Without the batch. */
  readonly dims: readonly number[];
  /** Whether it holds whole numbers, such as indices of classes. */
  readonly whole: boolean;
  /** Of class scores. */
  readonly meaning: Meaning;
}

/** An item's part of an output. */
export interface Part extends Form {
  readonly data: ArrayLike<number>;
}

/** @param dims with the batch of one item, if the output has one */
export function partOf(data: TensorData, dims: readonly number[], meaning: Meaning = 'logits'): Part {
  return {
    data: isBigData(data) ? Float32Array.from(data, Number) : (data as ArrayLike<number>),
    dims: dims.length > 1 && dims[0] === 1 ? dims.slice(1) : dims,
    whole: !(data instanceof Float32Array || data instanceof Float64Array),
    meaning,
  };
}

/** Parts of outputs whose lengths differ from item to item: either all have the axis of the batch, or none; the boxes have two others. */
export function partsTogether(
  tensors: readonly { readonly data: TensorData; readonly dims: readonly number[] }[],
): Part[] {
  const batched = tensors.some(({ dims }) => dims.length > 2);
  return tensors.map(({ data, dims }) => partOf(data, batched ? dims : [1, ...dims]));
}

/** Reads what is promised. */
export type Reader = (parts: readonly Part[]) => Float32Array;
