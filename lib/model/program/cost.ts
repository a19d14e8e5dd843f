import { sizeOf } from '../../numeric/shapes.js';
import { ELEMENT_BYTES } from '../../tensor/tensor.js';
import { type Cost, NONE, type Step, type Value, type ValueId } from './program.js';

/** The total cost of the steps. Every step reads its inputs and writes its outputs once. */
export function costOf(values: readonly Value[], steps: readonly Step[]): Cost {
  const cost = { multiplyAdds: 0, bytes: 0, layers: 0 };
  for (let s = 0; s < steps.length; s++) {
    const step = steps[s]!;
    cost.bytes += bytesOf(values, step.inputs) + bytesOf(values, step.outputs);
    cost.multiplyAdds += multiplyAddsOf(values, step);
    if (isLayer(values, step)) cost.layers++;
  }
  return cost;
}

/** A product with a constant matrix is a fully connected layer; one of two activations is not. */
function isLayer(values: readonly Value[], { op, inputs }: Step): boolean {
  if (op === 'conv' || op === 'gemm' || op === 'qconv') return true;
  return (op === 'matmul' || op === 'qmatmul') && inputs.slice(0, 2).some((id) => values[id]!.data);
}

function bytesOf(values: readonly Value[], ids: readonly ValueId[]): number {
  let bytes = 0;
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === NONE) continue;
    const { shape, dtype } = values[ids[i]!]!;
    bytes += sizeOf(shape) * ELEMENT_BYTES[dtype];
  }
  return bytes;
}

function multiplyAddsOf(values: readonly Value[], step: Step): number {
  const shape = (id: ValueId | undefined) => values[id!]!.shape;
  const outputs = () => sizeOf(shape(step.outputs[0]));
  switch (step.op) {
    case 'conv':
    case 'qconv':
      return outputs() * sizeOf(shape(step.inputs[1]).slice(1));
    case 'gemm':
    case 'matmul':
    case 'qmatmul':
      return outputs() * shape(step.inputs[0]).at(-1)!;
    case 'attention': {
      const { batch, heads, queries, keys, depth, valueDepth } = step.attrs;
      return batch * heads * queries * keys * (depth + valueDepth);
    }
    default:
      return 0;
  }
}
