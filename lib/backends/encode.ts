import { ResidualSkipError } from '../errors.js';
import { activationWords, attributeWords, indexIn, OPERATORS } from '../model/program/operator-words.js';
import {
  type Block,
  COMPARE_KINDS,
  NO_ACTIVATION,
  type OpName,
  type Program,
} from '../model/program/program.js';
import type { TensorData, ValueType } from '../tensor/tensor.js';

/** A program in the form that native code reads (native/program/decode.cc). */
export interface EncodedProgram {
  readonly words: Int32Array;
  readonly constants: readonly TensorData[];
  /** For every constant: a number that identifies this array object, and its data type. */
  readonly ids: Int32Array;
}

const MAGIC = 0x52534b50;
const VERSION = 1;

/** The order is part of the encoding. */
export const DATA_TYPES: readonly ValueType[] = [
  'float32',
  'uint8',
  'int32',
  'int64',
  'bool',
  'int8',
  'int16',
  'uint16',
  'uint32',
  'uint64',
];

const OPS = Object.keys(OPERATORS) as OpName[];

/** Native finds packed weights by these, so an array must not change once it is part of a program. */
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

function block(block: Block): number[] {
  const { skippable, gateFirst, first, end, input, output, skipActivation, skipTable, gate } = block;
  const owed = skippable ? skipActivation : NO_ACTIVATION;
  const tables = skippable && skipTable !== undefined ? [skipTable] : [];
  const gates = gate ? [1, gate.score, indexIn(COMPARE_KINDS, gate.compare)] : [0];
  const kind = Number(skippable) + tables.length;
  return [kind, gateFirst, first, end, input, output, ...activationWords(owed), ...gates, ...tables];
}

const isTooLarge = (word: number) => (word | 0) !== word;

/** Throws INTERNAL for a number that is not a 32-bit integer. */
export function encodeProgram(program: Program): EncodedProgram {
  const { values, inputs, outputs, steps, blocks, exits } = program;
  const words: number[] = [MAGIC, VERSION, values.length, inputs.length, outputs.length, steps.length];
  words.push(blocks.length, Number(program.batching === 'whole'));
  const add = (part: readonly number[]) => {
    for (let i = 0; i < part.length; i++) words.push(part[i]!);
  };
  const constants: TensorData[] = [];
  const ids: number[] = [];
  for (let v = 0; v < values.length; v++) {
    const { dtype, shape, data } = values[v]!;
    const type = indexIn(DATA_TYPES, dtype);
    words.push(type, data ? constants.length : -1, shape.length);
    add(shape);
    if (data) {
      constants.push(data);
      ids.push(constantId(data), type);
    }
  }
  for (const { value, batched } of [...inputs, ...outputs]) words.push(value, Number(batched));
  for (let s = 0; s < steps.length; s++) {
    const step = steps[s]!;
    words.push(indexIn(OPS, step.op), step.inputs.length, step.outputs.length);
    add(step.inputs);
    add(step.outputs);
    add(attributeWords(step));
  }
  for (const each of blocks) words.push(...block(each));
  if (exits.length > 0) words.push(exits.length);
  for (const { first, end, score, answers } of exits) words.push(first, end, score, ...answers);
  if (words.some(isTooLarge)) {
    throw new ResidualSkipError('INTERNAL', 'program: it holds a number beyond 32 bits');
  }
  return { words: Int32Array.from(words), constants, ids: Int32Array.from(ids) };
}
