import { sizeOf } from '../numeric/shapes.js';
import { INTEGER_RANGE, isBig, type ValueType } from '../tensor/tensor.js';
import type { KernelTensor } from './tensor.js';

/**
 * Converts elements as C does; where C leaves a float to integer conversion undefined, NaN gives 0 and numbers out of
 * range saturate. Integers wrap around.
 */
export function cast(x: KernelTensor, y: KernelTensor): void {
  const count = sizeOf(y.shape);
  const convert = converter(x.dtype, y.dtype);
  const from = x.data as ArrayLike<number | bigint>;
  const to = y.data as { [index: number]: number | bigint };
  for (let i = 0; i < count; i++) to[i] = convert(from[i]!);
}

type Convert = (value: number | bigint) => number | bigint;

/** What is left to do (wrapping and rounding) is what storing into the typed array of `to` does. */
function converter(from: ValueType, to: ValueType): Convert {
  if (from === to) return (v) => v;
  if (to === 'bool') return isBig(from) ? (v) => (v === 0n ? 0 : 1) : (v) => (v === 0 ? 0 : 1);
  if (to === 'float32') return isBig(from) ? (v) => roundedOnce(v as bigint) : Number;
  if (from === 'float32') {
    const [low, high] = INTEGER_RANGE[to] as readonly [number, number] | readonly [bigint, bigint];
    return typeof low === 'bigint'
      ? (v) => saturateBig(v as number, low, high as bigint)
      : (v) => saturate(v as number, low, high as number);
  }
  if (isBig(to)) return BigInt;
  return isBig(from) ? (v) => Number(BigInt.asIntN(32, v as bigint)) : (v) => v;
}

/**
 * A number that rounds to the float32 that `v` rounds to. Double precision would round first what is beyond 2^53, and could end half-way
 * between two float32: there the last 12 bits, far below what float32 keeps, become one that says whether any of them was set.
 */
function roundedOnce(v: bigint): number {
  const rest = v & 0xfffn;
  const exact = rest === 0n || (v < 2n ** 53n && v > -(2n ** 53n));
  return Number(exact ? v : (v - rest) | 0x800n);
}

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
