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

/** Orders are part of the encoding. */
const DATA_TYPES: readonly DataType[] = ['float32', 'uint8', 'int32', 'int64', 'bool'];
const OPS: readonly OpName[] = [
  'conv',
  'gemm',
  'matmul',
  'affine',
  'unary',
  'binary',
  'compare',
  'logical',
  'where',
  'cast',
  'pool',
  'globalPool',
  'reduceMean',
  'softmax',
  'argMax',
  'oneHot',
  'gather',
  'transpose',
  'pad',
  'slice',
  'concat',
  'reshape',
  'expand',
  'branch',
  'jump',
];

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

/** The words of a step's attributes; the number of spatial axes, or of a list, comes first. */
function attributes(step: Step): number[] {
  switch (step.op) {
    case 'conv': {
      const { group, act, strides, pads, dilations } = step.attrs;
      return [group, ...activation(act), ...list(strides), ...pads, ...dilations];
    }
    case 'gemm':
      return [Number(step.attrs.transB), ...activation(step.attrs.act)];
    case 'affine':
    case 'unary':
      return activation(step.attrs.act);
    case 'binary':
      return [indexIn(BINARY_KINDS, step.attrs.kind), ...activation(step.attrs.act)];
    case 'compare':
      return [indexIn(COMPARE_KINDS, step.attrs.kind)];
    case 'logical':
      return [indexIn(LOGICAL_KINDS, step.attrs.kind)];
    case 'pool': {
      const { kind, countIncludePad, columnMajorIndices, kernel, strides, pads, dilations } = step.attrs;
      const flags = [Number(kind === 'max'), Number(countIncludePad), Number(columnMajorIndices)];
      return [...flags, ...list(kernel), ...strides, ...pads, ...dilations];
    }
    case 'globalPool':
      return [Number(step.attrs.kind === 'max')];
    case 'reduceMean':
      return list(step.attrs.axes);
    case 'softmax':
      return [step.attrs.axis, Number(step.attrs.log)];
    case 'argMax':
      return [step.attrs.axis, Number(step.attrs.selectLast)];
    case 'oneHot':
      return [step.attrs.axis, step.attrs.depth];
    case 'gather':
    case 'concat':
      return [step.attrs.axis];
    case 'transpose':
      return list(step.attrs.perm);
    case 'pad':
      return [indexIn(PAD_MODES, step.attrs.mode), bitsOf(step.attrs.value), ...list(step.attrs.pads)];
    case 'slice':
      return [...list(step.attrs.starts), ...step.attrs.steps];
    case 'branch':
    case 'jump':
      return [step.attrs.target];
    case 'matmul':
    case 'where':
    case 'cast':
    case 'reshape':
    case 'expand':
      return [];
  }
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
