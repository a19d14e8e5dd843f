import { range, sameShape, sizeOf } from '../../../numeric/shapes.js';
import { allocate } from '../../../tensor/tensor.js';
import type { Sliced } from '../../../util/slices.js';
import type { IrBranch } from '../../program/ir.js';
import type { ValueId } from '../../program/program.js';
import { type Graph, isGraph, type Node } from '../../read/graph.js';
import type { NodeLowering } from '../lowering.js';
import { Scope } from '../node-reader.js';
import { concatenate, part } from './layout.js';
import type { OperatorTable } from './operator.js';

/**
 * If the condition is constant, only the branch that it takes remains. ONNX has one condition for a whole batch; where the graph makes one
 * for each item, each takes its own branch (`batch-walk.ts`).
 */
function* conditional(node: NodeLowering): Sliced<readonly ValueId[]> {
  const condition = node.input(0);
  const { dtype, shape, data } = node.value(condition);
  const { items } = node.context;
  if (dtype !== 'bool' || ![1, items].includes(sizeOf(shape))) {
    node.invalid(`its condition is ${dtype}[${shape}]; expected one bool`);
  }
  const branch = (name: 'then_branch' | 'else_branch') =>
    node.context.lowerBranch(node.graph(name), node.scope);
  if (data?.length === 1) return node.inline(yield* branch(data[0] ? 'then_branch' : 'else_branch'));
  const branches = { then: yield* branch('then_branch'), else: yield* branch('else_branch') };
  checkOutputs(node, branches);
  return node.conditional(condition, branches);
}

function checkOutputs(node: NodeLowering, branches: { then: IrBranch; else: IrBranch }): void {
  const count = branches.then.outputs.length;
  if (count !== branches.else.outputs.length || node.node.outputs.length > count) {
    node.invalid('its branches differ in their number of outputs');
  }
  for (const [i, id] of branches.then.outputs.entries()) {
    const [a, b] = [node.value(id), node.value(branches.else.outputs[i]!)];
    if (a.dtype !== b.dtype || !sameShape(a.shape, b.shape)) {
      node.unsupported(
        `output ${i} is ${a.dtype}[${a.shape}] in one branch and ${b.dtype}[${b.shape}] in the other`,
      );
    }
  }
}

/** The body once more, with its inputs; `count` outputs are expected. */
function* iteration(
  node: NodeLowering,
  body: Graph,
  inputs: readonly ValueId[],
  count: number,
): Sliced<readonly ValueId[]> {
  if (body.inputs.length !== inputs.length || body.outputs.length !== count) {
    node.invalid(
      `its body has ${body.inputs.length} inputs and ${body.outputs.length} outputs; expected ${inputs.length} and ${count}`,
    );
  }
  node.count();
  const scope = new Scope(node.scope);
  for (const [i, { name }] of body.inputs.entries()) scope.set(name, inputs[i]!);
  return node.inline(yield* node.context.lowerBranch(body, scope));
}

/** What the iterations gave, one behind the other on a new axis. */
function stacked(
  node: NodeLowering,
  values: readonly ValueId[],
  body: Graph,
  output: number,
  axis = 0,
): ValueId {
  const [first] = values;
  if (first === undefined) {
    const { dtype, shape } = body.outputs[output]!;
    const lengths = shape.map((length) => (typeof length === 'number' ? length : 0)).toSpliced(axis, 0, 0);
    return node.constantOf(dtype, lengths, allocate(dtype, 0));
  }
  const at = node.axis(axis, node.rank(first) + 1);
  const rows = values.map((id) => node.reshape(id, node.shape(id).toSpliced(at, 0, 1)));
  return concatenate(node, rows, at);
}

/** Written out: how often it runs is known, or the part of the graph that it belongs to runs when it is (see `splitGraph`). */
function* loop(node: NodeLowering): Sliced<readonly ValueId[]> {
  const body = node.graph('body');
  const max = node.optionalScalar(0, 'number of iterations') ?? Number.POSITIVE_INFINITY;
  let goesOn = (node.optionalScalar(1, 'condition') ?? 1) !== 0;
  let carried = node.node.inputs.slice(2).map((_, i) => node.input(i + 2));
  const made: ValueId[][] = range(Math.max(body.outputs.length - 1 - carried.length, 0)).map(() => []);
  for (let i = 0; i < max && goesOn; i++) {
    const count = node.constantOf('int64', [], BigInt64Array.of(BigInt(i)));
    const condition = node.constantOf('bool', [], Uint8Array.of(1));
    const given = [count, condition, ...carried];
    const [next, ...outputs] = yield* iteration(node, body, given, 1 + carried.length + made.length);
    goesOn = Number(node.constant(next!, 'condition').data[0]) !== 0;
    carried = outputs.slice(0, carried.length);
    for (const [k, list] of made.entries()) list.push(outputs[carried.length + k]!);
  }
  return [...carried, ...made.map((list, k) => stacked(node, list, body, 1 + carried.length + k))];
}

function* scan(node: NodeLowering): Sliced<readonly ValueId[]> {
  if (node.opset < 9) node.unsupported('opset 8, which scans each item of a batch, is not supported');
  const body = node.graph('body');
  const scanned = node.number('num_scan_inputs', 1);
  const inputs = node.inputs();
  let states = inputs.slice(0, inputs.length - scanned);
  const sources = inputs.slice(states.length);
  const made: ValueId[][] = range(Math.max(body.outputs.length - states.length, 0)).map(() => []);
  const listed = (name: string, count: number) => node.numbers(name) ?? new Array<number>(count).fill(0);
  const axes = listed('scan_input_axes', scanned).map((axis, i) => node.axis(axis, node.rank(sources[i]!)));
  const [backwards, outputsBackwards] = [
    listed('scan_input_directions', scanned),
    listed('scan_output_directions', made.length),
  ];
  const [length = 0, ...others] = sources.map((id, i) => node.shape(id)[axes[i]!]!);
  if (others.some((other) => other !== length)) node.invalid('its scan inputs differ in length');
  for (let i = 0; i < length; i++) {
    const elements = sources.map((id, k) => {
      const at = backwards[k] ? length - 1 - i : i;
      return node.reshape(part(node, id, axes[k]!, at, at + 1), node.shape(id).toSpliced(axes[k]!, 1));
    });
    const outputs = yield* iteration(node, body, [...states, ...elements], states.length + made.length);
    states = outputs.slice(0, states.length);
    for (const [k, list] of made.entries()) list.push(outputs[states.length + k]!);
  }
  const outputAxes = listed('scan_output_axes', made.length);
  return [
    ...states,
    ...made.map((list, k) => {
      const ordered = outputsBackwards[k] ? list.toReversed() : list;
      return stacked(node, ordered, body, states.length + k, outputAxes[k]);
    }),
  ];
}

/** Whether the condition to go on is computed from what changes from one iteration to the next, or from outside. */
function choosesItsEnd({ attributes }: Node): boolean {
  const body = attributes.get('body');
  if (body === undefined || typeof body !== 'object' || !isGraph(body)) return false;
  const [condition] = body.outputs;
  const [count, given] = body.inputs;
  let name = condition?.name ?? '';
  for (;;) {
    if (name === given?.name || name === count?.name || body.constants.has(name)) return false;
    const maker = body.nodes.find(({ outputs }) => outputs.includes(name));
    if (maker?.inputs.length === 0) return false;
    if (maker?.op !== 'Identity' && maker?.op !== 'Cast') return true;
    name = maker.inputs[0]!;
  }
}

export const CONTROL: OperatorTable = {
  If: { lower: conditional, choosingInputs: [0] },
  Loop: { lower: loop, constantInputs: [0, 1], dataDependent: choosesItsEnd },
  Scan: { lower: scan },
};
