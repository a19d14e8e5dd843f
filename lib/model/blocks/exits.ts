/**
 * Early exits in a graph: its answer is `Where(score >= threshold, early answer, later answer)`, or an `If` of these, where the
 * later answer may be such a choice again (Teerapittayanon et al. 2016). The early answer may be that of another network, which
 * reads the same input (Wang et al. 2020, arXiv 2012.01988). They are removed from the graph, which leaves the full network, and
 * kept beside the program, so that a policy can restore them.
 */

import { nextAbove } from '../../numeric/float32.js';
import { sameShape, sizeOf } from '../../numeric/shapes.js';
import type { Sliced } from '../../util/slices.js';
import { fuse, fuseResiduals, simplify } from '../optimise/fuse.js';
import { holdsQuantised } from '../optimise/holds-quantised.js';
import { integerise } from '../optimise/integer.js';
import { Region, type WorkOp } from '../optimise/region.js';
import { ancestors, dependsOn } from '../optimise/search.js';
import { costOf } from '../program/cost.js';
import { NONE, type OwnExit, type Step, type Value, type ValueId } from '../program/program.js';
import { stepsFor } from '../program/steps-for.js';
import { hardGate } from './decision.js';
import { INPUT } from './names.js';
import { type Schedule, schedule } from './schedule.js';
import { Tracer } from './tracer.js';

/** One of the choices that lead to the graph's answer. */
interface Choice {
  readonly score: ValueId;
  readonly threshold: number;
  readonly answer: ValueId;
  /** The graph says it by branches, as it may also say a gate. */
  readonly branched: boolean;
}

/** Exits removed from the network, in the order in which they are evaluated. */
export interface DetachedExits {
  readonly choices: readonly Choice[];
  /** Operations that only the exits need. */
  readonly heads: Region;
}

/**
 * Removes the exits from a region that has not been rewritten yet.
 * @returns undefined if there are none; 'inseparable', and a region that is of no more use, if some operations that only they need
 * depend on a condition
 */
export function detachExits(region: Region): DetachedExits | 'inseparable' | undefined {
  const choices: Choice[] = [];
  const [output, another] = region.outputs;
  if (output === undefined || another !== undefined) return undefined;
  const tracer = new Tracer(region);
  let rest = output;
  for (let next = choiceOf(region, tracer, rest); next; next = choiceOf(region, tracer, rest)) {
    choices.push(next.choice);
    rest = next.rest;
  }
  const needed = ancestors(region, rest);
  const heads = withOwnSteps(
    region,
    region.ops.filter((op) => !needed.has(op)),
  );
  if (choices.length === 0) return undefined;
  if (heads.some((op) => op.op === 'if' || op.op === 'select')) return 'inseparable';
  const outputs = choices.flatMap(({ score, answer }) => [score, answer]);
  const detached = new Region(region.values, heads as Exclude<WorkOp, { op: 'if' | 'select' }>[], outputs);
  detached.removeDead();
  region.outputs = [rest];
  region.removeDead();
  return { choices, heads: detached };
}

/** Steps that make of a mask of tokens what weighs them. */
const MARKING: ReadonlySet<WorkOp['op']> = new Set([
  'cast',
  'reshape',
  'expand',
  'transpose',
  'slice',
  'unary',
  'binary',
  'compare',
  'logical',
  'where',
  'reduce',
  'reduceMean',
]);

/**
 * The steps of exits, which read values of the network, and so what those are made of: what the network makes of bytes, or of a mask
 * that the graph is given, is made for the exits once more.
 */
function withOwnSteps(region: Region, heads: readonly WorkOp[]): WorkOp[] {
  const shared = new Set<WorkOp>();
  for (const id of heads.flatMap(({ inputs }) => inputs)) {
    const dequantised = region.producerOf(id, 'dequantize');
    for (const op of dequantised ? [dequantised] : marksBehind(region, id)) shared.add(op);
  }
  for (const op of heads) shared.delete(op);
  const copies = new Map<ValueId, ValueId>();
  const own = (ids: readonly ValueId[]) => ids.map((id) => copies.get(id) ?? id);
  const copied = region.ops
    .filter((op) => shared.has(op))
    .map((op) => {
      const inputs = own(op.inputs);
      for (const id of op.outputs) {
        const { name, dtype, shape } = region.value(id);
        copies.set(id, region.addValue(name, dtype, shape));
      }
      return { ...op, inputs, outputs: own(op.outputs) } as WorkOp;
    });
  return [...copied, ...heads.map((op) => ({ ...op, inputs: own(op.inputs) }) as WorkOp)];
}

/** The steps that make `id` of whole numbers which the graph is given, without weights; none if it is made of anything else. */
function marksBehind(region: Region, id: ValueId): ReadonlySet<WorkOp> {
  const found = new Set<WorkOp>();
  const pending = [id];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (next === NONE || region.value(next).data) continue;
    const op = region.producer(next);
    const known = op ? MARKING.has(op.op) : region.value(next).dtype !== 'float32';
    if (!known) return new Set();
    if (!op || found.has(op)) continue;
    found.add(op);
    for (const input of op.inputs) pending.push(input);
  }
  return found;
}

function choiceOf(
  region: Region,
  tracer: Tracer,
  output: ValueId,
): { choice: Choice; rest: ValueId } | undefined {
  const producer = region.producer(output);
  const parts = producer && partsOf(producer);
  const condition = parts && hardGate(tracer.uniform(parts.when));
  if (!parts || condition?.score.kind !== 'element') return undefined;
  const { compare } = condition;
  if (compare !== 'ge' && compare !== 'gt') return undefined;
  const { value: score } = condition.score.element;
  if (sizeOf(region.shape(score)) !== 1 || region.value(score).dtype !== 'float32') return undefined;
  const { answer, rest } = parts;
  const branches = producer.op === 'if' ? [producer.whenTrue, producer.whenFalse] : [];
  const isMade = (id: ValueId) => [region, ...branches].some((each) => each.producer(id));
  if (![answer, rest].every((id) => isMade(id) && sameShape(region.shape(id), region.shape(output))))
    return undefined;
  // What is computed from the other answer is the body of a gate.
  const sources = branches[0]?.producer(answer) ? branches[0].captured() : [answer];
  if (sources.some((id) => dependsOn(region, id, rest))) return undefined;
  if (branches.length > 0) {
    region.replace(
      [producer],
      branches.flatMap(({ ops }) => ops),
    );
  }
  const threshold = compare === 'ge' ? condition.threshold : nextAbove(condition.threshold);
  return { choice: { score, threshold, answer, branched: branches.length > 0 }, rest };
}

/** The parts of a choice, if the operation is one. */
function partsOf(op: WorkOp): { when: ValueId; answer: ValueId; rest: ValueId } | undefined {
  if (op.op === 'where') {
    const [when, answer, rest] = op.inputs as [ValueId, ValueId, ValueId];
    return { when, answer, rest };
  }
  if (op.op !== 'if' || op.outputs.length > 1) return undefined;
  return { when: op.inputs[0]!, answer: op.whenTrue.outputs[0]!, rest: op.whenFalse.outputs[0]! };
}

/**
 * Assigns each exit to the block that it follows. Those before the first block are named by `INPUT`.
 * @param network without its exits
 * @param inputs the graph's own
 * @returns undefined when an exit reads what is computed within a block, or what the network doesn't compute, when two exits follow
 * one block, or when a branch, or an exit before the first block, costs no less than what it would save: it may be the body of a gate
 */
export function* placeExits(
  { choices, heads }: DetachedExits,
  network: Schedule,
  inputs: ReadonlySet<ValueId>,
): Sliced<OwnExit[] | undefined> {
  yield* simplify(heads);
  yield* fuse(heads);
  if (holdsQuantised(heads)) yield* integerise(heads);
  yield* fuseResiduals(heads, new Set());
  const known = knownAt(network);
  const { steps } = schedule(heads, []);
  const values: readonly Value[] = heads.values;
  const taken = new Set<Step>();
  const exits: OwnExit[] = [];
  let before = -1;
  let at = 0;
  for (const [i, { threshold, branched }] of choices.entries()) {
    const [score, answer] = heads.outputs.slice(2 * i, 2 * i + 2) as [ValueId, ValueId];
    const own = stepsFor(steps, [score, answer]).filter((step) => !taken.has(step));
    for (const step of own) taken.add(step);
    const made = new Set([...taken].flatMap((step) => step.outputs));
    const read = [...own.flatMap((step) => step.inputs), score, answer].filter(
      (id) => id !== NONE && !made.has(id) && !inputs.has(id) && !values[id]!.data,
    );
    const seen = read.map((id) => known.get(id) ?? Number.POSITIVE_INFINITY);
    at = seen.reduce((last, step) => Math.max(last, step), at);
    const place = network.blocks.findLastIndex(({ end }) => end <= at);
    if (at === Number.POSITIVE_INFINITY || (place >= 0 && place <= before)) return undefined;
    before = place;
    const cost = costOf(values, own);
    const behind = costOf(values, network.steps.slice(at));
    if ((branched || place < 0) && behind.multiplyAdds <= cost.multiplyAdds) return undefined;
    exits.push({
      after: network.blocks[place]?.name ?? (i === 0 ? INPUT : `${INPUT}${i + 1}`),
      at,
      steps: own,
      score,
      threshold,
      answer,
      cost,
    });
  }
  return exits;
}

/**
 * For each value that is known outside the blocks, the step before which it is known. In a network with branches, these are only the
 * outputs of blocks: another value may lie in a branch that isn't taken.
 */
function knownAt({ steps, blocks }: Schedule): ReadonlyMap<ValueId, number> {
  const known = new Map(blocks.map(({ output, end }) => [output, end]));
  if (steps.some(({ op }) => op === 'branch')) return known;
  let next = 0;
  for (const [i, { outputs }] of steps.entries()) {
    while (next < blocks.length && i >= blocks[next]!.end) next++;
    if (next < blocks.length && i >= blocks[next]!.gateFirst) continue;
    for (const id of outputs) known.set(id, i + 1);
  }
  return known;
}
