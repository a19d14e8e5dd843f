import { extremesAmong, type Range } from './constant-loops.js';
import { recalled } from './recall.js';
import type { TensorData } from './tensor-data.js';

export type { Range } from './constant-loops.js';

const extremes = new WeakMap<TensorData, Range>();

/** The least and the greatest element of a constant; NaN if one is NaN, and infinities of the wrong signs if it is empty. */
export function extremesOf(data: TensorData): Range {
  if (data.length === 1) return { low: Number(recalled(data)[0]), high: Number(data[0]) };
  const known = extremes.get(data);
  if (known) return known;
  const range = extremesAmong(recalled(data));
  extremes.set(data, range);
  return range;
}

/** The number that all elements of a constant equal; undefined when they differ. */
export function uniformElement(data: TensorData): number | undefined {
  const { low, high } = extremesOf(data);
  return low === high ? Number(data[0]) : undefined;
}
