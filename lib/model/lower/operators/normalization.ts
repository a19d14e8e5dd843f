import { broadcast, range, sameShape, sizeOf } from '../../../numeric/shapes.js';
import { NO_ACTIVATION, NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { unary } from './activations.js';
import { arithmetic } from './elementwise.js';
import type { OperatorTable } from './operator.js';
import { l1, l2, reduced } from './reduction.js';

/**
 * Inference form: y = x*scale + shift with scale = gamma / sqrt(variance + epsilon) and shift = beta - mean*scale,
 * both computed in double (Ioffe and Szegedy, 2015); where parameters are known at run time only,
 * y = (x - mean) / sqrt(variance + epsilon) * gamma + beta.
 */
function batchNormalization(node: NodeLowering): ValueId {
  const x = node.float(0);
  if (node.rank(x) < 2) node.invalid(`its input [${node.shape(x)}] has no channels`);
  const channels = node.shape(x)[1]!;
  const parameters = ['scale', 'bias', 'mean', 'variance'].map((what, i) => {
    const id = node.float(i + 1);
    if (sameShape(node.shape(id), [channels])) return id;
    return node.invalid(`its ${what} [${node.shape(id)}] doesn't fit ${channels} channels`);
  });
  const epsilon = node.number('epsilon', 1e-5);
  const known = parameters.map((id) => node.known(id));
  if (!known.every((data) => data instanceof Float32Array)) {
    return normalizedByChannel(node, x, parameters, epsilon);
  }
  const folded = node.context.cache.memoise(
    () => `batchNormalization ${epsilon}`,
    known,
    () => {
      const [gamma, beta, mean, variance] = known as [Float32Array, Float32Array, Float32Array, Float32Array];
      const scale = Float64Array.from(gamma, (value, c) => value / Math.sqrt(variance[c]! + epsilon));
      const shift = Float32Array.from(beta, (value, c) => value - mean[c]! * scale[c]!);
      return [Float32Array.from(scale), shift];
    },
  );
  const [scale, shift] = folded.map((data) => node.constantOf('float32', [channels], data));
  const output = { dtype: 'float32', shape: node.shape(x) } as const;
  return node.step('affine', [x, scale!, shift!], output, { act: NO_ACTIVATION });
}

/** In the form that layer normalisation is recognised in: Keras computes it so, with one channel for each position. */
function normalizedByChannel(
  node: NodeLowering,
  x: ValueId,
  parameters: readonly ValueId[],
  epsilon: number,
): ValueId {
  const wide = node.shape(x).map((length, axis) => (axis === 1 ? length : 1));
  const [gamma, beta, mean, variance] = parameters.map((id) => node.reshape(id, wide)) as [
    ValueId,
    ValueId,
    ValueId,
    ValueId,
  ];
  const deviation = unary(node, arithmetic(node, 'add', variance, node.scalar(epsilon)), 'sqrt');
  const standard = arithmetic(
    node,
    'mul',
    arithmetic(node, 'sub', x, mean),
    unary(node, deviation, 'reciprocal'),
  );
  const idle = (id: ValueId, number: number) =>
    (node.value(id).data as Float32Array | undefined)?.every((element) => element === number);
  const scaled = idle(gamma, 1) ? standard : arithmetic(node, 'mul', standard, gamma);
  return idle(beta, 0) ? scaled : arithmetic(node, 'add', scaled, beta);
}

/** The mean over `axes`, which are kept with length 1. */
function meanOf(node: NodeLowering, x: ValueId, axes: readonly number[]): ValueId {
  const output = { dtype: 'float32', shape: reduced(node.shape(x), axes, true) } as const;
  return node.step('reduceMean', [x], output, { axes });
}

/** 1 / sqrt(mean of x^2 + epsilon) over `axes`. */
function scaleOf(node: NodeLowering, x: ValueId, axes: readonly number[], epsilon: number): ValueId {
  const power = meanOf(node, arithmetic(node, 'mul', x, x), axes);
  return unary(node, unary(node, arithmetic(node, 'add', power, node.scalar(epsilon)), 'sqrt'), 'reciprocal');
}

/** (x - mean) / sqrt(variance + epsilon) over `axes`, then the mean and the factor (Ba, Kiros and Hinton, 2016). */
function standardized(
  node: NodeLowering,
  x: ValueId,
  axes: readonly number[],
  epsilon: number,
): [ValueId, ValueId, ValueId] {
  const mean = meanOf(node, x, axes);
  const centred = arithmetic(node, 'sub', x, mean);
  const factor = scaleOf(node, centred, axes, epsilon);
  return [arithmetic(node, 'mul', centred, factor), mean, factor];
}

/** y * gamma + beta, which is NONE without; both broadcast to y. */
function scaledAndShifted(node: NodeLowering, y: ValueId, gamma: ValueId, beta: ValueId): ValueId {
  const shape = node.shape(y);
  for (const id of [gamma, beta]) {
    if (id !== NONE && !sameShape(broadcast(shape, node.shape(id)) ?? [], shape)) {
      node.invalid(`its scale or bias [${node.shape(id)}] can't be broadcast to its input [${shape}]`);
    }
  }
  const product = arithmetic(node, 'mul', y, gamma);
  return beta === NONE ? product : arithmetic(node, 'add', product, beta);
}

/** The normalised tensor, then the mean and the factor. */
export function layerNorm(
  node: NodeLowering,
  x: ValueId,
  axes: readonly number[],
  epsilon: number,
  gamma: ValueId,
  beta: ValueId,
): readonly ValueId[] {
  const [y, mean, factor] = standardized(node, x, axes, epsilon);
  return [scaledAndShifted(node, y, gamma, beta), mean, factor];
}

/** x / sqrt(mean of x^2 + epsilon) * gamma, then the factor (Zhang and Sennrich, 2019). */
export function rmsNorm(
  node: NodeLowering,
  x: ValueId,
  axes: readonly number[],
  epsilon: number,
  gamma: ValueId,
): readonly ValueId[] {
  const factor = scaleOf(node, x, axes, epsilon);
  return [scaledAndShifted(node, arithmetic(node, 'mul', x, factor), gamma, NONE), factor];
}

/** The axes from the attribute `axis` on. */
function trailing(node: NodeLowering, x: ValueId): number[] {
  const rank = node.rank(x);
  return range(rank).slice(node.axis(node.number('axis', -1), rank));
}

function layerNormalization(node: NodeLowering): readonly ValueId[] {
  const x = node.float(0);
  const beta = node.optional(2) === NONE ? NONE : node.float(2);
  return layerNorm(node, x, trailing(node, x), node.number('epsilon', 1e-5), node.float(1), beta);
}

function rmsNormalization(node: NodeLowering): readonly ValueId[] {
  const x = node.float(0);
  return rmsNorm(node, x, trailing(node, x), node.number('epsilon', 1e-5), node.float(1));
}

/**
 * Standardises the channels of each group over all positions (Wu and He, 2018). Scale and shift are one for each channel, or
 * for each group.
 */
function groupNorm(node: NodeLowering, groups: number): ValueId {
  const x = node.float(0);
  const [batch = 0, channels = 0, ...spatial] = node.shape(x);
  if (node.rank(x) < 3 || !Number.isInteger(groups) || groups < 1 || channels % groups !== 0) {
    node.invalid(`its input [${node.shape(x)}] has no ${groups} groups of channels`);
  }
  const perChannel = (index: number) => {
    const id = node.float(index);
    const shape = node.shape(id);
    if (sameShape(shape, [channels])) return id;
    if (!sameShape(shape, [groups]))
      node.invalid(`its scale or bias [${shape}] doesn't fit ${channels} channels`);
    const wide = node.expand(node.reshape(id, [groups, 1]), [groups, channels / groups]);
    return node.reshape(wide, [channels]);
  };
  const apart = node.reshape(x, [batch, groups, (channels / groups) * sizeOf(spatial)]);
  const [y] = standardized(node, apart, [2], node.number('epsilon', 1e-5));
  const back = node.reshape(y, node.shape(x));
  const output = { dtype: 'float32', shape: node.shape(x) } as const;
  return node.step('affine', [back, perChannel(1), perChannel(2)], output, { act: NO_ACTIVATION });
}

/** x divided by its norm along an axis; where that is 0, 0. */
function lpNormalization(node: NodeLowering): ValueId {
  const x = node.float(0);
  const { dtype, shape } = node.value(x);
  const axis = node.axis(node.number('axis', -1), shape.length);
  const p = node.number('p', 2);
  if (p !== 1 && p !== 2) node.invalid(`its p is ${p}; expected 1 or 2`);
  const norm = (p === 1 ? l1 : l2)(node, x, [axis], true);
  const zero = node.scalar(0);
  const isZero = node.step(
    'compare',
    [norm, zero],
    { dtype: 'bool', shape: node.shape(norm) },
    { kind: 'eq' },
  );
  return node.step('where', [isZero, zero, arithmetic(node, 'div', x, norm)], { dtype, shape }, {});
}

/** x / (bias + alpha * mean)^beta, with the mean of the squares of `size` channels around each, 0 beyond the ends (Krizhevsky et al. 2012). */
function localResponseNorm(node: NodeLowering): ValueId {
  const x = node.float(0);
  const shape = node.shape(x);
  const [batch = 0, channels = 0, ...spatial] = shape;
  const size = node.number('size', 0);
  if (shape.length < 3 || size < 1)
    node.invalid(`its size is ${size}, its input [${shape}]; expected at least 1, and 3 axes`);
  const rows = [batch, 1, channels, sizeOf(spatial)];
  const before = (size - 1) >> 1;
  const mean = node.step(
    'pool',
    [node.reshape(arithmetic(node, 'mul', x, x), rows)],
    { dtype: 'float32', shape: rows },
    {
      kind: 'avg',
      kernel: [size, 1],
      strides: [1, 1],
      pads: [before, 0, size - 1 - before, 0],
      dilations: [1, 1],
      countIncludePad: true,
      columnMajorIndices: false,
    },
  );
  const scaled = arithmetic(node, 'mul', node.reshape(mean, shape), node.scalar(node.number('alpha', 1e-4)));
  const base = arithmetic(node, 'add', scaled, node.scalar(node.number('bias', 1)));
  const beta = node.number('beta', 0.75);
  if (beta !== 0.75) return arithmetic(node, 'div', x, arithmetic(node, 'pow', base, node.scalar(beta)));
  const root = unary(node, base, 'sqrt');
  return arithmetic(node, 'div', x, arithmetic(node, 'mul', root, unary(node, root, 'sqrt')));
}

/** (x - mean) / the standard deviation, over `axes`. */
function meanVarianceNormalization(node: NodeLowering): ValueId {
  const x = node.float(0);
  const axes = node.axes(node.numbers('axes') ?? [0, 2, 3], node.rank(x)).sort((a, b) => a - b);
  return standardized(node, x, axes, 1e-9)[0];
}

export const NORMALIZATION: OperatorTable = {
  LayerNormalization: { lower: layerNormalization },
  RMSNormalization: { lower: rmsNormalization },
  SimplifiedLayerNormalization: { lower: rmsNormalization },
  GroupNormalization: { lower: (node) => groupNorm(node, node.number('num_groups', 0)) },
  InstanceNormalization: { lower: (node) => groupNorm(node, node.shape(node.float(0))[1] ?? 0) },
  LRN: { lower: localResponseNorm },
  LpNormalization: { lower: lpNormalization },
  MeanVarianceNormalization: { lower: meanVarianceNormalization },
  BatchNormalization: {
    lower: batchNormalization,
    unsupported: ({ attributes, outputs }) => {
      if (attributes.get('spatial') === 0) return 'per element (spatial = 0)';
      return attributes.get('training_mode') === 1 || outputs.slice(1).some((name) => name !== '')
        ? 'in training mode'
        : undefined;
    },
  },
};
