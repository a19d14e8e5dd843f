/**
 * Operators that only move elements, of any type. Bigints move through arrays typed as number arrays: nothing
 * computes with them.
 */

import { ResidualSkipError } from '../errors.js';
import { sizeOf } from '../numeric/shapes.js';
import { isBig } from '../tensor/tensor.js';
import type { Operations, PadMode } from './operations.js';
import { forEachRow, planRows } from './rows.js';
import { broadcastStrides, denseStrides, type KernelTensor, splitAt } from './tensor.js';

export function numbers(tensor: KernelTensor): Float32Array {
  return tensor.data as Float32Array;
}

/** Elements from which on an array's own methods are faster than a loop. */
const LONG = 32;

/** Fills the dense y from x[start + sum over axes of index * strides[axis]]. */
function gatherStrided(x: KernelTensor, start: number, strides: readonly number[], y: KernelTensor): void {
  const rows = planRows(y.shape, [denseStrides(y.shape), strides]);
  const [from, to] = [numbers(x), numbers(y)];
  const step = rows.steps[1]!;
  forEachRow(rows, ([at = 0, offset = 0]) => {
    const first = start + offset;
    if (step === 0 && rows.length >= LONG) to.fill(from[first]!, at, at + rows.length);
    else if (step === 1) move(from, first, to, at, rows.length);
    else for (let i = 0; i < rows.length; i++) to[at + i] = from[first + i * step]!;
  });
}

export function transpose(x: KernelTensor, y: KernelTensor, perm: readonly number[]): void {
  const strides = denseStrides(x.shape);
  gatherStrided(
    x,
    0,
    perm.map((axis) => strides[axis]!),
    y,
  );
}

export function slice(x: KernelTensor, y: KernelTensor, { starts, steps }: Operations['slice']): void {
  const strides = denseStrides(x.shape);
  const start = starts.reduce((sum, at, axis) => sum + at * strides[axis]!, 0);
  gatherStrided(
    x,
    start,
    strides.map((stride, axis) => stride * steps[axis]!),
    y,
  );
}

export function expand(x: KernelTensor, y: KernelTensor): void {
  gatherStrided(x, 0, broadcastStrides(x.shape, y.shape), y);
}

export function reshape(x: KernelTensor, y: KernelTensor): void {
  if (x.data !== y.data) copy(x, 0, y, 0, sizeOf(y.shape));
}

/** Moves `count` elements. */
export function copy(x: KernelTensor, from: number, y: KernelTensor, to: number, count: number): void {
  move(numbers(x), from, numbers(y), to, count);
}

function move(source: Float32Array, from: number, target: Float32Array, to: number, count: number): void {
  if (count >= LONG) target.set(source.subarray(from, from + count), to);
  else for (let i = 0; i < count; i++) target[to + i] = source[from + i]!;
}

export function concat(xs: readonly KernelTensor[], y: KernelTensor, axis: number): void {
  const { outer, length, inner } = splitAt(y.shape, axis);
  let start = 0;
  for (const x of xs) {
    const run = x.shape[axis]! * inner;
    for (let o = 0; o < outer; o++) copy(x, o * run, y, o * length * inner + start, run);
    start += run;
  }
}

/**
 * An index that may count from the end, made non-negative.
 * @throws ResidualSkipError INVALID_ARGUMENT when it is out of range
 */
export function resolveIndex(op: string, asked: number, length: number, axis: number): number {
  const index = asked < 0 ? asked + length : asked;
  if (index >= 0 && index < length) return index;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${op}: index ${asked} is outside [${-length}, ${length - 1}], the range of axis ${axis} of its data`,
  );
}

/** Throws INVALID_ARGUMENT when an index is out of range. */
export function gather(data: KernelTensor, indices: KernelTensor, y: KernelTensor, axis: number): void {
  const { outer, length, inner } = splitAt(data.shape, axis);
  const count = sizeOf(indices.shape);
  for (let i = 0; i < count; i++) {
    const index = resolveIndex('gather', Number(indices.data[i]!), length, axis);
    for (let o = 0; o < outer; o++)
      copy(data, (o * length + index) * inner, y, (o * count + i) * inner, inner);
  }
}

/** `values` is [off, on]; float indices truncate. */
export function oneHot(
  indices: KernelTensor,
  values: KernelTensor,
  y: KernelTensor,
  { axis, depth }: Operations['oneHot'],
): void {
  const { outer, inner } = splitAt(y.shape, axis);
  const to = numbers(y);
  const [off, on] = numbers(values);
  to.fill(off!, 0, sizeOf(y.shape));
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < inner; i++) {
      const asked = Math.trunc(Number(indices.data[o * inner + i]!));
      const index = asked < 0 ? asked + depth : asked;
      if (index >= 0 && index < depth) to[(o * depth + index) * inner + i] = on!;
    }
  }
}

/** Begins, then ends; negative pads crop before the others extend. */
export function pad(
  x: KernelTensor,
  value: KernelTensor | undefined,
  y: KernelTensor,
  { pads, mode }: Operations['pad'],
): void {
  const strides = denseStrides(x.shape);
  const rank = x.shape.length;
  const sources = y.shape.map((length, axis) => {
    const source = new Int32Array(length);
    const [begin, end] = [pads[axis]!, pads[axis + rank]!];
    const size = x.shape[axis]! + Math.min(begin, 0) + Math.min(end, 0);
    for (let i = 0; i < length; i++) {
      const at = sourceIndex(i - Math.max(begin, 0), size, mode);
      source[i] = at < 0 ? -1 : (at - Math.min(begin, 0)) * strides[axis]!;
    }
    return source;
  });
  const fill = (value?.data[0] ?? (isBig(y.dtype) ? 0n : 0)) as number;
  const [from, to] = [numbers(x), numbers(y)];
  const inner = sources.pop();
  if (inner === undefined) {
    to[0] = from[0]!;
    return;
  }
  let at = 0;
  const walk = (axis: number, start: number, outside: boolean): void => {
    const source = sources[axis];
    if (source === undefined) {
      for (const offset of inner) to[at++] = outside || offset < 0 ? fill : from[start + offset]!;
    } else {
      for (const offset of source) walk(axis + 1, start + offset, outside || offset < 0);
    }
  };
  walk(0, 0, false);
}

/** Source of position `at` (may be outside) on an axis of `size` elements; -1 for the pad value. */
function sourceIndex(at: number, size: number, mode: PadMode): number {
  if (at >= 0 && at < size) return at;
  if (size <= 0) return -1;
  switch (mode) {
    case 'constant':
      return -1;
    case 'edge':
      return at < 0 ? 0 : size - 1;
    case 'wrap':
      return modulo(at, size);
    case 'reflect': {
      const folded = modulo(at, Math.max(1, 2 * (size - 1)));
      return folded < size ? folded : 2 * (size - 1) - folded;
    }
  }
}

function modulo(a: number, n: number): number {
  return ((a % n) + n) % n;
}
