import { sameShape, sizeOf } from '../../numeric/shapes.js';
import type { ValueType } from '../../tensor/tensor.js';
import { isDue, type Sliced } from '../../util/slices.js';
import { changesNothing, forgetRanges, rangeOf } from '../optimise/range.js';
import type { Region, Select, WorkIf, WorkOp, WorkStep } from '../optimise/region.js';
import { dependsOn } from '../optimise/search.js';
import { type Activation, type GateForm, NO_ACTIVATION, type ValueId } from '../program/program.js';
import { type Condition, type Element, hardGate, negate } from './decision.js';
import { conditionsIn, Resolution, type Resolved } from './resolution.js';
import { shortcutPath } from './shortcut.js';
import { Tracer } from './tracer.js';

/** A hard gate as found in the graph: y = condition ? body : shortcut. */
interface Found {
  readonly form: GateForm;
  readonly condition: Condition;
  readonly body: ValueId;
  readonly shortcut: ValueId;
  /** Applied to the shortcut when the body does not run. */
  readonly skipActivation: Activation;
}

/**
 * Replaces every learned gate by a `select`. A gate is one hard decision for the whole item, taken from a
 * float32 that the network computes; soft factors (squeeze-and-excitation, attention) are not gates. Gates
 * inside the branches of an `if` stay arithmetic.
 */
export function* recogniseGates(region: Region): Sliced<void> {
  const tracer = new Tracer(region);
  // The outermost step of a gate has the whole gate before it.
  forgetRanges(region);
  for (const op of region.ops.toReversed()) {
    if (region.effort.spent) break;
    if (isDue()) yield;
    if (!region.has(op)) continue;
    const found = op.op === 'if' ? matchIf(region, tracer, op) : matchStep(region, tracer, op);
    if (found) region.removeDead();
  }
  region.removeDead();
}

/**
 * A sum or choice that is nothing but an earlier value once its gate is closed: x + g*F(x) (Wu et al. 2018, Veit and Belongie
 * 2018), g*F(x) + (1-g)*x (SkipNet, Wang et al. 2018), Where(g, F(x), x), and what else comes to the same.
 */
function matchStep(region: Region, tracer: Tracer, op: WorkOp): boolean {
  const choice = op.op === 'where';
  const sum =
    op.op === 'binary' &&
    op.attrs.act.kind === 'none' &&
    (op.attrs.kind === 'add' || op.attrs.kind === 'sub');
  if (!choice && !sum) return false;
  const output = op.outputs[0]!;
  if (region.value(output).dtype !== 'float32') return false;
  for (const condition of conditionsIn(region, tracer, output)) {
    const ways = [true, false].map((holding) => new Resolution(region, tracer, condition, holding, op.node));
    const [held, broken] = ways.map((way) => way.resolve(output));
    for (const [open, closed, run] of [
      [held, broken, condition],
      [broken, held, negate(condition)],
    ] as const) {
      const way = open === held ? ways[0]! : ways[1]!;
      const found = gateOf(region, op, run, way, open!, closed!);
      if (!found) continue;
      replaceBySelect(region, [op], way.steps, found, op);
      return true;
    }
  }
  return false;
}

/** The gate of `op` whose output is `open` when it runs its body, and `closed` when it doesn't. */
function gateOf(
  region: Region,
  op: WorkOp,
  condition: Condition,
  way: Resolution,
  open: Resolved,
  closed: Resolved,
): Found | undefined {
  const output = op.outputs[0]!;
  if (typeof open === 'number' || typeof closed === 'number' || closed.fresh) return undefined;
  const [body, shortcut] = [open.id, closed.id];
  // The output itself is what is left where nothing simpler has its shape.
  if (body === shortcut || [body, shortcut].includes(output)) return undefined;
  if (![body, shortcut].every((id) => sameShape(region.shape(id), region.shape(output)))) return undefined;
  const computed = way.leaves(open).filter((id) => id !== shortcut && !region.value(id).data);
  if (region.value(shortcut).data || computed.length === 0) return undefined;
  const form = way.chose ? 'where' : open.fresh ? 'multiply' : 'blend';
  // What is added to a value may be left out. One of two values may be, if it is computed from the other.
  const added = op.op === 'binary' && op.inputs.includes(shortcut);
  const unchanged = { shortcut, skipActivation: NO_ACTIVATION };
  const known = added
    ? unchanged
    : way
        .leaves(open)
        .map((id) => shortcutOf(region, shortcut, id))
        .find(Boolean);
  return known && { form, condition, body, ...known };
}

/** If(cond) with one branch that computes F(x) and one that passes x on. */
function matchIf(region: Region, tracer: Tracer, conditional: WorkIf): boolean {
  const condition = hardGate(tracer.uniform(conditional.inputs[0]!));
  if (!condition || conditional.outputs.length !== 1) return false;
  const [onTrue, onFalse] = [passedOn(conditional.whenTrue), passedOn(conditional.whenFalse)];
  const passed = onFalse ?? onTrue;
  const branch = onFalse ? conditional.whenTrue : conditional.whenFalse;
  if (!passed || (onTrue && onFalse) || branch.ops.some((op) => op.op === 'if')) return false;
  const body = branch.outputs[0]!;
  const { shape, dtype } = region.value(conditional.outputs[0]!);
  if (dtype !== 'float32' || !sameShape(region.shape(passed.shortcut), shape)) return false;
  if (!branch.producer(body) || !sameShape(region.shape(body), shape)) return false;
  const run = onFalse ? condition : negate(condition);
  const found: Found = { form: 'if', condition: run, body, ...owed(region, passed) };
  replaceBySelect(region, [conditional], branch.ops, found, conditional);
  return true;
}

interface Shortcut {
  readonly shortcut: ValueId;
  readonly skipActivation: Activation;
}

/** The outer value that a branch returns, unchanged or through one activation. */
function passedOn(branch: Region): Shortcut | undefined {
  let shortcut = branch.outputs[0]!;
  let skipActivation = NO_ACTIVATION;
  for (let op = branch.producer(shortcut); op; op = branch.producer(shortcut)) {
    const activates = op.op === 'unary' && skipActivation.kind === 'none';
    if (op.op !== 'reshape' && !activates) return undefined;
    if (!sameShape(branch.shape(op.inputs[0]!), branch.shape(shortcut))) return undefined;
    if (op.op === 'unary') skipActivation = op.attrs.act;
    shortcut = op.inputs[0]!;
  }
  return { shortcut, skipActivation };
}

/** The shortcut without an activation that can't change it. */
function owed(region: Region, { shortcut, skipActivation }: Shortcut): Shortcut {
  const idle = changesNothing(skipActivation, () => rangeOf(region, shortcut));
  return { shortcut, skipActivation: idle ? NO_ACTIVATION : skipActivation };
}

/** `id` as the shortcut of `body`: a value that the body is computed from, possibly with the body's activation. */
function shortcutOf(region: Region, id: ValueId, body: ValueId): Shortcut | undefined {
  if (shortcutPath(region, id, body)) return { shortcut: id, skipActivation: NO_ACTIVATION };
  const activated = region.producerOf(id, 'unary');
  const shortcut = activated?.inputs[0];
  if (!activated || shortcut === undefined || !dependsOn(region, body, shortcut)) return undefined;
  return owed(region, { shortcut, skipActivation: activated.attrs.act });
}

function replaceBySelect(
  region: Region,
  old: readonly WorkOp[],
  body: readonly WorkOp[],
  found: Found,
  last: WorkOp,
): void {
  const { steps, score } = materialise(region, found.condition, last.node);
  const { compare, threshold, fromArgMax } = found.condition;
  const form = fromArgMax && found.form !== 'if' ? 'argmax' : found.form;
  const select: Select = {
    op: 'select',
    node: last.node,
    inputs: [score, found.body, found.shortcut],
    outputs: last.outputs,
    attrs: { form, compare, threshold, skipActivation: found.skipActivation },
  };
  region.replace(old, [...steps, ...body, select]);
}

/** Adds steps that compute the score of a condition as a float32 value of one element. */
function materialise(
  region: Region,
  condition: Condition,
  node: string,
): { steps: WorkStep[]; score: ValueId } {
  const steps: WorkStep[] = [];
  const make = (
    step: Pick<WorkStep, 'op' | 'inputs' | 'attrs'>,
    shape: readonly number[],
    dtype: ValueType = 'float32',
  ): ValueId => {
    const output = region.addValue(`${node}.score`, dtype, shape);
    steps.push({ ...step, node, outputs: [output] } as WorkStep);
    return output;
  };
  const pick = ({ value, index }: Element): ValueId => {
    const { shape, dtype } = region.value(value);
    const size = sizeOf(shape);
    if (size === 1) return value;
    const flat = make({ op: 'reshape', inputs: [value], attrs: {} }, [size], dtype);
    return make({ op: 'slice', inputs: [flat], attrs: { starts: [index], steps: [1] } }, [1], dtype);
  };
  const { score } = condition;
  if (score.kind === 'element') return { score: pick(score.element), steps };
  if (score.kind === 'bool') {
    const flag = pick(score.element);
    return { score: make({ op: 'cast', inputs: [flag], attrs: {} }, region.shape(flag)), steps };
  }
  const inputs = [pick(score.minuend), pick(score.subtrahend)];
  const shape = inputs.map((id) => region.shape(id)).reduce((a, b) => (a.length > b.length ? a : b));
  const attrs = { kind: 'sub', act: NO_ACTIVATION } as const;
  return { score: make({ op: 'binary', inputs, attrs }, shape), steps };
}
