/**
 * Kernels of every step in plain TypeScript, for constant folding and the reference backend. They know neither ONNX
 * nor backends, and trust shapes and types, which are checked when a step is created.
 */
import { ResidualSkipError } from '../errors.js';
import { attention } from './attention.js';
import { cast } from './cast.js';
import { conv } from './conv.js';
import { affine, binary, compare, logical, unary, where } from './elementwise.js';
import { gemm, matmul } from './gemm.js';
import { concat, expand, gather, oneHot, pad, reshape, slice, transpose } from './move.js';
import type { OperationName, Operations } from './operations.js';
import { pool, qpool } from './pool.js';
import {
  dequantize,
  dynamicQuantize,
  lookup,
  qbinary,
  qconv,
  qglobalPool,
  qmatmul,
  quantize,
} from './quantized.js';
import { argMax, cumSum, globalPool, layerNorm, reduce, reduceMean, softmax, topK } from './reduce.js';
import { resample } from './resample.js';
import { gatherElements, gatherNd, scatterElements, scatterNd } from './scatter.js';
import type { KernelTensor } from './tensor.js';

export { activate } from './activation.js';
export type { KernelTensor } from './tensor.js';

/** One operation. Every step of a program but `branch` and `jump` is one. */
export type KernelStep = {
  [Op in OperationName]: { readonly op: Op; readonly attrs: Operations[Op] };
}[OperationName];

/** The tensors of one step; `input` and `y` require that the tensor exists. */
interface Operands {
  readonly inputs: readonly (KernelTensor | undefined)[];
  readonly outputs: readonly KernelTensor[];
  readonly input: (index: number) => KernelTensor;
  readonly y: KernelTensor;
}

type KernelTable = {
  readonly [Op in OperationName]: (operands: Operands, attrs: Operations[Op]) => void;
};

const KERNELS: KernelTable = {
  conv: ({ input, inputs, y }, attrs) => conv(input(0), input(1), inputs[2], inputs[3], y, attrs),
  gemm: ({ input, inputs, y }, attrs) => gemm(input(0), input(1), inputs[2], inputs[3], y, attrs),
  matmul: ({ input, y }) => matmul(input(0), input(1), y, false),
  affine: ({ input, y }, attrs) => affine(input(0), input(1), input(2), y, attrs),
  unary: ({ input, y }, attrs) => unary(input(0), y, attrs),
  binary: ({ input, y }, attrs) => binary(input(0), input(1), y, attrs),
  compare: ({ input, y }, attrs) => compare(input(0), input(1), y, attrs.kind),
  logical: ({ input, inputs, y }, attrs) => logical(input(0), inputs[1], y, attrs.kind),
  where: ({ input, y }) => where(input(0), input(1), input(2), y),
  cast: ({ input, y }) => cast(input(0), y),
  pool: ({ input, outputs, y }, attrs) => pool(input(0), y, outputs[1], attrs),
  globalPool: ({ input, y }, attrs) => globalPool(input(0), y, attrs.kind),
  reduceMean: ({ input, y }, attrs) => reduceMean(input(0), y, attrs.axes),
  softmax: ({ input, y }, attrs) => softmax(input(0), y, attrs),
  layerNorm: ({ input, inputs, y }, attrs) => layerNorm(input(0), inputs[1], inputs[2], y, attrs),
  attention: ({ input, inputs, y }, attrs) => attention(input(0), input(1), input(2), inputs[3], y, attrs),
  argMax: ({ input, y }, attrs) => argMax(input(0), y, attrs),
  topK: ({ input, outputs, y }, attrs) => topK(input(0), y, outputs[1]!, attrs),
  oneHot: ({ input, y }, attrs) => oneHot(input(0), input(1), y, attrs),
  gather: ({ input, y }, attrs) => gather(input(0), input(1), y, attrs.axis),
  transpose: ({ input, y }, attrs) => transpose(input(0), y, attrs.perm),
  pad: ({ input, inputs, y }, attrs) => pad(input(0), inputs[1], y, attrs),
  slice: ({ input, y }, attrs) => slice(input(0), y, attrs),
  concat: ({ input, inputs, y }, attrs) => {
    concat(
      inputs.map((_, i) => input(i)),
      y,
      attrs.axis,
    );
  },
  reshape: ({ input, y }) => reshape(input(0), y),
  expand: ({ input, y }) => expand(input(0), y),
  quantize: ({ input, inputs, y }, { axis }) => quantize(input(0), input(1), inputs[2], y, axis),
  dequantize: ({ input, inputs, y }, { axis }) => dequantize(input(0), input(1), inputs[2], y, axis),
  dynamicQuantize: ({ input, outputs, y }) => dynamicQuantize(input(0), y, outputs[1]!, outputs[2]!),
  qconv: ({ input, inputs: [, , ...rest], y }, attrs) => {
    const [bias, scale, xZero, wZero] = rest;
    qconv([input(0), input(1), bias, scale, xZero, wZero], y, attrs);
  },
  qmatmul: ({ input, inputs: [, , ...rest], y }, attrs) => {
    const [bias, scale, aZero, bZero] = rest;
    qmatmul([input(0), input(1), bias, scale, aZero, bZero], y, attrs);
  },
  qbinary: ({ input, y }, attrs) => qbinary(input(0), input(1), y, attrs),
  qglobalPool: ({ input, y }, attrs) => qglobalPool(input(0), y, attrs),
  qpool: ({ input, y }, attrs) => qpool(input(0), y, attrs),
  lookup: ({ input, y }) => lookup(input(0), input(1), y),
  reduce: ({ input, y }, attrs) => reduce(input(0), y, attrs),
  cumSum: ({ input, y }, attrs) => cumSum(input(0), y, attrs),
  resample: ({ input, y }, attrs) => resample(input(0), input(1), input(2), y, attrs.axis),
  gatherElements: ({ input, y }, attrs) => gatherElements(input(0), input(1), y, attrs.axis),
  gatherNd: ({ input, y }, attrs) => gatherNd(input(0), input(1), y, attrs.batchDims),
  scatterElements: ({ input, y }, attrs) => scatterElements(input(0), input(1), input(2), y, attrs),
  scatterNd: ({ input, y }, attrs) => scatterNd(input(0), input(1), input(2), y, attrs.reduction),
};

/**
 * Computes one step. `inputs` and `outputs` are in the step's order; an absent optional input is undefined. Outputs
 * are preallocated with their final type and shape. An output may be the same array as
 *  - the residual of `conv` and `gemm`;
 *  - the input of `affine`, `unary`, `softmax`, `layerNorm` and `reshape`;
 *  - an input of `binary` that has y's shape and type, and of `qbinary` and `lookup` one that has y's shape.
 * Throws INVALID_ARGUMENT when an index is out of range.
 */
export function runStep(
  step: KernelStep,
  inputs: readonly (KernelTensor | undefined)[],
  outputs: readonly KernelTensor[],
): void {
  const operands: Operands = {
    inputs,
    outputs,
    input: (index) => inputs[index] ?? missing(step.op, 'input', index),
    y: outputs[0] ?? missing(step.op, 'output', 0),
  };
  // The table pairs every op with its own attributes; TypeScript can't follow that through an index.
  const kernel = KERNELS[step.op] as (operands: Operands, attrs: KernelStep['attrs']) => void;
  kernel(operands, step.attrs);
}

function missing(op: string, kind: 'input' | 'output', index: number): never {
  throw new ResidualSkipError('INTERNAL', `step '${op}': it has no ${kind} ${index}`);
}
