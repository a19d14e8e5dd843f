import { type KernelStep, type KernelTensor, runStep } from 'lib/kernels/index.js';
import { sizeOf } from 'lib/numeric/shapes.js';
import { allocate, isBigData, type TensorData, type ValueType } from 'lib/tensor/tensor.js';

/** Runs the TypeScript kernel of a step on outputs that are first filled with garbage. */
export function compute(
  step: KernelStep,
  inputs: readonly (KernelTensor | undefined)[],
  outputs: readonly { dtype: ValueType; shape: readonly number[] }[],
): TensorData[] {
  const tensors = outputs.map(({ dtype, shape }) => {
    const data = allocate(dtype, sizeOf(shape));
    if (isBigData(data)) data.fill(77n);
    else data.fill(77);
    return { dtype, shape, data };
  });
  runStep(step, inputs, tensors);
  return tensors.map(({ data }) => data);
}

export function float(shape: readonly number[], values: readonly number[]): KernelTensor {
  return { dtype: 'float32', shape, data: Float32Array.from(values) };
}
