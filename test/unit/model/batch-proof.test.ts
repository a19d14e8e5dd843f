import { separateItem } from 'lib/model/lower/batch-proof.js';
import { differenceOf, oneItemOf, reasonInAny } from 'lib/model/lower/batch-walk.js';
import { lowerGraph } from 'lib/model/lower/specialize.js';
import { atOnce } from 'lib/util/slices.js';
import { float32s, GraphBuilder, int64s, tensor } from '../../helpers/onnx-builder.js';
import { modelOf } from '../../helpers/onnx-run.js';
import { randomFloats } from '../../helpers/random.js';

type Build = (graph: GraphBuilder, x: string) => string;

const floats = (graph: GraphBuilder, ...shape: number[]) => {
  const count = shape.reduce((a, b) => a * b, 1);
  return graph.constant(tensor(Float32Array.from(randomFloats(count, 1), Math.abs), shape));
};
const ints = (graph: GraphBuilder, ...values: number[]) => graph.constant(int64s(...values));
const scale = (graph: GraphBuilder) => graph.constant(tensor(Float32Array.of(0.1), []));
const zero = (graph: GraphBuilder) => graph.constant(tensor(Uint8Array.of(128), []));

async function lowered(shape: readonly number[], build: Build) {
  const builder = new GraphBuilder();
  const x = builder.input('x', ['n', ...shape]);
  const { graph, opset } = await modelOf(builder.output(build(builder, x)));
  const lower = (items: number) =>
    atOnce(lowerGraph(graph, opset, new Map([['x', { shape: [items, ...shape] }]]), 'MODEL_INVALID'));
  const carriers = new Set(['x']);
  return { lower, carriers, shown: separateItem(graph, opset, lower(1), carriers) };
}

describe('items are shown to be separate, as trial batches find', () => {
  test.each<[string, readonly number[], Build]>([
    [
      'a convolution and a relu',
      [2, 5, 5],
      (g, x) => g.node('Relu', [g.node('Conv', [x, floats(g, 3, 2, 3, 3)])]),
    ],
    [
      'pools',
      [2, 6, 6],
      (g, x) => g.node('GlobalAveragePool', [g.node('MaxPool', [x], { kernel_shape: [2, 2] })]),
    ],
    [
      'a flat fully connected layer',
      [2, 3],
      (g, x) => g.node('Gemm', [g.node('Flatten', [x]), floats(g, 6, 2), floats(g, 2)]),
    ],
    ['a product of vectors', [4, 3], (g, x) => g.node('MatMul', [x, floats(g, 3, 2)])],
    [
      'a product within items',
      [3, 3],
      (g, x) => g.node('MatMul', [x, g.node('Transpose', [x], { perm: [0, 2, 1] })]),
    ],
    ['a sum with weights of fewer axes', [2, 3], (g, x) => g.node('Add', [x, floats(g, 2, 3)])],
    ['a product with weights for one item', [2, 3], (g, x) => g.node('Mul', [floats(g, 1, 2, 3), x])],
    [
      'reshapes',
      [2, 6],
      (g, x) => g.node('Reshape', [g.node('Reshape', [x, ints(g, 0, 3, -1)]), ints(g, -1, 12)]),
    ],
    [
      'means and a softmax',
      [2, 3, 3],
      (g, x) => g.node('Softmax', [g.node('ReduceMean', [x], { axes: [2, 3], keepdims: 0 })]),
    ],
    ['channels of two maps', [2, 3], (g, x) => g.node('Concat', [x, g.node('Sigmoid', [x])], { axis: 1 })],
    [
      'axes that come and go',
      [1, 3],
      (g, x) => g.node('Unsqueeze', [g.node('Squeeze', [x, ints(g, 1)]), ints(g, -1)]),
    ],
    ['a pad', [2, 3], (g, x) => g.node('Pad', [x, ints(g, 0, 0, 1, 0, 0, 1)])],
    [
      'bytes',
      [3],
      (g, x) =>
        g.node('DequantizeLinear', [g.node('QuantizeLinear', [x, scale(g), zero(g)]), scale(g), zero(g)]),
    ],
  ])('%s', async (_, shape, build) => {
    const { lower, carriers, shown } = await lowered(shape, build);
    const found = oneItemOf(lower(3), 3, carriers);
    if ('reason' in found) throw new Error(found.reason);
    expect(shown?.batched).toEqual(found.batched);
    expect(differenceOf(found, shown!)).toBeUndefined();
  });
});

describe('nothing is shown of', () => {
  test.each<[string, readonly number[], Build]>([
    ['a softmax over items', [3], (g, x) => g.node('Softmax', [x], { axis: 0 })],
    ['a softmax over what may be items', [], (g, x) => g.node('Softmax', [x])],
    ['a mean over items', [3], (g, x) => g.node('ReduceMean', [x], { axes: [-2] })],
    ['a mean over all', [3], (g, x) => g.node('ReduceMean', [x])],
    ['items behind each other', [3], (g, x) => g.node('Concat', [x, x], { axis: 0 })],
    ['items beside a constant', [3], (g, x) => g.node('Concat', [x, floats(g, 1, 2)], { axis: 1 })],
    ['a sum of items and another axis', [3], (g, x) => g.node('Add', [x, floats(g, 2, 1, 3)])],
    ['a transpose of items', [3], (g, x) => g.node('Transpose', [x], { perm: [1, 0] })],
    ['items as columns', [2], (g, x) => g.node('Gemm', [x, floats(g, 1, 2)], { transA: 1 })],
    ['items as weights', [2], (g, x) => g.node('MatMul', [floats(g, 3, 1), x])],
    ['a reshape to one item', [3], (g, x) => g.node('Reshape', [x, ints(g, 1, 3)])],
    ['a reshape that divides items', [4], (g, x) => g.node('Reshape', [x, ints(g, -1, 2)])],
    ['all axes of length 1', [3], (g, x) => g.node('Squeeze', [x])],
    ['an axis before the items', [3], (g, x) => g.node('Unsqueeze', [x, ints(g, 0)])],
    ['a pad of items', [3], (g, x) => g.node('Pad', [x, ints(g, 1, 0, 0, 0)])],
    [
      'the number of items',
      [3],
      (g, x) => g.node('Add', [x, g.node('Cast', [g.node('Shape', [x], { end: 1 })], { to: 1 })]),
    ],
    ['one range for all items', [3], (g, x) => g.node('DynamicQuantizeLinear', [x])],
    [
      'a scale for each item',
      [2],
      (g, x) =>
        g.node('QuantizeLinear', [x, g.constant(float32s(0.1)), g.constant(tensor(Uint8Array.of(1), [1]))], {
          axis: 0,
        }),
    ],
  ])('%s', async (_, shape, build) => {
    expect((await lowered(shape, build)).shown).toBeUndefined();
  });
});

describe('one item shows that items are mixed', () => {
  const range: Build = (g, x) => g.node('DynamicQuantizeLinear', [x]);
  const shaped: Build = (g, x) => g.node('ConstantOfShape', [g.node('Shape', [x])]);
  test.each<[string, Build]>([
    ['by one range for all', range],
    ['behind a reshape by their number', (g, x) => range(g, g.node('Reshape', [x, g.node('Shape', [x])]))],
  ])('%s', async (_, build) => {
    const { lower, carriers } = await lowered([3], build);
    const reason = reasonInAny(lower(1), carriers);
    expect(reason).toMatch(/^node 'DynamicQuantizeLinear\d+' moves, reduces or indexes the batch axis$/);
    expect(oneItemOf(lower(3), 3, carriers)).toEqual({ reason, always: true });
  });

  test.each<[string, Build]>([
    ['not by what does not', (g, x) => g.node('Relu', [x])],
    [
      'not by the range of something else',
      (g, x) => g.node('Add', [x, g.node('Cast', [range(g, floats(g, 3))], { to: 1 })]),
    ],
    [
      'not by the range of what their shape alone decides',
      (g, x) => g.node('Add', [x, g.node('Cast', [range(g, shaped(g, x))], { to: 1 })]),
    ],
  ])('%s', async (_, build) => {
    const { lower, carriers } = await lowered([3], build);
    expect(reasonInAny(lower(1), carriers)).toBeUndefined();
  });
});
