/**
 * Quantised layers as ONNX's and onnxruntime's quantisers write them. All of them become dequantize, the operator on floats, and
 * quantize, from which lib/model/optimise/integer.ts makes integer steps.
 */
import { sizeOf } from '../../../numeric/shapes.js';
import { NO_ACTIVATION, NO_REQUANTISATION, NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { convolve } from './convolution.js';
import { arithmetic } from './elementwise.js';
import { concatenate } from './layout.js';
import { generalProduct, product } from './matrix.js';
import type { OperatorTable } from './operator.js';
import { globalPoolOf, poolOf } from './pooling.js';
import { dequantized, dynamicallyQuantized, isByte, quantized, scaling } from './quantization.js';
import { softmaxOf } from './reduction.js';

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
  return quantized(
    node,
    concatenate(node, parts, node.axis(node.number('axis', 0), node.rank(parts[0]!))),
    scaling(node, 0),
  );
}

/** An operator on one tensor: x, its scale and zero point, then those of y. */
function qLinearUnary(lower: (node: NodeLowering, x: ValueId) => ValueId) {
  return { lower: (node: NodeLowering) => quantized(node, lower(node, operand(node, 0)), scaling(node, 3)) };
}

const channelsFirst = (node: NodeLowering): void => {
  if (node.number('channels_last', 0) !== 0)
    node.unsupported(
      "its channels come last, as onnxruntime writes them at the optimisation level 'all'; save the file at the level 'extended' or 'basic'",
    );
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

/** The product of two quantised operands, and a bias of floats. */
function floatProduct(node: NodeLowering, a: ValueId, b: ValueId, bias: number): ValueId {
  const y = product(node, a, b);
  return node.optional(bias) === NONE ? y : arithmetic(node, 'add', y, node.float(bias));
}

/** An operand whose scale and zero point aren't behind it. */
function scaledBy(node: NodeLowering, at: number, scale: number, zero: number, axis: number): ValueId {
  const x = node.input(at);
  const along = node.rank(x) + axis;
  return dequantized(node, x, {
    scale: node.float(scale),
    zero: node.optional(zero),
    axis: Math.max(along, 0),
  });
}

/** Of floats that are quantised in the run. */
function dynamicQuantizeMatMul(node: NodeLowering): ValueId {
  const [x, scale, zero] = dynamicallyQuantized(node, node.float(0)) as [ValueId, ValueId, ValueId];
  const a = dequantized(node, x, { scale, zero, axis: 0 });
  return floatProduct(node, a, scaledBy(node, 1, 2, 3, -1), 4);
}

export const QUANTIZED_LAYERS: OperatorTable = {
  QLinearConv: { lower: qLinearConv },
  QLinearMatMul: { lower: qLinearMatMul },
  ConvInteger: { lower: convInteger },
  MatMulInteger: { lower: matMulInteger },
  'com.microsoft.MatMulIntegerToFloat': {
    lower: (node) => floatProduct(node, scaledBy(node, 0, 2, 4, -2), scaledBy(node, 1, 3, 5, -1), 6),
  },
  'com.microsoft.DynamicQuantizeMatMul': { lower: dynamicQuantizeMatMul },
  'com.microsoft.QLinearAdd': qLinearBinary('add'),
  'com.microsoft.QLinearMul': qLinearBinary('mul'),
  'com.microsoft.QLinearConcat': { lower: qLinearConcat },
  'com.microsoft.QLinearAveragePool': qLinearUnary((node, x) => {
    channelsFirst(node);
    return poolOf(node, x, 'avg', true)[0]!;
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
};
