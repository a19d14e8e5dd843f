/**
 * Loops over constants of a program, in native code where there is some: V8 would optimise each of them for longer than it runs. Both
 * compute the same bits.
 */
import { quantised } from '../numeric/rounding.js';
import { loadBinding } from '../util/binding.js';
import type { TensorData } from './tensor-data.js';

type Bytes = Uint8Array | Int8Array;

/** See native/addon/constants.h. */
interface NativeLoops {
  extremes(elements: TensorData, found: Float64Array): boolean;
  scale(numbers: Float32Array, by: number, divided: boolean, results: Float32Array): void;
  toBytes(numbers: Float32Array, factor: number, zero: number, low: number, high: number, bytes: Bytes): void;
  fromBytes(bytes: Bytes, zero: number, factor: number, numbers: Float32Array): void;
  inUnits(
    numbers: Float64Array,
    own: Float32Array | null,
    units: Float32Array,
    limit: number,
    results: Int32Array,
  ): void;
}

/** Undefined without native code, and where `bench/addons.mjs` measures an addon of before. */
function native(): NativeLoops | undefined {
  const loaded = loadBinding();
  if ('problem' in loaded) return undefined;
  const loops = loaded.exports as Partial<NativeLoops>;
  return loops.inUnits && (loops as NativeLoops);
}

/** Bounds of the elements of a tensor. */
export interface Range {
  readonly low: number;
  readonly high: number;
}

const FOUND = new Float64Array(2);

/** The least and the greatest element; NaN if one is NaN, and infinities of the wrong signs if there is none. */
export function extremesAmong(data: TensorData): Range {
  if (native()?.extremes(data, FOUND)) return { low: FOUND[0]!, high: FOUND[1]! };
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < data.length; i++) {
    const element = Number(data[i]);
    low = Math.min(low, element);
    high = Math.max(high, element);
  }
  return { low, high };
}

/** Numbers multiplied by another one, or divided by it. */
export function scaled(numbers: Float32Array, by: number, divided = false): Float32Array {
  const results = new Float32Array(numbers.length);
  const loops = native();
  if (loops) loops.scale(numbers, by, divided, results);
  else for (let i = 0; i < numbers.length; i++) results[i] = divided ? numbers[i]! / by : numbers[i]! * by;
  return results;
}

/** Fills in the bytes from `low` to `high` that stand for numbers in steps of `factor`, a float32, around `zero`. */
export function toBytes(
  numbers: Float32Array,
  factor: number,
  zero: number,
  low: number,
  high: number,
  bytes: Bytes,
): void {
  const loops = native();
  if (loops) loops.toBytes(numbers, factor, zero, low, high, bytes);
  else for (let i = 0; i < numbers.length; i++) bytes[i] = quantised(numbers[i]!, factor, zero, low, high);
}

/** The numbers that bytes stand for. */
export function fromBytes(bytes: Bytes, zero: number, factor: number): Float32Array {
  const numbers = new Float32Array(bytes.length);
  const loops = native();
  if (loops) loops.fromBytes(bytes, zero, factor, numbers);
  else for (let i = 0; i < bytes.length; i++) numbers[i] = Math.fround(bytes[i]! - zero) * factor;
  return numbers;
}

/**
 * Numbers in units of `own`, or of 1, as integers in other units, from -limit to limit. Each list of units has one for all numbers, or
 * one for each. Units that differ by a rounding error alone are the same.
 */
export function inUnits(
  numbers: Float64Array,
  own: Float32Array | undefined,
  units: Float32Array,
  limit: number,
): Int32Array {
  const results = new Int32Array(numbers.length);
  const loops = native();
  if (loops) loops.inUnits(numbers, own ?? null, units, limit, results);
  else
    for (let i = 0; i < results.length; i++)
      results[i] = inUnit(numbers[i]!, own && at(own, i), at(units, i), limit);
  return results;
}

const at = (list: Float32Array, index: number) => list[list.length === 1 ? 0 : index]!;

function inUnit(number: number, own: number | undefined, unit: number, limit: number): number {
  const same = own !== undefined && Math.abs(own - unit) <= 1e-6 * own;
  return Math.max(-limit, Math.min(limit, same ? number : Math.round((number * (own ?? 1)) / unit)));
}
