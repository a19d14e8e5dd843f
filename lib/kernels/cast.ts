import { sizeOf } from '../numeric/shapes.js';
import { isBig, type ValueType } from '../tensor.js';
import type { KernelTensor } from './tensor.js';

/**
 * Converts elements as C does; where C leaves a float to integer conversion undefined, NaN gives 0 and numbers out of
 * range saturate. Integers wrap around. int64 to float32 goes through double precision.
 */
export function cast(x: KernelTensor, y: KernelTensor): void {
  const count = sizeOf(y.shape);
  const convert = converter(x.dtype, y.dtype);
  const from = x.data as ArrayLike<number | bigint>;
  const to = y.data as { [index: number]: number | bigint };
  for (let i = 0; i < count; i++) to[i] = convert(from[i]!);
}

/** `value` as an element of type `dtype`. */
export function castNumber(value: number, dtype: ValueType): number | bigint {
  return converter('float32', dtype)(value);
}

type Convert = (value: number | bigint) => number | bigint;

/** What is left to do (wrapping and rounding) is what storing into the typed array of `to` does. */
function converter(from: ValueType, to: ValueType): Convert {
  if (from === to) return (v) => v;
  if (to === 'bool') return isBig(from) ? (v) => (v === 0n ? 0 : 1) : (v) => (v === 0 ? 0 : 1);
  if (to === 'float32') return Number;
  if (from === 'float32') return SATURATE[to];
  if (isBig(to)) return BigInt;
  return isBig(from) ? (v) => Number(BigInt.asIntN(32, v as bigint)) : (v) => v;
}

const SATURATE: Record<Exclude<ValueType, 'float32' | 'bool'>, Convert> = {
  uint8: (v) => saturate(v as number, 0, 255),
  int8: (v) => saturate(v as number, -128, 127),
  int16: (v) => saturate(v as number, -(2 ** 15), 2 ** 15 - 1),
  uint16: (v) => saturate(v as number, 0, 2 ** 16 - 1),
  int32: (v) => saturate(v as number, -(2 ** 31), 2 ** 31 - 1),
  uint32: (v) => saturate(v as number, 0, 2 ** 32 - 1),
  int64: (v) => saturateBig(v as number, -(2n ** 63n), 2n ** 63n - 1n),
  uint64: (v) => saturateBig(v as number, 0n, 2n ** 64n - 1n),
};

function saturateBig(v: number, low: bigint, high: bigint): bigint {
  const whole = Math.trunc(v);
  if (Number.isNaN(whole)) return 0n;
  // The limit above rounds to a power of two, which is beyond it.
  if (whole >= Number(high)) return high;
  return whole <= Number(low) ? low : BigInt(whole);
}

function saturate(v: number, low: number, high: number): number {
  return Number.isNaN(v) ? 0 : Math.min(high, Math.max(low, Math.trunc(v)));
}
