/** float32 numbers that bfloat16 holds as well: those whose lower 16 bits are 0. */

function bitsOf({ buffer, byteOffset, length }: Float32Array): Uint32Array {
  return new Uint32Array(buffer, byteOffset, length);
}

export function holdsBfloat16(values: Float32Array): boolean {
  return bitsOf(values).every((word) => (word & 0xffff) === 0);
}

/** The nearest such numbers; ties go to the even one. */
export function nearestBfloat16(values: Float32Array): Float32Array {
  const rounded = values.slice();
  const bits = bitsOf(rounded);
  for (const [i, word] of bits.entries()) bits[i] = (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000;
  return rounded;
}
