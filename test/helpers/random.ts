import fc from 'fast-check';
import type { KernelTensor } from 'lib/kernels/index.js';
import { allocate, isBig, type ValueType } from 'lib/tensor/tensor.js';

/** Seeded numbers in [0, 1) (mulberry32). */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `length` seeded floats in [-1, 1). */
export function randomFloats(length: number, seed: number): Float32Array {
  const next = uniform(seed);
  return Float32Array.from({ length }, () => next() * 2 - 1);
}

export type Fill =
  /** Floats in [-1, 1); integers in [-5, 5], or [0, 5] if unsigned; booleans. */
  | 'plain'
  /** Includes NaN, infinities, zeros of both signs and ties; integers at the limits of their range. */
  | 'special';

const SPECIAL_FLOATS = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  0,
  -0,
  0.5,
  -0.5,
  3e9,
  -1e20,
];
const SPECIAL_INTEGERS: Record<Exclude<ValueType, 'float32'>, bigint[]> = {
  uint8: [0n, 255n, 128n],
  int8: [-128n, 127n, 0n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n, -1n, 0n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n, -1n, 0n, 2n ** 53n + 1n, 2n ** 60n + 2n ** 36n + 1n],
  bool: [0n, 1n],
  int16: [-(2n ** 15n), 2n ** 15n - 1n, -1n, 0n],
  uint16: [0n, 2n ** 16n - 1n, 2n ** 15n],
  uint32: [0n, 2n ** 32n - 1n, 2n ** 31n],
  uint64: [0n, 2n ** 64n - 1n, 2n ** 63n, 2n ** 53n + 1n, 2n ** 63n + 2n ** 39n + 1n],
};

function element(dtype: ValueType, fill: Fill, next: () => number): number | bigint {
  const special = fill === 'special' && next() < 0.3;
  if (dtype === 'float32') {
    return special ? SPECIAL_FLOATS[Math.floor(next() * SPECIAL_FLOATS.length)]! : next() * 2 - 1;
  }
  const list = SPECIAL_INTEGERS[dtype];
  let value = BigInt(Math.floor(next() * 11) - 5);
  if (dtype === 'bool') value = BigInt(Math.floor(next() * 2));
  else if (dtype.startsWith('u') && value < 0n) value = -value;
  if (special) value = list[Math.floor(next() * list.length)]!;
  return isBig(dtype) ? value : Number(value);
}

export function randomTensor(
  dtype: ValueType,
  shape: readonly number[],
  seed: number,
  fill: Fill = 'plain',
): KernelTensor {
  const next = uniform(seed);
  const data = allocate(
    dtype,
    shape.reduce((a, b) => a * b, 1),
  );
  for (let i = 0; i < data.length; i++) data[i] = element(dtype, fill, next);
  return { dtype, shape, data };
}

/** A tensor of the given type and shape from any numbers. */
export function tensorOf(
  dtype: ValueType,
  shape: readonly number[],
  fill: Fill = 'plain',
): fc.Arbitrary<KernelTensor> {
  return fc.integer().map((seed) => randomTensor(dtype, shape, seed, fill));
}
