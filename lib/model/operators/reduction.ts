import { range, type Shape, sizeOf } from '../../numeric/shapes.js';
import type { NodeLowering } from '../lowering.js';
import type { ValueId } from '../program.js';
import type { OperatorTable } from './operator.js';

/** `shape` with the lengths of `axes` set to 1, or removed. */
export function reduced(shape: Shape, axes: readonly number[], keep: boolean): number[] {
  return keep
    ? shape.map((length, axis) => (axes.includes(axis) ? 1 : length))
    : shape.filter((_, axis) => !axes.includes(axis));
}

/** Axes are an attribute up to opset 17, an input since then. */
function reduceMean(node: NodeLowering): ValueId {
  const x = node.float(0);
  const shape = node.shape(x);
  const given = (node.opset < 18 ? node.numbers('axes') : node.optionalIntegers(1, 'axes')) ?? [];
  if (given.length === 0 && node.number('noop_with_empty_axes', 0) !== 0) return x;
  const axes = given.length > 0 ? node.axes(given, shape.length).sort((a, b) => a - b) : range(shape.length);
  const output = {
    dtype: 'float32',
    shape: reduced(shape, axes, node.number('keepdims', 1) !== 0),
  } as const;
  if (axes.length === 0) return x;
  const spatial = shape.length >= 3 && axes.length === shape.length - 2 && axes[0] === 2;
  if (spatial && !shape.includes(0)) {
    return node.step('globalPool', [x], output, { kind: 'avg' });
  }
  return node.step('reduceMean', [x], output, { axes });
}

function argMax(node: NodeLowering): ValueId {
  const x = node.float(0);
  const shape = node.shape(x);
  const axis = node.axis(node.number('axis', 0), shape.length);
  if (shape[axis] === 0) node.invalid(`axis ${axis} of its input [${shape}] is empty`);
  const output = {
    dtype: 'int64',
    shape: reduced(shape, [axis], node.number('keepdims', 1) !== 0),
  } as const;
  return node.step('argMax', [x], output, { axis, selectLast: node.number('select_last_index', 0) !== 0 });
}

/** The number is an attribute up to opset 9, an input since then. */
function topK(node: NodeLowering): readonly ValueId[] {
  const x = node.float(0);
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
    { dtype: 'float32', shape: found },
    { dtype: 'int64', shape: found },
  ] as const;
  return node.steps('topK', [x], outputs, { axis, largest: node.number('largest', 1) !== 0 });
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
  ReduceMean: { lower: reduceMean, constantInputs: [1] },
  ArgMax: { lower: argMax },
  TopK: { lower: topK, constantInputs: [1] },
  Softmax: { lower: (node) => softmaxOf(node, node.float(0), node.opset) },
  LogSoftmax: { lower: (node) => softmaxOf(node, node.float(0), node.opset, true) },
};
