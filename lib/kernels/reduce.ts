import { sizeOf } from '../numeric/shapes.js';
import { INTEGER_RANGE, isBig } from '../tensor/tensor.js';
import { greater, lesser } from './elementwise.js';
import type { GlobalPoolKind, Operations, ReduceKind } from './operations.js';
import { forEachRow, planRows } from './rows.js';
import { denseStrides, floats, type KernelTensor, splitAt } from './tensor.js';

/** Over all spatial axes; x is (N,C,spatial...). Max propagates NaN. */
export function globalPool(x: KernelTensor, y: KernelTensor, kind: GlobalPoolKind): void {
  const planes = sizeOf(x.shape.slice(0, 2));
  const size = sizeOf(x.shape.slice(2));
  const [from, to] = [floats(x), floats(y)];
  for (let plane = 0; plane < planes; plane++) {
    const start = plane * size;
    if (kind === 'max') {
      to[plane] = maximum(from, start, size, 1);
    } else {
      let sum = 0;
      for (let i = 0; i < size; i++) {
        const value = from[start + i]!;
        sum += kind === 'meanSquare' ? value * value : value;
      }
      to[plane] = sum / size;
    }
  }
}

/** Math.max over n elements, `step` apart. */
function maximum(x: Float32Array, start: number, n: number, step: number): number {
  let best = Number.NEGATIVE_INFINITY;
  for (let i = 0, at = start; i < n; i++, at += step) {
    const v = x[at]!;
    if (v > best) best = v;
    else if (Number.isNaN(v)) return v;
  }
  return best;
}

/** Calls `group` for each element of the result with a walk over the offsets in x of what it is made of. */
function forEachGroup(
  x: KernelTensor,
  axes: readonly number[],
  group: (out: number, walk: (each: (at: number) => void) => void) => void,
): void {
  const strides = denseStrides(x.shape);
  const kept = x.shape.map((_, axis) => axis).filter((axis) => !axes.includes(axis));
  const pick = (list: readonly number[], chosen: readonly number[]) => chosen.map((axis) => list[axis]!);
  const outer = planRows(pick(x.shape, kept), [pick(strides, kept)]);
  const inner = planRows(pick(x.shape, axes), [pick(strides, axes)]);
  const step = inner.steps[0]!;
  let out = 0;
  forEachRow(outer, ([row = 0]) => {
    for (let i = 0; i < outer.length; i++) {
      const start = row + i * outer.steps[0]!;
      group(out++, (each) =>
        forEachRow(inner, ([offset = 0]) => {
          for (let k = 0, at = start + offset; k < inner.length; k++, at += step) each(at);
        }),
      );
    }
  });
}

/** Mean over `axes`. */
export function reduceMean(x: KernelTensor, y: KernelTensor, axes: readonly number[]): void {
  const count = sizeOf(axes.map((axis) => x.shape[axis]!));
  const [from, to] = [floats(x), floats(y)];
  forEachGroup(x, axes, (out, walk) => {
    let sum = 0;
    walk((at) => {
      sum += from[at]!;
    });
    to[out] = sum / count;
  });
}

/** Least and greatest numbers of a type: what min and max of nothing are. */
const LIMITS = {
  ...INTEGER_RANGE,
  float32: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
  bool: [0, 1],
} as const;

const COMBINE: Record<ReduceKind, (a: number, b: number) => number> = {
  sum: (a, b) => a + b,
  prod: (a, b) => a * b,
  min: Math.min,
  max: Math.max,
};
const BIGINT_COMBINE: Record<ReduceKind, (a: bigint, b: bigint) => bigint> = {
  sum: (a, b) => a + b,
  prod: (a, b) => BigInt.asIntN(64, a * b),
  min: lesser,
  max: greater,
};

/** Over `axes`; sums and products of floats in double precision. */
export function reduce(x: KernelTensor, y: KernelTensor, { kind, axes }: Operations['reduce']): void {
  const big = isBig(x.dtype);
  const integral = x.dtype !== 'float32';
  // Products of integers don't fit a double.
  const combine = (big ? BIGINT_COMBINE[kind] : integral && kind === 'prod' ? Math.imul : COMBINE[kind]) as (
    a: number | bigint,
    b: number | bigint,
  ) => number | bigint;
  const [min, greatest] = LIMITS[x.dtype];
  const start = { sum: big ? 0n : 0, prod: big ? 1n : 1, min: greatest, max: min }[kind];
  forEachGroup(x, axes, (out, walk) => {
    let result: number | bigint = start;
    walk((at) => {
      result = combine(result, x.data[at]!);
    });
    y.data[out] = result;
  });
}

/** Running sums along `axis`; those of floats in double precision. */
export function cumSum(
  x: KernelTensor,
  y: KernelTensor,
  { axis, exclusive, reverse }: Operations['cumSum'],
): void {
  const { outer, length, inner } = splitAt(x.shape, axis);
  // Numbers and bigints don't mix, and all elements here are of one type.
  const [from, to] = [x.data, y.data] as Float32Array[] as [Float32Array, Float32Array];
  const zero = (isBig(x.dtype) ? 0n : 0) as number;
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < inner; i++) {
      let sum = zero;
      for (let k = 0; k < length; k++) {
        const at = (o * length + (reverse ? length - 1 - k : k)) * inner + i;
        const next = sum + from[at]!;
        to[at] = exclusive ? sum : next;
        sum = next;
      }
    }
  }
}

export function softmax(x: KernelTensor, y: KernelTensor, { axis, log }: Operations['softmax']): void {
  const { outer, length, inner } = splitAt(x.shape, axis);
  const [from, to] = [floats(x), floats(y)];
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < inner; i++) {
      const start = o * length * inner + i;
      const end = start + length * inner;
      const max = maximum(from, start, length, inner);
      let sum = 0;
      for (let at = start; at < end; at += inner) sum += Math.exp(from[at]! - max);
      if (log) {
        const shift = Math.log(sum);
        for (let at = start; at < end; at += inner) to[at] = from[at]! - max - shift;
      } else {
        for (let at = start; at < end; at += inner) to[at] = Math.exp(from[at]! - max) / sum;
      }
    }
  }
}

/** Along one axis; `y` may be the same memory as `x`. */
export function layerNorm(
  x: KernelTensor,
  scale: KernelTensor | undefined,
  shift: KernelTensor | undefined,
  y: KernelTensor,
  { axis, epsilon }: Operations['layerNorm'],
): void {
  const { outer, length, inner } = splitAt(x.shape, axis);
  const [from, to, a, b] = [floats(x), floats(y), scale && floats(scale), shift && floats(shift)];
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < inner; i++) {
      const start = o * length * inner + i;
      let sum = 0;
      for (let k = 0; k < length; k++) sum += from[start + k * inner]!;
      const mean = sum / length;
      let squares = 0;
      for (let k = 0; k < length; k++) squares += (from[start + k * inner]! - mean) ** 2;
      const factor = 1 / Math.sqrt(squares / length + epsilon);
      for (let k = 0; k < length; k++) {
        const centred = (from[start + k * inner]! - mean) * factor;
        to[start + k * inner] = centred * (a ? a[k]! : 1) + (b ? b[k]! : 0);
      }
    }
  }
}

/** Index of the largest element along `axis`; NaN counts as larger than any number. */
export function argMax(x: KernelTensor, y: KernelTensor, { axis, selectLast }: Operations['argMax']): void {
  const { outer, length, inner } = splitAt(x.shape, axis);
  const from = x.data;
  const to = y.data as BigInt64Array;
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < inner; i++) {
      const start = o * length * inner + i;
      let best = 0;
      let value = from[start]!;
      for (let k = 1; k < length; k++) {
        const v = from[start + k * inner]!;
        const order = rank(v, value);
        if (order > 0 || (selectLast && order === 0)) {
          best = k;
          value = v;
        }
      }
      to[o * inner + i] = BigInt(best);
    }
  }
}

/** The best of each line along `axis`, best first; equals in the order of their places. */
export function topK(
  x: KernelTensor,
  y: KernelTensor,
  indices: KernelTensor,
  { axis, largest }: Operations['topK'],
): void {
  const { outer, length, inner } = splitAt(x.shape, axis);
  const max = y.shape[axis]!;
  const [from, values] = [x.data, y.data] as [BigInt64Array, BigInt64Array] | [Float32Array, Float32Array];
  const places = indices.data as BigInt64Array;
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < inner; i++) {
      const value = (k: number) => from[(o * length + k) * inner + i]!;
      const order = Array.from({ length }, (_, k) => k);
      order.sort((a, b) => (largest ? rank(value(b), value(a)) : rank(value(a), value(b))));
      for (let k = 0; k < max; k++) {
        const to = (o * max + k) * inner + i;
        values[to] = value(order[k]!);
        places[to] = BigInt(order[k]!);
      }
    }
  }
}

/** Positive when a is above b, 0 when they are equal; NaN is above all numbers and equal to itself. */
function rank(a: number | bigint, b: number | bigint): number {
  if (a > b) return 1;
  if (a < b) return -1;
  return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
}
