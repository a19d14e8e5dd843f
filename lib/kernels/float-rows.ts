/** Rows of pointwise operators on floats: y[at + i] of a[ia + i*sa] and b[ib + i*sb]. */
import type { BinaryKind } from './operations.js';

export const FLOAT_ROWS: Record<BinaryKind, typeof addRow> = {
  add: addRow,
  sub: (a, ia, sa, b, ib, sb, y, at, n) => {
    for (let i = at, ja = ia, jb = ib; i < at + n; i++, ja += sa, jb += sb) y[i] = a[ja]! - b[jb]!;
  },
  mul: (a, ia, sa, b, ib, sb, y, at, n) => {
    for (let i = at, ja = ia, jb = ib; i < at + n; i++, ja += sa, jb += sb) y[i] = a[ja]! * b[jb]!;
  },
  div: (a, ia, sa, b, ib, sb, y, at, n) => {
    for (let i = at, ja = ia, jb = ib; i < at + n; i++, ja += sa, jb += sb) y[i] = a[ja]! / b[jb]!;
  },
  min: rowOf(Math.min),
  max: rowOf(Math.max),
  mod: rowOf(modulo),
  fmod: rowOf((a, b) => a % b),
  // In JavaScript, 1 to the power of NaN or infinity is NaN.
  pow: rowOf((a, b) => (a === 1 || (a === -1 && Math.abs(b) === Number.POSITIVE_INFINITY) ? 1 : a ** b)),
};

/** With the sign of the divisor. */
export function modulo(a: number, b: number): number {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
}

/** Kinds that few networks have: a call for each element. */
function rowOf(of: (a: number, b: number) => number): typeof addRow {
  return (a, ia, sa, b, ib, sb, y, at, n) => {
    for (let i = at, ja = ia, jb = ib; i < at + n; i++, ja += sa, jb += sb) y[i] = of(a[ja]!, b[jb]!);
  };
}

function addRow(
  a: Float32Array,
  ia: number,
  sa: number,
  b: Float32Array,
  ib: number,
  sb: number,
  y: Float32Array,
  at: number,
  n: number,
): void {
  for (let i = at, ja = ia, jb = ib; i < at + n; i++, ja += sa, jb += sb) y[i] = a[ja]! + b[jb]!;
}
