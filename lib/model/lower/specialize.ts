import { ResidualSkipError } from '../../errors.js';
import { sameShape } from '../../numeric/shapes.js';
import { atOnce, isDue, type Sliced } from '../../util/slices.js';
import type { IrBranch, IrOp, LoweredIr } from '../program/ir.js';
import { NONE, type Port, type Value, type ValueId } from '../program/program.js';
import type { Graph } from '../read/graph.js';
import type { Binding, InputBinding, Model, ModelOutput } from '../read/model.js';
import { problemOf } from '../read/tensor-proto.js';
import { oneItemOf } from './batch-walk.js';
import { foldCacheOf, LoweringBudget } from './fold.js';
import { type LoweredGraph, NodeLowering } from './lowering.js';
import { requireOwnOpset } from './moved.js';
import { type Lowering, Scope } from './node-reader.js';
import { findOperator } from './operators/index.js';
import { requireSupported } from './unsupported.js';

/**
 * Lowers a model for concrete shapes: turns every node into steps, computes constants, and drops what no output
 * needs.
 * @throws ResidualSkipError UNSUPPORTED_MODEL, MODEL_INVALID or (where the model leaves shapes open) INVALID_SHAPE,
 * naming the node; INVALID_ARGUMENT when an input is not bound
 */
export function specialize(model: Model, binding: Binding): LoweredIr {
  return atOnce(specializing(model, binding));
}

/** The same in slices. */
export function* specializing(model: Model, binding: Binding): Sliced<LoweredIr> {
  requireSupported(model.graph);
  const open = model.inputs.some(
    ({ shape, batched, anyRank }) =>
      anyRank || shape.some((dim, axis) => typeof dim === 'string' && !(batched && axis === 0)),
  );
  const lowered = yield* lowerForOne(model, binding, open ? 'INVALID_SHAPE' : 'MODEL_INVALID');
  const given = new Map(model.inputs.map((input) => [input.name, input]));
  return {
    values: lowered.values,
    ops: lowered.ops,
    inputs: [...lowered.inputs].map(([name, value]) => {
      const { batched, widened } = given.get(name)!;
      return { name, value, batched, ...(widened && { widened }) };
    }),
    outputs: outputsOf(model).map((output, i) => outputPort(output, lowered.outputs[i]!, lowered.values)),
    batching: model.batching,
    recurrent: lowered.recurrent,
    scope: lowered.scope,
    firsts: lowered.firsts,
  };
}

/** Those of the program. */
function outputsOf({ outputs, graph, stages }: Model): readonly ModelOutput[] {
  return stages ? graph.outputs.map((port) => ({ ...port, batched: false })) : outputs;
}

/** What was lowered to analyse a graph, until its first program takes it: that is most often for the same shapes. */
const analysed = new WeakMap<Graph, { readonly binding: Binding; readonly lowered: LoweredGraph }>();

/** @param lowered the graph for one item, which nothing changes from now on */
export function keepLowered(graph: Graph, binding: Binding, lowered: LoweredGraph): void {
  analysed.set(graph, { binding, lowered });
}

function takeLowered(graph: Graph, binding: Binding): LoweredGraph | undefined {
  const kept = analysed.get(graph);
  analysed.delete(graph);
  const isSame = ([name, { shape, dtype, data }]: [string, InputBinding]) => {
    const other = kept!.binding.get(name);
    return other !== undefined && dtype === undefined && data === undefined && sameShape(shape, other.shape);
  };
  return kept?.binding.size === binding.size && [...binding].every(isSame) ? kept.lowered : undefined;
}

/** The graph as one item sees it. */
function* lowerForOne(
  { graph, opset, inputs, loweredItems }: Model,
  binding: Binding,
  shapeError: Lowering['shapeError'],
): Sliced<LoweredGraph> {
  if (loweredItems === undefined)
    return takeLowered(graph, binding) ?? (yield* lowerGraph(graph, opset, binding, shapeError));
  const carriers = new Set(inputs.filter(({ batched }) => batched).map(({ name }) => name));
  const several = new Map(
    [...binding].map(([name, bound]) => {
      const shape = carriers.has(name) ? bound.shape.with(0, loweredItems) : bound.shape;
      return [name, { ...bound, shape }];
    }),
  );
  const many = yield* lowerGraph(graph, opset, several, shapeError, { items: loweredItems });
  const item = oneItemOf(many, loweredItems, carriers);
  if (!('reason' in item)) return item;
  throw new ResidualSkipError(
    'INVALID_SHAPE',
    `feeds: with inputs of these lengths the items of a batch aren't separate: ${item.reason}`,
  );
}

/** Items were found to be separate for some lengths of the open axes; for other lengths this may not hold. */
function outputPort({ name, batched, widened }: ModelOutput, value: ValueId, values: readonly Value[]): Port {
  const { dtype, shape } = values[value]!;
  if (!batched || shape[0] === 1) {
    return { name, value, batched, ...(widened && dtype === 'float32' && { widened }) };
  }
  throw new ResidualSkipError(
    'INVALID_SHAPE',
    `output '${name}': with inputs of these lengths, one item has the shape [${shape}], whose axis 0 is not the batch`,
  );
}

/**
 * Like `specialize`, but ignores batches.
 * @param items those of a batch that `oneItemOf` divides: each then takes its own branch of an If
 */
export function* lowerGraph(
  graph: Graph,
  opset: number,
  binding: Binding,
  shapeError: Lowering['shapeError'],
  { budget = new LoweringBudget(foldCacheOf(graph)), items = 1 } = {},
): Sliced<LoweredGraph> {
  budget.begin();
  const values: Value[] = [];
  const scope = new Scope();
  const inputs = new Map<string, ValueId>();
  for (const { name, dtype: declared } of graph.inputs) {
    const { shape, data, dtype = declared } = boundInput(name, binding.get(name));
    const id = values.push({ name, dtype, shape, ...(data && { data }) }) - 1;
    scope.set(name, id);
    if (!data) inputs.set(name, id);
  }
  const lowerBranch = (subgraph: Graph, outer: Scope) => lowerInto(subgraph, new Scope(outer), context);
  const context: Lowering = {
    opset,
    values,
    cache: foldCacheOf(graph),
    budget,
    shapeError,
    dequantised: new Map(),
    sequences: new Map(),
    recurrent: new Set(),
    items,
    lowerBranch,
  };
  const { ops, outputs, firsts } = yield* lowerInto(graph, scope, context);
  const { recurrent } = context;
  const needed = new Uint8Array(values.length);
  for (const id of outputs) needed[id] = 1;
  return { values, ops: liveOps(ops, needed), inputs, outputs, recurrent, scope, firsts };
}

function boundInput(name: string, bound: InputBinding | undefined): InputBinding {
  if (!bound) {
    throw new ResidualSkipError('INVALID_ARGUMENT', `input '${name}': its shape is not bound`);
  }
  const problem = problemOf(bound.shape);
  if (problem !== undefined) throw new ResidualSkipError('INVALID_SHAPE', `input '${name}': ${problem}`);
  return bound;
}

/** Lowers the nodes of one graph; its inputs, if any, are in `scope` already. */
function* lowerInto(
  graph: Graph,
  scope: Scope,
  context: Lowering,
): Sliced<IrBranch & Pick<LoweredGraph, 'firsts'>> {
  const { values } = context;
  graph.constants.forEach(({ dtype, shape, data, bits }, name) => {
    const value = { name, dtype, shape, data };
    scope.set(name, values.push(bits ? { ...value, bits } : value) - 1);
  });
  const ops: IrOp[] = [];
  const firsts: ValueId[] = [];
  for (let n = 0; n < graph.nodes.length; n++) {
    const node = graph.nodes[n]!;
    const first = values.length;
    firsts.push(first);
    const lowering = new NodeLowering(node, scope, context, ops);
    if (isDue()) yield;
    requireOwnOpset(lowering);
    const lowered = findOperator(node.op)?.lower(lowering) ?? lowering.unsupported('it is not implemented');
    const made = typeof lowered === 'object' && 'next' in lowered ? yield* lowered : lowered;
    const ids = typeof made === 'number' ? [made] : made;
    for (let i = 0; i < node.outputs.length; i++) {
      const name = node.outputs[i]!;
      if (name === '') continue;
      const id = ids[i] ?? lowering.invalid(`it has no output ${i}`);
      scope.set(name, id);
      // Existing values keep their names: an Identity's output is its input.
      if (id >= first) values[id] = { ...values[id]!, name };
    }
  }
  return { ops, outputs: graph.outputs.map(({ name }) => scope.get(name)!), firsts };
}

/** The operations that the values marked in `needed` depend on; marks what they read. */
function liveOps(ops: readonly IrOp[], needed: Uint8Array): IrOp[] {
  const live: IrOp[] = [];
  const isNeeded = (id: ValueId) => needed[id] === 1;
  for (let n = ops.length - 1; n >= 0; n--) {
    const op = ops[n]!;
    if (!op.outputs.some(isNeeded)) continue;
    for (let i = 0; i < op.inputs.length; i++) if (op.inputs[i] !== NONE) needed[op.inputs[i]!] = 1;
    live.push(op.op === 'if' ? { ...op, branches: liveBranches(op.branches, needed) } : op);
  }
  return live.reverse();
}

function liveBranches(
  branches: { then: IrBranch; else: IrBranch },
  needed: Uint8Array,
): { then: IrBranch; else: IrBranch } {
  const live = ({ ops, outputs }: IrBranch): IrBranch => {
    for (const id of outputs) needed[id] = 1;
    return { ops: liveOps(ops, needed), outputs };
  };
  return { then: live(branches.then), else: live(branches.else) };
}
