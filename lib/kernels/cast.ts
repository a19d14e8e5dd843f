import { sizeOf } from '../numeric/shapes.js';
import type { DataType } from '../tensor.js';
import type { KernelTensor } from './tensor.js';

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

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
export function castNumber(value: number, dtype: DataType): number | bigint {
  return converter('float32', dtype)(value);
}

type Convert = (value: number | bigint) => number | bigint;

/** What is left to do (wrapping and rounding) is what storing into the typed array of `to` does. */
function converter(from: DataType, to: DataType): Convert {
  if (from === to) return (v) => v;
  if (to === 'bool') return from === 'int64' ? (v) => (v === 0n ? 0 : 1) : (v) => (v === 0 ? 0 : 1);
  if (to === 'float32') return Number;
  if (from === 'float32') return SATURATE[to];
  if (to === 'int64') return BigInt;
  return from === 'int64' ? (v) => Number(BigInt.asIntN(32, v as bigint)) : (v) => v;
}

const SATURATE: Record<Exclude<DataType, 'float32' | 'bool'>, Convert> = {
  uint8: (v) => saturate(v as number, 0, 255),
  int8: (v) => saturate(v as number, -128, 127),
  int32: (v) => saturate(v as number, -(2 ** 31), 2 ** 31 - 1),
  int64: (v) => {
    const whole = Math.trunc(v as number);
    if (Number.isNaN(whole)) return 0n;
    if (whole >= 2 ** 63) return INT64_MAX;
    return whole < -(2 ** 63) ? INT64_MIN : BigInt(whole);
  },
};

function saturate(v: number, low: number, high: number): number {
  return Number.isNaN(v) ? 0 : Math.min(high, Math.max(low, Math.trunc(v)));
}
