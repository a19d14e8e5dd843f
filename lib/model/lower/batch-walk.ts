import { type Shape, sameShape, sizeOf } from '../../numeric/shapes.js';
import { recalled } from '../../tensor/recall.js';
import { allocate, type TensorData } from '../../tensor/tensor.js';
import type { IrBranch, IrOp, IrStep } from '../program/ir.js';
import { NONE, type Value, type ValueId } from '../program/program.js';
import { BATCH_RULES, type Batch, mixes, sameBatch, type View } from './batch-rules.js';
import type { LoweredGraph } from './lowering.js';

/** One item cut out of a graph that was lowered for several. */
export interface OneItem extends LoweredGraph {
  /** Which outputs have the batch as their axis 0; the others are the same for all items. */
  readonly batched: readonly boolean[];
}

/**
 * Follows the batch axis through a lowered graph, and cuts one item out of every value.
 * @param many the graph lowered for `items` (at least 2) of them
 * @param carriers inputs whose axis 0 is the batch
 * @returns the reason when the graph mixes items, and whether it does so for all lengths
 */
export function oneItemOf(
  many: LoweredGraph,
  items: number,
  carriers: ReadonlySet<string>,
): OneItem | { readonly reason: string; readonly always: boolean } {
  const walk = new Walk(many, items, carriers);
  const ops = walk.over(many.ops);
  const reason = walk.problem ?? walk.wideOutput(many.outputs);
  if (reason !== undefined) return { reason, always: walk.alwaysMixes };
  const batched = many.outputs.map((id) => walk.isBatched(id));
  return { ...many, values: walk.values, ops, batched };
}

/**
 * Why items can't run one by one, however many there are: a step takes one result of all that it reads, such as a range, and that depends on
 * the batch. A lowering for one item shows it.
 * @param carriers inputs whose axis 0 is the batch
 */
export function reasonInAny(
  { inputs, ops }: LoweredGraph,
  carriers: ReadonlySet<string>,
): string | undefined {
  const reached = new Set<ValueId>();
  for (const [name, id] of inputs) if (carriers.has(name)) reached.add(id);
  const isReached = (id: ValueId) => reached.has(id);
  for (const op of ops) {
    if (op.op === 'if' || !op.inputs.some(isReached)) continue;
    if (BATCH_RULES[op.op] === mixes) return mixed(op);
    for (const id of op.outputs) reached.add(id);
  }
  return undefined;
}

const mixed = ({ node }: IrStep) => `node '${node}' moves, reduces or indexes the batch axis`;

/**
 * The node or value in which two lowerings of one graph for one item differ, if they do.
 * @param loosely lengths of 1 don't count in shapes
 */
export function differenceOf(item: LoweredGraph, other: LoweredGraph, loosely = false): string | undefined {
  const named = new Map(other.values.map((value) => [value.name, value]));
  /** A node that does nothing has no value of its own, but its name is in the scope. */
  const counterpartOf = ({ name, data }: Value): Value | undefined => {
    const scoped = other.values[other.scope.get(name) ?? -1];
    return data ? (named.get(name) ?? scoped) : (scoped ?? named.get(name));
  };
  const shapeOf = ({ shape }: Value) => (loosely ? shape.filter((length) => length !== 1) : shape);
  const check = (id: ValueId, node: string | undefined): string | undefined => {
    const value = item.values[id];
    if (!value) return undefined;
    const counterpart = counterpartOf(value);
    const where = node === undefined ? '' : `node '${node}': `;
    if (!counterpart || !sameShape(shapeOf(value), shapeOf(counterpart))) {
      return value.data
        ? `${where}'${value.name}' depends on the number of items`
        : `node '${node}' gives a shape that depends on the batch`;
    }
    const same = !value.data || (counterpart.data && sameElements(value.data, counterpart.data));
    return same ? undefined : `${where}'${value.name}' depends on the number of items`;
  };
  const visit = (ops: readonly IrOp[]): string | undefined => {
    for (const op of ops) {
      for (const id of [...op.inputs, ...op.outputs]) {
        const problem = check(id, op.node);
        if (problem) return problem;
      }
      const branches = op.op === 'if' ? [op.branches.then, op.branches.else] : [];
      for (const branch of branches) {
        const problem = visit(branch.ops) ?? branch.outputs.map((id) => check(id, op.node)).find(Boolean);
        if (problem) return problem;
      }
    }
    return undefined;
  };
  return visit(item.ops) ?? item.outputs.map((id) => check(id, undefined)).find(Boolean);
}

function sameElements(a: TensorData, b: TensorData): boolean {
  if (a === b) return true;
  return (
    a.length === b.length &&
    recalled(a).every((x: number | bigint, i: number) => Object.is(x, recalled(b)[i]))
  );
}

class Walk {
  /** Those of one item: batched ones have its shape, and constants that hold a slice for each item follow at the end. */
  readonly values: Value[];
  /** Why items can't be run one by one. */
  problem: string | undefined;
  /** Whether they can't for any lengths. */
  alwaysMixes = false;
  private readonly batches = new Map<ValueId, Batch>();

  constructor(
    private readonly many: LoweredGraph,
    private readonly items: number,
    carriers: ReadonlySet<string>,
  ) {
    this.values = [...many.values];
    for (const [name, id] of many.inputs) if (carriers.has(name)) this.mark(id, { axis: 0, post: 1 });
  }

  isBatched(id: ValueId): boolean {
    return this.batches.has(id);
  }

  /** `ops` on one item. */
  over(ops: readonly IrOp[]): IrOp[] {
    return ops.map((op) => {
      if (this.problem !== undefined) return op;
      return op.op === 'if' ? this.branches(op) : this.step(op);
    });
  }

  wideOutput(outputs: readonly ValueId[]): string | undefined {
    const wide = outputs.find((id) => {
      const batch = this.batches.get(id);
      return batch && (batch.axis > 0 || this.values[id]!.shape[0] !== 1);
    });
    if (wide === undefined) return undefined;
    const { axis } = this.batches.get(wide)!;
    const { name } = this.many.values[wide]!;
    return axis > 0
      ? `the batch is axis ${axis} of output '${name}'; only axis 0 can be one`
      : `axis 0 of output '${name}' holds more than the batch`;
  }

  private mark(id: ValueId, batch: Batch): void {
    this.batches.set(id, batch);
    const value = this.many.values[id]!;
    this.values[id] = { ...value, shape: this.sliced(value.shape, batch) };
  }

  private sliced(shape: Shape, { axis }: Batch): number[] {
    return shape.map((length, i) => (i === axis ? length / this.items : length));
  }

  private step(step: IrStep): IrStep {
    const repeating = new Map<number, Batch>();
    let uneven: string | undefined;
    const view: View = {
      batches: step.inputs.map((id) => this.batches.get(id)),
      shapes: step.inputs.map((id) => (id === NONE ? [] : this.many.values[id]!.shape)),
      output: this.many.values[step.outputs[0]!]!.shape,
      items: this.items,
      repeats: (index, batch) => {
        const value = this.many.values[step.inputs[index]!];
        if (!value?.data) return false;
        if (!this.repeats(value.data, value.shape, batch)) uneven = value.name;
        repeating.set(index, batch);
        return uneven === undefined;
      },
    };
    if (view.batches.every((batch) => batch === undefined)) return step;
    // The table pairs every op with its own rule; TypeScript can't follow that through an index.
    const rule = BATCH_RULES[step.op] as (view: View, step: IrStep) => Batch | undefined;
    const batch = rule(view, step);
    if (!batch) {
      this.alwaysMixes = rule === mixes;
      this.problem =
        uneven === undefined
          ? mixed(step)
          : `node '${step.node}': '${uneven}' depends on the item or on the number of items`;
      return step;
    }
    for (const id of step.outputs) this.mark(id, batch);
    if (repeating.size === 0) return step;
    const inputs = step.inputs.map((id, i) => (repeating.has(i) ? this.slice(id, repeating.get(i)!) : id));
    return { ...step, inputs };
  }

  private branches(op: Extract<IrOp, { op: 'if' }>): IrOp {
    // Lowering accepts one bool, or one for each item.
    if (sizeOf(this.values[op.inputs[0]!]!.shape) !== 1) {
      this.problem = `node '${op.node}' decides by several numbers, which aren't one for each item`;
      return op;
    }
    const inner = (branch: IrBranch): IrBranch => ({ ...branch, ops: this.over(branch.ops) });
    const branches = { then: inner(op.branches.then), else: inner(op.branches.else) };
    for (const [i, id] of op.outputs.entries()) {
      const [a, b] = [branches.then.outputs[i]!, branches.else.outputs[i]!].map((out) =>
        this.batches.get(out),
      );
      if (!a && !b) continue;
      if (sameBatch(a, b)) this.mark(id, a!);
      else this.problem ??= `node '${op.node}' has the batch on one of its ways only`;
    }
    return { ...op, branches };
  }

  /** Positions of one value's elements, by item: [before, items, after] is its shape as seen from the batch. */
  private extents(shape: Shape, { axis, post }: Batch): { before: number; after: number } {
    const after = post * sizeOf(shape.slice(axis + 1));
    return { after, before: sizeOf(shape) / (after * this.items) };
  }

  private repeats(data: TensorData, shape: Shape, batch: Batch): boolean {
    if ((shape[batch.axis] ?? 0) % (batch.post * this.items) !== 0) return false;
    recalled(data);
    const { before, after } = this.extents(shape, batch);
    for (let block = 0; block < before; block++) {
      const start = block * this.items * after;
      for (let i = after; i < this.items * after; i++) {
        if (!Object.is(data[start + i], data[start + (i % after)])) return false;
      }
    }
    return true;
  }

  /** A new constant: what each item reads of `id`. */
  private slice(id: ValueId, batch: Batch): ValueId {
    const { name, dtype, shape, data } = this.many.values[id]!;
    const { before, after } = this.extents(shape, batch);
    const slice = allocate(dtype, before * after);
    for (let block = 0; block < before; block++) {
      const start = block * this.items * after;
      slice.set(recalled(data!).subarray(start, start + after) as never, block * after);
    }
    return this.values.push({ name, dtype, shape: this.sliced(shape, batch), data: slice }) - 1;
  }
}
