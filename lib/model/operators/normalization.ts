import { broadcast, range, sameShape } from '../../numeric/shapes.js';
import type { NodeLowering } from '../lowering.js';
import { NO_ACTIVATION, NONE, type ValueId } from '../program.js';
import { arithmetic } from './elementwise.js';
import type { OperatorTable } from './operator.js';
import { reduced } from './reduction.js';

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

/** (x - mean) / sqrt(variance + epsilon) over `axes`, then the mean and the factor (Ba, Kiros and Hinton, 2016). */
function standardized(node: NodeLowering, x: ValueId, axes: readonly number[]): [ValueId, ValueId, ValueId] {
  const output = { dtype: 'float32', shape: reduced(node.shape(x), axes, true) } as const;
  const meanOf = (value: ValueId) => node.step('reduceMean', [value], output, { axes });
  const mean = meanOf(x);
  const centred = arithmetic(node, 'sub', x, mean);
  const variance = meanOf(arithmetic(node, 'mul', centred, centred));
  const shifted = arithmetic(node, 'add', variance, node.scalar(node.number('epsilon', 1e-5)));
  const act = (value: ValueId, kind: 'sqrt' | 'reciprocal') =>
    node.step('unary', [value], output, { act: { kind, alpha: 0, beta: 0 } });
  const factor = act(act(shifted, 'sqrt'), 'reciprocal');
  return [arithmetic(node, 'mul', centred, factor), mean, factor];
}

function layerNormalization(node: NodeLowering): readonly ValueId[] {
  const x = node.float(0);
  const shape = node.shape(x);
  const axis = node.axis(node.number('axis', -1), shape.length);
  const [y, mean, factor] = standardized(node, x, range(shape.length).slice(axis));
  const parameters = [node.float(1), ...(node.optional(2) === NONE ? [] : [node.float(2)])];
  for (const id of parameters) {
    if (!sameShape(broadcast(shape, node.shape(id)) ?? [], shape)) {
      node.invalid(`its scale or bias [${node.shape(id)}] can't be broadcast to its input [${shape}]`);
    }
  }
  const scaled = arithmetic(node, 'mul', y, parameters[0]!);
  const shifted = parameters.length < 2 ? scaled : arithmetic(node, 'add', scaled, parameters[1]!);
  return [shifted, mean, factor];
}

export const NORMALIZATION: OperatorTable = {
  LayerNormalization: { lower: layerNormalization },
  BatchNormalization: {
    lower: batchNormalization,
    constantInputs: [1, 2, 3, 4],
    unsupported: ({ attributes, outputs }) => {
      if (attributes.get('spatial') === 0) return 'per element (spatial = 0)';
      return attributes.get('training_mode') === 1 || outputs.length > 1 ? 'in training mode' : undefined;
    },
  },
};
