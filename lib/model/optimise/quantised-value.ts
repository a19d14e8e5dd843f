/** What bytes of a region stand for, and the constants of integer steps. */
import { runStep } from '../../kernels/index.js';
import { quantised } from '../../numeric/rounding.js';
import { sizeOf } from '../../numeric/shapes.js';
import { fromBytes, toBytes } from '../../tensor/constant-loops.js';
import { recalled } from '../../tensor/recall.js';
import {
  ARRAY_OF,
  contentOf,
  INTEGER_RANGE,
  isBigData,
  type NumberData,
  type TensorData,
  type ValueType,
} from '../../tensor/tensor.js';
import { type Activation, NONE, type Requantisation, type Term, type ValueId } from '../program/program.js';
import type { Region, WorkStepNamed } from './region.js';

export type ByteType = 'uint8' | 'int8';
export const isByteType = (dtype: ValueType): dtype is ByteType => dtype === 'uint8' || dtype === 'int8';

/** Scales and zero points that are known before any run: one, or one for each position of `axis`. */
export interface Scaling {
  readonly scales: Float32Array;
  readonly zeros: NumberData;
  readonly axis: number;
}

/** A float32 value as the integers that it was made from. */
export interface Quantised extends Scaling {
  readonly bytes: ValueId;
  readonly dtype: ValueType;
}

function scalingOf(
  region: Region,
  { inputs, attrs }: WorkStepNamed<'quantize' | 'dequantize'>,
): Scaling | undefined {
  const scales = region.value(inputs[1]!).data;
  const zero = inputs[2] ?? NONE;
  if (!(scales instanceof Float32Array)) return undefined;
  const zeros = zero === NONE ? zerosFor(scales) : region.value(zero).data;
  return zeros && !isBigData(zeros) ? { scales, zeros, axis: attrs.axis } : undefined;
}

const absent = new WeakMap<Float32Array, Int32Array>();

/** The zero points that aren't there, made once for each list of scales. */
function zerosFor(scales: Float32Array): Int32Array {
  const zeros = absent.get(scales) ?? new Int32Array(scales.length);
  absent.set(scales, zeros);
  return zeros;
}

/** What a `dequantize` makes of integers, if its scales are constants. */
export function dequantised(region: Region, id: ValueId): Quantised | undefined {
  const step = region.producerOf(id, 'dequantize');
  const scaling = step && scalingOf(region, step);
  if (!step || !scaling) return undefined;
  const { scales, zeros, axis } = scaling;
  const bytes = step.inputs[0]!;
  return { scales, zeros, axis, bytes, dtype: region.value(bytes).dtype };
}

/** The same, of bytes with one scale. */
export function uniformly(
  region: Region,
  id: ValueId,
): { readonly bytes: ValueId; readonly dtype: ByteType; readonly term: Term } | undefined {
  const found = dequantised(region, id);
  if (!found || !isByteType(found.dtype) || found.scales.length !== 1) return undefined;
  return {
    bytes: found.bytes,
    dtype: found.dtype,
    term: { zero: found.zeros[0]!, factor: found.scales[0]! },
  };
}

/** What a `quantize` makes bytes with, if it is one constant scale. */
export function targetOf(
  region: Region,
  step: WorkStepNamed<'quantize'>,
): { readonly dtype: ByteType; readonly term: Term } | undefined {
  const scaling = scalingOf(region, step);
  const { dtype } = region.value(step.outputs[0]!);
  if (scaling?.scales.length !== 1 || !isByteType(dtype)) return undefined;
  return { dtype, term: { zero: scaling.zeros[0]!, factor: scaling.scales[0]! } };
}

export type Target = NonNullable<ReturnType<typeof targetOf>>;

export const sameTerm = (a: Term, b: Term): boolean => a.zero === b.zero && a.factor === b.factor;

/** Requantisation to all bytes of a type. */
export function anyByte(dtype: ByteType, zero: number): Requantisation {
  const [low, high] = INTEGER_RANGE[dtype];
  return { zero, low, high };
}

/** The bytes that an activation leaves possible, if it only bounds its input; undefined for other functions. */
export function boundsOf(
  { kind, alpha, beta }: Activation,
  { dtype, term }: Target,
): Requantisation | undefined {
  const all = anyByte(dtype, term.zero);
  const byte = (bound: number) =>
    quantised(Math.fround(bound), Math.fround(term.factor), term.zero, all.low, all.high);
  switch (kind) {
    case 'none':
      return all;
    case 'relu':
      return { ...all, low: byte(0) };
    case 'clip':
      return alpha <= beta ? { ...all, low: byte(alpha), high: byte(beta) } : undefined;
    default:
      return undefined;
  }
}

const ALL_BYTES = Uint8Array.from({ length: 256 }, (_, i) => i);
const EACH_BYTE = { uint8: ALL_BYTES, int8: new Int8Array(ALL_BYTES.buffer) } as const;

/** The numbers that the 256 bytes of a type stand for, in the order of a table. */
export function numbersOf(dtype: ByteType, { zero, factor }: Term): Float32Array {
  return fromBytes(EACH_BYTE[dtype], zero, factor);
}

/** Bytes plus a number, written to an array of the other type. Methods with callbacks take longer where each is called a few times. */
export function shifted<T extends Uint8Array | Int8Array>(
  bytes: Uint8Array | Int8Array,
  to: T,
  shift: number,
): T {
  recalled(bytes);
  for (let i = 0; i < bytes.length; i++) to[i] = bytes[i]! + shift;
  return to;
}

/** The bytes from `low` to `high` that numbers become. */
export function bytesOf(
  numbers: Float32Array,
  dtype: ByteType,
  { zero, factor }: Term,
  [low, high]: readonly [low: number, high: number] = INTEGER_RANGE[dtype],
): Uint8Array | Int8Array {
  const bytes = new ARRAY_OF[dtype](numbers.length);
  toBytes(numbers, Math.fround(factor), zero, low, high, bytes);
  return bytes;
}

/** Whether a table maps each byte from `low` to `high` to itself. */
export function isIdentity(table: Uint8Array | Int8Array, low: number, high: number): boolean {
  for (let byte = low; byte <= high; byte++) if (table[byte & 255] !== byte) return false;
  return true;
}

const derived = new WeakMap<TensorData, Map<string, TensorData>>();

/**
 * What `compute` makes of a constant, or made before: all programs of a model share it, so that its packed form is shared, too.
 * `key` says everything that it depends on. Weights may still be in a file: `compute` recalls what it reads.
 */
export function derive(from: TensorData, key: string, compute: () => TensorData): TensorData {
  const known = derived.get(from) ?? new Map<string, TensorData>();
  derived.set(from, known);
  const data = known.get(key) ?? compute();
  known.set(key, data);
  return data;
}

/** What may be derived of one constant, each as large as it: what many scales make of the same bytes is computed in each run. */
const MAX_DERIVED = 32;

function isExhausted(from: TensorData, key: string): boolean {
  const known = derived.get(from);
  return known !== undefined && known.size >= MAX_DERIVED && !known.has(key);
}

/** What a table makes of bytes that are constants; undefined for others. */
export function lookedUp(
  region: Region,
  bytes: ValueId,
  table: Uint8Array | Int8Array,
  dtype: ByteType,
): ValueId | undefined {
  const { data, name, shape } = region.value(bytes);
  if (!data) return undefined;
  const key = `table ${dtype} ${contentOf(table)}`;
  const made = derive(data, key, () => {
    recalled(data);
    return new ARRAY_OF[dtype](data.length).map((_, i) => table[Number(data[i]) & 255]!);
  });
  return region.addValue(name, dtype, shape, made);
}

/** Computes what is left of `dequantize` on constants. */
export function foldDequantised(region: Region): void {
  for (const op of region.ops) {
    if (op.op === 'if') {
      region.changeBranches(op, foldDequantised);
      continue;
    }
    const found = op.op === 'dequantize' ? dequantised(region, op.outputs[0]!) : undefined;
    const { data, shape, dtype } = found ? region.value(found.bytes) : {};
    if (op.op !== 'dequantize' || !found || !data || !shape || !dtype) continue;
    const key = `float ${found.axis} ${contentOf(found.scales)} ${contentOf(found.zeros)}`;
    if (isExhausted(data, key)) continue;
    const bytes = uniformly(region, op.outputs[0]!);
    const floats = derive(data, key, () => {
      recalled(data);
      if (bytes) return fromBytes(data as Uint8Array | Int8Array, bytes.term.zero, bytes.term.factor);
      const to = new Float32Array(sizeOf(shape));
      const inputs = op.inputs.map((id) => (id === NONE ? undefined : (region.value(id) as never)));
      runStep(op, inputs, [{ dtype: 'float32', shape, data: to }]);
      return to;
    });
    const y = op.outputs[0]!;
    const constant = region.addValue(region.value(y).name, 'float32', shape, floats);
    region.remove(op);
    region.substitute(y, constant);
  }
}
