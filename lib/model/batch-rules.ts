import { type Shape, sameShape, sizeOf } from '../numeric/shapes.js';
import type { TensorData } from '../tensor.js';
import { type FoldCache, foldCacheOf } from './fold.js';
import type { Graph } from './graph.js';
import type { IrOp, IrStep } from './ir.js';
import { NONE, type OpName, type Value, type ValueId } from './program.js';
import type { LoweredGraph } from './specialize.js';

/**
 * One step as a rule sees it. A value is batched when axis 0 holds the items one after another, each with the same
 * number of rows: one where the axis is the batch itself, more where a reshape has moved other axes into it.
 */
interface View {
  readonly batched: readonly boolean[];
  /** Shapes of the inputs; [] for an absent one. */
  readonly shapes: readonly Shape[];
  readonly output: Shape;
  readonly items: number;
}

/**
 * Whether a step with a batched input has a batched output, in which each row depends on the rows of its own item
 * only.
 */
type Rule<Step> = (view: View, step: Step) => boolean;

type StepOf<Op> = Extract<IrStep, { op: Op }>;

const always = () => true;

/** Only the first input may be batched. */
const first = ({ batched }: View) => batched[0]! && !batched.includes(true, 1);

/** A batched input has the output's rank, so that its axis 0 is the output's. */
const aligned = ({ batched, shapes, output }: View) =>
  batched.every((isBatched, i) => !isBatched || shapes[i]!.length === output.length);

const RULES: { readonly [Op in Exclude<OpName, 'branch' | 'jump'>]: Rule<StepOf<Op>> } = {
  conv: ({ batched }) => !batched[1] && !batched[2],
  gemm: ({ batched }) => !batched[1] && !batched[2],
  matmul: (view) => aligned(view) && (view.output.length > 2 || (view.batched[0]! && !view.batched[1])),
  affine: first,
  unary: always,
  binary: aligned,
  compare: aligned,
  logical: aligned,
  where: aligned,
  cast: always,
  // Indices count across all items.
  pool: (_, { outputs }) => outputs.length === 1,
  globalPool: always,
  reduceMean: (_, { attrs }) => !attrs.axes.includes(0),
  softmax: (_, { attrs }) => attrs.axis !== 0,
  argMax: (_, { attrs }) => attrs.axis !== 0,
  topK: (_, { attrs }) => attrs.axis !== 0,
  oneHot: (view, { attrs }) => first(view) && attrs.axis !== 0,
  gather: ({ batched: [data, indices] }, { attrs }) =>
    data ? !indices && attrs.axis !== 0 : attrs.axis === 0,
  transpose: (_, { attrs }) => attrs.perm[0] === 0,
  pad: ({ shapes: [x] }, { attrs }) => attrs.pads[0] === 0 && attrs.pads[x!.length] === 0,
  slice: ({ shapes: [x], output }, { attrs }) =>
    attrs.starts[0] === 0 && attrs.steps[0] === 1 && output[0] === x![0],
  concat: (_, { attrs }) => attrs.axis !== 0,
  reshape: ({ output: [rows = 0], items }) => rows > 0 && rows % items === 0,
  expand: aligned,
};

/**
 * Which outputs have the batch as their axis 0, or the reason why items can't be run one by one.
 * @param one the graph lowered for one item
 * @param many the graph lowered for `items` of them
 * @param carriers inputs whose axis 0 is the batch
 */
export function outputsByBatch(
  graph: Graph,
  one: LoweredGraph,
  many: LoweredGraph,
  items: number,
  carriers: ReadonlySet<string>,
): { batched: boolean[] } | { reason: string } {
  const walk = new Walk(graph, one, many, items, carriers);
  const reason = walk.over(many.ops) ?? walk.outputs();
  return reason === undefined ? { batched: many.outputs.map((id) => walk.isBatched(id)) } : { reason };
}

class Walk {
  private readonly cache: FoldCache;
  private readonly batched: Set<ValueId>;
  /** Values of the lowering for one item, by name. */
  private readonly single: ReadonlyMap<string, Value>;

  constructor(
    private readonly graph: Graph,
    private readonly one: LoweredGraph,
    private readonly many: LoweredGraph,
    private readonly items: number,
    carriers: ReadonlySet<string>,
  ) {
    this.cache = foldCacheOf(graph);
    this.batched = new Set([...many.inputs].flatMap(([name, id]) => (carriers.has(name) ? [id] : [])));
    this.single = new Map(one.values.map((value) => [value.name, value]));
  }

  isBatched(id: ValueId): boolean {
    return this.batched.has(id);
  }

  /** Follows the batch through `ops`; returns the reason if something mixes items. */
  over(ops: readonly IrOp[]): string | undefined {
    for (const op of ops) {
      const problem =
        this.constants(op.inputs, op.node) ?? (op.op === 'if' ? this.branches(op) : this.step(op));
      if (problem) return problem;
      for (const id of op.outputs) {
        if (!this.keepsShape(id)) return `node '${op.node}' gives a shape that depends on the batch`;
      }
    }
    return undefined;
  }

  outputs(): string | undefined {
    const { one, many } = this;
    const wide = many.outputs.findIndex(
      (id, i) => this.batched.has(id) && one.values[one.outputs[i]!]!.shape[0] !== 1,
    );
    if (wide >= 0) return `axis 0 of output '${this.graph.outputs[wide]!.name}' holds more than the batch`;
    return this.constants(many.outputs, undefined);
  }

  private step(step: IrStep): string | undefined {
    const view: View = {
      batched: step.inputs.map((id) => this.batched.has(id)),
      shapes: step.inputs.map((id) => (id === NONE ? [] : this.many.values[id]!.shape)),
      output: this.many.values[step.outputs[0]!]!.shape,
      items: this.items,
    };
    if (!view.batched.includes(true)) return undefined;
    // The table pairs every op with its own rule; TypeScript can't follow that through an index.
    const rule = RULES[step.op] as Rule<IrStep>;
    if (!rule(view, step)) return `node '${step.node}' moves, reduces or indexes the batch axis`;
    for (const id of step.outputs) this.batched.add(id);
    return undefined;
  }

  private branches(op: Extract<IrOp, { op: 'if' }>): string | undefined {
    if (this.batched.has(op.inputs[0]!)) return `node '${op.node}' decides for the whole batch at once`;
    for (const { ops, outputs } of [op.branches.then, op.branches.else]) {
      const problem = this.over(ops) ?? this.constants(outputs, op.node);
      if (problem) return problem;
      for (const [i, id] of outputs.entries()) if (this.batched.has(id)) this.batched.add(op.outputs[i]!);
    }
    return undefined;
  }

  private counterpart(name: string): Value | undefined {
    const id = this.one.scope.get(name);
    return id === undefined ? this.single.get(name) : this.one.values[id];
  }

  /**
   * The shape for one item equals this one with only the item's own rows, or is the same when the value has no batch.
   */
  private keepsShape(id: ValueId): boolean {
    const { name, shape } = this.many.values[id]!;
    const single = this.counterpart(name)?.shape;
    return single !== undefined && sameShape(shape, this.batched.has(id) ? this.tiled(single) : single);
  }

  private tiled([rows = 0, ...rest]: Shape): Shape {
    return [rows * this.items, ...rest];
  }

  /** Constants that depend on the number of items must repeat the same slice for each item. */
  private constants(ids: readonly ValueId[], node: string | undefined): string | undefined {
    for (const id of ids) {
      const value = this.many.values[id];
      if (!value?.data || this.cache.owns(value.data)) continue;
      const single = this.counterpart(value.name);
      const same = single?.data && this.repeats(value.data, value.shape, single.data, single.shape);
      // An output's shape must be the same too, because it has no slice for each item.
      if (!same || (node === undefined && !sameShape(value.shape, single.shape))) {
        const where = node === undefined ? '' : `node '${node}': `;
        return `${where}'${value.name}' depends on the number of items`;
      }
    }
    return undefined;
  }

  private repeats(data: TensorData, shape: Shape, slice: TensorData, sliceShape: Shape): boolean {
    if (!sameShape(shape, sliceShape) && !sameShape(shape, this.tiled(sliceShape))) return false;
    const length = sizeOf(sliceShape);
    return data.every((element: number | bigint, i: number) => Object.is(element, slice[i % length]));
  }
}
