import { sameShape, sizeOf } from '../../numeric/shapes.js';
import { uniformElement } from '../../tensor/extremes.js';
import { isDue, type Sliced } from '../../util/slices.js';
import type { Region, WorkStep } from '../optimise/region.js';
import { ancestors } from '../optimise/search.js';
import type { UnusableGate, ValueId } from '../program/program.js';
import { type Score, usable, valueWhen } from './decision.js';
import { isMask } from './resolution.js';
import { Tracer } from './tracer.js';

/** Steps between a hard factor and the sum that it gates. */
const DEPTH = 4;

/**
 * Hard decisions of the network about what enters its sums, or about which of two values goes on, that are still arithmetic after
 * the gates were recognised. Soft factors, masks of the input and decisions about single elements (as in a relu) aren't gates.
 */
export function* unusableGates(region: Region): Sliced<UnusableGate[]> {
  const tracer = new Tracer(region);
  const found = new Map<string, UnusableGate>();
  for (const op of region.ops) {
    if (isDue()) yield;
    if (region.effort.spent) break;
    const decider = op.op === 'if' || op.op === 'select' ? undefined : deciderOf(region, tracer, op);
    if (decider === undefined) continue;
    found.set(op.node, { node: op.node, reason: reasonFor(region.shape(unexpanded(region, decider))) });
  }
  return [...found.values()];
}

function reasonFor(shape: readonly number[]): string {
  if (sizeOf(shape) === 1)
    return 'what it lets through is not a block around an earlier value of the network';
  const several = `it takes several decisions (shape [${shape}])`;
  return `${several}; only one decision for a whole item can skip a block`;
}

/** The factor or condition of `op` that holds hard decisions of the network. */
function deciderOf(region: Region, tracer: Tracer, op: WorkStep): ValueId | undefined {
  const output = op.outputs[0]!;
  if (region.value(output).dtype !== 'float32') return undefined;
  if (op.op === 'where') {
    if (isMask(region, op)) return undefined;
    const [when, a, b] = op.inputs as [ValueId, ValueId, ValueId];
    const chosen = varies(region, a, output) && varies(region, b, output);
    const gating = (isZero(region, a) || isZero(region, b)) && reachesSum(region, output);
    return (chosen || gating) && decides(region, tracer, when, output) ? when : undefined;
  }
  if (op.op !== 'binary' || op.attrs.kind !== 'mul' || !reachesSum(region, output)) return undefined;
  const [a, b] = op.inputs as [ValueId, ValueId];
  const gates = (factor: ValueId, term: ValueId) =>
    varies(region, term, output) && decides(region, tracer, factor, output, true);
  return gates(a, b) ? a : gates(b, a) ? b : undefined;
}

/** Whether `decider` holds decisions that a layer computes, fewer than `output` has elements; as a factor: with a 0. */
function decides(region: Region, tracer: Tracer, decider: ValueId, output: ValueId, factor = false): boolean {
  if (sizeOf(region.shape(unexpanded(region, decider))) >= sizeOf(region.shape(output))) return false;
  const scalar = tracer.first(decider);
  const condition = usable(scalar);
  if (!condition) return false;
  const closes = [true, false].some((holding) => valueWhen(scalar, condition, holding) === 0);
  if (factor && !closes) return false;
  return elementsOf(condition.score).some((id) => [...ancestors(region, id)].some(isLayer));
}

function elementsOf(score: Score): ValueId[] {
  return score.kind === 'difference' ? [score.minuend.value, score.subtrahend.value] : [score.element.value];
}

const isLayer = ({ op }: { readonly op: string }): boolean =>
  op === 'conv' || op === 'gemm' || op === 'matmul';

function unexpanded(region: Region, id: ValueId): ValueId {
  const expand = region.producerOf(id, 'expand');
  return expand ? unexpanded(region, expand.inputs[0]!) : id;
}

function varies(region: Region, id: ValueId, like: ValueId): boolean {
  return region.value(id).data === undefined && sameShape(region.shape(id), region.shape(like));
}

function isZero(region: Region, id: ValueId): boolean {
  const { data } = region.value(id);
  return data !== undefined && uniformElement(data) === 0;
}

/** Whether `id` is a summand beside something else that varies, possibly scaled, activated or reshaped before. */
function reachesSum(region: Region, id: ValueId, depth = 0): boolean {
  return region.users(id).some((user) => {
    if (user.op === 'binary' && (user.attrs.kind === 'add' || user.attrs.kind === 'sub')) {
      const other = user.inputs.find((input) => input !== id);
      return other !== undefined && varies(region, other, user.outputs[0]!);
    }
    const passes = user.op === 'unary' || user.op === 'reshape' || user.op === 'binary';
    return passes && depth < DEPTH && reachesSum(region, user.outputs[0]!, depth + 1);
  });
}
