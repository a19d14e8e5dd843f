/** The memory of every value of a program in the reference backend: which values share it, and when. */

import { NONE, type Program, type Step, type ValueId } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { ELEMENT_BYTES } from '../tensor/tensor.js';
import { planMemory } from './memory-plan.js';

export interface Placement {
  /** Byte offset of every value in the arena; NONE for constants and for unused values. */
  readonly offsets: readonly number[];
  /** Size of the arena. */
  readonly bytes: number;
}

interface Life {
  first: number;
  last: number;
}

/**
 * Control only moves forward, so positions of steps serve as time: a value lives from the first step that writes it
 * to the last that reads it. A step that can compute in place takes over the memory of an operand that dies with it;
 * this keeps the residual stream in place.
 */
export function place(program: Program): Placement {
  const lives = liveness(program);
  const owner = program.values.map((_, id) => id);
  const find = (id: ValueId): ValueId => (owner[id] === id ? id : find(owner[id]!));
  for (const [at, step] of program.steps.entries()) {
    const y = step.outputs[0];
    if (y === undefined || lives[y]!.first !== at) continue;
    const x = inPlaceOperands(program, step).find(
      (id) => !program.values[id]!.data && lives[id]!.last === at,
    );
    if (x === undefined) continue;
    owner[y] = find(x);
    lives[owner[y]!]!.last = lives[y]!.last;
  }
  const owners = program.values.map((_, id) => id).filter((id) => find(id) === id && lives[id]);
  const plan = planMemory(owners.map((id) => ({ ...lives[id]!, bytes: byteLength(program, id) })));
  const offsetOf = new Map(owners.map((id, i) => [id, plan.offsets[i]!]));
  return { offsets: owner.map((_, id) => offsetOf.get(find(id)) ?? NONE), bytes: plan.bytes };
}

/** Lifetimes of the values that are not constants; undefined for unused values. */
function liveness(program: Program): (Life | undefined)[] {
  const lives = new Array<Life | undefined>(program.values.length);
  const touch = (id: ValueId, at: number) => {
    if (id === NONE || program.values[id]!.data) return;
    const life = lives[id];
    if (!life) lives[id] = { first: at, last: at };
    else life.last = Math.max(life.last, at);
  };
  for (const { value } of program.inputs) touch(value, -1);
  for (const [at, step] of program.steps.entries()) {
    for (const id of step.inputs) touch(id, at);
    for (const id of step.outputs) touch(id, at);
  }
  for (const { gate, first, end, skippable, input } of program.blocks) {
    if (gate) touch(gate.score, first);
    // Skipping copies the input to where the body would have left its result.
    if (skippable) touch(input, end - 1);
  }
  for (const { score, answers, end } of program.exits) {
    for (const id of [score, ...answers]) touch(id, end);
  }
  for (const { value } of program.outputs) touch(value, program.steps.length);
  return lives;
}

/** Operands that the kernel of `step` may overwrite with its result. */
function inPlaceOperands(program: Program, step: Step): ValueId[] {
  const [x = NONE, ...others] = step.inputs;
  const y = program.values[step.outputs[0]!]!;
  const fits = (id: ValueId): boolean => {
    const value = program.values[id];
    return value?.dtype === y.dtype && sizeOf(value.shape) === sizeOf(y.shape);
  };
  switch (step.op) {
    case 'conv':
    case 'gemm': {
      const [weight, bias, residual = NONE] = others;
      return [residual].filter((id) => id !== x && id !== weight && id !== bias && fits(id));
    }
    case 'affine':
    case 'unary':
    case 'softmax':
    case 'layerNorm':
    case 'reshape':
      return [x].filter((id) => !others.includes(id) && fits(id));
    case 'binary':
    case 'qbinary':
      return step.inputs.filter(fits);
    case 'lookup':
      return [x].filter(fits);
    default:
      return [];
  }
}

function byteLength(program: Program, id: ValueId): number {
  const { dtype, shape } = program.values[id]!;
  return sizeOf(shape) * ELEMENT_BYTES[dtype];
}
