import { sameShape, sizeOf } from '../numeric/shapes.js';
import type { DataType } from '../tensor.js';
import { type Condition, type Element, hardGate, negate, sameCondition } from './decision.js';
import { type Activation, type GateForm, NO_ACTIVATION, type ValueId } from './program.js';
import { changesNothing, rangeOf } from './range.js';
import type { Region, Select, WorkIf, WorkOp, WorkStep } from './region.js';
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
export function recogniseGates(region: Region): void {
  const tracer = new Tracer(region);
  for (const op of [...region.ops]) {
    if (!region.has(op)) continue;
    if (op.op === 'binary') matchSum(region, tracer, op);
    else if (op.op === 'where') matchWhere(region, tracer, op);
    else if (op.op === 'if') matchIf(region, tracer, op);
  }
  region.removeDead();
}

/** x + g*F(x) (Wu et al. 2018, Veit and Belongie 2018) and g*F(x) + (1-g)*x (SkipNet, Wang et al. 2018). */
function matchSum(region: Region, tracer: Tracer, add: WorkStep): void {
  if (add.op !== 'binary' || add.attrs.kind !== 'add' || add.attrs.act.kind !== 'none') return;
  const output = add.outputs[0]!;
  if (region.value(output).dtype !== 'float32') return;
  const [a, b] = add.inputs as [ValueId, ValueId];
  const { shape } = region.value(output);
  const [gatedA, gatedB] = [gatedTerm(region, tracer, a, shape), gatedTerm(region, tracer, b, shape)];
  if (gatedA && gatedB && sameCondition(gatedA.condition, negate(gatedB.condition))) {
    const found = withShortcut(region, 'blend', gatedA.condition, gatedA.term, gatedB.term);
    if (found) replaceBySelect(region, [gatedA.op, gatedB.op, add], [], found, add);
    return;
  }
  const gated = gatedB ?? gatedA;
  const shortcut = gatedB ? a : b;
  if (!gated || !sameShape(region.shape(shortcut), shape)) return;
  const sum = region.addValue(`${region.value(output).name}.run`, 'float32', shape);
  const inputs = gatedB ? [a, gated.term] : [gated.term, b];
  const body: WorkStep = { op: 'binary', node: add.node, inputs, outputs: [sum], attrs: add.attrs };
  const found: Found = {
    form: gated.form,
    condition: gated.condition,
    body: sum,
    shortcut,
    skipActivation: NO_ACTIVATION,
  };
  replaceBySelect(region, [gated.op, add], [body], found, add);
}

interface GatedTerm {
  readonly op: WorkOp;
  readonly form: GateForm;
  readonly condition: Condition;
  readonly term: ValueId;
}

/** The summand `id` as g*term (or where(g, term, 0)), if nothing else reads it. */
function gatedTerm(
  region: Region,
  tracer: Tracer,
  id: ValueId,
  shape: readonly number[],
): GatedTerm | undefined {
  const op = region.usedOnce(id) ? region.producer(id) : undefined;
  if (op?.op === 'binary' && op.attrs.kind === 'mul' && op.attrs.act.kind === 'none') {
    const [a, b] = op.inputs as [ValueId, ValueId];
    for (const [gate, term] of [
      [a, b],
      [b, a],
    ] as const) {
      if (!sameShape(region.shape(term), shape)) continue;
      const condition = hardGate(tracer.uniform(gate));
      if (condition) return { op, form: 'multiply', condition, term };
    }
  }
  if (op?.op === 'where') {
    const [when, a, b] = op.inputs as [ValueId, ValueId, ValueId];
    const condition = hardGate(tracer.uniform(when));
    const isZero = (value: ValueId) => region.value(value).data?.every((x) => Number(x) === 0) === true;
    if (condition && isZero(b) && sameShape(region.shape(a), shape)) {
      return { op, form: 'where', condition, term: a };
    }
    if (condition && isZero(a) && sameShape(region.shape(b), shape)) {
      return { op, form: 'where', condition: negate(condition), term: b };
    }
  }
  return undefined;
}

/** Where(cond, F(x), x) and Where(cond, x, F(x)). */
function matchWhere(region: Region, tracer: Tracer, where: WorkStep): void {
  const [when, a, b] = where.inputs as [ValueId, ValueId, ValueId];
  const { shape, dtype } = region.value(where.outputs[0]!);
  if (dtype !== 'float32' || !sameShape(region.shape(a), shape) || !sameShape(region.shape(b), shape)) return;
  const condition = hardGate(tracer.uniform(when));
  const found = condition && withShortcut(region, 'where', condition, a, b);
  if (found) replaceBySelect(region, [where], [], found, where);
}

/** If(cond) with one branch that computes F(x) and one that passes x on. */
function matchIf(region: Region, tracer: Tracer, conditional: WorkIf): void {
  const condition = hardGate(tracer.uniform(conditional.inputs[0]!));
  if (!condition || conditional.outputs.length !== 1) return;
  const [onTrue, onFalse] = [passedOn(conditional.whenTrue), passedOn(conditional.whenFalse)];
  const passed = onFalse ?? onTrue;
  const branch = onFalse ? conditional.whenTrue : conditional.whenFalse;
  if (!passed || (onTrue && onFalse) || branch.ops.some((op) => op.op === 'if')) return;
  const body = branch.outputs[0]!;
  const { shape, dtype } = region.value(conditional.outputs[0]!);
  if (dtype !== 'float32' || !sameShape(region.shape(passed.shortcut), shape)) return;
  if (!branch.producer(body) || !sameShape(region.shape(body), shape)) return;
  const run = onFalse ? condition : negate(condition);
  const found: Found = { form: 'if', condition: run, body, ...owed(region, passed) };
  replaceBySelect(region, [conditional], branch.ops, found, conditional);
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
  const idle = changesNothing(skipActivation, rangeOf(region, shortcut));
  return { shortcut, skipActivation: idle ? NO_ACTIVATION : skipActivation };
}

/** Decides which of the two alternatives is the shortcut of the other; `a` is taken when `condition` holds. */
function withShortcut(
  region: Region,
  form: GateForm,
  condition: Condition,
  a: ValueId,
  b: ValueId,
): Found | undefined {
  const [whenRun, whenSkipped] = [shortcutOf(region, b, a), shortcutOf(region, a, b)];
  if (whenRun) return { form, condition, body: a, ...whenRun };
  return whenSkipped && { form, condition: negate(condition), body: b, ...whenSkipped };
}

/** `id` as the shortcut of `body`: a value that the body is computed from, possibly with the body's activation. */
function shortcutOf(region: Region, id: ValueId, body: ValueId): Shortcut | undefined {
  if (shortcutPath(region, id, body)) return { shortcut: id, skipActivation: NO_ACTIVATION };
  const activated = region.producerOf(id, 'unary');
  const shortcut = activated?.inputs[0];
  if (!activated || shortcut === undefined || !region.dependsOn(body, shortcut)) return undefined;
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
    dtype: DataType = 'float32',
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
