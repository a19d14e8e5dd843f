import { recalled } from './recall.js';
import { copyData, type TensorData } from './tensor-data.js';

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
  const range = extremesIn(recalled(data));
  extremes.set(data, range);
  return range;
}

/** Arrays of at most so many elements are sorted: V8 compiles a loop over them for longer than it runs. */
const FEW = 4096;

function extremesIn(data: TensorData): Range {
  if (data.length > 0 && data.length <= FEW) {
    // A NaN is last.
    const sorted = copyData(data).sort();
    const [low, high] = [Number(sorted[0]), Number(sorted.at(-1))];
    return Number.isNaN(high) ? { low: high, high } : { low, high };
  }
  let low: number | bigint = Number.POSITIVE_INFINITY;
  let high: number | bigint = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < data.length; i++) {
    const element = data[i]!;
    if (element < low) low = element;
    if (element > high) high = element;
    if (Number.isNaN(element)) return { low: Number.NaN, high: Number.NaN };
  }
  return { low: Number(low), high: Number(high) };
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
