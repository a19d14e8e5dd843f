import { broadcast, sizeOf } from '../../../numeric/shapes.js';
import { NO_ACTIVATION, NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { OperatorTable } from './operator.js';

/** Makes the step of a product of two operands with at least two axes. */
type MakeProduct = (a: ValueId, b: ValueId, shape: readonly number[]) => ValueId;

/** numpy.matmul: a vector counts as a row on the left and as a column on the right. Of floats unless `make` is given. */
export function product(node: NodeLowering, a: ValueId, b: ValueId, make?: MakeProduct): ValueId {
  if (node.rank(a) === 0 || node.rank(b) === 0) node.invalid('its inputs must have at least one axis');
  const left = node.rank(a) === 1 ? node.reshape(a, [1, ...node.shape(a)]) : a;
  const right = node.rank(b) === 1 ? node.reshape(b, [...node.shape(b), 1]) : b;
  const whole = matrixProduct(node, left, right, make);
  const shape = [...node.shape(whole)];
  if (node.rank(b) === 1) shape.splice(-1, 1);
  if (node.rank(a) === 1) shape.splice(node.rank(b) === 1 ? -1 : -2, 1);
  return node.reshape(whole, shape);
}

/**
 * The product of operands with at least two axes. If the right one is a single constant matrix, it is a fully connected
 * layer.
 */
function matrixProduct(node: NodeLowering, a: ValueId, b: ValueId, make?: MakeProduct): ValueId {
  const [left, right] = [node.shape(a), node.shape(b)];
  const [depth, columns] = [left.at(-1)!, right.at(-1)!];
  const batch = broadcast(left.slice(0, -2), right.slice(0, -2));
  if (right.at(-2) !== depth || !batch) node.invalid(`matrices [${left}] and [${right}] can't be multiplied`);
  const shape = [...batch, left.at(-2)!, columns];
  if (make) return make(a, b, shape);
  if (right.length > 2 || !node.value(b).data) {
    return node.step('matmul', [a, b], { dtype: 'float32', shape }, {});
  }
  const attrs = { transB: false, act: NO_ACTIVATION };
  return node.step('gemm', [a, b, NONE, NONE], { dtype: 'float32', shape }, attrs);
}

/** Integers are multiplied as float32. */
function matMul(node: NodeLowering): ValueId {
  const { dtype } = node.value(node.input(0));
  const [a, b] = [0, 1].map((index) => node.cast(node.input(index), 'float32')) as [ValueId, ValueId];
  return node.cast(product(node, a, b), dtype);
}

/** y = alpha * a' * b' + beta * c. The factors are applied to b and c, where they fold into constants. */
export function gemm(node: NodeLowering): ValueId {
  const beta = node.number('beta', 1);
  const c = beta === 0 || node.optional(2) === NONE ? NONE : node.float(2);
  return generalProduct(node, node.float(0), node.float(1), c, {
    alpha: node.number('alpha', 1),
    beta,
    transA: node.number('transA', 0) !== 0,
    transB: node.number('transB', 0) !== 0,
  });
}

interface GemmForm {
  readonly alpha: number;
  readonly beta: number;
  readonly transA: boolean;
  readonly transB: boolean;
}

export function generalProduct(
  node: NodeLowering,
  left: ValueId,
  right: ValueId,
  c: ValueId,
  { alpha, beta, transA, transB }: GemmForm,
): ValueId {
  let [a, b] = [left, right];
  if (node.rank(a) !== 2 || node.rank(b) !== 2) node.invalid('its inputs must be matrices');
  if (transA) {
    const [depth, rows] = node.shape(a) as [number, number];
    a = node.step('transpose', [a], { dtype: 'float32', shape: [rows, depth] }, { perm: [1, 0] });
  }
  const [rows, depth] = node.shape(a) as [number, number];
  const [columns, inner] = transB ? node.shape(b) : [node.shape(b)[1], node.shape(b)[0]];
  if (inner !== depth) {
    node.invalid(`matrices [${node.shape(a)}] and [${node.shape(b)}] can't be multiplied`);
  }
  b = scaled(node, b, alpha);
  const shape = [rows, columns!];
  const given = c === NONE ? NONE : scaled(node, c, beta);
  const { row, rest } = addend(node, given, shape);
  const output = { dtype: 'float32', shape } as const;
  const y = node.step('gemm', [a, b, row, NONE], output, { transB, act: NO_ACTIVATION });
  return rest === NONE ? y : node.step('binary', [y, rest], output, { kind: 'add', act: NO_ACTIVATION });
}

/** x * factor */
export function scaled(node: NodeLowering, x: ValueId, factor: number): ValueId {
  if (factor === 1) return x;
  const output = { dtype: 'float32', shape: node.shape(x) } as const;
  return node.step('binary', [x, node.scalar(factor)], output, { kind: 'mul', act: NO_ACTIVATION });
}

/** The addend of a product: one row for all rows where possible, otherwise an operand of its own. */
function addend(
  node: NodeLowering,
  c: ValueId,
  shape: readonly [number, number] | number[],
): { row: ValueId; rest: ValueId } {
  if (c === NONE) return { row: NONE, rest: NONE };
  const from = node.shape(c);
  const target = broadcast(from, shape);
  if (from.length > 2 || !target || sizeOf(target) !== sizeOf(shape)) {
    node.invalid(`its input C [${from}] can't be broadcast to [${shape}]`);
  }
  if (from.length === 2 && from[0] !== 1) return { row: NONE, rest: c };
  const columns = shape[1]!;
  const row = node.reshape(c, [sizeOf(from)]);
  return { row: node.expand(row, [columns]), rest: NONE };
}

export const MATRIX: OperatorTable = {
  MatMul: { lower: matMul },
  Gemm: { lower: gemm },
};
