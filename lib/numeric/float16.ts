/** float16 (IEEE 754 binary16), which is stored as bits in integers. */

const BITS = new Uint32Array(1);
const FLOAT = new Float32Array(BITS.buffer);

export function float16ToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The nearest float16 of a float32, ties to even. A number that isn't a float32 is first rounded to one. */
export function numberToFloat16(value: number): number {
  FLOAT[0] = value;
  const bits = BITS[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // Half of the last step above the largest number, and all beyond.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  // Numbers below the normal ones are multiples of 2^-24.
  if (magnitude < 0x38800000) {
    const steps = Math.abs(FLOAT[0]!) * 2 ** 24;
    const whole = Math.floor(steps);
    const rest = steps - whole;
    return sign | (whole + (rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? 1 : 0));
  }
  const even = (magnitude >>> 13) & 1;
  return sign | ((magnitude - 0x38000000 + 0xfff + even) >>> 13);
}

let table: Float32Array | undefined;

/** The numbers that float16 bits stand for. */
export function widenFloat16(bits: ArrayLike<number>): Float32Array {
  table ??= Float32Array.from({ length: 2 ** 16 }, (_, i) => float16ToNumber(i));
  const numbers = new Float32Array(bits.length);
  for (let i = 0; i < numbers.length; i++) numbers[i] = table[bits[i]! & 0xffff]!;
  return numbers;
}

/** The bits of the nearest float16 of each number. */
export function narrowToFloat16(numbers: ArrayLike<number>): Uint16Array {
  return Uint16Array.from(numbers, numberToFloat16);
}
