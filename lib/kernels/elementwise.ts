/** Pointwise operators. Integers wrap around; integer division truncates, and a division by zero gives 0. */

import { sizeOf } from '../numeric/shapes.js';
import { isBig } from '../tensor/tensor.js';
import { activate } from './activation.js';
import { FLOAT_ROWS, modulo } from './float-rows.js';
import type { BinaryKind, CompareKind, LogicalKind, Operations } from './operations.js';
import { forEachRow, planRows } from './rows.js';
import { broadcastStrides, denseStrides, floats, type KernelTensor, splitAt } from './tensor.js';

export function unary(x: KernelTensor, y: KernelTensor, attrs: Operations['unary']): void {
  activate(floats(x), floats(y), sizeOf(y.shape), attrs.act);
}

/** y = act(x*scale[c] + shift[c]), channels along axis 1. */
export function affine(
  x: KernelTensor,
  scale: KernelTensor,
  shift: KernelTensor,
  y: KernelTensor,
  attrs: Operations['affine'],
): void {
  const { outer, length, inner } = splitAt(x.shape, 1);
  const [from, to, factors, shifts] = [floats(x), floats(y), floats(scale), floats(shift)];
  let i = 0;
  for (let item = 0; item < outer; item++) {
    for (let c = 0; c < length; c++) {
      const factor = factors[c]!;
      const term = shifts[c]!;
      for (const end = i + inner; i < end; i++) to[i] = from[i]! * factor + term;
    }
  }
  if (attrs.act.kind !== 'none') activate(to, to, i, attrs.act);
}

/** Rows of y, and of the operands broadcast to it. */
function broadcastRows(y: KernelTensor, operands: readonly KernelTensor[]) {
  return planRows(y.shape, [
    denseStrides(y.shape),
    ...operands.map((operand) => broadcastStrides(operand.shape, y.shape)),
  ]);
}

/** Results are stored into an array of integers, which reduces them modulo the size of its type. */
const INTEGER_OPS: Record<BinaryKind, (a: number, b: number) => number> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: Math.imul,
  div: (a, b) => (b === 0 ? 0 : Math.trunc(a / b)),
  min: Math.min,
  max: Math.max,
  mod: (a, b) => (b === 0 ? 0 : modulo(a, b)),
  fmod: (a, b) => (b === 0 ? 0 : a % b),
  pow: (a, b) => Number(BigInt.asIntN(32, power(BigInt(a), BigInt(b)))),
};

/** Results are stored into BigInt64Array or BigUint64Array, which reduces them modulo 2^64. */
const BIGINT_OPS: Record<BinaryKind, (a: bigint, b: bigint) => bigint> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => (b === 0n ? 0n : a / b),
  min: lesser,
  max: greater,
  mod: (a, b) => {
    if (b === 0n) return 0n;
    const rest = a % b;
    return rest !== 0n && rest < 0n !== b < 0n ? rest + b : rest;
  },
  fmod: (a, b) => (b === 0n ? 0n : a % b),
  pow: power,
};

/** The smaller of two. */
export function lesser(a: bigint, b: bigint): bigint {
  if (b < a) return b;
  return a;
}

/** The greater of two. */
export function greater(a: bigint, b: bigint): bigint {
  if (b > a) return b;
  return a;
}

/** Modulo 2^64, so that no number grows; a fraction is truncated, and 0 to a negative power is 0. */
function power(base: bigint, exponent: bigint): bigint {
  if (exponent < 0n)
    return base === 1n || (base === -1n && exponent % 2n === 0n) ? 1n : base === -1n ? -1n : 0n;
  let result = 1n;
  for (let square = base, left = exponent; left > 0n; left >>= 1n) {
    if (left & 1n) result = BigInt.asIntN(64, result * square);
    square = BigInt.asIntN(64, square * square);
  }
  return result;
}

export function binary(a: KernelTensor, b: KernelTensor, y: KernelTensor, attrs: Operations['binary']): void {
  const rows = broadcastRows(y, [a, b]);
  const { length } = rows;
  const [, sa = 0, sb = 0] = rows.steps;
  if (y.dtype === 'float32') {
    const row = FLOAT_ROWS[attrs.kind];
    forEachRow(rows, ([at = 0, ia = 0, ib = 0]) =>
      row(floats(a), ia, sa, floats(b), ib, sb, floats(y), at, length),
    );
    if (attrs.act.kind !== 'none') activate(floats(y), floats(y), sizeOf(y.shape), attrs.act);
  } else if (isBig(y.dtype)) {
    const op = BIGINT_OPS[attrs.kind];
    const [left, right, to] = [a.data, b.data, y.data] as BigInt64Array[];
    forEachRow(rows, ([at = 0, ia = 0, ib = 0]) => {
      for (let i = 0; i < length; i++) to![at + i] = op(left![ia + i * sa]!, right![ib + i * sb]!);
    });
  } else {
    const op = INTEGER_OPS[attrs.kind];
    const [left, right, to] = [a.data, b.data, y.data] as Int32Array[];
    forEachRow(rows, ([at = 0, ia = 0, ib = 0]) => {
      for (let i = 0; i < length; i++) to![at + i] = op(left![ia + i * sa]!, right![ib + i * sb]!);
    });
  }
}

const COMPARE_OPS: Record<CompareKind, (a: number | bigint, b: number | bigint) => boolean> = {
  gt: (a, b) => a > b,
  ge: (a, b) => a >= b,
  lt: (a, b) => a < b,
  le: (a, b) => a <= b,
  eq: (a, b) => a === b,
};

export function compare(a: KernelTensor, b: KernelTensor, y: KernelTensor, kind: CompareKind): void {
  const op = COMPARE_OPS[kind];
  const rows = broadcastRows(y, [a, b]);
  const [, sa = 0, sb = 0] = rows.steps;
  const [left, right, to] = [a.data, b.data, y.data as Uint8Array];
  forEachRow(rows, ([at = 0, ia = 0, ib = 0]) => {
    for (let i = 0; i < rows.length; i++) to[at + i] = op(left[ia + i * sa]!, right[ib + i * sb]!) ? 1 : 0;
  });
}

const LOGICAL_OPS: Record<LogicalKind, (a: boolean, b: boolean) => boolean> = {
  and: (a, b) => a && b,
  or: (a, b) => a || b,
  not: (a) => !a,
};

/** `b` is absent for `not`. */
export function logical(
  a: KernelTensor,
  b: KernelTensor | undefined,
  y: KernelTensor,
  kind: LogicalKind,
): void {
  const op = LOGICAL_OPS[kind];
  const second = b ?? a;
  const rows = broadcastRows(y, [a, second]);
  const [, sa = 0, sb = 0] = rows.steps;
  const [left, right, to] = [a.data, second.data, y.data] as Uint8Array[];
  forEachRow(rows, ([at = 0, ia = 0, ib = 0]) => {
    for (let i = 0; i < rows.length; i++) {
      to![at + i] = op(left![ia + i * sa] !== 0, right![ib + i * sb] !== 0) ? 1 : 0;
    }
  });
}

export function where(condition: KernelTensor, a: KernelTensor, b: KernelTensor, y: KernelTensor): void {
  const rows = broadcastRows(y, [condition, a, b]);
  const [, sc = 0, sa = 0, sb = 0] = rows.steps;
  const chosen = condition.data as Uint8Array;
  // Elements are only moved, so one loop serves bigints, too.
  const [left, right, to] = [a.data, b.data, y.data] as Float32Array[];
  forEachRow(rows, ([at = 0, ic = 0, ia = 0, ib = 0]) => {
    for (let i = 0; i < rows.length; i++) {
      to![at + i] = chosen[ic + i * sc] !== 0 ? left![ia + i * sa]! : right![ib + i * sb]!;
    }
  });
}
