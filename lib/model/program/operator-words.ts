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

/** The words of attributes that aren't plain. The number of axes, or the length of a list, is first. */
const FORMS = {
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
  binaryKind: ({ kind }: Pick<Attributes<'binary'>, 'kind'>) => [indexIn(BINARY_KINDS, kind)],
  columnMajor: ({ columnMajorIndices }: Attributes<'pool'>) => [Number(columnMajorIndices)],
  compareKind: ({ kind }: Attributes<'compare'>) => [indexIn(COMPARE_KINDS, kind)],
  epsilon: ({ epsilon }: Attributes<'layerNorm'>) => [bitsOf(epsilon)],
  globalPoolKind: ({ kind }: Attributes<'globalPool'>) => [indexIn(GLOBAL_POOL_KINDS, kind)],
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
  logicalKind: ({ kind }: Attributes<'logical'>) => [indexIn(LOGICAL_KINDS, kind)],
  max: ({ kind }: Attributes<'pool'>) => [Number(kind === 'max')],
  padMode: ({ mode }: Attributes<'pad'>) => [indexIn(PAD_MODES, mode)],
  requant: ({ requant: { zero, low, high } }: Pick<Attributes<'qconv'>, 'requant'>) => [zero, low, high],
  reduceKind: ({ kind }: Attributes<'reduce'>) => [indexIn(REDUCE_KINDS, kind)],
  scatterKind: ({ reduction }: Attributes<'scatterNd'>) => [indexIn(SCATTER_KINDS, reduction)],
  startsAndSteps: ({ starts, steps }: Attributes<'slice'>) => [...list(starts), ...steps],
  terms: ({ terms }: { readonly terms: readonly Term[] }) => [
    terms.length,
    ...terms.flatMap(({ zero, factor }) => [zero, bitsOf(factor)]),
  ],
  window: ({ strides, pads, dilations }: Attributes<'conv'>) => [...list(strides), ...pads, ...dilations],
};

/** What is its own words: an integer, 0 or 1 for false or true, a list behind its length. */
type Plain = number | boolean | readonly number[];

/** Attributes that steps of this operator have: forms that fit, and plain ones under their own names. */
type AttributesOf<Op extends OpName> =
  | {
      [Name in keyof typeof FORMS]: Attributes<Op> extends Parameters<(typeof FORMS)[Name]>[0] ? Name : never;
    }[keyof typeof FORMS]
  | {
      [Name in keyof Attributes<Op> & string]: Attributes<Op>[Name] extends Plain ? Name : never;
    }[keyof Attributes<Op> & string];

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

export function attributeWords({ op, attrs }: Step): number[] {
  // The type of OPERATORS has checked that each of them fits the step's attributes.
  return OPERATORS[op].flatMap((name: string) => {
    if (Object.hasOwn(FORMS, name))
      return (FORMS[name as keyof typeof FORMS] as (of: object) => number[])(attrs);
    const value = (attrs as Readonly<Record<string, Plain>>)[name]!;
    return typeof value === 'object' ? list(value) : [Number(value)];
  });
}
