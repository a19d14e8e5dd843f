import { loadBinding } from '../util/binding.js';
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
  if (data.length === 1) return { low: Number(recalled(data)[0]), high: Number(data[0]) };
  const known = extremes.get(data);
  if (known) return known;
  const range = nativeExtremes(recalled(data)) ?? extremesAmong(data);
  extremes.set(data, range);
  return range;
}

function extremesAmong(data: TensorData): Range {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < data.length; i++) {
    const element = Number(data[i]);
    low = Math.min(low, element);
    high = Math.max(high, element);
  }
  return { low, high };
}

const FOUND = new Float64Array(2);

/** The same in native code, which V8 needn't optimise. Undefined without it, and for integers of 64 bits. */
function nativeExtremes(data: TensorData): Range | undefined {
  const loaded = loadBinding();
  if ('problem' in loaded) return undefined;
  const { extremes: find } = loaded.exports as { extremes(from: TensorData, to: Float64Array): boolean };
  return find(data, FOUND) ? { low: FOUND[0]!, high: FOUND[1]! } : undefined;
}

/** The number that all elements of a constant equal; undefined when they differ. */
export function uniformElement(data: TensorData): number | undefined {
  const { low, high } = extremesOf(data);
  return low === high ? Number(data[0]) : undefined;
}
