import { sizeOf } from '../../../numeric/shapes.js';
import { allocate } from '../../../tensor/tensor.js';
import { NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { OperatorTable } from './operator.js';

function int64s(node: NodeLowering, shape: readonly number[], values: readonly number[]): ValueId {
  return node.constantOf('int64', shape, BigInt64Array.from(values, BigInt));
}

/** `start` and `end` exist since opset 15 and are clamped. */
function shape(node: NodeLowering): ValueId {
  const lengths = node.shape(node.input(0));
  const part = lengths.slice(node.number('start', 0), node.number('end', lengths.length));
  return int64s(node, [part.length], part);
}

function constantOfShape(node: NodeLowering): ValueId {
  const lengths = node.integers(node.input(0), 'shape');
  node.checkShape(lengths);
  const value = node.tensor('value') ?? { dtype: 'float32', shape: [1], data: new Float32Array(1) };
  if (value.data.length !== 1) node.invalid(`its value has ${value.data.length} elements; expected one`);
  const { dtype } = value;
  const scalar = node.constantOf(dtype, [], value.data);
  return node.expand(scalar, lengths);
}

function arange(node: NodeLowering): ValueId {
  const ids = [0, 1, 2].map((index) => node.input(index));
  const [start, limit, delta] = ids.map((id, index) => {
    const what = ['start', 'limit', 'delta'][index]!;
    const value = node.constant(id, what);
    if (value.data.length !== 1) node.invalid(`its ${what} has ${value.data.length} elements; expected one`);
    return value.data[0]!;
  });
  const { dtype } = node.value(ids[0]!);
  if (ids.some((id) => node.value(id).dtype !== dtype)) node.invalid('its inputs have different types');
  const whole = typeof start === 'bigint' && typeof limit === 'bigint' && typeof delta === 'bigint';
  const count = whole
    ? countWhole(start, limit, delta)
    : Math.max(Math.ceil((Number(limit) - Number(start)) / Number(delta)), 0);
  node.afford(dtype, count);
  const data = allocate(dtype, count);
  for (let i = 0; i < count; i++) {
    data[i] = whole ? start + BigInt(i) * delta : Number(start) + i * Number(delta);
  }
  return node.constantOf(dtype, [count], data);
}

/** NaN for a delta of 0. */
function countWhole(start: bigint, limit: bigint, delta: bigint): number {
  if (delta === 0n) return Number.NaN;
  const [length, step] = delta > 0n ? [limit - start, delta] : [start - limit, -delta];
  return length > 0n ? Number((length + step - 1n) / step) : 0;
}

/** Inference drops nothing; the mask, if requested, is all true. */
function dropout(node: NodeLowering): readonly ValueId[] {
  const x = node.input(0);
  const trains = node.optional(2);
  if (trains !== NONE && node.optionalScalar(2, 'training_mode') !== 0) {
    node.unsupported('training mode is not supported');
  }
  if (!node.node.outputs[1]) return [x];
  const lengths = node.shape(x);
  node.afford('bool', sizeOf(lengths));
  return [x, node.constantOf('bool', lengths, new Uint8Array(sizeOf(lengths)).fill(1))];
}

export const GENERATORS: OperatorTable = {
  Shape: { lower: shape, shapeOnly: true },
  Size: {
    lower: (node) => int64s(node, [], [sizeOf(node.shape(node.input(0)))]),
    shapeOnly: true,
  },
  ConstantOfShape: { lower: constantOfShape, constantInputs: [0] },
  Range: { lower: arange, constantInputs: [0, 1, 2] },
  Dropout: { lower: dropout, constantInputs: [2] },
};
