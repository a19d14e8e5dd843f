/**
 * Quantised operators as ONNX's and onnxruntime's quantisers write them. All of them become dequantize, the operator on floats, and
 * quantize, from which lib/model/integer.ts makes integer steps.
 */
import { sizeOf } from '../../numeric/shapes.js';
import type { DataType } from '../../tensor.js';
import type { NodeLowering } from '../lowering.js';
import { NO_ACTIVATION, NO_REQUANTISATION, NONE, type ValueId } from '../program.js';
import { elementTypeName } from '../tensor-proto.js';
import { convolve } from './convolution.js';
import { arithmetic } from './elementwise.js';
import { concatenate } from './layout.js';
import { generalProduct, product } from './matrix.js';
import type { OperatorTable } from './operator.js';
import { globalPoolOf, poolOf } from './pooling.js';
import { softmaxOf } from './reduction.js';

const isByte = (dtype: DataType): dtype is 'uint8' | 'int8' => dtype === 'uint8' || dtype === 'int8';

/** Where the scale, and behind it the zero point, of a tensor are among a node's inputs; `axis` is that of several scales. */
interface Scaling {
  readonly scale: ValueId;
  readonly zero: ValueId;
  readonly axis: number;
}

function scaling(node: NodeLowering, at: number, axis = 0): Scaling {
  return { scale: node.float(at), zero: node.optional(at + 1), axis };
}

/** Checks scale and zero point of a tensor of `shape` and `dtype`, and makes vectors of them. */
function checked(
  node: NodeLowering,
  { scale, zero, axis }: Scaling,
  shape: readonly number[],
  dtype: DataType,
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
  const wrong = data && Array.from(data, Number).find((v) => !(v > 0 && v < Number.POSITIVE_INFINITY));
  if (wrong !== undefined) node.invalid(`its scale holds ${wrong}; expected positive, finite numbers`);
  const vector = (id: ValueId) => node.reshape(id, [count]);
  if (zero === NONE) return { scale: vector(scale), zero, axis: resolved };
  const given = node.value(zero);
  if (given.dtype !== dtype) node.invalid(`its zero point is ${given.dtype}; expected ${dtype}`);
  if (sizeOf(given.shape) !== count || given.shape.length > 1) {
    node.invalid(`its zero point [${given.shape}] doesn't fit its scale [${node.shape(scale)}]`);
  }
  return { scale: vector(scale), zero: vector(zero), axis: resolved };
}

function quantized(node: NodeLowering, x: ValueId, given: Scaling, fallback: DataType = 'uint8'): ValueId {
  const shape = node.shape(x);
  const dtype = given.zero === NONE ? fallback : node.value(given.zero).dtype;
  if (!isByte(dtype)) node.unsupported(`its output is ${dtype}; only uint8 and int8 are supported`);
  const { scale, zero, axis } = checked(node, given, shape, dtype);
  return node.step('quantize', [node.cast(x, 'float32'), scale, zero], { dtype, shape }, { axis });
}

function dequantized(node: NodeLowering, x: ValueId, given: Scaling): ValueId {
  const { dtype, shape } = node.value(x);
  if (!isByte(dtype) && dtype !== 'int32') {
    node.unsupported(`its input is ${dtype}; only uint8, int8 and int32 are supported`);
  }
  const { scale, zero, axis } = checked(node, given, shape, dtype);
  return node.step('dequantize', [x, scale, zero], { dtype: 'float32', shape }, { axis });
}

/** Scales and zero points of blocks along `axis`, repeated to the shape of x. */
function spread(
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
    zero: zero === NONE ? NONE : node.cast(spread(node, zero, shape, axis, block), 'float32'),
  };
}

const LIMITS = { uint8: [0, 255], int8: [-128, 127] } as const;

function quantizeLinear(node: NodeLowering): ValueId {
  const x = node.input(0);
  const shape = node.shape(x);
  const asked = node.number('output_dtype', 0);
  const fallback = asked === 3 ? 'int8' : 'uint8';
  if (asked !== 0 && asked !== 2 && asked !== 3)
    node.unsupported(`its output is ${elementTypeName(asked)}; only uint8 and int8 are supported`);
  const zeroPoint = node.optional(2);
  if (zeroPoint !== NONE && node.value(zeroPoint).bits === 4) {
    node.unsupported('its output has 4 bits; only uint8 and int8 are supported');
  }
  const block = blocks(node, shape);
  if (!block) return quantized(node, x, scaling(node, 1, node.number('axis', 1)), fallback);
  const dtype = zeroPoint === NONE ? fallback : node.value(zeroPoint).dtype;
  if (!isByte(dtype)) node.unsupported(`its output is ${dtype}; only uint8 and int8 are supported`);
  const output = { dtype: 'float32', shape } as const;
  const ratio = arithmetic(node, 'div', node.cast(x, 'float32'), block.scale);
  const rounded = node.step('unary', [ratio], output, { act: { kind: 'round', alpha: 0, beta: 0 } });
  const shifted = block.zero === NONE ? rounded : arithmetic(node, 'add', rounded, block.zero);
  const [alpha, beta] = LIMITS[dtype];
  return node.cast(node.step('unary', [shifted], output, { act: { kind: 'clip', alpha, beta } }), dtype);
}

function dequantizeLinear(node: NodeLowering): ValueId {
  const x = node.input(0);
  const block = blocks(node, node.shape(x));
  if (!block) return dequantized(node, x, scaling(node, 1, node.number('axis', 1)));
  const real = node.cast(x, 'float32');
  const centred = block.zero === NONE ? real : arithmetic(node, 'sub', real, block.zero);
  return arithmetic(node, 'mul', centred, block.scale);
}

function dynamicQuantizeLinear(node: NodeLowering): readonly ValueId[] {
  const x = node.float(0);
  const outputs = [
    { dtype: 'uint8', shape: node.shape(x) },
    { dtype: 'float32', shape: [] },
    { dtype: 'uint8', shape: [] },
  ] as const;
  return node.steps('dynamicQuantize', [x], outputs, {});
}

/** A tensor that is followed by its scale and zero point among the inputs. */
function operand(node: NodeLowering, at: number, axis = 0): ValueId {
  return dequantized(node, node.input(at), scaling(node, at + 1, axis));
}

/** An int32 bias, whose scale is the product of those of its layer's input and weight. */
function biasOf(node: NodeLowering, at: number, scales: readonly [ValueId, ValueId], factor = 1): ValueId {
  const bias = node.optional(at);
  if (bias === NONE) return NONE;
  if (node.value(bias).dtype !== 'int32')
    node.invalid(`its bias is ${node.value(bias).dtype}; expected int32`);
  const [x, w] = scales.map((id) => node.reshape(id, [sizeOf(node.shape(id))])) as [ValueId, ValueId];
  const both = arithmetic(node, 'mul', x, w);
  const scale = factor === 1 ? both : arithmetic(node, 'mul', both, node.scalar(factor));
  return dequantized(node, bias, { scale, zero: NONE, axis: node.rank(bias) - 1 });
}

function qLinearConv(node: NodeLowering): ValueId {
  const bias = biasOf(node, 8, [node.float(1), node.float(4)]);
  return quantized(node, convolve(node, operand(node, 0), operand(node, 3), bias), scaling(node, 6));
}

function qLinearMatMul(node: NodeLowering): ValueId {
  const columns = node.rank(node.input(3)) - 1;
  const rows = node.rank(node.input(0)) - 2;
  return quantized(node, product(node, operand(node, 0, rows), operand(node, 3, columns)), scaling(node, 6));
}

/** y = alpha * a' * b' + c; without a scale of its own it stays a float. */
function qGemm(node: NodeLowering): ValueId {
  const alpha = node.number('alpha', 1);
  const transB = node.number('transB', 0) !== 0;
  const c = biasOf(node, 6, [node.float(1), node.float(4)], alpha);
  const form = { alpha, beta: 1, transA: node.number('transA', 0) !== 0, transB };
  const y = generalProduct(node, operand(node, 0), operand(node, 3, transB ? 0 : 1), c, form);
  return node.optional(7) === NONE ? y : quantized(node, y, scaling(node, 7));
}

function qLinearBinary(kind: 'add' | 'mul') {
  return {
    lower: (node: NodeLowering) =>
      quantized(node, arithmetic(node, kind, operand(node, 0), operand(node, 3)), scaling(node, 6)),
  };
}

function qLinearConcat(node: NodeLowering): ValueId {
  const count = (node.node.inputs.length - 2) / 3;
  if (!Number.isInteger(count) || count < 1)
    node.invalid('its inputs are not tensors with scales and zero points');
  const parts = Array.from({ length: count }, (_, i) => operand(node, 2 + 3 * i));
  return quantized(node, concatenate(node, parts), scaling(node, 0));
}

/** An operator on one tensor: x, its scale and zero point, then those of y. */
function qLinearUnary(lower: (node: NodeLowering, x: ValueId) => ValueId) {
  return { lower: (node: NodeLowering) => quantized(node, lower(node, operand(node, 0)), scaling(node, 3)) };
}

const channelsFirst = (node: NodeLowering): void => {
  if (node.number('channels_last', 0) !== 0) node.unsupported('channels_last is not supported');
};

function activated(node: NodeLowering, x: ValueId, kind: 'sigmoid' | 'leakyRelu', alpha: number): ValueId {
  return node.step(
    'unary',
    [x],
    { dtype: 'float32', shape: node.shape(x) },
    { act: { kind, alpha, beta: 0 } },
  );
}

/** The zero point of an integer product's operand, as a vector; `channels` are those that may have one each. */
function productZero(node: NodeLowering, at: number, of: ValueId, channels: number): ValueId {
  const zero = node.optional(at);
  if (zero === NONE) return NONE;
  const { dtype, shape } = node.value(zero);
  const count = sizeOf(shape);
  if (dtype !== node.value(of).dtype)
    node.invalid(`its zero point is ${dtype}; expected ${node.value(of).dtype}`);
  if (count !== 1 && (shape.length !== 1 || count !== channels)) {
    node.invalid(
      `its zero point [${shape}] doesn't fit; expected one number, or one for each of ${channels} channels`,
    );
  }
  return node.reshape(zero, [count]);
}

function bytesOf(node: NodeLowering, at: number): ValueId {
  const id = node.input(at);
  const { dtype } = node.value(id);
  return isByte(dtype) ? id : node.invalid(`its input ${at} is ${dtype}; expected uint8 or int8`);
}

function convInteger(node: NodeLowering): ValueId {
  const [x, w] = [bytesOf(node, 0), bytesOf(node, 1)];
  const [xZero, wZero] = [productZero(node, 2, x, 1), productZero(node, 3, w, node.shape(w)[0] ?? 1)];
  return convolve(node, x, w, NONE, (window, shape) =>
    node.step(
      'qconv',
      [x, w, NONE, NONE, xZero, wZero],
      { dtype: 'int32', shape },
      { ...window, act: NO_ACTIVATION, requant: NO_REQUANTISATION },
    ),
  );
}

function matMulInteger(node: NodeLowering): ValueId {
  const [a, b] = [bytesOf(node, 0), bytesOf(node, 1)];
  const [aZero, bZero] = [productZero(node, 2, a, 1), productZero(node, 3, b, node.shape(b).at(-1) ?? 1)];
  return product(node, a, b, (left, right, shape) =>
    node.step(
      'qmatmul',
      [left, right, NONE, NONE, aZero, bZero],
      { dtype: 'int32', shape },
      { transB: false, act: NO_ACTIVATION, requant: NO_REQUANTISATION },
    ),
  );
}

/** Weights of a few bits in blocks, each with a scale; they are widened to floats. */
function matMulNBits(node: NodeLowering): ValueId {
  const [a, packed] = [node.float(0), node.constant(node.input(1), 'weight')];
  const [depth, columns, block, bits] = [
    node.number('K', 0),
    node.number('N', 0),
    node.number('block_size', 0),
    node.number('bits', 4),
  ];
  const scales = node.constant(node.float(2), 'scale').data as Float32Array;
  const count = Math.ceil(depth / block);
  const bytes = (block * bits) / 8;
  const fits =
    [depth, columns, block].every((n) => Number.isInteger(n) && n > 0) &&
    [2, 4, 8].includes(bits) &&
    Number.isInteger(bytes);
  if (
    !fits ||
    packed.dtype !== 'uint8' ||
    packed.data.length !== columns * count * bytes ||
    scales.length !== columns * count
  ) {
    node.invalid(
      `its weight [${packed.shape}] or scale doesn't fit ${columns} columns of ${depth} numbers of ${bits} bits in blocks of ${block}`,
    );
  }
  if (node.optional(4) !== NONE) node.unsupported('g_idx is not supported');
  const zeroId = node.optional(3);
  const zeros = zeroId === NONE ? undefined : node.constant(zeroId, 'zero point');
  const zeroBytes = Math.ceil((count * bits) / 8);
  const expected = zeros?.dtype === 'float32' ? columns * count : columns * zeroBytes;
  if (zeros && (zeros.data.length !== expected || (zeros.dtype !== 'uint8' && zeros.dtype !== 'float32'))) {
    node.invalid(
      `its zero point ${zeros.dtype}[${zeros.shape}] doesn't fit ${columns} columns of ${count} blocks`,
    );
  }
  if (!node.context.budget.spend(depth * columns)) node.unsupported('its weight is too large');
  const key = `matMulNBits ${depth} ${columns} ${block} ${bits}`;
  const inputs = [packed.data, scales, ...(zeros ? [zeros.data] : [])];
  const [weight] = node.context.cache.memoise(key, inputs, () => {
    const bitsAt = (data: ArrayLike<number>, at: number, row: number) =>
      (data[row + Math.floor((at * bits) / 8)]! >> ((at * bits) % 8)) & (2 ** bits - 1);
    const zeroAt = (n: number, b: number): number => {
      if (!zeros) return 2 ** (bits - 1);
      const data = zeros.data as Uint8Array | Float32Array;
      return zeros.dtype === 'float32' ? data[n * count + b]! : bitsAt(data, b, n * zeroBytes);
    };
    const wide = new Float32Array(columns * depth);
    for (let n = 0; n < columns; n++) {
      for (let k = 0; k < depth; k++) {
        const b = Math.floor(k / block);
        const q = bitsAt(packed.data as Uint8Array, k - b * block, (n * count + b) * bytes);
        wide[n * depth + k] = (q - zeroAt(n, b)) * scales[n * count + b]!;
      }
    }
    return [wide];
  });
  const matrix = node.constantOf('float32', [columns, depth], weight!);
  const rows = sizeOf(node.shape(a).slice(0, -1));
  if (node.shape(a).at(-1) !== depth) node.invalid(`its input [${node.shape(a)}] doesn't end with ${depth}`);
  const flat = node.reshape(a, [rows, depth]);
  const bias = node.optional(5) === NONE ? NONE : node.float(5);
  if (bias !== NONE && (node.rank(bias) !== 1 || node.shape(bias)[0] !== columns))
    node.invalid(`its bias [${node.shape(bias)}] doesn't fit ${columns} columns`);
  const y = node.step(
    'gemm',
    [flat, matrix, bias, NONE],
    { dtype: 'float32', shape: [rows, columns] },
    { transB: true, act: NO_ACTIVATION },
  );
  return node.reshape(y, [...node.shape(a).slice(0, -1), columns]);
}

export const QUANTIZATION: OperatorTable = {
  QuantizeLinear: { lower: quantizeLinear },
  DequantizeLinear: { lower: dequantizeLinear },
  DynamicQuantizeLinear: { lower: dynamicQuantizeLinear },
  QLinearConv: { lower: qLinearConv },
  QLinearMatMul: { lower: qLinearMatMul },
  ConvInteger: { lower: convInteger },
  MatMulInteger: { lower: matMulInteger },
  'com.microsoft.QuantizeLinear': { lower: quantizeLinear },
  'com.microsoft.DequantizeLinear': { lower: dequantizeLinear },
  'com.microsoft.QLinearAdd': qLinearBinary('add'),
  'com.microsoft.QLinearMul': qLinearBinary('mul'),
  'com.microsoft.QLinearConcat': { lower: qLinearConcat },
  'com.microsoft.QLinearAveragePool': qLinearUnary((node, x) => {
    channelsFirst(node);
    return poolOf(node, x, 'avg')[0]!;
  }),
  'com.microsoft.QLinearGlobalAveragePool': qLinearUnary((node, x) => {
    channelsFirst(node);
    return globalPoolOf(node, x, 'avg');
  }),
  'com.microsoft.QLinearSigmoid': qLinearUnary((node, x) => activated(node, x, 'sigmoid', 0)),
  'com.microsoft.QLinearLeakyRelu': qLinearUnary((node, x) =>
    activated(node, x, 'leakyRelu', node.number('alpha', 0.01)),
  ),
  'com.microsoft.QLinearSoftmax': qLinearUnary((node, x) => softmaxOf(node, x, node.number('opset', 13))),
  'com.microsoft.QGemm': { lower: qGemm },
  'com.microsoft.MatMulNBits': { lower: matMulNBits, constantInputs: [1, 2, 3] },
};
