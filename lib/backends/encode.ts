import { ResidualSkipError } from '../errors.js';
import {
  ACTIVATION_KINDS,
  type Activation,
  BINARY_KINDS,
  type Block,
  COMPARE_KINDS,
  LOGICAL_KINDS,
  NO_ACTIVATION,
  type OpName,
  PAD_MODES,
  type Program,
  type Step,
  type StepNamed,
} from '../model/program.js';
import type { DataType, TensorData } from '../tensor.js';

/** A program as native code reads it (native/program/decode.cc). */
export interface EncodedProgram {
  readonly words: Int32Array;
  readonly constants: readonly TensorData[];
  /** For every constant: a number that stands for this very array object, and its data type. */
  readonly ids: Int32Array;
}

const MAGIC = 0x52534b50;
const VERSION = 1;

/** Order is part of the encoding. */
export const DATA_TYPES: readonly DataType[] = ['float32', 'uint8', 'int32', 'int64', 'bool'];

/** Native keeps packed weights by these, so an array must not change once it was part of a program. */
const constantIds = new WeakMap<TensorData, number>();
let nextConstantId = 0;

function constantId(data: TensorData): number {
  let id = constantIds.get(data);
  if (id === undefined) {
    id = nextConstantId++;
    constantIds.set(data, id);
  }
  return id;
}

const floatBits = new DataView(new ArrayBuffer(4));
function bitsOf(value: number): number {
  floatBits.setFloat32(0, value);
  return floatBits.getInt32(0);
}

function indexIn<T extends string>(names: readonly T[], name: T): number {
  const index = names.indexOf(name);
  if (index < 0) throw new ResidualSkipError('INTERNAL', `'${name}' has no native encoding.`);
  return index;
}

function activation({ kind, alpha, beta }: Activation): number[] {
  return [indexIn(ACTIVATION_KINDS, kind), bitsOf(alpha), bitsOf(beta)];
}

function list(values: readonly number[]): number[] {
  return [values.length, ...values];
}

type Attributes<Op extends OpName> = StepNamed<Op>['attrs'];

/** The words of each attribute that native/ops/operators.def names; the number of axes, or the length of a list, comes first. */
const ATTRIBUTES = {
  activation: ({ act }: Attributes<'unary'>) => activation(act),
  axes: ({ axes }: Attributes<'reduceMean'>) => list(axes),
  axis: ({ axis }: Attributes<'gather'>) => [axis],
  binaryKind: ({ kind }: Attributes<'binary'>) => [indexIn(BINARY_KINDS, kind)],
  columnMajor: ({ columnMajorIndices }: Attributes<'pool'>) => [Number(columnMajorIndices)],
  compareKind: ({ kind }: Attributes<'compare'>) => [indexIn(COMPARE_KINDS, kind)],
  countIncludePad: ({ countIncludePad }: Attributes<'pool'>) => [Number(countIncludePad)],
  depth: ({ depth }: Attributes<'oneHot'>) => [depth],
  group: ({ group }: Attributes<'conv'>) => [group],
  kernelWindow: ({ kernel, strides, pads, dilations }: Attributes<'pool'>) => [
    ...list(kernel),
    ...strides,
    ...pads,
    ...dilations,
  ],
  log: ({ log }: Attributes<'softmax'>) => [Number(log)],
  logicalKind: ({ kind }: Attributes<'logical'>) => [indexIn(LOGICAL_KINDS, kind)],
  max: ({ kind }: Attributes<'globalPool'>) => [Number(kind === 'max')],
  padMode: ({ mode }: Attributes<'pad'>) => [indexIn(PAD_MODES, mode)],
  pads: ({ pads }: Attributes<'pad'>) => list(pads),
  perm: ({ perm }: Attributes<'transpose'>) => list(perm),
  selectLast: ({ selectLast }: Attributes<'argMax'>) => [Number(selectLast)],
  startsAndSteps: ({ starts, steps }: Attributes<'slice'>) => [...list(starts), ...steps],
  target: ({ target }: Attributes<'jump'>) => [target],
  transB: ({ transB }: Attributes<'gemm'>) => [Number(transB)],
  value: ({ value }: Attributes<'pad'>) => [bitsOf(value)],
  window: ({ strides, pads, dilations }: Attributes<'conv'>) => [...list(strides), ...pads, ...dilations],
};
type AttributeName = keyof typeof ATTRIBUTES;

/** Operators and their attributes, in the order of native/ops/operators.def, with which a test compares them. */
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
  globalPool: ['max'],
  reduceMean: ['axes'],
  softmax: ['axis', 'log'],
  argMax: ['axis', 'selectLast'],
  oneHot: ['axis', 'depth'],
  gather: ['axis'],
  transpose: ['perm'],
  pad: ['padMode', 'value', 'pads'],
  slice: ['startsAndSteps'],
  concat: ['axis'],
  reshape: [],
  expand: [],
  branch: ['target'],
  jump: ['target'],
};
const OPS = Object.keys(OPERATORS) as OpName[];

/** Attributes that can be read off a step of this operator. */
type AttributesOf<Op extends OpName> = {
  [Name in AttributeName]: Attributes<Op> extends Parameters<(typeof ATTRIBUTES)[Name]>[0] ? Name : never;
}[AttributeName];

function attributes(step: Step): number[] {
  // The type of OPERATORS has checked that each of them fits the step's attributes.
  return OPERATORS[step.op].flatMap((name) => (ATTRIBUTES[name] as (attrs: object) => number[])(step.attrs));
}

function block({ skippable, gateFirst, first, end, input, output, skipActivation, gate }: Block): number[] {
  const owed = skippable ? skipActivation : NO_ACTIVATION;
  const words = [Number(skippable), gateFirst, first, end, input, output, ...activation(owed)];
  return gate ? [...words, 1, gate.score, indexIn(COMPARE_KINDS, gate.compare)] : [...words, 0];
}

/** Throws INTERNAL for a number that is no 32-bit integer. */
export function encodeProgram(program: Program): EncodedProgram {
  const { values, inputs, outputs, steps, blocks } = program;
  const words: number[] = [MAGIC, VERSION, values.length, inputs.length, outputs.length, steps.length];
  words.push(blocks.length, Number(program.batching === 'whole'));
  const constants: TensorData[] = [];
  const ids: number[] = [];
  for (const { dtype, shape, data } of values) {
    const type = indexIn(DATA_TYPES, dtype);
    words.push(type, data ? constants.length : -1, ...list(shape));
    if (data) {
      constants.push(data);
      ids.push(constantId(data), type);
    }
  }
  for (const { value, batched } of [...inputs, ...outputs]) words.push(value, Number(batched));
  for (const step of steps) {
    words.push(indexIn(OPS, step.op), step.inputs.length, step.outputs.length);
    words.push(...step.inputs, ...step.outputs, ...attributes(step));
  }
  for (const each of blocks) words.push(...block(each));
  if (words.some((word) => (word | 0) !== word)) {
    throw new ResidualSkipError('INTERNAL', 'The program holds a number beyond 32 bits.');
  }
  return { words: Int32Array.from(words), constants, ids: Int32Array.from(ids) };
}
