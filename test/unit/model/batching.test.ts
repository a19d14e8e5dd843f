import { InferenceSession, Tensor } from 'lib/index.js';
import { lowerGraph } from 'lib/model/lower/specialize.js';
import type { Ir } from 'lib/model/program/ir.js';
import type { Model } from 'lib/model/read/model.js';
import { atOnce } from 'lib/util/slices.js';
import { expectClose } from '../../helpers/compare.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { modelOf, randomTensor, runOnnx } from '../../helpers/onnx-run.js';
import { randomFloats } from '../../helpers/random.js';
import { denseProgram, runProgram } from '../../helpers/run-program.js';

type Build = (graph: GraphBuilder, x: string) => string;

const BATCH = 4;

function graphOf(shape: readonly (number | string)[], build: Build): GraphBuilder {
  const graph = new GraphBuilder();
  const x = graph.input('x', ['n', ...shape]);
  return graph.output(build(graph, x));
}

const random = (graph: GraphBuilder, ...shape: number[]) =>
  graph.constant(
    tensor(
      randomFloats(
        shape.reduce((a, b) => a * b, 1),
        shape.length,
      ),
      shape,
    ),
  );
const ints = (graph: GraphBuilder, ...values: number[]) => graph.constant(int64s(...values));
const int = (graph: GraphBuilder, value: number) =>
  graph.constant(tensor(BigInt64Array.of(BigInt(value)), []));
/** The number of items, as a vector of one element. */
const batchLength = (graph: GraphBuilder, x: string) => graph.node('Shape', [x], { end: 1 });

/** What the graph says about all items at once. */
function runTogether(model: Model, x: Tensor) {
  const lowered = atOnce(
    lowerGraph(model.graph, model.opset, new Map([['x', { shape: x.dims }]]), 'MODEL_INVALID'),
  );
  const { values, ops } = lowered;
  const ir: Ir = {
    values,
    ops,
    inputs: [{ name: 'x', value: lowered.inputs.get('x')!, batched: false }],
    outputs: [{ name: 'y', value: lowered.outputs[0]!, batched: false }],
    batching: 'whole',
  };
  const { output } = runProgram(denseProgram(ir), [x.data as Float32Array]);
  return { data: output, dims: values[ir.outputs[0]!.value]!.shape };
}

/** Attention of two heads as timm writes it; `split` is the target of the reshape into heads. */
function attention(graph: GraphBuilder, x: string, split: readonly number[]): string {
  const part = (perm: readonly number[]) => {
    const made = graph.node('MatMul', [x, random(graph, 6, 6)]);
    return graph.node('Transpose', [graph.node('Reshape', [made, ints(graph, ...split)])], { perm });
  };
  const scores = graph.node('MatMul', [part([0, 2, 1, 3]), part([0, 2, 3, 1])]);
  const heads = graph.node('MatMul', [graph.node('Softmax', [scores], { axis: -1 }), part([0, 2, 1, 3])]);
  return graph.node('Reshape', [
    graph.node('Transpose', [heads], { perm: [0, 2, 1, 3] }),
    ints(graph, 0, 0, 6),
  ]);
}

/** Attention as torch's nn.MultiheadAttention writes it: (length, batch * heads, width), then (length * batch, width). */
function mergedAttention(graph: GraphBuilder, x: string): string {
  const turned = graph.node('Transpose', [x], { perm: [1, 0, 2] });
  const batch = batchLength(graph, x);
  const merged = graph.node('Mul', [batch, ints(graph, 2)]);
  const part = (perm: readonly number[]) => {
    const made = graph.node('MatMul', [turned, random(graph, 6, 6)]);
    const target = graph.node('Concat', [ints(graph, 4), merged, ints(graph, 3)], { axis: 0 });
    return graph.node('Transpose', [graph.node('Reshape', [made, target])], { perm });
  };
  const scores = graph.node('MatMul', [part([1, 0, 2]), part([1, 2, 0])]);
  const heads = graph.node('MatMul', [graph.node('Softmax', [scores], { axis: -1 }), part([1, 0, 2])]);
  const rows = graph.node('Reshape', [
    graph.node('Transpose', [heads], { perm: [1, 0, 2] }),
    ints(graph, -1, 6),
  ]);
  const out = graph.node('Gemm', [rows, random(graph, 6, 6), random(graph, 6)]);
  const target = graph.node('Concat', [ints(graph, 4), batch, ints(graph, 6)], { axis: 0 });
  return graph.node('Transpose', [graph.node('Reshape', [out, target])], { perm: [1, 0, 2] });
}

describe('items are run one by one', () => {
  test.each<[string, readonly number[], Build]>([
    ['a convolution', [2, 5, 5], (graph, x) => graph.node('Conv', [x, random(graph, 3, 2, 3, 3)])],
    ['a pool', [2, 6, 6], (graph, x) => graph.node('MaxPool', [x], { kernel_shape: [2, 2] })],
    ['global pools', [2, 3, 3], (graph, x) => graph.node('GlobalAveragePool', [x])],
    [
      'a normalisation',
      [2, 3],
      (graph, x) => {
        const values = [random(graph, 2), random(graph, 2), random(graph, 2), graph.constant(float32s(1, 2))];
        return graph.node('BatchNormalization', [x, ...values]);
      },
    ],
    [
      'a fully connected layer',
      [3],
      (graph, x) => graph.node('Gemm', [x, random(graph, 3, 2), random(graph, 2)]),
    ],
    [
      'a product for each of several vectors',
      [4, 3],
      (graph, x) => graph.node('MatMul', [x, random(graph, 3, 2)]),
    ],
    [
      'a product of two parts of the item',
      [2, 3, 3],
      (graph, x) => graph.node('MatMul', [x, graph.node('Transpose', [x], { perm: [0, 1, 3, 2] })]),
    ],
    ['a sum with weights', [2, 3], (graph, x) => graph.node('Add', [x, random(graph, 2, 3)])],
    [
      'a sum with weights for every item',
      [2, 3],
      (graph, x) => graph.node('Add', [x, random(graph, 1, 2, 3)]),
    ],
    ['Flatten', [2, 3], (graph, x) => graph.node('Flatten', [x])],
    ['Reshape that keeps the batch', [2, 3], (graph, x) => graph.node('Reshape', [x, ints(graph, 0, 6)])],
    ['Reshape with an open batch', [2, 3], (graph, x) => graph.node('Reshape', [x, ints(graph, -1, 3, 2)])],
    [
      'Reshape into the batch and out of it',
      [2, 3],
      (graph, x) => {
        const rows = graph.node('Softmax', [graph.node('Reshape', [x, ints(graph, -1, 3)])], { axis: 1 });
        return graph.node('Reshape', [rows, ints(graph, -1, 2, 3)]);
      },
    ],
    [
      'channels shuffled',
      [4, 2, 2],
      (graph, x) => {
        const grouped = graph.node('Reshape', [x, ints(graph, 0, 2, 2, 2, 2)]);
        const mixed = graph.node('Transpose', [grouped], { perm: [0, 2, 1, 3, 4] });
        return graph.node('Reshape', [mixed, ints(graph, 0, 4, 2, 2)]);
      },
    ],
    ['Softmax', [2, 3], (graph, x) => graph.node('Softmax', [x], { axis: -1 })],
    ['a mean', [2, 3], (graph, x) => graph.node('ReduceMean', [x], { axes: [1], keepdims: 0 })],
    [
      'ArgMax and OneHot',
      [3],
      (graph, x) => {
        const choice = graph.node('ArgMax', [x], { axis: 1, keepdims: 0 });
        return graph.node('OneHot', [choice, int(graph, 3), graph.constant(float32s(0, 1))], { axis: 1 });
      },
    ],
    [
      'an embedding of choices',
      [3],
      (graph, x) => {
        const choice = graph.node('ArgMax', [x], { axis: 1, keepdims: 0 });
        return graph.node('Gather', [random(graph, 3, 2), choice], { axis: 0 });
      },
    ],
    ['one channel of all', [3, 2], (graph, x) => graph.node('Gather', [x, int(graph, 1)], { axis: 1 })],
    ['Concat of channels', [2, 2], (graph, x) => graph.node('Concat', [x, x], { axis: 1 })],
    [
      'Slice of channels',
      [4, 2],
      (graph, x) => graph.node('Slice', [x, ints(graph, 1), ints(graph, 3), ints(graph, 1)]),
    ],
    ['Pad of channels', [2, 2], (graph, x) => graph.node('Pad', [x, ints(graph, 0, 1, 0, 0, 1, 0)])],
    [
      'zeros for each item beside its channels',
      [2, 3],
      (graph, x) => {
        const shape = graph.node('Concat', [batchLength(graph, x), ints(graph, 1, 3)], { axis: 0 });
        return graph.node('Concat', [x, graph.node('ConstantOfShape', [shape])], { axis: 1 });
      },
    ],
    [
      'weights expanded to the batch',
      [3],
      (graph, x) => {
        const shape = graph.node('Concat', [batchLength(graph, x), ints(graph, 3)], { axis: 0 });
        return graph.node('Mul', [x, graph.node('Expand', [random(graph, 1, 3), shape])]);
      },
    ],
    ['an axis lost by Squeeze', [1, 3], (graph, x) => graph.node('Squeeze', [x])],
    ['the only axis lost by Squeeze', [1], (graph, x) => graph.node('Squeeze', [x])],
    [
      'a batch moved behind the channels and back',
      [2, 3],
      (graph, x) => {
        const moved = graph.node('Transpose', [x], { perm: [1, 0, 2] });
        const mixed = graph.node('MatMul', [moved, random(graph, 3, 3)]);
        return graph.node('Transpose', [graph.node('Add', [mixed, random(graph, 2, 1, 3)])], {
          perm: [1, 0, 2],
        });
      },
    ],
    [
      'a batch as the last axis of a product',
      [3],
      (graph, x) => {
        const turned = graph.node('MatMul', [
          random(graph, 2, 3),
          graph.node('Transpose', [x], { perm: [1, 0] }),
        ]);
        return graph.node('Transpose', [turned], { perm: [1, 0] });
      },
    ],
    [
      'means with the batch behind, with and without their axis',
      [2, 3],
      (graph, x) => {
        const moved = graph.node('Transpose', [x], { perm: [2, 1, 0] });
        const kept = graph.node('Sub', [moved, graph.node('ReduceMean', [moved], { axes: [0] })]);
        return graph.node('Transpose', [graph.node('ReduceMean', [kept], { axes: [1], keepdims: 0 })], {
          perm: [1, 0],
        });
      },
    ],
    ['attention with the batch beside its heads', [4, 6], (graph, x) => attention(graph, x, [0, 0, 2, 3])],
    ['attention with the batch merged into its heads', [4, 6], (graph, x) => mergedAttention(graph, x)],
    [
      'queries, keys and values stacked before the batch',
      [4, 6],
      (graph, x) => {
        const all = graph.node('Reshape', [
          graph.node('MatMul', [x, random(graph, 6, 18)]),
          ints(graph, 0, 4, 3, 2, 3),
        ]);
        const stacked = graph.node('Transpose', [all], { perm: [2, 0, 3, 1, 4] });
        const [q, k, v] = [0, 1, 2].map((i) => graph.node('Gather', [stacked, int(graph, i)], { axis: 0 }));
        const turned = graph.node('Transpose', [k!], { perm: [0, 1, 3, 2] });
        const weights = graph.node('Softmax', [graph.node('MatMul', [q!, turned])], { axis: -1 });
        const heads = graph.node('Transpose', [graph.node('MatMul', [weights, v!])], { perm: [0, 2, 1, 3] });
        return graph.node('Reshape', [heads, ints(graph, 0, 4, 6)]);
      },
    ],
    [
      'a state of zeros for each item, behind another axis',
      [2, 3],
      (graph, x) => {
        const moved = graph.node('Transpose', [x], { perm: [1, 0, 2] });
        const shape = graph.node('Concat', [ints(graph, 1), batchLength(graph, x), ints(graph, 3)], {
          axis: 0,
        });
        const both = graph.node('Concat', [moved, graph.node('ConstantOfShape', [shape])], { axis: 0 });
        return graph.node('Transpose', [both], { perm: [1, 0, 2] });
      },
    ],
    [
      'a batch of one would be a special case',
      [3, 2],
      (graph, x) => {
        const pooled = graph.node('Squeeze', [graph.node('ReduceMean', [x], { axes: [2] })]);
        return graph.node('Softmax', [graph.node('Gemm', [pooled, random(graph, 3, 2)])], { axis: 1 });
      },
    ],
  ])('%s', async (_, shape, build) => {
    const graph = graphOf(shape, build);
    const model = await modelOf(graph);
    expect([model.batching, model.batchingReason]).toEqual(['item', undefined]);
    expect(model.inputs[0]!.batched && model.outputs[0]!.batched).toBe(true);

    const x = randomTensor([BATCH, ...shape]);
    const [output] = Object.values(await runOnnx(graph, { x }));
    const expected = runTogether(model, x);
    expect(output!.dims).toEqual(expected.dims);
    expectClose(output!.data, expected.data, { relative: 1e-6, absolute: 1e-6 });
  });
});

describe('a batch runs as a whole', () => {
  test.each<[string, readonly number[], Build, RegExp]>([
    [
      'mean of all items',
      [3],
      (graph, x) => graph.node('Sub', [x, graph.node('ReduceMean', [x], { axes: [0] })]),
      /ReduceMean/,
    ],
    ['mean of everything', [3], (graph, x) => graph.node('ReduceMean', [x]), /ReduceMean/],
    ['softmax over items', [3], (graph, x) => graph.node('Softmax', [x], { axis: 0 }), /Softmax/],
    [
      'the best item',
      [3],
      (graph, x) => graph.node('Cast', [graph.node('ArgMax', [x], { axis: 0 })], { to: 1 }),
      /ArgMax/,
    ],
    ['items transposed', [3], (graph, x) => graph.node('Transpose', [x], { perm: [1, 0] }), /Transpose/],
    [
      'the first item alone',
      [3],
      (graph, x) => graph.node('Gather', [x, int(graph, 0)], { axis: 0 }),
      /Gather/,
    ],
    [
      'all but the first',
      [3],
      (graph, x) => graph.node('Slice', [x, ints(graph, 1), ints(graph, 99), ints(graph, 0)]),
      /Slice/,
    ],
    [
      'every item but backwards',
      [3],
      (graph, x) =>
        graph.node('Slice', [x, ints(graph, -1), ints(graph, -99), ints(graph, 0), ints(graph, -1)]),
      /Slice/,
    ],
    ['one more item', [3], (graph, x) => graph.node('Pad', [x, ints(graph, 0, 0, 1, 0)]), /Pad/],
    ['items twice', [3], (graph, x) => graph.node('Concat', [x, x], { axis: 0 }), /Concat/],
    [
      'a reshape to one row',
      [3],
      (graph, x) => graph.node('Reshape', [x, ints(graph, 1, -1)]),
      /Reshape|batch of 3/,
    ],
    [
      'a reshape that leaves rows',
      [2, 3],
      (graph, x) => graph.node('Reshape', [x, ints(graph, -1, 3)]),
      /holds more than the batch/,
    ],
    [
      'items against items',
      [3],
      (graph, x) => graph.node('MatMul', [x, graph.node('Transpose', [x])]),
      /Transpose|MatMul/,
    ],
    [
      'items as the right side',
      [3],
      (graph, x) =>
        graph.node('MatMul', [random(graph, 2, 2, 3), graph.node('Unsqueeze', [x, ints(graph, 2)])]),
      /MatMul|batch of 3/,
    ],
    [
      'items that meet channels',
      [3],
      (graph, x) => graph.node('Add', [x, graph.node('Unsqueeze', [x, ints(graph, 1)])]),
      /Add/,
    ],
    [
      'a table of positions by item',
      [2],
      (graph, x) => {
        const shape = graph.node('Concat', [batchLength(graph, x), ints(graph, 1)], { axis: 0 });
        const rows = graph.node('Slice', [
          random(graph, 9, 2),
          ints(graph, 0),
          graph.node('Slice', [shape, ints(graph, 0), ints(graph, 1)]),
        ]);
        return graph.node('Add', [x, rows]);
      },
      /Add.*number of items/,
    ],
    [
      'the batch as the axis of a convolution',
      [2, 3],
      (graph, x) =>
        graph.node('Conv', [graph.node('Transpose', [x], { perm: [1, 2, 0] }), random(graph, 2, 3, 1)]),
      /Conv|batch of 3/,
    ],
    [
      'a batch that a reshape tears apart',
      [2],
      (graph, x) =>
        graph.node('Reshape', [graph.node('Transpose', [x], { perm: [1, 0] }), ints(graph, -1, 2)]),
      /Reshape|batch/,
    ],
    [
      'an output with the batch behind',
      [2, 3],
      (graph, x) => graph.node('Transpose', [x], { perm: [1, 0, 2] }),
      /batch is axis 1 of output/,
    ],
    [
      'a share of the batch',
      [3],
      (graph, x) => graph.node('Div', [x, graph.node('Cast', [batchLength(graph, x)], { to: 1 })]),
      /Div.*number of items/,
    ],
    [
      'a number of each item',
      [3],
      (graph, x) => {
        const count = graph.node('Squeeze', [batchLength(graph, x)]);
        const numbers = graph.node('Cast', [graph.node('Range', [int(graph, 0), count, int(graph, 1)])], {
          to: 1,
        });
        return graph.node('Add', [x, graph.node('Unsqueeze', [numbers, ints(graph, 1)])]);
      },
      /Add.*number of items/,
    ],
    [
      'indices through all items',
      [2, 4],
      (graph, x) => graph.nodes('MaxPool', [x], { kernel_shape: [2] }, { outputs: ['v', 'i'] })[1]!,
      /MaxPool/,
    ],
  ])('%s', async (_, shape, build, reason) => {
    const model = await modelOf(graphOf(shape, build));
    expect([model.batching, model.batchingReason]).toEqual(['whole', expect.stringMatching(reason)]);
    expect(model.inputs[0]!.batched || model.outputs[0]!.batched).toBe(false);
  });

  test('and gives what the graph says', async () => {
    const graph = graphOf([2], (g, x) => g.node('Sub', [x, g.node('ReduceMean', [x], { axes: [0] })]));
    const x = new Tensor('float32', [1, 2, 3, 6], [2, 2]);
    const [y] = Object.values(await runOnnx(graph, { x }));
    expect([...y!.data]).toEqual([-1, -2, 1, 2]);
  });

  test('an output that tells the number of items', async () => {
    const graph = graphOf([2], (g, x) => g.node('Relu', [x]));
    graph.output(graph.node('Shape', ['x']), [2], 'int64');
    const model = await modelOf(graph);
    expect([model.batching, model.batchingReason]).toEqual([
      'whole',
      expect.stringMatching(/number of items/),
    ]);
  });

  test('a fixed matrix, whose rows may be anything', async () => {
    const graph = new GraphBuilder();
    graph.output(graph.node('Relu', [graph.input('x', [2, 3])]), [2, 3]);
    const model = await modelOf(graph);
    expect([model.batching, model.batchingReason]).toEqual(['whole', expect.stringMatching(/no input/)]);
  });

  test('a condition for the whole batch', async () => {
    const branch = (name: string, op: string) => {
      const inner = new GraphBuilder(name);
      return inner.output(inner.node(op, ['x']), ['n', 2]);
    };
    const graph = new GraphBuilder();
    graph.input('x', ['n', 2]);
    const score = graph.node('ReduceMean', ['x'], { keepdims: 0 });
    const flag = graph.node('Greater', [score, graph.constant(tensor(Float32Array.of(0), []))]);
    const attributes = { then_branch: branch('t', 'Neg'), else_branch: branch('e', 'Relu') };
    graph.output(graph.node('If', [flag], attributes), ['n', 2]);
    const model = await modelOf(graph);
    expect(model.batching).toBe('whole');
    const x = new Tensor('float32', [1, -2, 3, 4], [2, 2]);
    const [y] = Object.values(await runOnnx(graph, { x }));
    expect([...y!.data]).toEqual([-1, 2, -3, -4]);
  });
});

describe('a condition for each item', () => {
  /** Negates the rows whose mean is above 0, and halves the others: neither a gate nor an exit. */
  function choosing(batch: number | string, condition: (graph: GraphBuilder, mean: string) => string) {
    const branch = (name: string, factor: number) => {
      const inner = new GraphBuilder(name, `${name}/`);
      return inner.output(inner.node('Mul', ['x', inner.constant(float32s(factor))]), [batch, 2]);
    };
    const graph = new GraphBuilder();
    graph.input('x', [batch, 2]);
    const zero = graph.constant(tensor(Float32Array.of(0), []));
    const flag = graph.node('Greater', [condition(graph, 'x'), zero]);
    const attributes = { then_branch: branch('then', -1), else_branch: branch('else', 0.5) };
    return graph.output(graph.node('If', [flag], attributes), [batch, 2]);
  }
  const meanOf = (keepdims: number) => (graph: GraphBuilder, x: string) =>
    graph.node('ReduceMean', [x], { axes: [1], keepdims });
  const squeezed = (graph: GraphBuilder, x: string) => graph.node('Squeeze', [meanOf(1)(graph, x)]);
  const X = [1, 2, -1, -2, -3, 4, 3, -4, 5, 5];
  const Y = [-1, -2, -0.5, -1, 3, -4, 1.5, -2, -5, -5];

  test.each([
    ['an axis for items', 'n', meanOf(1)],
    ['a vector', 'n', meanOf(0)],
    ['a vector that is a scalar for one item', 'n', squeezed],
    ['a file for one item', 1, meanOf(1)],
    ['a scalar in a file for one item', 1, squeezed],
  ] as const)('each item of a batch takes its own branch: %s', async (_, batch, condition) => {
    const bytes = modelBytes(choosing(batch, condition));
    for (const backend of ['native', 'reference'] as const) {
      for (const items of [5, 1]) {
        await using session = await InferenceSession.create(bytes, { backend, threads: 2 });
        const x = new Tensor('float32', X.slice(0, 2 * items), [items, 2]);
        const [y] = Object.values(await session.run({ x }));
        expect([y!.dims, [...y!.data]]).toEqual([[items, 2], Y.slice(0, 2 * items)]);
      }
    }
  });

  test('several conditions for an item, or some that belong to no item, are refused', async () => {
    const columns = (graph: GraphBuilder) => graph.input('columns', [3]);
    for (const condition of [(_: GraphBuilder, x: string) => x, columns]) {
      await expect(modelOf(choosing('n', condition))).rejects.toMatchObject({
        code: 'MODEL_INVALID',
        message: expect.stringMatching(
          /^node 'If\d' \(If\): its condition is bool\[.*\]; expected one bool$/,
        ),
      });
    }
  });
});

describe('a fixed batch of several', () => {
  const fixed = (differing = false) => {
    const graph = new GraphBuilder();
    const x = graph.input('x', [2, 3, 4]);
    const flat = graph.node('Reshape', [x, ints(graph, 2, 12)]);
    const product = graph.node('Gemm', [flat, random(graph, 12, 5)]);
    const row = [1, 2, 3, 4, 5];
    const shift = tensor(Float32Array.from([...row, ...(differing ? row.toReversed() : row)]), [2, 5]);
    return graph.output(graph.node('Add', [product, graph.constant(shift)]), [2, 5]);
  };

  test.each([1, 2, 5])('runs item by item, here %s of them', async (items) => {
    const graph = fixed();
    const model = await modelOf(graph);
    expect([model.batching, model.loweredItems]).toEqual(['item', 2]);
    const x = randomTensor([items, 3, 4]);
    const [y] = Object.values(await runOnnx(graph, { x }));
    expect(y!.dims).toEqual([items, 5]);
    for (let i = 0; i < items; i++) {
      const item = x.data.slice(i * 12, (i + 1) * 12) as Float32Array;
      const pair = runTogether(model, new Tensor('float32', [...item, ...item], [2, 3, 4]));
      expectClose(y!.data.slice(i * 5, (i + 1) * 5), pair.data.slice(0, 5), {
        relative: 1e-6,
        absolute: 1e-6,
      });
    }
  });

  test('runs as a whole when constants differ between items', async () => {
    const model = await modelOf(fixed(true));
    expect([model.batching, model.batchingReason]).toEqual([
      'whole',
      expect.stringMatching(/depends on the item/),
    ]);
  });
});

describe('an open batch in a graph that holds the shapes of one', () => {
  test.each([2, 3, 6])('images of a batch of %i run item by item', async (traced) => {
    const build =
      (target: number[]): Build =>
      (graph, x) => {
        const sum = graph.node('Relu', [
          graph.node('Add', [x, graph.node('Conv', [x, random(graph, 3, 3, 1, 1)])]),
        ]);
        return graph.node('MatMul', [
          graph.node('Reshape', [sum, ints(graph, ...target)]),
          random(graph, 48, 5),
        ]);
      };
    const shape = [3, 4, 4];
    const graph = graphOf(shape, build([traced, 48]));
    const { batching, inputs } = await modelOf(graph);
    expect([batching, inputs[0]!.shape]).toEqual(['item', [traced, ...shape]]);
    const x = randomTensor([traced, ...shape]);
    const [y] = Object.values(await runOnnx(graph, { x }));
    const [expected] = Object.values(await runOnnx(graphOf(shape, build([-1, 48])), { x }));
    expect(y!.dims).toEqual([traced, 5]);
    expect(y!.data).toEqual(expected!.data);
  });

  test('another batch of rows is refused', async () => {
    const build: Build = (graph, x) => {
      const apart = graph.node('Reshape', [x, ints(graph, 4, 2, 3)]);
      return graph.node('Reshape', [graph.node('ReduceSum', [apart, ints(graph, 1)]), ints(graph, 4, 3)]);
    };
    const session = await InferenceSession.create(modelBytes(graphOf([6], build)), { backend: 'reference' });
    const rows = (count: number) =>
      new Tensor(
        'float32',
        Float32Array.from({ length: 6 * count }, (_, i) => i % 6),
        [count, 6],
      );
    const [y] = Object.values(await session.run({ x: rows(4) }));
    expect([...y!.data]).toEqual(new Array(4).fill([3, 5, 7]).flat());
    await expect(session.run({ x: rows(8) })).rejects.toMatchObject({
      code: 'INVALID_SHAPE',
      message: "input 'x': expected float32[4,6], received float32[8,6]",
    });
    await session.release();
  });

  test('a shape that fits no batch is refused as before', async () => {
    const build: Build = (graph, x) => graph.node('Reshape', [x, ints(graph, 4, 5)]);
    await expect(modelOf(graphOf([6], build))).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      message: expect.stringContaining('[1,6]'),
    });
  });
});

describe('several inputs and outputs', () => {
  test('inputs with the same first axis are batched, others are shared', async () => {
    const graph = new GraphBuilder();
    const sum = graph.node('Add', [graph.input('a', ['n', 2]), graph.input('b', ['n', 2])]);
    graph.output(graph.node('Mul', [sum, graph.input('scale', [2])]), ['n', 2]);
    graph.output(graph.node('Neg', ['scale']), [2]);
    const model = await modelOf(graph);
    expect(model.batching).toBe('item');
    expect(model.inputs.map(({ batched }) => batched)).toEqual([true, true, false]);
    expect(model.outputs.map(({ batched }) => batched)).toEqual([true, false]);
    const feeds = {
      a: new Tensor('float32', [1, 2, 3, 4], [2, 2]),
      b: new Tensor('float32', [1, 1, 1, 1], [2, 2]),
      scale: new Tensor('float32', [10, 100], [2]),
    };
    const outputs = Object.values(await runOnnx(graph, feeds));
    expect(outputs.map(({ dims, data }) => [dims, [...data]])).toEqual([
      [
        [2, 2],
        [20, 300, 40, 500],
      ],
      [[2], [-10, -100]],
    ]);
  });

  test('a mask of items by items', async () => {
    const graph = new GraphBuilder();
    graph.output(graph.node('MatMul', [graph.input('m', ['n', 'n']), graph.input('x', ['n', 2])]), ['n', 2]);
    const model = await modelOf(graph);
    expect([model.batching, model.batchingReason]).toEqual(['whole', expect.stringMatching(/axis 'n'/)]);
  });
});

describe('other symbolic axes', () => {
  test('height and width of any length', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['n', 2, 'h', 'w']);
    graph.output(graph.node('GlobalAveragePool', [graph.node('Conv', [x, random(graph, 3, 2, 3, 3)])]));
    const model = await modelOf(graph);
    expect(model.batching).toBe('item');
    expect(model.outputs[0]!.shape).toEqual([
      'n',
      'GlobalAveragePool2_y.1',
      'GlobalAveragePool2_y.2',
      'GlobalAveragePool2_y.3',
    ]);
    for (const size of [3, 7]) {
      const [y] = Object.values(await runOnnx(graph, { x: randomTensor([2, 2, size, size + 1]) }));
      expect(y!.dims).toEqual([2, 3, 1, 1]);
    }
  });

  test('a model that accepts one length only is still analysed', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['n', 2, 'h', 'w']);
    const flat = graph.node('Reshape', [x, ints(graph, -1, 2 * 32 * 32)]);
    graph.output(graph.node('Gemm', [flat, random(graph, 2048, 2)]), ['n', 2]);
    expect((await modelOf(graph)).batching).toBe('item');
    // One image of 64 by 32 would be two rows.
    await expect(runOnnx(graph, { x: randomTensor([1, 2, 64, 32]) })).rejects.toMatchObject({
      code: 'INVALID_SHAPE',
      message: expect.stringMatching(/\[2,2\].*not the batch/),
    });
  });

  test('a length that does not fit is the fault of the call', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['n', 2, 'h', 'w']);
    graph.output(graph.node('Conv', [x, random(graph, 3, 2, 3, 3)]));
    const session = await InferenceSession.create(modelBytes(graph), { backend: 'reference' });
    await expect(session.run({ x: randomTensor([1, 2, 2, 2]) })).rejects.toMatchObject({
      code: 'INVALID_SHAPE',
      message: expect.stringMatching(/Conv.*window of 3/),
    });
    const outputs = await session.run({ x: randomTensor([1, 2, 3, 3]) });
    expect(Object.values(outputs)[0]!.dims).toEqual([1, 3, 1, 1]);
    await session.release();
  });
});

describe('inputs that decide by their elements', () => {
  test('a target shape that is fed', async () => {
    const graph = new GraphBuilder();
    graph.output(graph.node('Reshape', [graph.input('x', [2, 3]), graph.input('shape', [2], 'int64')]), [
      'a',
      'b',
    ]);
    const model = await modelOf(graph);
    expect(model.inputs.map(({ boundByValue }) => boundByValue)).toEqual([false, true]);
    const x = randomTensor([2, 3]);
    for (const dims of [
      [3, 2],
      [1, 6],
    ]) {
      const shape = new Tensor('int64', dims, [2]);
      expect(Object.values(await runOnnx(graph, { x, shape }))[0]!.dims).toEqual(dims);
    }
  });

  test('bounds through a computation, not through a shape', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', [4]);
    const high = graph.node('Mul', [graph.input('half', []), graph.constant(tensor(Float32Array.of(2), []))]);
    const clipped = graph.node('Clip', [x, '', high]);
    const length = graph.node('Shape', [graph.input('like', [4])]);
    graph.output(graph.node('Reshape', [clipped, length]), [4]);
    const model = await modelOf(graph);
    expect(model.inputs.map(({ name, boundByValue }) => [name, boundByValue])).toEqual([
      ['x', false],
      ['half', true],
      ['like', false],
    ]);
    const feeds = { x: new Tensor('float32', [0, 1, 2, 3], [4]), like: randomTensor([4]) };
    for (const half of [0.5, 1]) {
      const [y] = Object.values(await runOnnx(graph, { ...feeds, half: new Tensor('float32', [half], []) }));
      expect([...y!.data]).toEqual([0, 1, 2, 3].map((value) => Math.min(value, 2 * half)));
    }
  });

  test('a condition inside of a subgraph counts too', async () => {
    const inner = new GraphBuilder('inner');
    inner.output(inner.node('Expand', ['x', 'target']), [3]);
    const graph = new GraphBuilder();
    graph.input('x', [1]);
    graph.input('target', [1], 'int64');
    graph.output(
      graph.node('If', [graph.input('flag', [], 'bool')], { then_branch: inner, else_branch: inner }),
      [3],
    );
    const model = await modelOf(graph);
    expect(model.inputs.map(({ name, boundByValue }) => [name, boundByValue])).toEqual([
      ['x', false],
      ['target', true],
      ['flag', true],
    ]);
  });

  describe('branches of which only one fits', () => {
    /** Each branch takes frames of another length; its output has an empty type, as those of converted functions. */
    function branch(frame: number, factor: number): GraphBuilder {
      const graph = new GraphBuilder(`frames of ${frame}`);
      const frames = graph.node('Reshape', ['x', graph.constant(int64s(0, 2, frame))]);
      const sum = graph.node('ReduceSum', [frames, graph.constant(int64s(2))], { keepdims: 0 });
      graph.output(graph.node('Mul', [sum, graph.constant(float32s(factor))]));
      graph.proto.output[0]!.type = {};
      return graph;
    }

    function network(samples: number | string): GraphBuilder {
      const graph = new GraphBuilder();
      graph.input('x', ['n', samples]);
      const rate = graph.input('rate', [], 'int64');
      const high = graph.node('Equal', [rate, graph.constant(tensor(BigInt64Array.of(16000n), []), 'wide')]);
      const branches = { then_branch: branch(4, 1), else_branch: branch(2, 10) };
      return graph.output(graph.node('If', [high], branches), ['n', 2]);
    }

    const rate = (hertz: number) => new Tensor('int64', BigInt64Array.of(BigInt(hertz)), []);

    test.each(['native', 'reference'] as const)('the fed rate chooses: %s', async (backend) => {
      const session = await InferenceSession.create(modelBytes(network('samples')), { backend });
      for (const [hertz, samples, expected] of [
        [16000, 8, [6, 22, 38, 54]],
        [8000, 4, [10, 50, 90, 130]],
        [16000, 8, [6, 22, 38, 54]],
      ] as const) {
        const x = new Tensor(
          'float32',
          Float32Array.from({ length: 2 * samples }, (_, i) => i),
          [2, samples],
        );
        const [y] = Object.values(await session.run({ x, rate: rate(hertz) }));
        expect([...y!.data]).toEqual(expected);
      }
      const x = new Tensor('float32', new Float32Array(4), [1, 4]);
      await expect(session.run({ x, rate: rate(16000) })).rejects.toMatchObject({
        code: 'INVALID_SHAPE',
        message: expect.stringContaining('Reshape'),
      });
      await session.release();
    });

    test('fixed shapes: the value counts only where a branch does not fit', async () => {
      const bound = async (graph: GraphBuilder) =>
        (await modelOf(graph)).inputs.map(({ boundByValue }) => boundByValue);
      expect(await bound(network(8))).toEqual([false, true]);
      const same = network(8);
      const node = same.proto.node.at(-1)!;
      node.attribute = node.attribute!.map((attribute) => ({ ...attribute, g: branch(4, 3).proto }));
      expect(await bound(same)).toEqual([false, false]);
      expect((await modelOf(same)).batching).toBe('item');
    });
  });
});
