import { sameShape } from '../../numeric/shapes.js';
import type { Activation, ValueId } from '../program/program.js';
import { bothOrders } from './layer-norm.js';
import type { Region, WorkOp, WorkStep } from './region.js';

const NEAR = 1e-6;
const near = (a: number, b: number): boolean => Math.abs(a - b) <= NEAR;

/**
 * x*sigmoid(x) -> silu, x*hardSigmoid(x) -> hardSwish, and the forms of hardSigmoid and hardSwish that exporters
 * write as add 3, clip to [0, 6], divide by 6 (or multiply by 1/6), before or after the product.
 */
export function matchSwish(region: Region, step: WorkStep): boolean {
  if (step.op !== 'binary' || step.attrs.act.kind !== 'none') return false;
  return matchProduct(region, step) || matchHardSigmoid(region, step) || matchSixth(region, step);
}

/** x*s where s is a sigmoid or hardSigmoid of x with no other reader. */
function matchProduct(region: Region, step: WorkStep): boolean {
  if (step.op !== 'binary' || step.attrs.kind !== 'mul') return false;
  for (const [x, gate] of bothOrders(step)) {
    const producer = region.usedOnce(gate) ? region.producerOf(gate, 'unary') : undefined;
    if (producer?.inputs[0] !== x) continue;
    const kind = swishOf(producer.attrs.act);
    if (kind) return replace(region, [producer, step], x, { kind, alpha: 0, beta: 0 });
  }
  return false;
}

function swishOf(act: Activation): 'silu' | 'hardSwish' | undefined {
  if (act.kind === 'sigmoid') return 'silu';
  const six = act.kind === 'hardSigmoid' && near(act.alpha, 1 / 6) && near(act.beta, 0.5);
  return six ? 'hardSwish' : undefined;
}

/** clip(x + 3, 0, 6)/6 */
function matchHardSigmoid(region: Region, step: WorkStep): boolean {
  const clipped = bySixth(region, step);
  const inner = clipped === undefined ? undefined : clipOfThree(region, clipped);
  if (!inner) return false;
  return replace(region, [...inner.ops, step], inner.x, { kind: 'hardSigmoid', alpha: 1 / 6, beta: 0.5 });
}

/** x*clip(x + 3, 0, 6)/6 */
function matchSixth(region: Region, step: WorkStep): boolean {
  const product = bySixth(region, step);
  const mul =
    product !== undefined && region.usedOnce(product) ? region.producerOf(product, 'binary') : undefined;
  if (mul?.attrs.kind !== 'mul' || mul.attrs.act.kind !== 'none') return false;
  for (const [x, clipped] of bothOrders(mul)) {
    const inner = clipOfThree(region, clipped);
    if (inner?.x === x) {
      return replace(region, [...inner.ops, mul, step], x, { kind: 'hardSwish', alpha: 0, beta: 0 });
    }
  }
  return false;
}

/** The value that the step divides by 6. */
function bySixth(region: Region, step: WorkStep): ValueId | undefined {
  if (step.op !== 'binary') return undefined;
  const { kind } = step.attrs;
  if (kind !== 'div' && kind !== 'mul') return undefined;
  const [a, b] = step.inputs as [ValueId, ValueId];
  if (kind === 'div') return isScalar(region, b, 6) ? a : undefined;
  if (isScalar(region, b, 1 / 6)) return a;
  return isScalar(region, a, 1 / 6) ? b : undefined;
}

/** x of clip(x + 3, 0, 6), if nothing else needs the sum or the clip. */
function clipOfThree(region: Region, id: ValueId): { x: ValueId; ops: WorkOp[] } | undefined {
  const clip = region.usedOnce(id) ? region.producer(id) : undefined;
  const isClip = clip?.op === 'unary' || clip?.op === 'binary';
  if (!isClip || clip.attrs.act.kind !== 'clip') return undefined;
  if (clip.attrs.act.alpha !== 0 || clip.attrs.act.beta !== 6) return undefined;
  // The clip is a step of its own, or already the epilogue of the sum.
  const add = clip.op === 'binary' ? clip : region.producerOf(clip.inputs[0]!, 'binary');
  if (add?.attrs.kind !== 'add' || (add !== clip && !region.usedOnce(add.outputs[0]!))) return undefined;
  if (add !== clip && add.attrs.act.kind !== 'none') return undefined;
  for (const [x, three] of bothOrders(add)) {
    if (isScalar(region, three, 3)) return { x, ops: add === clip ? [clip] : [add, clip] };
  }
  return undefined;
}

function isScalar(region: Region, id: ValueId, expected: number): boolean {
  const { data } = region.value(id);
  return data instanceof Float32Array && data.length === 1 && near(data[0]!, expected);
}

function replace(region: Region, old: readonly WorkOp[], x: ValueId, act: Activation): boolean {
  const last = old[old.length - 1]!;
  const { node, outputs } = last;
  if (!sameShape(region.shape(x), region.shape(outputs[0]!))) return false;
  region.replace(old, [{ op: 'unary', node, inputs: [x], outputs, attrs: { act } }]);
  return true;
}
