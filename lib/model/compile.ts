import { atOnce, type Sliced } from '../util/slices.js';
import { detachExits, placeExits } from './blocks/exits.js';
import { recogniseGates } from './blocks/gates.js';
import { mayChoose, mayDecide } from './blocks/may-decide.js';
import { findBlocks } from './blocks/residual.js';
import { schedule } from './blocks/schedule.js';
import { unusableGates } from './blocks/unusable-gates.js';
import { specializing } from './lower/specialize.js';
import { fuse, fuseResiduals, simplify } from './optimise/fuse.js';
import { holdsQuantised } from './optimise/holds-quantised.js';
import { integerise } from './optimise/integer.js';
import { Region } from './optimise/region.js';
import { costOf } from './program/cost.js';
import type { Ir } from './program/ir.js';
import {
  type Block,
  NONE,
  type OwnExit,
  type Port,
  type Program,
  type Step,
  type UnusableGate,
  type Value,
  type ValueId,
} from './program/program.js';
import type { Binding, Model } from './read/model.js';

/** The program of a model for concrete input shapes. */
export function compileModel(model: Model, binding: Binding): Program {
  return atOnce(compiling(model, binding));
}

/** The same in slices. */
export function* compiling(model: Model, binding: Binding): Sliced<Program> {
  return yield* building(yield* specializing(model, binding));
}

/** Fuses operations, makes exits, residual blocks and their gates explicit, and puts the steps in order. */
export function buildProgram(ir: Ir): Program {
  return atOnce(building(ir));
}

/** The same in slices. */
export function* building(ir: Ir): Sliced<Program> {
  return (yield* assemble(ir, true))!;
}

/** @returns undefined when exits should be removed but can't be */
function* assemble(ir: Ir, withExits: boolean): Sliced<Program | undefined> {
  const region = new Region(
    [...ir.values],
    ir.ops,
    ir.outputs.map(({ value }) => value),
  );
  const alone = ir.batching === 'item' || region.shape(region.outputs[0]!)[0] === 1;
  const detached = withExits && alone && mayChoose(region) ? detachExits(region) : undefined;
  if (detached === 'inseparable') return yield* assemble(ir, false);
  yield* simplify(region);
  const unusable: UnusableGate[] = [];
  if (mayDecide(region)) {
    yield* recogniseGates(region);
    if (mayDecide(region)) unusable.push(...(yield* unusableGates(region)));
  }
  yield* fuse(region);
  if (holdsQuantised(region)) {
    yield* integerise(region);
    yield* fuse(region);
  }
  const blocks = yield* findBlocks(region, unusable, ir.recurrent);
  yield* fuseResiduals(region, new Set(blocks.map(({ input }) => input)));
  yield;
  const scheduled = schedule(region, blocks);
  yield;
  const given = new Set(ir.inputs.map(({ value }) => value));
  const exits = detached && (yield* placeExits(detached, scheduled, given));
  if (detached && !exits) return yield* assemble(ir, false);
  const { steps } = scheduled;
  const outputs = ir.outputs.map((port, i) => ({ ...port, value: region.outputs[i]! }));
  const program = compact(
    region.values,
    ir.inputs,
    ownOutputs(region, outputs, steps),
    steps,
    scheduled.blocks,
    ir.batching,
    exits,
  );
  return unusable.length === 0 ? program : { ...program, unusableGates: unusable };
}

/** Adds copies so that a step of its own writes every output of a program. */
function ownOutputs(region: Region, outputs: readonly Port[], steps: Step[]): Port[] {
  const taken = new Set<ValueId>();
  return outputs.map((port) => {
    let { value } = port;
    if (!region.producer(value) || taken.has(value)) {
      const { dtype, shape } = region.value(value);
      const copy = region.addValue(port.name, dtype, shape);
      steps.push({ op: 'reshape', inputs: [value], outputs: [copy], attrs: {} });
      value = copy;
    }
    taken.add(value);
    return { ...port, value };
  });
}

/** Drops values that no step or port uses, and renumbers the rest. */
function compact(
  values: readonly Value[],
  inputs: readonly Port[],
  outputs: readonly Port[],
  steps: readonly Step[],
  blocks: readonly Block[],
  batching: Program['batching'],
  exits: readonly OwnExit[] = [],
): Program {
  const kept: Value[] = [];
  const renumbered = new Map<ValueId, ValueId>([[NONE, NONE]]);
  const renumber = (id: ValueId): ValueId => {
    let fresh = renumbered.get(id);
    if (fresh === undefined) {
      fresh = kept.push(values[id]!) - 1;
      renumbered.set(id, fresh);
    }
    return fresh;
  };
  const port = ({ value, ...rest }: Port): Port => ({ ...rest, value: renumber(value) });
  const renumberAll = (ids: readonly ValueId[]) => ids.map(renumber);
  const renumberStep = (step: Step) =>
    ({ ...step, inputs: renumberAll(step.inputs), outputs: renumberAll(step.outputs) }) as Step;
  const program = {
    values: kept,
    inputs: inputs.map(port),
    steps: steps.map(renumberStep),
    outputs: outputs.map(port),
    blocks: blocks.map((block) => ({
      ...block,
      input: renumber(block.input),
      output: renumber(block.output),
      ...(block.skipTable !== undefined && { skipTable: renumber(block.skipTable) }),
      ...(block.gate && { gate: { ...block.gate, score: renumber(block.gate.score) } }),
    })),
    exits: [],
    batching,
  };
  const cost = costOf(kept, program.steps);
  if (exits.length === 0) return { ...program, cost };
  const own = kept.length;
  const list = exits.map((exit) => ({
    ...exit,
    steps: exit.steps.map(renumberStep),
    score: renumber(exit.score),
    answer: renumber(exit.answer),
  }));
  return { ...program, values: kept.slice(0, own), cost, ownExits: { values: kept.slice(own), list } };
}
