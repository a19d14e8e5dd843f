/** Layers on maps whose channels are last, between two transposes, become layers on maps whose channels are first. */
import { sameShape } from '../numeric/shapes.js';
import { NONE, type ValueId } from './program.js';
import type { Region, WorkStep, WorkStepNamed } from './region.js';

const TO_LAST = [0, 2, 3, 1];

/** Matrices (K,N) as the weights (N,K) of a 1x1 convolution, so that all programs of a model share them. */
const turned = new WeakMap<Float32Array, Float32Array>();

function asRows(matrix: Float32Array, depth: number, columns: number): Float32Array {
  const known = turned.get(matrix);
  if (known) return known;
  const rows = new Float32Array(matrix.length);
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

/** f(transpose(x)) = transpose(f'(x)), so that the transpose meets the one that reverses it. */
export function sinkTranspose(region: Region, step: WorkStep): boolean {
  const [from, y] = [step.inputs[0]!, step.outputs[0]!];
  const transpose = region.usedOnce(from) ? region.producerOf(from, 'transpose') : undefined;
  if (!transpose || !sameShape(transpose.attrs.perm, TO_LAST)) return false;
  const moved = channelsFirst(region, step, transpose.inputs[0]!);
  if (!moved) return false;
  const { name, shape } = region.value(y);
  const [items, height, width, channels] = shape as [number, number, number, number];
  const first = region.addValue(`${name}.first`, 'float32', [items, channels, height, width]);
  region.replace(
    [transpose, step],
    [
      { ...moved, outputs: [first] },
      { ...transpose, inputs: [first], outputs: [y] },
    ],
  );
  return true;
}

/** The step on x, whose channels are first. */
function channelsFirst(region: Region, step: WorkStep, x: ValueId): WorkStep | undefined {
  const inputs = [x, ...step.inputs.slice(1)];
  switch (step.op) {
    case 'unary':
      return { ...step, inputs };
    case 'layerNorm':
      return step.attrs.axis === 3 ? { ...step, inputs, attrs: { ...step.attrs, axis: 1 } } : undefined;
    case 'gemm':
      return pointwise(region, step, x);
    default:
      return undefined;
  }
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
