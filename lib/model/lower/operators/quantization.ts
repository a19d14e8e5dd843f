/** Between floats and bytes, with one scale and zero point, one for each position of an axis, or one for each block. */
import { sizeOf } from '../../../numeric/shapes.js';
import { extremesOf } from '../../../tensor/extremes.js';
import { INTEGER_RANGE, type ValueType } from '../../../tensor/tensor.js';
import { NONE, type ValueId } from '../../program/program.js';
import { elementTypeName } from '../../read/tensor-proto.js';
import type { NodeLowering } from '../lowering.js';
import { arithmetic } from './elementwise.js';
import type { OperatorTable } from './operator.js';

export const isByte = (dtype: ValueType): dtype is 'uint8' | 'int8' => dtype === 'uint8' || dtype === 'int8';

/** Where the scale, and behind it the zero point, of a tensor are among a node's inputs; `axis` is that of several scales. */
interface Scaling {
  readonly scale: ValueId;
  readonly zero: ValueId;
  readonly axis: number;
}

export function scaling(node: NodeLowering, at: number, axis = 0): Scaling {
  return { scale: node.float(at), zero: node.optional(at + 1), axis };
}

/** Checks scale and zero point of a tensor of `shape` and `dtype`, and makes vectors of them. */
function checked(
  node: NodeLowering,
  { scale, zero, axis }: Scaling,
  shape: readonly number[],
  dtype: ValueType,
): Scaling {
  const count = sizeOf(node.shape(scale));
  const single = count === 1 && node.rank(scale) < 2;
  const resolved = single ? 0 : node.axis(axis, shape.length);
  if (!single && (node.rank(scale) !== 1 || count !== shape[resolved])) {
    node.invalid(
      `its scale [${node.shape(scale)}] doesn't fit axis ${resolved} of [${shape}]; expected one number, or one for each of its ${shape[resolved]} positions`,
    );
  }
  const { data } = node.value(scale);
  const { low, high } = data ? extremesOf(data) : { low: 1, high: 1 };
  const wrong = low > 0 ? high : low;
  if (!(low > 0 && high < Number.POSITIVE_INFINITY))
    node.invalid(`its scale holds ${wrong}; expected positive, finite numbers`);
  const vector = (id: ValueId) => {
    const value = node.value(id);
    return value.data && value.shape.length === 0
      ? node.constantOf(value.dtype, [1], value.data)
      : node.reshape(id, [count]);
  };
  if (zero === NONE) return { scale: vector(scale), zero, axis: resolved };
  const given = node.value(zero);
  if (given.dtype !== dtype) node.invalid(`its zero point is ${given.dtype}; expected ${dtype}`);
  if (sizeOf(given.shape) !== count || given.shape.length > 1) {
    node.invalid(`its zero point [${given.shape}] doesn't fit its scale [${node.shape(scale)}]`);
  }
  return { scale: vector(scale), zero: vector(zero), axis: resolved };
}

export function quantized(
  node: NodeLowering,
  x: ValueId,
  given: Scaling,
  fallback: ValueType = 'uint8',
): ValueId {
  const shape = node.shape(x);
  const dtype = given.zero === NONE ? fallback : node.value(given.zero).dtype;
  if (!isQuantised(dtype)) node.unsupported(`its output is ${dtype}; ${QUANTISED}`);
  const { scale, zero, axis } = checked(node, given, shape, dtype);
  if (!isByte(dtype)) {
    const [factor, point] = [scale, zero].map((id) => alongAxis(node, id, shape, axis)) as [ValueId, ValueId];
    return quantizedBy(node, x, factor, point, dtype);
  }
  return node.step('quantize', [node.cast(x, 'float32'), scale, zero], { dtype, shape }, { axis });
}

export function dequantized(node: NodeLowering, x: ValueId, given: Scaling): ValueId {
  const { dtype, shape } = node.value(x);
  if (!isQuantised(dtype) && dtype !== 'int32') {
    node.unsupported(`its input is ${dtype}; only 8 and 16 bits and int32 are supported`);
  }
  const { scale, zero, axis } = checked(node, given, shape, dtype);
  if (!isByte(dtype) && dtype !== 'int32') {
    const [factor, point] = [scale, zero].map((id) => alongAxis(node, id, shape, axis)) as [ValueId, ValueId];
    return dequantizedBy(node, x, factor, point);
  }
  return node.step('dequantize', [x, scale, zero], { dtype: 'float32', shape }, { axis });
}

/** Scales and zero points of blocks along `axis`, repeated to the shape of x. */
export function spread(
  node: NodeLowering,
  id: ValueId,
  shape: readonly number[],
  axis: number,
  block: number,
): ValueId {
  const from = node.shape(id);
  const fits =
    from.length === shape.length &&
    from.every((n, i) => n === (i === axis ? Math.ceil(shape[i]! / block) : shape[i]));
  if (!fits)
    node.invalid(
      `its scale or zero point [${from}] doesn't fit blocks of ${block} along axis ${axis} of [${shape}]`,
    );
  const { dtype } = node.value(id);
  const split = node.reshape(id, [...from.slice(0, axis + 1), 1, ...from.slice(axis + 1)]);
  const wide = node.expand(split, [...from.slice(0, axis + 1), block, ...from.slice(axis + 1)]);
  const flat = node.reshape(wide, from.with(axis, from[axis]! * block));
  if (from[axis]! * block === shape[axis]) return flat;
  const starts = shape.map(() => 0);
  return node.step('slice', [flat], { dtype, shape }, { starts, steps: shape.map(() => 1) });
}

/** The arguments of QuantizeLinear and DequantizeLinear in blocks; undefined when they are not. */
function blocks(node: NodeLowering, shape: readonly number[]): { scale: ValueId; zero: ValueId } | undefined {
  const block = node.number('block_size', 0);
  if (block === 0) return undefined;
  if (!Number.isInteger(block) || block < 0) node.invalid(`its block_size ${block} is no length`);
  const axis = node.axis(node.number('axis', 1), shape.length);
  const zero = node.optional(2);
  return {
    scale: spread(node, node.float(1), shape, axis, block),
    zero: zero === NONE ? NONE : spread(node, zero, shape, axis, block),
  };
}

type QuantisedType = 'uint8' | 'int8' | 'uint16' | 'int16';
const QUANTISED = 'only 8 and 16 bits are supported';

function isQuantised(dtype: ValueType): dtype is QuantisedType {
  return isByte(dtype) || dtype === 'uint16' || dtype === 'int16';
}

/** A vector of one number, or of one for each position of `axis`, as it is broadcast to `shape`; NONE stays. */
function alongAxis(node: NodeLowering, vector: ValueId, shape: readonly number[], axis: number): ValueId {
  if (vector === NONE) return NONE;
  const count = sizeOf(node.shape(vector));
  return node.reshape(vector, count === 1 ? [] : shape.map((length, i) => (i === axis ? length : 1)));
}

/** In steps of floats; scale and zero point can be broadcast to x. */
function quantizedBy(
  node: NodeLowering,
  x: ValueId,
  scale: ValueId,
  zero: ValueId,
  dtype: QuantisedType,
): ValueId {
  const output = { dtype: 'float32', shape: node.shape(x) } as const;
  const ratio = arithmetic(node, 'div', node.cast(x, 'float32'), scale);
  const rounded = node.step('unary', [ratio], output, { act: { kind: 'round', alpha: 0, beta: 0 } });
  const shifted = zero === NONE ? rounded : arithmetic(node, 'add', rounded, node.cast(zero, 'float32'));
  const [alpha, beta] = INTEGER_RANGE[dtype];
  return node.cast(node.step('unary', [shifted], output, { act: { kind: 'clip', alpha, beta } }), dtype);
}

/** In steps of floats; scale and zero point can be broadcast to x. */
export function dequantizedBy(node: NodeLowering, x: ValueId, scale: ValueId, zero: ValueId): ValueId {
  const real = node.cast(x, 'float32');
  const centred = zero === NONE ? real : arithmetic(node, 'sub', real, node.cast(zero, 'float32'));
  return arithmetic(node, 'mul', centred, scale);
}

/** By TensorProto.DataType. */
const OUTPUT_TYPES: Readonly<Record<number, QuantisedType>> = {
  0: 'uint8',
  2: 'uint8',
  3: 'int8',
  4: 'uint16',
  5: 'int16',
};

function quantizeLinear(node: NodeLowering): ValueId {
  const x = node.input(0);
  const shape = node.shape(x);
  const asked = node.number('output_dtype', 0);
  const fallback =
    OUTPUT_TYPES[asked] ?? node.unsupported(`its output is ${elementTypeName(asked)}; ${QUANTISED}`);
  const zeroPoint = node.optional(2);
  if (zeroPoint !== NONE && node.value(zeroPoint).bits === 4) {
    node.unsupported(`its output has 4 bits; ${QUANTISED}`);
  }
  const block = blocks(node, shape);
  if (!block) return quantized(node, x, scaling(node, 1, node.number('axis', 1)), fallback);
  const dtype = zeroPoint === NONE ? fallback : node.value(zeroPoint).dtype;
  if (!isQuantised(dtype)) node.unsupported(`its output is ${dtype}; ${QUANTISED}`);
  return quantizedBy(node, x, block.scale, block.zero, dtype);
}

function dequantizeLinear(node: NodeLowering): ValueId {
  const x = node.input(0);
  const block = blocks(node, node.shape(x));
  if (!block) return dequantized(node, x, scaling(node, 1, node.number('axis', 1)));
  return dequantizedBy(node, x, block.scale, block.zero);
}

/** x in bytes, their scale and zero point. */
export function dynamicallyQuantized(node: NodeLowering, x: ValueId): readonly ValueId[] {
  const outputs = [
    { dtype: 'uint8', shape: node.shape(x) },
    { dtype: 'float32', shape: [] },
    { dtype: 'uint8', shape: [] },
  ] as const;
  return node.steps('dynamicQuantize', [x], outputs, {});
}

export const QUANTIZATION: OperatorTable = {
  QuantizeLinear: { lower: quantizeLinear },
  DequantizeLinear: { lower: dequantizeLinear },
  DynamicQuantizeLinear: { lower: (node) => dynamicallyQuantized(node, node.float(0)) },
  'com.microsoft.QuantizeLinear': { lower: quantizeLinear },
  'com.microsoft.DequantizeLinear': { lower: dequantizeLinear },
};
