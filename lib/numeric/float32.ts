const FLOAT = new Float32Array(1);
const BITS = new Int32Array(FLOAT.buffer);

/** The least float32 above the float32 `x`. Above infinity it is NaN, which no number reaches. */
export function nextAbove(x: number): number {
  // -0 becomes 0.
  FLOAT[0] = x + 0;
  BITS[0]! += x < 0 ? -1 : 1;
  return FLOAT[0];
}
