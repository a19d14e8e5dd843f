/** Numbers that one byte holds, beside a scale for each column. */

const MAX = 127;
/** Columns of smaller numbers become zeros. */
const MIN = 2 ** -100;

/**
 * The nearest whole multiples, from -127 to 127, of a power of two: for each column, the least that reaches its largest number.
 * bfloat16 holds them exactly.
 * @param values finite, row-major
 */
export function nearestBytes(values: Float32Array, columns: number): Float32Array {
  const scales = new Float64Array(columns);
  for (const [i, value] of values.entries()) {
    scales[i % columns] = Math.max(scales[i % columns]!, Math.abs(value));
  }
  for (const [j, max] of scales.entries()) {
    let scale = 2 ** Math.floor(Math.log2(max / MAX));
    while (MAX * scale < max) scale *= 2;
    scales[j] = max < MIN ? 1 : scale;
  }
  return values.map((value, i) => {
    const scale = scales[i % columns]!;
    // Adding 0 leaves no -0, which a byte doesn't have.
    return Math.round(value / scale) * scale + 0;
  });
}
