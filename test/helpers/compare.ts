type Elements = ArrayLike<number | bigint>;

/**
 * How far a float32 result may be from the exact one.
 *  - `relative` of the larger magnitude: for rounding of the result itself
 *  - `absolute`: for cancellation in sums of terms of magnitude 1
 */
export interface Tolerance {
  readonly relative: number;
  readonly absolute: number;
}

/** Index of the first element that differs by more than allowed; -1 if there is none. NaN equals NaN. */
export function firstDifference(actual: Elements, expected: Elements, tolerance: Tolerance): number {
  if (actual.length !== expected.length) return Math.min(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!];
    if (a === e) continue;
    if (typeof a === 'bigint' || typeof e === 'bigint') return i;
    if (Number.isNaN(a) && Number.isNaN(e)) continue;
    const bound = tolerance.absolute + tolerance.relative * Math.abs(e);
    // Results beyond the range of float32 round to infinity.
    if (!(Math.abs(a - e) <= bound) && !(Math.abs(e) > 3.4028235e38 && a === Math.fround(e))) return i;
  }
  return -1;
}

/** Fails with the position of the first difference. */
export function expectClose(actual: Elements, expected: Elements, tolerance: Tolerance): void {
  const at = firstDifference(actual, expected, tolerance);
  if (at < 0) return;
  throw new Error(
    `Element ${at} of ${expected.length} is ${actual[at]} instead of ${expected[at]} (${actual.length} elements).`,
  );
}
