/** Operators that read or write elements at positions given by other tensors. They throw INVALID_ARGUMENT when one is out of range. */
import { sizeOf } from '../numeric/shapes.js';
import { isBig, type TensorData } from '../tensor/tensor.js';
import { copy, numbers, resolveIndex } from './move.js';
import type { Operations, ScatterKind } from './operations.js';
import { denseStrides, type KernelTensor, splitAt } from './tensor.js';

/** Which half of 64 bits is the low one, and which the high one. */
const [LOW, HIGH] = new Int32Array(BigInt64Array.of(1n).buffer)[0] === 1 ? [0, 1] : [1, 0];

const halvesOf = (data: TensorData) => new Int32Array(data.buffer, data.byteOffset, 2 * data.length);

/** Reads integers as numbers. Halves of 64 bits are joined: to convert bigints takes several times as long. */
export function integersIn({ dtype, data }: Pick<KernelTensor, 'dtype' | 'data'>): (index: number) => number {
  if (dtype !== 'int64') return (index) => (data as Int32Array)[index]!;
  const halves = halvesOf(data);
  return (index) => halves[2 * index + HIGH]! * 2 ** 32 + (halves[2 * index + LOW]! >>> 0);
}

/** Elements of a slice from which on it is worth seeing whether its indices are equal. */
const LONG = 32;

/**
 * Elements of the slices behind `axis`, where the indices of each slice are equal, as they are where one index was expanded, and the slices
 * are those of the data; otherwise undefined.
 */
function equalSlices({ shape }: KernelTensor, indices: KernelTensor, axis: number): number | undefined {
  const { inner } = splitAt(indices.shape, axis);
  if (inner < LONG || shape.some((length, i) => i !== axis && length !== indices.shape[i])) return undefined;
  const wide = isBig(indices.dtype) ? 2 : 1;
  const [words, size] = [wide === 2 ? halvesOf(indices.data) : (indices.data as Int32Array), wide * inner];
  for (let first = 0; first < words.length; first += size) {
    for (let k = first + wide; k < first + size; k++) if (words[k] !== words[k - wide]) return undefined;
  }
  return inner;
}

/** For every index of `indices`, in order: the offset in `data` of the element that it names on `axis`. */
function elementOffsets(op: string, data: KernelTensor, indices: KernelTensor, axis: number): Int32Array {
  const strides = denseStrides(data.shape);
  const [along, others] = [strides[axis]!, strides.with(axis, 0)];
  const counter = indices.shape.map(() => 0);
  const offsets = new Int32Array(sizeOf(indices.shape));
  const length = data.shape[axis]!;
  const named = integersIn(indices);
  const [row, step] = [indices.shape.at(-1)!, others.at(-1)!];
  // Of the element at 0 of `axis`.
  let base = 0;
  for (let i = 0; i < offsets.length; i += row) {
    for (let k = 0; k < row; k++) {
      const asked = named(i + k);
      const index = asked >= 0 && asked < length ? asked : resolveIndex(op, asked, length, axis);
      offsets[i + k] = base + k * step + along * index;
    }
    for (let d = counter.length - 2; d >= 0; d--) {
      base += others[d]!;
      if (++counter[d]! < indices.shape[d]!) break;
      base -= others[d]! * counter[d]!;
      counter[d] = 0;
    }
  }
  return offsets;
}

/** For every row of `indices`: the offset in `data` of the slice that it names, and the number of elements of a slice. */
function sliceOffsets(op: string, data: KernelTensor, indices: KernelTensor, batchDims: number) {
  const depth = indices.shape.at(-1)!;
  const strides = denseStrides(data.shape);
  const perBatch = sizeOf(indices.shape.slice(batchDims, -1));
  const batchStride = batchDims === 0 ? 0 : strides[batchDims - 1]!;
  const offsets = Int32Array.from({ length: sizeOf(indices.shape.slice(0, -1)) }, (_, row) => {
    let offset = Math.floor(row / perBatch) * batchStride;
    for (let k = 0; k < depth; k++) {
      const axis = batchDims + k;
      const index = resolveIndex(op, Number(indices.data[row * depth + k]!), data.shape[axis]!, axis);
      offset += index * strides[axis]!;
    }
    return offset;
  });
  return { offsets, size: sizeOf(data.shape.slice(batchDims + depth)) };
}

export function gatherElements(
  data: KernelTensor,
  indices: KernelTensor,
  y: KernelTensor,
  axis: number,
): void {
  const offsets = elementOffsets('gatherElements', data, indices, axis);
  const [target, source] = [numbers(y), numbers(data)];
  for (let i = 0; i < offsets.length; i++) target[i] = source[offsets[i]!]!;
}

export function gatherNd(
  data: KernelTensor,
  indices: KernelTensor,
  y: KernelTensor,
  batchDims: number,
): void {
  const { offsets, size } = sliceOffsets('gatherNd', data, indices, batchDims);
  for (const [i, offset] of offsets.entries()) copy(data, offset, y, i * size, size);
}

export function scatterElements(
  data: KernelTensor,
  indices: KernelTensor,
  updates: KernelTensor,
  y: KernelTensor,
  { axis, reduction }: Operations['scatterElements'],
): void {
  copy(data, 0, y, 0, sizeOf(y.shape));
  const inner = equalSlices(data, indices, axis);
  if (inner !== undefined) {
    const { length: count } = splitAt(indices.shape, axis);
    const length = data.shape[axis]!;
    const named = integersIn(indices);
    for (let from = 0, slice = 0; from < indices.data.length; from += inner, slice++) {
      const index = resolveIndex('scatterElements', named(from), length, axis);
      update(y, (Math.floor(slice / count) * length + index) * inner, updates, from, inner, reduction);
    }
    return;
  }
  const offsets = elementOffsets('scatterElements', data, indices, axis);
  const [target, source] = [numbers(y), numbers(updates)];
  if (reduction === 'set') for (let i = 0; i < offsets.length; i++) target[offsets[i]!] = source[i]!;
  else for (const [i, offset] of offsets.entries()) update(y, offset, updates, i, 1, reduction);
}

export function scatterNd(
  data: KernelTensor,
  indices: KernelTensor,
  updates: KernelTensor,
  y: KernelTensor,
  reduction: ScatterKind,
): void {
  const { offsets, size } = sliceOffsets('scatterNd', data, indices, 0);
  copy(data, 0, y, 0, sizeOf(y.shape));
  for (const [i, offset] of offsets.entries()) update(y, offset, updates, i * size, size, reduction);
}

/** Numbers and bigints don't mix, and an operation here has operands of one type. */
type Combine = (a: number, b: number) => number;
const COMBINE: Record<Exclude<ScatterKind, 'set'>, Combine> = {
  add: (a, b) => a + b,
  mul: (a, b) => a * b,
  min: (a, b) => (b < a || Number.isNaN(b) ? b : a),
  max: (a, b) => (b > a || Number.isNaN(b) ? b : a),
};
/** Where products don't fit a double, and where there are only 0 and 1. */
const INTEGER_COMBINE = { ...COMBINE, mul: Math.imul };
const BOOL_COMBINE = { ...COMBINE, add: (a: number, b: number) => a | b };

function update(
  y: KernelTensor,
  to: number,
  updates: KernelTensor,
  from: number,
  count: number,
  kind: ScatterKind,
): void {
  if (kind === 'set') {
    copy(updates, from, y, to, count);
    return;
  }
  const integral = y.dtype !== 'float32' && !isBig(y.dtype);
  const table = y.dtype === 'bool' ? BOOL_COMBINE : integral ? INTEGER_COMBINE : COMBINE;
  const combine = table[kind];
  const [target, source] = [y.data as Float32Array, updates.data as Float32Array];
  for (let i = 0; i < count; i++) target[to + i] = combine(target[to + i]!, source[from + i]!);
}
