/** Integer steps: their sums are exact, so that results have the same bits everywhere. */
import { quantised, roundHalfEven } from '../numeric/rounding.js';
import { sizeOf } from '../numeric/shapes.js';
import type { NumberData, TensorData } from '../tensor/tensor.js';
import { activate } from './activation.js';
import { conv } from './conv.js';
import { matmul } from './gemm.js';
import { NO_ACTIVATION, type Operations, type Requantisation } from './operations.js';
import { forEachRow, planRows } from './rows.js';
import { broadcastStrides, denseStrides, floats, type KernelTensor, Scratch, splitAt } from './tensor.js';

const { fround, max, min } = Math;

function numbers(tensor: KernelTensor): NumberData {
  return tensor.data as NumberData;
}

function requantise(v: number, { zero, low, high }: Requantisation): number {
  return min(max(roundHalfEven(v), low - zero), high - zero) + zero;
}

/** Calls `segment` for each run of elements with the same scale and zero point. */
function forEachScale(
  { shape }: KernelTensor,
  scale: KernelTensor,
  zero: KernelTensor | undefined,
  axis: number,
  segment: (begin: number, end: number, scale: number, zero: number) => void,
): void {
  const scales = floats(scale);
  const zeros = zero && numbers(zero);
  const { outer, length, inner } = splitAt(shape, axis);
  const uniform = scales.length === 1;
  if (uniform) segment(0, sizeOf(shape), scales[0]!, zeros?.[0] ?? 0);
  for (let o = 0, at = 0; o < outer && !uniform; o++) {
    for (let i = 0; i < length; i++, at += inner) segment(at, at + inner, scales[i]!, zeros?.[i] ?? 0);
  }
}

export function quantize(
  x: KernelTensor,
  scale: KernelTensor,
  zero: KernelTensor | undefined,
  y: KernelTensor,
  axis: number,
): void {
  const [from, to] = [floats(x), numbers(y)];
  const [low, high] = y.dtype === 'int8' ? [-128, 127] : [0, 255];
  forEachScale(x, scale, zero, axis, (begin, end, factor, shift) => {
    for (let i = begin; i < end; i++) to[i] = quantised(from[i]!, factor, shift, low, high);
  });
}

export function dequantize(
  x: KernelTensor,
  scale: KernelTensor,
  zero: KernelTensor | undefined,
  y: KernelTensor,
  axis: number,
): void {
  const [from, to] = [numbers(x), floats(y)];
  forEachScale(x, scale, zero, axis, (begin, end, factor, shift) => {
    for (let i = begin; i < end; i++) to[i] = fround(from[i]! - shift) * factor;
  });
}

/** The range of x, widened to hold 0, in 255 steps. */
export function dynamicQuantize(
  x: KernelTensor,
  y: KernelTensor,
  scale: KernelTensor,
  zero: KernelTensor,
): void {
  const from = floats(x);
  let [low, high] = [0, 0];
  for (const v of from) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  // A tensor of zeros has no range: any scale serves.
  const step = fround(fround(high - low) / 255) || 1;
  floats(scale)[0] = step;
  numbers(zero)[0] = min(max(roundHalfEven(fround(fround(0 - low) / step)), 0), 255);
  quantize(x, scale, zero, y, 0);
}

const xScratch = new Scratch((n) => new Float32Array(n));
const wScratch = new Scratch((n) => new Float32Array(n));
const sumScratch = new Scratch((n) => new Int32Array(n));
const centredConstants = new WeakMap<TensorData, WeakMap<object, Float32Array>>();
const NO_ZERO = {};

/**
 * A tensor of x - zero as float32, which holds it exactly. `inner` consecutive elements share a zero point, of which there is one or
 * as many as `x` has runs of that length, cyclically. That of constants is kept.
 */
function centred(
  x: KernelTensor,
  zero: KernelTensor | undefined,
  inner: number,
  scratch: Scratch<Float32Array>,
): KernelTensor {
  const constant = x.constant === true && (zero === undefined || zero.constant === true);
  const ofArray = centredConstants.get(x.data) ?? new WeakMap<object, Float32Array>();
  const known = constant ? ofArray.get(zero?.data ?? NO_ZERO) : undefined;
  if (known) return { ...x, dtype: 'float32', data: known };
  const from = numbers(x);
  const zeros = zero && numbers(zero);
  const to = constant ? new Float32Array(from.length) : scratch.atLeast(from.length);
  for (let i = 0; i < from.length; i++) {
    to[i] = from[i]! - (zeros ? zeros[zeros.length === 1 ? 0 : Math.floor(i / inner) % zeros.length]! : 0);
  }
  if (constant) {
    centredConstants.set(x.data, ofArray);
    ofArray.set(zero?.data ?? NO_ZERO, to);
  }
  return { ...x, dtype: 'float32', data: to, constant };
}

/** The tensor that a kernel of float32 leaves its sums in: they are kept in double precision, and wrap around when they are stored. */
function sumsLike(y: KernelTensor): KernelTensor {
  const data = y.dtype === 'int32' ? y.data : sumScratch.atLeast(sizeOf(y.shape));
  return { dtype: 'int32', shape: y.shape, data };
}

type Operand = KernelTensor | undefined;
type Inputs = readonly [
  x: KernelTensor,
  w: KernelTensor,
  bias: Operand,
  scale: Operand,
  xZero: Operand,
  wZero: Operand,
];

/**
 * y from sums; the channel of element i is floor(i / inner) modulo the number of channels. With `roundsProduct`, sum*scale is rounded
 * before a bias of float32 is added.
 */
function finish(
  sums: NumberData,
  [, , bias, scale]: Inputs,
  y: KernelTensor,
  channels: number,
  inner: number,
  { act, requant }: Pick<Operations['qmatmul'], 'act' | 'requant'>,
  roundsProduct: boolean,
): void {
  if (y.dtype === 'int32') return;
  const [to, scales] = [numbers(y), floats(scale!)];
  const addend = bias?.dtype === 'float32' ? floats(bias) : undefined;
  const integers = bias && !addend ? numbers(bias) : undefined;
  const count = sizeOf(y.shape);
  for (let begin = 0, c = 0; begin < count; begin += inner, c = (c + 1) % channels) {
    const factor = scales[scales.length === 1 ? 0 : c]!;
    const whole = integers?.[c] ?? 0;
    for (let i = begin; i < begin + inner; i++) {
      // The product is exact in double precision.
      const v = fround((sums[i]! + whole) | 0) * factor;
      if (y.dtype === 'float32') to[i] = addend ? (roundsProduct ? fround(v) : v) + addend[c]! : v;
      else to[i] = requantise(fround(v), requant);
    }
  }
  if (act.kind !== 'none') activate(floats(y), floats(y), count, act);
}

export function qconv(inputs: Inputs, y: KernelTensor, attrs: Operations['qconv']): void {
  const [x, w, , , xZero, wZero] = inputs;
  const channels = w.shape[0]!;
  const sums = sumsLike(y);
  const [left, right] = [
    centred(x, xZero, 1, xScratch),
    centred(w, wZero, sizeOf(w.shape.slice(1)), wScratch),
  ];
  conv(left, right, undefined, undefined, sums, { ...attrs, act: NO_ACTIVATION });
  finish(numbers(sums), inputs, y, channels, sizeOf(y.shape.slice(2)), attrs, true);
}

export function qmatmul(inputs: Inputs, y: KernelTensor, attrs: Operations['qmatmul']): void {
  const [a, b, , , aZero, bZero] = inputs;
  const [depth = 0] = attrs.transB ? b.shape.slice(-1) : b.shape.slice(-2);
  const sums = sumsLike(y);
  const [left, right] = [
    centred(a, aZero, 1, xScratch),
    centred(b, bZero, attrs.transB ? depth : 1, wScratch),
  ];
  matmul(left, right, sums, attrs.transB);
  finish(numbers(sums), inputs, y, y.shape.at(-1)!, 1, attrs, false);
}

export function qbinary(
  a: KernelTensor,
  b: KernelTensor,
  y: KernelTensor,
  { kind, terms: [first, second], requant }: Operations['qbinary'],
): void {
  const rows = planRows(y.shape, [
    denseStrides(y.shape),
    broadcastStrides(a.shape, y.shape),
    broadcastStrides(b.shape, y.shape),
  ]);
  if (sizeOf(y.shape) === 0) return;
  const [left, right, to] = [numbers(a), numbers(b), numbers(y)];
  const [sy = 0, sa = 0, sb = 0] = rows.steps;
  forEachRow(rows, ([at = 0, ia = 0, ib = 0]) => {
    for (let i = 0; i < rows.length; i++, at += sy, ia += sa, ib += sb) {
      const [p, q] = [left[ia]! - first.zero, right[ib]! - second.zero];
      const v = kind === 'add' ? p * first.factor + fround(q * second.factor) : p * q * first.factor;
      to[at] = requantise(fround(v), requant);
    }
  });
}

export function qglobalPool(
  x: KernelTensor,
  y: KernelTensor,
  { terms: [term], requant }: Operations['qglobalPool'],
): void {
  const [from, to] = [numbers(x), numbers(y)];
  const size = sizeOf(x.shape.slice(2));
  for (let plane = 0; plane < to.length; plane++) {
    let sum = -size * term.zero;
    for (let i = plane * size; i < (plane + 1) * size; i++) sum += from[i]!;
    const v = fround(fround(sum | 0) * term.factor);
    to[plane] = y.dtype === 'float32' ? v : requantise(v, requant);
  }
}

export function lookup(x: KernelTensor, table: KernelTensor, y: KernelTensor): void {
  const [from, entries, to] = [numbers(x), numbers(table), numbers(y)];
  const count = sizeOf(y.shape);
  for (let i = 0; i < count; i++) to[i] = entries[from[i]! & 255]!;
}
