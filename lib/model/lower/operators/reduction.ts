import { range, type Shape, sizeOf } from '../../../numeric/shapes.js';
import { ARRAY_OF, isBig } from '../../../tensor/tensor.js';
import type { ReduceKind, ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { absolute, unary } from './activations.js';
import { arithmetic, negated } from './elementwise.js';
import type { Operator, OperatorTable } from './operator.js';

/** `shape` with the lengths of `axes` set to 1, or removed. */
export function reduced(shape: Shape, axes: readonly number[], keep: boolean): number[] {
  return keep
    ? shape.map((length, axis) => (axes.includes(axis) ? 1 : length))
    : shape.filter((_, axis) => !axes.includes(axis));
}

/** Reduces `axes` (sorted) of x, which are kept with length 1 or left out. */
type Reducer = (node: NodeLowering, x: ValueId, axes: readonly number[], keep: boolean) => ValueId;

/** Over all spatial axes of a batch of images, which kernels do. */
function isSpatial(shape: Shape, axes: readonly number[]): boolean {
  return shape.length >= 3 && axes.length === shape.length - 2 && axes[0] === 2 && !shape.includes(0);
}

const mean: Reducer = (node, x, axes, keep) => {
  const shape = node.shape(x);
  // ONNX leaves open what the mean of no elements is; onnxruntime says 0.
  if (axes.some((axis) => shape[axis] === 0)) return sum(node, x, axes, keep);
  const output = { dtype: 'float32', shape: reduced(shape, axes, keep) } as const;
  if (isSpatial(shape, axes)) return node.step('globalPool', [x], output, { kind: 'avg' });
  return node.step('reduceMean', [x], output, { axes });
};

function plain(kind: ReduceKind): Reducer {
  return (node, x, axes, keep) => {
    const { dtype, shape } = node.value(x);
    const output = { dtype, shape: reduced(shape, axes, keep) };
    if (kind === 'max' && dtype === 'float32' && isSpatial(shape, axes)) {
      return node.step('globalPool', [x], output, { kind });
    }
    return node.step('reduce', [x], output, { kind, axes });
  };
}
/** Sums of `axes`, kept with length 1 or left out. */
export const sum = plain('sum');
const max = plain('max');

const sumSquare: Reducer = (node, x, axes, keep) => sum(node, arithmetic(node, 'mul', x, x), axes, keep);
export const l1: Reducer = (node, x, axes, keep) => sum(node, absolute(node, x), axes, keep);
export const l2: Reducer = (node, x, axes, keep) => unary(node, sumSquare(node, x, axes, keep), 'sqrt');
const logSum: Reducer = (node, x, axes, keep) => unary(node, sum(node, x, axes, keep), 'log');

/** Shifted by the maximum, so that no power overflows; an infinite maximum shifts by the largest number. */
const logSumExp: Reducer = (node, x, axes, keep) => {
  const largest = 3.4028234663852886e38;
  const shift = unary(node, max(node, x, axes, true), 'clip', -largest, largest);
  const powers = unary(node, arithmetic(node, 'sub', x, shift), 'exp');
  const result = arithmetic(node, 'add', logSum(node, powers, axes, true), shift);
  return node.reshape(result, reduced(node.shape(x), axes, keep));
};

/**
 * Axes are an attribute before the opset `since`, an input from it on.
 * @param floats what isn't float32 is computed as such; otherwise a bool only, as uint8
 */
function reduction(reducer: Reducer, { since = 18, floats = false } = {}): Operator {
  const lower = (node: NodeLowering) => {
    const x = node.input(0);
    const { dtype, shape } = node.value(x);
    const given = (node.opset < since ? node.numbers('axes') : node.optionalIntegers(1, 'axes')) ?? [];
    if (given.length === 0 && node.number('noop_with_empty_axes', 0) !== 0) return x;
    const axes =
      given.length > 0 ? node.axes(given, shape.length).sort((a, b) => a - b) : range(shape.length);
    const computed = floats ? 'float32' : dtype === 'bool' ? 'uint8' : dtype;
    return node.cast(reducer(node, node.cast(x, computed), axes, node.number('keepdims', 1) !== 0), dtype);
  };
  return { lower, constantInputs: [1] };
}

/** Inverted bits reverse the order of integers: x subtracted from a number of ones. */
function argMin(node: NodeLowering): ValueId {
  const given = node.input(0);
  const { dtype } = node.value(given);
  if (dtype === 'float32') return argMaxOf(node, negated(node, given));
  const ones = isBig(dtype) ? ARRAY_OF[dtype].of(-1n) : ARRAY_OF[dtype].of(-1);
  return argMaxOf(node, arithmetic(node, 'sub', node.constantOf(dtype, [], ones), given));
}

function cumSum(node: NodeLowering): ValueId {
  const x = node.input(0);
  const { dtype, shape } = node.value(x);
  if (dtype === 'bool') node.invalid('its input is bool; expected numbers');
  const axis = node.axis(node.optionalScalar(1, 'axis') ?? node.invalid('its axis is missing'), shape.length);
  const attrs = {
    axis,
    exclusive: node.number('exclusive', 0) !== 0,
    reverse: node.number('reverse', 0) !== 0,
  };
  return node.step('cumSum', [x], { dtype, shape }, attrs);
}

function argMaxOf(node: NodeLowering, x: ValueId): ValueId {
  if (node.value(x).dtype === 'bool') node.invalid('its input is bool; expected numbers');
  const shape = node.shape(x);
  const axis = node.axis(node.number('axis', 0), shape.length);
  if (shape[axis] === 0) node.invalid(`axis ${axis} of its input [${shape}] is empty`);
  const output = {
    dtype: 'int64',
    shape: reduced(shape, [axis], node.number('keepdims', 1) !== 0),
  } as const;
  return node.step('argMax', [x], output, { axis, selectLast: node.number('select_last_index', 0) !== 0 });
}

/** The number is an attribute up to opset 9, an input since then. Integers are compared as int64. */
function topK(node: NodeLowering): readonly ValueId[] {
  const given = node.input(0);
  const { dtype } = node.value(given);
  if (dtype === 'bool') node.invalid('its input is bool; expected numbers');
  if (dtype === 'uint64') node.unsupported('its input is uint64; cast it to int64');
  const compared = dtype === 'float32' ? dtype : 'int64';
  const x = node.cast(given, compared);
  const shape = node.shape(x);
  const axis = node.axis(node.number('axis', -1), shape.length);
  const count = node.opset < 10 ? node.number('k', -1) : (node.optionalScalar(1, 'k') ?? -1);
  if (!(Number.isInteger(count) && count >= 0 && count <= shape[axis]!)) {
    node.invalid(
      `its k ${count} is outside 0..${shape[axis]}, the length of axis ${axis} of its input [${shape}]`,
    );
  }
  const found = shape.with(axis, count);
  const outputs = [
    { dtype: compared, shape: found },
    { dtype: 'int64', shape: found },
  ] as const;
  const attrs = { axis, largest: node.number('largest', 1) !== 0 };
  const [values, places] = node.steps('topK', [x], outputs, attrs) as [ValueId, ValueId];
  return [node.cast(values, dtype), places];
}

/** Up to opset 12, the axes from `axis` on count as one. */
export function softmaxOf(node: NodeLowering, x: ValueId, opset: number, log = false): ValueId {
  const shape = node.shape(x);
  const rank = shape.length;
  if (rank === 0) node.invalid('its input is a scalar');
  const flattens = opset < 13;
  const given = node.number('axis', flattens ? 1 : -1);
  const axis = flattens && given === rank ? rank : node.axis(given, rank);
  if (!flattens || axis === rank - 1) {
    return node.step('softmax', [x], { dtype: 'float32', shape }, { axis, log });
  }
  const flat = [sizeOf(shape.slice(0, axis)), sizeOf(shape.slice(axis))];
  const output = { dtype: 'float32', shape: flat } as const;
  return node.reshape(node.step('softmax', [node.reshape(x, flat)], output, { axis: 1, log }), shape);
}

export const REDUCTION: OperatorTable = {
  ReduceMean: reduction(mean, { floats: true }),
  ReduceSum: reduction(sum, { since: 13 }),
  ReduceProd: reduction(plain('prod')),
  ReduceMax: reduction(max),
  ReduceMin: reduction(plain('min')),
  ReduceL1: reduction(l1),
  ReduceL2: reduction(l2, { floats: true }),
  ReduceLogSum: reduction(logSum, { floats: true }),
  ReduceLogSumExp: reduction(logSumExp, { floats: true }),
  ReduceSumSquare: reduction(sumSquare),
  ArgMax: { lower: (node) => argMaxOf(node, node.input(0)) },
  ArgMin: { lower: argMin },
  CumSum: { lower: cumSum, constantInputs: [1] },
  TopK: { lower: topK, constantInputs: [1] },
  Softmax: { lower: (node) => softmaxOf(node, node.float(0), node.opset) },
  LogSoftmax: { lower: (node) => softmaxOf(node, node.float(0), node.opset, true) },
};
