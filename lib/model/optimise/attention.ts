/** Recognises attention: softmax(q k^T * scale + mask) v (Vaswani et al. 2017), whatever moves its operands there. */

import type { AttentionView } from '../../kernels/operations.js';
import { denseStrides } from '../../kernels/tensor.js';
import { sizeOf } from '../../numeric/shapes.js';
import { NONE, type ValueId } from '../program/program.js';
import { bothOrders, scalarOf } from './layer-norm.js';
import type { Region, WorkOp, WorkStep, WorkStepNamed } from './region.js';
import { type Strided, stridedView } from './strided.js';

interface Scores {
  readonly product: WorkStepNamed<'matmul'>;
  readonly scale: number;
  /** Added to scaled scores, or with `replaces` in their place where it is below 0; NONE for none. */
  readonly mask: ValueId;
  readonly replaces: boolean;
  /** What computes the mask, where the graph chooses between score and a constant. */
  readonly steps: readonly WorkStep[];
}

/** Turns the product of a softmax of scores with values into one step. */
export function matchAttention(region: Region, step: WorkStep): boolean {
  if (step.op !== 'matmul') return false;
  const softmax = region.producerOf(step.inputs[0]!, 'softmax');
  const rank = region.shape(step.outputs[0]!).length;
  if (!softmax || softmax.attrs.log || softmax.attrs.axis !== rank - 1 || (rank !== 3 && rank !== 4))
    return false;
  const scores = scoresOf(region, softmax.inputs[0]!);
  if (!scores) return false;
  const shape = region.shape(scores.product.outputs[0]!);
  const [queries, keys] = shape.slice(-2) as [number, number];
  const [q, k, v] = [scores.product.inputs[0]!, scores.product.inputs[1]!, step.inputs[1]!];
  const [depth, valueDepth] = [region.shape(q).at(-1)!, region.shape(v).at(-1)!];
  const [batch, heads] = rank === 3 ? [1, shape[0]!] : (shape.slice(0, 2) as [number, number]);
  if (sizeOf(shape) === 0 || depth === 0 || valueDepth === 0) return false;

  const found = [q, k, v].map((id) => leading(region, stridedView(region, id), region.shape(id), shape));
  const masked = scores.mask === NONE ? undefined : stridedView(region, scores.mask);
  // A factor of the mask stays where it is.
  const mask = masked && masked.factor !== 1 ? whole(region, scores.mask) : masked;
  const target = resultOf(region, step);
  const [query, key, value] = found;
  if (!query || !key || !value || !target) return false;
  const view = ({ offset }: Strided, [b, h, row, column]: readonly number[]): AttentionView => {
    return { offset, batch: b!, head: h!, row: row!, column: column! };
  };
  const swapped = key.strides.with(-1, key.strides.at(-2)!).with(-2, key.strides.at(-1)!);
  const maskStrides = mask && broadcastStrides(mask.strides, region.shape(scores.mask), shape);
  const none: AttentionView = { offset: 0, batch: 0, head: 0, row: 0, column: 0 };
  // The factor of the values is that of the result, which has no place for it.
  if (value.factor !== 1) return false;
  const attrs = {
    ...{ batch, heads, queries, keys, depth, valueDepth },
    scale: scores.scale * query.factor * key.factor,
    replaces: scores.replaces,
    q: view(query, query.strides),
    k: view(key, swapped),
    v: view(value, value.strides),
    mask: mask && maskStrides ? view(mask, maskStrides) : none,
    y: view({ ...query, offset: 0 }, target.strides),
  };
  const inputs = [query.source, key.source, value.source, mask ? mask.source : NONE];
  const outputs = [target.value];
  region.replace(
    [step, ...target.moves],
    [...scores.steps, { op: 'attention', node: step.node, inputs, outputs, attrs }],
  );
  return true;
}

function whole(region: Region, id: ValueId): Strided {
  return { source: id, offset: 0, strides: denseStrides(region.shape(id)), factor: 1 };
}

/** Strides over a shape to which `own` is broadcast, for four axes. */
function broadcastStrides(
  strides: readonly number[],
  own: readonly number[],
  shape: readonly number[],
): number[] {
  const lead = shape.length - own.length;
  const full = shape.map((length, axis) => {
    return axis < lead || own[axis - lead] !== length ? 0 : strides[axis - lead]!;
  });
  return full.length === 3 ? [0, ...full] : full;
}

/** The same, where the leading axes are those of the scores or 1. */
function leading(
  region: Region,
  view: Strided,
  own: readonly number[],
  scores: readonly number[],
): Strided | undefined {
  if (own.length !== scores.length || region.value(view.source).dtype !== 'float32') return undefined;
  const strides = view.strides.map((stride, axis) => {
    return axis < own.length - 2 && own[axis] !== scores[axis] ? 0 : stride;
  });
  return { ...view, strides: strides.length === 3 ? [0, ...strides] : strides };
}

/** Takes scale and mask off the operand of the softmax. */
function scoresOf(region: Region, id: ValueId): Scores | undefined {
  let at = id;
  let mask: ValueId = NONE;
  let scale = 1;
  const steps: WorkStep[] = [];
  for (;;) {
    const op = region.producer(at);
    if (op?.op === 'matmul') return { product: op, scale, mask, replaces: steps.length > 0, steps };
    const next: ValueId | undefined =
      op?.op === 'where' && mask === NONE && scale === 1 ? chosenScores(region, op, steps) : undefined;
    if (op?.op === 'where' && next !== undefined) {
      mask = steps.at(-1)!.outputs[0]!;
      at = next;
      continue;
    }
    if (op?.op !== 'binary' || op.attrs.act.kind !== 'none') return undefined;
    const { kind } = op.attrs;
    const factor = kind === 'mul' || kind === 'div' ? factorOf(region, op) : undefined;
    if (factor) {
      // The mask is added behind the scale.
      scale *= factor.by;
      at = factor.x;
    } else if (kind === 'add' && mask === NONE && scale === 1) {
      const added = bothOrders(op).find(([x]) => leadsToProduct(region, x));
      if (!added || region.shape(added[0]).length !== region.shape(at).length) return undefined;
      [at, mask] = added;
    } else {
      return undefined;
    }
  }
}

function factorOf(region: Region, op: WorkStepNamed<'binary'>): { x: ValueId; by: number } | undefined {
  for (const [x, by] of op.attrs.kind === 'mul' ? bothOrders(op) : bothOrders(op).slice(0, 1)) {
    const factor = scalarOf(region, by);
    if (factor !== undefined && factor !== 0) return { x, by: op.attrs.kind === 'mul' ? factor : 1 / factor };
  }
  return undefined;
}

/** Whether a product of two matrices is behind nothing but factors. */
function leadsToProduct(region: Region, id: ValueId): boolean {
  const op: WorkOp | undefined = region.producer(id);
  if (op?.op === 'matmul') return true;
  const factor = op?.op === 'binary' && op.attrs.act.kind === 'none' ? factorOf(region, op) : undefined;
  return factor !== undefined && leadsToProduct(region, factor.x);
}

/** Where(condition, scores, masked) or the other way round: a step that computes 0, and `masked` where that is chosen. */
function chosenScores(region: Region, op: WorkStepNamed<'where'>, steps: WorkStep[]): ValueId | undefined {
  const [condition, yes, no] = op.inputs as [ValueId, ValueId, ValueId];
  for (const [scores, constant] of [
    [yes, no],
    [no, yes],
  ] as const) {
    const masked = scalarOf(region, constant);
    if (masked === undefined || !(masked < 0) || !leadsToProduct(region, scores)) continue;
    if (region.shape(scores).length !== region.shape(op.outputs[0]!).length) continue;
    const zero = region.addValue(`${op.node}.zero`, 'float32', [], Float32Array.of(0));
    const mask = region.addValue(`${op.node}.mask`, 'float32', region.shape(condition));
    const inputs = scores === yes ? [condition, zero, constant] : [condition, constant, zero];
    if (region.shape(constant).length > region.shape(condition).length) return undefined;
    steps.push({ op: 'where', node: op.node, inputs, outputs: [mask], attrs: {} });
    return scores;
  }
  return undefined;
}

interface Result {
  readonly value: ValueId;
  /** Of batch, head, query and column. */
  readonly strides: readonly number[];
  /** The steps that moved the result there. */
  readonly moves: readonly WorkOp[];
}

/** The value in which the result is needed, behind one transpose and reshapes. */
function resultOf(region: Region, step: WorkStep): Result | undefined {
  let value = step.outputs[0]!;
  let strides = denseStrides(region.shape(value));
  const moves: WorkOp[] = [];
  while (region.usedOnce(value)) {
    const user = region.users(value)[0]!;
    if (user.op === 'transpose' && moves.length === 0) {
      const { perm } = user.attrs;
      // Columns stay neighbours.
      if (perm.at(-1) !== perm.length - 1) break;
      const moved = denseStrides(region.shape(user.outputs[0]!));
      strides = strides.map((_, axis) => moved[perm.indexOf(axis)]!);
    } else if (user.op !== 'reshape') {
      break;
    }
    moves.push(user);
    value = user.outputs[0]!;
  }
  return { value, strides: strides.length === 3 ? [0, ...strides] : strides, moves };
}
