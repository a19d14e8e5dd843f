import { recalled } from './recall.js';
import type { TensorData } from './tensor-data.js';

/** Bounds of the elements of a tensor. */
export interface Range {
  readonly low: number;
  readonly high: number;
}

const extremes = new WeakMap<TensorData, Range>();

/** The least and the greatest element of a constant; NaN if one is NaN, and infinities of the wrong signs if it is empty. */
export function extremesOf(data: TensorData): Range {
  const known = extremes.get(data);
  if (known) return known;
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  recalled(data);
  for (let i = 0; i < data.length; i++) {
    const element = Number(data[i]);
    low = Math.min(low, element);
    high = Math.max(high, element);
  }
  const range = { low, high };
  extremes.set(data, range);
  return range;
}

const uniform = new WeakMap<TensorData, { readonly element: number | undefined }>();

/** The number that all elements of a constant equal; undefined when they differ. Each constant is read once. */
export function uniformElement(data: TensorData): number | undefined {
  const known = uniform.get(data);
  if (known) return known.element;
  const first = Number(recalled(data)[0]);
  const element = data.every((other: number | bigint) => Number(other) === first) ? first : undefined;
  uniform.set(data, { element });
  return element;
}
