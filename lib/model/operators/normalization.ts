import { sameShape } from '../../numeric/shapes.js';
import type { NodeLowering } from '../lowering.js';
import { NO_ACTIVATION, type ValueId } from '../program.js';
import type { OperatorTable } from './operator.js';

/**
 * Inference form: y = x*scale + shift with scale = gamma / sqrt(variance + epsilon) and shift = beta - mean*scale,
 * both computed in double (Ioffe and Szegedy, 2015).
 */
function batchNormalization(node: NodeLowering): ValueId {
  const x = node.float(0);
  if (node.rank(x) < 2) node.invalid(`its input [${node.shape(x)}] has no channels`);
  const channels = node.shape(x)[1]!;
  const parameters = ['scale', 'bias', 'mean', 'variance'].map((what, i) => {
    const value = node.constant(node.float(i + 1), what);
    if (!sameShape(value.shape, [channels])) {
      node.invalid(`its ${what} [${value.shape}] doesn't fit ${channels} channels`);
    }
    return value.data as Float32Array;
  });
  const epsilon = node.number('epsilon', 1e-5);
  const folded = node.context.cache.memoise(`batchNormalization ${epsilon}`, parameters, () => {
    const [gamma, beta, mean, variance] = parameters as [
      Float32Array,
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const scale = Float64Array.from(gamma, (value, c) => value / Math.sqrt(variance[c]! + epsilon));
    const shift = Float32Array.from(beta, (value, c) => value - mean[c]! * scale[c]!);
    return [Float32Array.from(scale), shift];
  });
  const [scale, shift] = folded.map((data) => node.constantOf('float32', [channels], data));
  const output = { dtype: 'float32', shape: node.shape(x) } as const;
  return node.step('affine', [x, scale!, shift!], output, { act: NO_ACTIVATION });
}

export const NORMALIZATION: OperatorTable = {
  BatchNormalization: {
    lower: batchNormalization,
    constantInputs: [1, 2, 3, 4],
    unsupported: ({ attributes, outputs }) => {
      if (attributes.get('spatial') === 0) return 'per element (spatial = 0)';
      return attributes.get('training_mode') === 1 || outputs.length > 1 ? 'in training mode' : undefined;
    },
  },
};
