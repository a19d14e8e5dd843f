/**
 * Shows that the items of a batch are separate without lowering the graph for several: where each operator keeps axis 0, which is the
 * batch, apart from the others, the graph for several items is that for one with a longer axis 0. Most convolutional networks are so;
 * all others are left to trial batches.
 */
import type { Shape } from '../../numeric/shapes.js';
import { type Constant, type Graph, type Node, subgraphsOf } from '../read/graph.js';
import type { OneItem } from './batch-walk.js';
import type { LoweredGraph } from './lowering.js';

/** A node of which some inputs hold the batch. */
interface Seen {
  readonly node: Node;
  readonly opset: number;
  /** By input: whether axis 0 is the batch. */
  readonly batched: readonly boolean[];
  /** By input, for one item; [] where it is absent. */
  readonly shapes: readonly Shape[];
  /** Of the first output. */
  readonly output: Shape;
  readonly constant: (input: number) => Constant | undefined;
}

/** Whether axis 0 of the outputs is the batch, and its items are separate. */
type Rule = (seen: Seen) => boolean;

/** The first input alone holds the batch. */
const first: Rule = ({ batched }) => batched.indexOf(true, 1) < 0;

/** Numpy broadcasting: items meet their own, or what all of them have in common. */
const broadcast: Rule = ({ node, batched, shapes, output }) =>
  !node.attributes.has('axis') &&
  shapes.every((shape, i) =>
    batched[i] ? shape.length === output.length : shape.length < output.length || shape[0] === 1,
  );

function numbers(list: Constant | undefined): number[] | undefined {
  return list && Array.from(list.data as Iterable<number | bigint>, Number);
}

/** Axes as the attribute or, since that operator set, the input; undefined if they aren't known. */
function axesOf({ node, opset, constant }: Seen, since: number): readonly number[] | undefined {
  if (opset >= since) return numbers(constant(1));
  return node.attributes.get('axes') as readonly number[] | undefined;
}

/** Whether the axes are known, and none of them is axis 0 of `rank`. */
function areLater(axes: readonly number[] | undefined, rank: number): boolean {
  return axes !== undefined && axes.length > 0 && axes.every((axis) => axis !== 0 && axis !== -rank);
}

const axisOf = ({ node }: Seen, fallback: number) => (node.attributes.get('axis') ?? fallback) as number;

/** Works along the attribute `axis`. */
const along =
  (fallback: number): Rule =>
  (seen) =>
    first(seen) && areLater([axisOf(seen, fallback)], seen.shapes[0]!.length);

const reduction =
  (since = 18): Rule =>
  (seen) =>
    first(seen) && areLater(axesOf(seen, since), seen.shapes[0]!.length);

const isPlain: Rule = ({ node }) => node.outputs.length === 1;

/** One scale, or one for each position of another axis. */
const quantised: Rule = (seen) => {
  const [x, scale] = seen.shapes as [Shape, Shape];
  if (!first(seen) || seen.node.attributes.has('block_size')) return false;
  return scale.length === 0 || (scale.length === 1 && areLater([axisOf(seen, 1)], x.length));
};

const reshape: Rule = (seen) => {
  const [length] = numbers(seen.constant(1)) ?? [];
  const keeps = length === -1 || (length === 0 && !seen.node.attributes.get('allowzero'));
  return first(seen) && keeps && seen.output[0] === 1;
};

const gemm: Rule = (seen) => {
  const { node, shapes } = seen;
  const addend = shapes[2] ?? [];
  return first(seen) && !node.attributes.get('transA') && (addend.length < 2 || addend[0] === 1);
};

const product: Rule = ({ batched, shapes: [a, b] }) => {
  if (!batched[0] || a!.length < 2) return false;
  return batched[1] ? a!.length > 2 && a!.length === b!.length : b!.length <= 2;
};

const pad: Rule = (seen) => {
  const { node, opset, constant, shapes } = seen;
  const pads = opset < 11 ? (node.attributes.get('pads') as readonly number[]) : numbers(constant(1));
  return first(seen) && !node.inputs[3] && pads?.[0] === 0 && pads[shapes[0]!.length] === 0;
};

const rules = (rule: Rule, ...operators: string[]) =>
  Object.fromEntries(operators.map((name) => [name, rule]));

/** By ONNX operator. */
const RULES: ReadonlyMap<string, Rule> = new Map(
  Object.entries<Rule>({
    ...rules(
      first,
      'Abs',
      'Ceil',
      'Celu',
      'Clip',
      'Elu',
      'Erf',
      'Exp',
      'Floor',
      'Gelu',
      'HardSigmoid',
      'HardSwish',
    ),
    ...rules(
      first,
      'LeakyRelu',
      'Log',
      'Mish',
      'Neg',
      'Reciprocal',
      'Relu',
      'Round',
      'Selu',
      'Shrink',
      'Sigmoid',
      'Sign',
    ),
    ...rules(first, 'Softplus', 'Softsign', 'Sqrt', 'Swish', 'Tanh', 'ThresholdedRelu', 'Cast', 'Identity'),
    ...rules(
      first,
      'Conv',
      'QLinearConv',
      'BatchNormalization',
      'InstanceNormalization',
      'LRN',
      'DepthToSpace',
    ),
    ...rules(first, 'AveragePool', 'GlobalAveragePool', 'GlobalMaxPool'),
    ...rules((seen) => first(seen) && isPlain(seen), 'MaxPool', 'Dropout'),
    ...rules(broadcast, 'Add', 'Div', 'Max', 'Mean', 'Min', 'Mul', 'Pow', 'PRelu', 'Sub', 'Sum', 'Where'),
    ...rules(along(-1), 'LayerNormalization', 'LogSoftmax', 'Softmax'),
    ...rules(along(0), 'Split'),
    ...rules(reduction(), 'ReduceMax', 'ReduceMean', 'ReduceMin', 'ReduceL2'),
    ...rules(reduction(13), 'ReduceSum', 'Squeeze'),
    ...rules(quantised, 'QuantizeLinear', 'DequantizeLinear'),
    Concat: (seen) => !seen.batched.includes(false) && areLater([axisOf(seen, 0)], seen.output.length),
    Flatten: (seen) => first(seen) && axisOf(seen, 1) === 1,
    Gemm: gemm,
    MatMul: product,
    Pad: pad,
    Reshape: reshape,
    Transpose: (seen) => (seen.node.attributes.get('perm') as readonly number[] | undefined)?.[0] === 0,
    Unsqueeze: (seen) => first(seen) && areLater(axesOf(seen, 13), seen.output.length),
  }),
);

/**
 * @param one the graph lowered for one item
 * @param carriers inputs whose axis 0 is the batch
 * @returns undefined if it isn't shown that items are separate
 */
export function separateItem(
  { nodes, constants, outputs }: Graph,
  opset: number,
  one: LoweredGraph,
  carriers: ReadonlySet<string>,
): OneItem | undefined {
  const shapeOf = (name: string): Shape => one.values[one.scope.get(name) ?? -1]?.shape ?? [];
  const batched = new Set(carriers);
  for (const node of nodes) {
    const { inputs } = node;
    if (subgraphsOf(node).length > 0) return undefined;
    if (!inputs.some((name) => batched.has(name))) continue;
    const seen: Seen = {
      node,
      opset: node.opset ?? opset,
      batched: inputs.map((name) => batched.has(name)),
      shapes: inputs.map(shapeOf),
      output: shapeOf(node.outputs.find((name) => name !== '')!),
      constant: (input) => constants.get(inputs[input] ?? ''),
    };
    // Without elements, an axis of another length may look like the batch.
    if (!RULES.get(node.op)?.(seen) || seen.output.includes(0)) return undefined;
    for (const name of node.outputs) batched.add(name);
  }
  return { ...one, batched: outputs.map(({ name }) => batched.has(name)) };
}
