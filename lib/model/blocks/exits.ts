/**
 * Early exits in a graph: its answer is `Where(score >= threshold, early answer, later answer)`, where the later
 * answer may be such a choice again (Teerapittayanon et al. 2016). They are removed from the graph, which leaves the
 * full network, and kept beside the program, so that a policy can restore them.
 */

import { sameShape, sizeOf } from '../../numeric/shapes.js';
import type { Sliced } from '../../util/slices.js';
import { fuse, simplify } from '../optimise/fuse.js';
import { integerise } from '../optimise/integer.js';
import { Region, type WorkOp } from '../optimise/region.js';
import { costOf } from '../program/cost.js';
import { NONE, type OwnExit, type Step, type Value, type ValueId } from '../program/program.js';
import type { Graph } from '../read/graph.js';
import { hardGate } from './decision.js';
import { type Schedule, schedule } from './schedule.js';
import { Tracer } from './tracer.js';

/** One of the choices that lead to the graph's answer. */
interface Choice {
  readonly score: ValueId;
  readonly threshold: number;
  readonly answer: ValueId;
}

/** Exits removed from the network, in the order in which they are evaluated. */
export interface DetachedExits {
  readonly choices: readonly Choice[];
  /** Operations that only the exits need. */
  readonly heads: Region;
}

/** Whether a graph may have exits. Their blocks are known only once the graph is a program. */
export function mayHaveExits({ nodes, outputs }: Graph): boolean {
  return nodes.some((node) => node.op === 'Where' && outputs.some(({ name }) => node.outputs.includes(name)));
}

/** Removes the exits from a region that has not been rewritten yet; undefined if there are none. */
export function detachExits(region: Region): DetachedExits | undefined {
  const choices: Choice[] = [];
  const [output, another] = region.outputs;
  if (output === undefined || another !== undefined) return undefined;
  const tracer = new Tracer(region);
  let rest = output;
  for (let next = choiceOf(region, tracer, rest); next; next = choiceOf(region, tracer, rest)) {
    choices.push(next.choice);
    rest = next.rest;
  }
  const needed = region.ancestors(rest);
  const heads = withOwnSteps(
    region,
    region.ops.filter((op) => !needed.has(op)),
  );
  if (choices.length === 0 || heads.some((op) => op.op === 'if' || op.op === 'select')) return undefined;
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
  const where = region.producerOf(output, 'where');
  if (!where) return undefined;
  const [when, answer, rest] = where.inputs as [ValueId, ValueId, ValueId];
  const condition = hardGate(tracer.uniform(when));
  if (condition?.score.kind !== 'element' || condition.compare !== 'ge') return undefined;
  const { value: score } = condition.score.element;
  const alike = [answer, rest].every(
    (id) => region.producer(id) && sameShape(region.shape(id), region.shape(output)),
  );
  if (!alike || sizeOf(region.shape(score)) !== 1 || region.value(score).dtype !== 'float32')
    return undefined;
  return { choice: { score, threshold: condition.threshold, answer }, rest };
}

/**
 * Assigns each exit to the block that it follows.
 * @param network without its exits
 * @param inputs the graph's own
 * @returns undefined when an exit reads what is computed within a block, nothing behind the first block, or what the network
 * doesn't compute, or when two exits follow one block
 */
export function* placeExits(
  { choices, heads }: DetachedExits,
  network: Schedule,
  inputs: ReadonlySet<ValueId>,
): Sliced<OwnExit[] | undefined> {
  yield* simplify(heads);
  yield* fuse(heads);
  yield* integerise(heads);
  const known = knownAt(network);
  const { steps } = schedule(heads, []);
  const values: readonly Value[] = heads.values;
  const taken = new Set<Step>();
  const exits: OwnExit[] = [];
  let before = -1;
  for (const [i, { threshold }] of choices.entries()) {
    const [score, answer] = heads.outputs.slice(2 * i, 2 * i + 2) as [ValueId, ValueId];
    const own = stepsFor(steps, [score, answer]).filter((step) => !taken.has(step));
    for (const step of own) taken.add(step);
    const made = new Set([...taken].flatMap((step) => step.outputs));
    const read = own
      .flatMap((step) => step.inputs)
      .filter((id) => id !== NONE && !made.has(id) && !inputs.has(id) && !values[id]!.data);
    const seen = read.map((id) => known.get(id) ?? Number.POSITIVE_INFINITY);
    const at = seen.reduce((last, step) => Math.max(last, step), 0);
    const place = network.blocks.findLastIndex(({ end }) => end <= at);
    if (at === Number.POSITIVE_INFINITY || place <= before) return undefined;
    before = place;
    exits.push({
      after: network.blocks[place]!.name,
      at,
      steps: own,
      score,
      threshold,
      answer,
      cost: costOf(values, own),
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

/** Those of `steps` that the given values depend on, in order. */
export function stepsFor(steps: readonly Step[], values: Iterable<ValueId>): Step[] {
  const needed = new Set(values);
  return steps
    .toReversed()
    .filter((step) => {
      const used = step.outputs.some((id) => needed.has(id));
      if (used) for (const id of step.inputs) needed.add(id);
      return used;
    })
    .reverse();
}
