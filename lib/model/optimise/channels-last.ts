/** Layers on maps whose channels are last, between two transposes, become layers on maps whose channels are first. */

import { sameShape } from '../../numeric/shapes.js';
import { recalled } from '../../tensor/recall.js';
import { NONE, type ValueId } from '../program/program.js';
import { dequantised } from './quantised-value.js';
import type { Region, WorkOp, WorkStep, WorkStepNamed } from './region.js';

const TO_LAST = [0, 2, 3, 1];

/** Matrices (K,N) as the weights (N,K) of a 1x1 convolution, so that all programs of a model share them. */
const turned = new WeakMap<Float32Array, Float32Array>();

function asRows(matrix: Float32Array, depth: number, columns: number): Float32Array {
  const known = turned.get(matrix);
  if (known) return known;
  const rows = new Float32Array(recalled(matrix).length);
  for (let k = 0; k < depth; k++) {
    for (let n = 0; n < columns; n++) rows[n * depth + k] = matrix[k * columns + n]!;
  }
  turned.set(matrix, rows);
  return rows;
}

/** Two transposes are one. */
export function mergeTransposes(region: Region, step: WorkStep): boolean {
  const before = step.op === 'transpose' ? region.producerOf(step.inputs[0]!, 'transpose') : undefined;
  if (step.op !== 'transpose' || !before) return false;
  step.attrs = { perm: step.attrs.perm.map((axis) => before.attrs.perm[axis]!) };
  region.setInputs(step, before.inputs);
  return true;
}

/** Readers of one value that are looked at. */
const MAX_READERS = 4;

/** f(transpose(x)) = transpose(f'(x)), so that the transpose meets the one that reverses it. */
export function sinkTranspose(region: Region, step: WorkStep): boolean {
  if (step.op === 'reduceMean' && meansOfChannels(region, step)) return true;
  if (!readsLast(region, step)) return false;
  const moved = channelsFirst(region, step);
  if (!moved) return false;
  const [y] = step.outputs as [ValueId];
  const { name, dtype, shape } = region.value(y);
  const first = region.addValue(`${name}.first`, dtype, inFirstOrder(shape));
  const transpose: WorkStep = {
    op: 'transpose',
    node: step.node,
    inputs: [first],
    outputs: [y],
    attrs: { perm: [...TO_LAST] },
  };
  region.replace([step], [{ ...moved, outputs: [first] } as WorkStep, transpose]);
  return true;
}

/** Means over both spatial axes, which are left out, are those of maps whose channels are first. */
function meansOfChannels(region: Region, step: WorkStepNamed<'reduceMean'>): boolean {
  const x = firstOf(region, step.inputs[0]!);
  const { axes } = step.attrs;
  if (x === undefined || !sameShape(axes, [1, 2]) || region.shape(step.outputs[0]!).length !== 2)
    return false;
  region.setInputs(step, [x]);
  step.attrs = { axes: [2, 3] };
  return true;
}

/** The value whose transpose to channels that are last `id` is. */
function firstOf(region: Region, id: ValueId): ValueId | undefined {
  const transpose = region.producerOf(id, 'transpose');
  return transpose && sameShape(transpose.attrs.perm, TO_LAST) ? transpose.inputs[0] : undefined;
}

/** Steps that sooner or later move, too, where they read one of several transposed maps. */
const POINTWISE = ['unary', 'binary', 'concat', 'pad', 'quantize', 'dequantize'] as const;

/** Of the steps that `sinkTranspose` may move. */
export const SINKING = [...POINTWISE, 'reduceMean', 'layerNorm', 'gemm'] as const;

/** Whether a transpose goes: all that is read is transposed, or its other readers move, too. */
function readsLast(region: Region, step: WorkStep): boolean {
  if (step.outputs.length !== 1 || region.shape(step.outputs[0]!).length !== TO_LAST.length) return false;
  const turned = step.inputs.filter((id) => id !== NONE && firstOf(region, id) !== undefined);
  if (turned.length === 0 || turned.length > 1) return turned.length > 1;
  const [from] = turned as [ValueId];
  const readers = region.users(from);
  if (region.isOutput(from) || readers.length > MAX_READERS) return false;
  return readers.length === 1 || readers.every(({ op }) => (POINTWISE as readonly string[]).includes(op));
}

/** Numbers for each axis of a map whose channels are last, in the order of one whose channels are first. */
function inFirstOrder(numbers: readonly number[]): number[] {
  const ordered: number[] = [];
  for (const [i, axis] of TO_LAST.entries()) ordered[axis] = numbers[i]!;
  return ordered;
}

/** The step on maps whose channels are first. */
function channelsFirst(region: Region, step: WorkStep): WorkStep | undefined {
  const x = firstOf(region, step.inputs[0]!);
  const inputs = x === undefined ? [] : [x, ...step.inputs.slice(1)];
  if (step.op !== 'binary' && x === undefined) return undefined;
  switch (step.op) {
    case 'unary':
      return { ...step, inputs };
    case 'binary': {
      const operands = step.inputs.map((id) => firstOf(region, id) ?? channelVector(region, id));
      return operands.includes(undefined) ? undefined : { ...step, inputs: operands as ValueId[] };
    }
    case 'concat': {
      const operands = step.inputs.map((id) => firstOf(region, id));
      if (operands.includes(undefined)) return undefined;
      return { ...step, inputs: operands as ValueId[], attrs: { axis: TO_LAST[step.attrs.axis]! } };
    }
    case 'pad': {
      const { pads } = step.attrs;
      const ordered = [...inFirstOrder(pads.slice(0, 4)), ...inFirstOrder(pads.slice(4))];
      return { ...step, inputs, attrs: { ...step.attrs, pads: ordered } };
    }
    case 'quantize':
      return { ...step, inputs, attrs: { axis: TO_LAST[step.attrs.axis]! } };
    case 'dequantize':
      // Its bytes and those of the weights become a product of integers, whose channels are last.
      if (region.users(step.outputs[0]!).some((reader) => isProductOfBytes(region, reader))) return undefined;
      return { ...step, inputs, attrs: { axis: TO_LAST[step.attrs.axis]! } };
    case 'reduceMean': {
      const axes = step.attrs.axes.map((axis) => TO_LAST[axis]!).sort((a, b) => a - b);
      return { ...step, inputs, attrs: { axes } };
    }
    case 'layerNorm':
      return step.attrs.axis === 3 ? { ...step, inputs, attrs: { ...step.attrs, axis: 1 } } : undefined;
    case 'gemm':
      return pointwise(region, step, x!);
    default:
      return undefined;
  }
}

function isProductOfBytes(region: Region, { op, inputs }: WorkOp): boolean {
  return (op === 'gemm' || op === 'matmul') && dequantised(region, inputs[1]!) !== undefined;
}

/** A constant of one number, or of one for each channel, as an operand of maps whose channels are first. */
function channelVector(region: Region, id: ValueId): ValueId | undefined {
  const { name, dtype, shape, data } = region.value(id);
  if (!data || shape.length > TO_LAST.length) return undefined;
  if (data.length === 1) return id;
  return shape.at(-1) === data.length ? region.addValue(name, dtype, [data.length, 1, 1], data) : undefined;
}

function pointwise(region: Region, step: WorkStepNamed<'gemm'>, x: ValueId): WorkStep | undefined {
  const [, matrix, bias, residual] = step.inputs as [ValueId, ValueId, ValueId, ValueId];
  const { name, data, shape } = region.value(matrix);
  if (!(data instanceof Float32Array) || residual !== NONE) return undefined;
  const { transB, act } = step.attrs;
  const [depth, columns] = (transB ? [shape[1], shape[0]] : shape) as [number, number];
  const weights = transB ? data : asRows(data, depth, columns);
  const weight = region.addValue(name, 'float32', [columns, depth, 1, 1], weights);
  const attrs = { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], group: 1, act };
  return { op: 'conv', node: step.node, inputs: [x, weight, bias, NONE], outputs: step.outputs, attrs };
}
