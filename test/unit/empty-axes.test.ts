import { InferenceSession, Tensor } from 'lib/index.js';
import { expectClose } from '../helpers/compare.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../helpers/onnx-builder.js';
import { randomTensor } from '../helpers/onnx-run.js';
import { randomFloats } from '../helpers/random.js';
import { withSession } from '../helpers/sessions.js';

const WIDTH = 8;
const weights = (graph: GraphBuilder, seed: number, ...shape: number[]) =>
  graph.constant(
    tensor(
      randomFloats(
        shape.reduce((a, b) => a * b, 1),
        seed,
      ),
      shape,
    ),
  );
const empty = (...dims: number[]) => new Tensor('float32', new Float32Array(0), dims);

/** A layer of a decoder: the keys and values of earlier tokens are fed, and those of all tokens returned. */
function cachedLayer(): Uint8Array {
  const graph = new GraphBuilder();
  const x = graph.input('x', ['n', 'new', WIDTH]);
  const past = [graph.input('keys', ['n', 'past', WIDTH]), graph.input('values', ['n', 'past', WIDTH])];
  const project = (seed: number) => graph.node('MatMul', [x, weights(graph, seed, WIDTH, WIDTH)]);
  const [keys, values] = past.map((before, i) =>
    graph.nodes('Concat', [before, project(2 + i)], { axis: 1 }, { outputs: [['allKeys', 'allValues'][i]!] }),
  );
  const scores = graph.node('MatMul', [project(1), graph.node('Transpose', [...keys!], { perm: [0, 2, 1] })]);
  const attended = graph.node('MatMul', [graph.node('Softmax', [scores], { axis: 2 }), ...values!]);
  graph.nodes('Add', [x, attended], {}, { outputs: ['y'] });
  return modelBytes(graph.output('y').output('allKeys').output('allValues'));
}

describe.each(['native', 'reference'] as const)('an axis of length 0 on %s', (backend) => {
  test('the first step of a decoder has no past', async () => {
    await withSession(cachedLayer(), { backend }, async (session) => {
      const x = randomTensor([2, 3, WIDTH], 7);
      const none = empty(2, 0, WIDTH);
      const together = await session.run({ x, keys: none, values: none });
      expect(together.allKeys!.dims).toEqual([2, 3, WIDTH]);
      // The last token alone, over the past that the first two leave behind, has the same answer.
      const part = (from: number, to: number) => {
        const rows = [0, 1].flatMap((item) => [
          ...x.data.subarray((item * 3 + from) * WIDTH, (item * 3 + to) * WIDTH),
        ]) as number[];
        return new Tensor('float32', rows, [2, to - from, WIDTH]);
      };
      const first = await session.run({ x: part(0, 2), keys: none, values: none });
      const second = await session.run({ x: part(2, 3), keys: first.allKeys!, values: first.allValues! });
      const last = [0, 1].flatMap((item) => [
        ...(together.y!.data.subarray((item * 3 + 2) * WIDTH, (item + 1) * 3 * WIDTH) as Float32Array),
      ]);
      expectClose(second.y!.data as Float32Array, last, { absolute: 1e-6, relative: 1e-5 });
    });
  });

  type Case = readonly [
    name: string,
    inputs: readonly (readonly number[])[],
    build: (graph: GraphBuilder, ...inputs: string[]) => readonly string[],
    expected: readonly (readonly [dims: readonly number[], data: readonly number[]])[],
  ];
  const zeros = (count: number) => new Array<number>(count).fill(0);
  const cases: readonly Case[] = [
    [
      'a sum of nothing',
      [[2, 0, 3]],
      (g, x) => [g.node('ReduceSum', [x, g.constant(int64s(1))])],
      [[[2, 1, 3], zeros(6)]],
    ],
    [
      'a mean of nothing',
      [[2, 0, 3]],
      (g, x) => [g.node('ReduceMean', [x], { axes: [1] })],
      [[[2, 1, 3], zeros(6)]],
    ],
    [
      'a norm of nothing',
      [[2, 3, 0]],
      (g, x) => [g.node('ReduceLogSumExp', [x], { axes: [1], keepdims: 0 })],
      [[[2, 0], []]],
    ],
    [
      'a product over nothing',
      [
        [2, 4, 0],
        [2, 0, 3],
      ],
      (g, x, y) => [g.node('MatMul', [x!, y!])],
      [[[2, 4, 3], zeros(24)]],
    ],
    [
      'a product over nothing, and a bias',
      [[2, 4, 0]],
      (g, x) => [g.node('Add', [g.node('MatMul', [x, weights(g, 1, 0, 2)]), g.constant(float32s(1, 2))])],
      [[[2, 4, 2], new Array(8).fill([1, 2]).flat()]],
    ],
    ['a softmax', [[2, 0, 3]], (g, x) => [g.node('Softmax', [x], { axis: 1 })], [[[2, 0, 3], []]]],
    [
      'labels summed and kept',
      [
        [2, 0, 3],
        [2, 4, 3],
      ],
      (g, x, y) => [g.node('Einsum', [x!, y!], { equation: 'bic,bjc->bij' })],
      [[[2, 0, 4], []]],
    ],
    [
      'labels summed over nothing',
      [
        [2, 3, 0],
        [2, 4, 0],
      ],
      (g, x, y) => [g.node('Einsum', [x!, y!], { equation: 'bic,bjc->bij' })],
      [[[2, 3, 4], zeros(24)]],
    ],
    [
      'an image enlarged',
      [[2, 3, 0, 4]],
      (g, x) => [g.node('Resize', [x, '', g.constant(float32s(1, 1, 2, 2))], { mode: 'linear' })],
      [[[2, 3, 0, 8], []]],
    ],
    ['a flattened image', [[2, 3, 0, 4]], (g, x) => [g.node('Flatten', [x])], [[[2, 0], []]]],
    [
      'a residual block',
      [[2, 0, 4]],
      (g, x) => [g.node('Relu', [g.node('Add', [x, g.node('MatMul', [x, weights(g, 1, 4, 4)])])])],
      [[[2, 0, 4], []]],
    ],
  ];
  test.each(cases)('%s', async (_, shapes, build, expected) => {
    // An open batch runs item by item; a batch fixed to two is cut out of a graph for both.
    for (const batch of ['n', 2]) {
      const graph = new GraphBuilder();
      const inputs = shapes.map((shape, i) =>
        graph.input(`x${i}`, [batch, ...shape.slice(1).map((length, axis) => length || `open${i}.${axis}`)]),
      );
      const outputs = build(graph, ...inputs);
      for (const name of outputs) graph.output(name);
      const session = await InferenceSession.create(modelBytes(graph), { backend });
      const feeds = shapes.map((shape, i) => [
        `x${i}`,
        shape.includes(0) ? empty(...shape) : randomTensor(shape, i),
      ]);
      const results = await session.run(Object.fromEntries(feeds));
      for (const [i, [dims, data]] of expected.entries()) {
        expect(results[outputs[i]!]).toMatchObject({ dims, data: Float32Array.from(data) });
      }
      await session.release();
    }
  });

  test.each(['LSTM', 'GRU'])('an %s over no positions keeps its state', async (operator) => {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['length', 2, 3]);
    const rows = { LSTM: 4, GRU: 3 }[operator]! * WIDTH;
    const state = graph.input('h', [1, 2, WIDTH]);
    const operands = [x, weights(graph, 1, 1, rows, 3), weights(graph, 2, 1, rows, WIDTH), '', '', state];
    graph.nodes(operator, operands, { hidden_size: WIDTH }, { outputs: ['all', 'last'] });
    const h = randomTensor([1, 2, WIDTH]);
    await withSession(modelBytes(graph.output('all').output('last')), { backend }, async (session) => {
      const { all, last } = await session.run({ x: empty(0, 2, 3), h });
      expect(all!.dims).toEqual([0, 1, 2, WIDTH]);
      expect(last).toMatchObject({ dims: [1, 2, WIDTH], data: h.data });
    });
  });

  test('a batch of no items is refused', async () => {
    const graph = new GraphBuilder();
    graph.output(graph.node('Relu', [graph.input('x', ['n', 3])]));
    await withSession(modelBytes(graph), { backend }, async (session) => {
      await expect(session.run({ x: empty(0, 3) })).rejects.toMatchObject({ code: 'INVALID_SHAPE' });
    });
  });
});
