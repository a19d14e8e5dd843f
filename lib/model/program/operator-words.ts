/** The attributes of steps as 32-bit words, which native/program/decode.cc reads. */
import { ResidualSkipError } from '../../errors.js';
import {
  ACTIVATION_KINDS,
  type Activation,
  BINARY_KINDS,
  COMPARE_KINDS,
  GLOBAL_POOL_KINDS,
  LOGICAL_KINDS,
  type OpName,
  PAD_MODES,
  REDUCE_KINDS,
  SCATTER_KINDS,
  type Step,
  type StepNamed,
  type Term,
} from './program.js';

const floatBits = new DataView(new ArrayBuffer(4));
function bitsOf(value: number): number {
  floatBits.setFloat32(0, value);
  return floatBits.getInt32(0);
}

/** The position of a name in a list whose order is part of the encoding. */
export function indexIn<T extends string>(names: readonly T[], name: T): number {
  const index = names.indexOf(name);
  if (index < 0) throw new ResidualSkipError('INTERNAL', `attribute '${name}': it has no native encoding`);
  return index;
}

export function activationWords({ kind, alpha, beta }: Activation): number[] {
  return [indexIn(ACTIVATION_KINDS, kind), bitsOf(alpha), bitsOf(beta)];
}

/** A list, preceded by its length. */
export function list(values: readonly number[]): number[] {
  return [values.length, ...values];
}

type Attributes<Op extends OpName> = StepNamed<Op>['attrs'];

/**
 * The words of each attribute that native/ops/operators.def names. The number of axes, or the length of a list, is
 * first.
 */
const ATTRIBUTES = {
  activation: ({ act }: Attributes<'unary'>) => activationWords(act),
  attention: (attrs: Attributes<'attention'>) => [
    ...[
      attrs.batch,
      attrs.heads,
      attrs.queries,
      attrs.keys,
      attrs.depth,
      attrs.valueDepth,
      bitsOf(attrs.scale),
      Number(attrs.replaces),
    ],
    ...[attrs.q, attrs.k, attrs.v, attrs.mask, attrs.y].flatMap(({ offset, batch, head, row, column }) => [
      offset,
      batch,
      head,
      row,
      column,
    ]),
  ],
  axes: ({ axes }: Attributes<'reduceMean'>) => list(axes),
  axis: ({ axis }: Attributes<'gather'>) => [axis],
  batchDims: ({ batchDims }: Attributes<'gatherNd'>) => [batchDims],
  binaryKind: ({ kind }: Pick<Attributes<'binary'>, 'kind'>) => [indexIn(BINARY_KINDS, kind)],
  columnMajor: ({ columnMajorIndices }: Attributes<'pool'>) => [Number(columnMajorIndices)],
  compareKind: ({ kind }: Attributes<'compare'>) => [indexIn(COMPARE_KINDS, kind)],
  countIncludePad: ({ countIncludePad }: Attributes<'pool'>) => [Number(countIncludePad)],
  depth: ({ depth }: Attributes<'oneHot'>) => [depth],
  exclusive: ({ exclusive }: Attributes<'cumSum'>) => [Number(exclusive)],
  epsilon: ({ epsilon }: Attributes<'layerNorm'>) => [bitsOf(epsilon)],
  globalPoolKind: ({ kind }: Attributes<'globalPool'>) => [indexIn(GLOBAL_POOL_KINDS, kind)],
  group: ({ group }: Attributes<'conv'>) => [group],
  kernelWindow: ({
    kernel,
    strides,
    pads,
    dilations,
  }: Pick<Attributes<'pool'>, 'kernel' | 'strides' | 'pads' | 'dilations'>) => [
    ...list(kernel),
    ...strides,
    ...pads,
    ...dilations,
  ],
  largest: ({ largest }: Attributes<'topK'>) => [Number(largest)],
  log: ({ log }: Attributes<'softmax'>) => [Number(log)],
  logicalKind: ({ kind }: Attributes<'logical'>) => [indexIn(LOGICAL_KINDS, kind)],
  max: ({ kind }: Attributes<'pool'>) => [Number(kind === 'max')],
  padMode: ({ mode }: Attributes<'pad'>) => [indexIn(PAD_MODES, mode)],
  pads: ({ pads }: Attributes<'pad'>) => list(pads),
  requant: ({ requant: { zero, low, high } }: Pick<Attributes<'qconv'>, 'requant'>) => [zero, low, high],
  perm: ({ perm }: Attributes<'transpose'>) => list(perm),
  reduceKind: ({ kind }: Attributes<'reduce'>) => [indexIn(REDUCE_KINDS, kind)],
  reverse: ({ reverse }: Attributes<'cumSum'>) => [Number(reverse)],
  scatterKind: ({ reduction }: Attributes<'scatterNd'>) => [indexIn(SCATTER_KINDS, reduction)],
  selectLast: ({ selectLast }: Attributes<'argMax'>) => [Number(selectLast)],
  squares: ({ squares }: Attributes<'qpool'>) => [Number(squares)],
  startsAndSteps: ({ starts, steps }: Attributes<'slice'>) => [...list(starts), ...steps],
  terms: ({ terms }: { readonly terms: readonly Term[] }) => [
    terms.length,
    ...terms.flatMap(({ zero, factor }) => [zero, bitsOf(factor)]),
  ],
  target: ({ target }: Attributes<'jump'>) => [target],
  transB: ({ transB }: Attributes<'gemm'>) => [Number(transB)],
  window: ({ strides, pads, dilations }: Attributes<'conv'>) => [...list(strides), ...pads, ...dilations],
};
type AttributeName = keyof typeof ATTRIBUTES;

/** Operators and their attributes, in the order of native/ops/operators.def; a test compares both. */
export const OPERATORS: { readonly [Op in OpName]: readonly AttributesOf<Op>[] } = {
  conv: ['group', 'activation', 'window'],
  gemm: ['transB', 'activation'],
  matmul: [],
  affine: ['activation'],
  unary: ['activation'],
  binary: ['binaryKind', 'activation'],
  compare: ['compareKind'],
  logical: ['logicalKind'],
  where: [],
  cast: [],
  pool: ['max', 'countIncludePad', 'columnMajor', 'kernelWindow'],
  globalPool: ['globalPoolKind'],
  reduceMean: ['axes'],
  softmax: ['axis', 'log'],
  argMax: ['axis', 'selectLast'],
  oneHot: ['axis', 'depth'],
  gather: ['axis'],
  transpose: ['perm'],
  pad: ['padMode', 'pads'],
  slice: ['startsAndSteps'],
  concat: ['axis'],
  reshape: [],
  expand: [],
  branch: ['target'],
  jump: ['target'],
  topK: ['axis', 'largest'],
  quantize: ['axis'],
  dequantize: ['axis'],
  dynamicQuantize: [],
  qconv: ['group', 'activation', 'requant', 'window'],
  qmatmul: ['transB', 'activation', 'requant'],
  qbinary: ['binaryKind', 'terms', 'requant'],
  qglobalPool: ['terms', 'requant'],
  lookup: [],
  reduce: ['reduceKind', 'axes'],
  cumSum: ['axis', 'exclusive', 'reverse'],
  resample: ['axis'],
  gatherElements: ['axis'],
  gatherNd: ['batchDims'],
  scatterElements: ['axis', 'scatterKind'],
  scatterNd: ['scatterKind'],
  layerNorm: ['axis', 'epsilon'],
  attention: ['attention'],
  qpool: ['squares', 'terms', 'kernelWindow'],
};

/** Attributes that a step of this operator has. */
type AttributesOf<Op extends OpName> = {
  [Name in AttributeName]: Attributes<Op> extends Parameters<(typeof ATTRIBUTES)[Name]>[0] ? Name : never;
}[AttributeName];

export function attributeWords(step: Step): number[] {
  // The type of OPERATORS has checked that each of them fits the step's attributes.
  return OPERATORS[step.op].flatMap((name) => (ATTRIBUTES[name] as (attrs: object) => number[])(step.attrs));
}
