/** What reading and lowering may cost: steps, work, memory and turns of the event loop, counted. */
import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { ResidualSkipError } from 'lib/errors.js';
import { InferenceSession, Tensor } from 'lib/index.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { fold, foldCacheOf, LoweringBudget } from 'lib/model/lower/fold.js';
import type { Graph } from 'lib/model/read/graph.js';
import { range } from 'lib/numeric/shapes.js';
import { declaredBinding } from 'lib/session/feeds.js';
import { loadBinding } from 'lib/util/binding.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { modelOf, runOnnx, specializeOn } from '../../helpers/onnx-run.js';

const SHAPE = [1, 4, 6, 6];

type Link = (g: GraphBuilder, y: string, i: number) => string;

/** `count` links in a row. */
function chain(count: number, link: Link, shape: readonly number[] = SHAPE): GraphBuilder {
  const graph = new GraphBuilder();
  const x = graph.input('x', shape);
  graph.constant(tensor(new Float32Array(4 * 4 * 9).fill(0.1), [4, 4, 3, 3]), 'weight');
  graph.constant(float32s(0.5), 'half');
  graph.output(range(count).reduce((y, i) => link(graph, y, i), x));
  return graph;
}

const conv: Link = (g, y) => g.node('Conv', [y, 'weight'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });

/** How often `action` looks something up in a map: nearly every step of a pass does. */
async function lookUps(action: () => unknown): Promise<number> {
  const { get } = Map.prototype;
  let count = 0;
  // biome-ignore lint/suspicious/noExplicitAny: the prototype has no type of its own
  Map.prototype.get = function (this: Map<any, any>, key) {
    count++;
    return get.call(this, key);
  };
  try {
    await action();
  } finally {
    Map.prototype.get = get;
  }
  return count;
}

describe('passes take time in proportion to the number of steps', () => {
  test.each<[string, Link]>([
    ['sums with one value', (g, y) => g.node('Add', [y, 'x'])],
    ['functions', (g, y) => g.node('Tanh', [g.node('Neg', [y])])],
    ['readers of one value', (g, y) => g.node('Add', [y, g.node('Relu', ['x'])])],
    ['residual blocks', (g, y) => g.node('Relu', [g.node('Add', [y, conv(g, y, 0)])])],
    [
      'gated blocks',
      (g, y) => {
        const score = g.node('ReduceMean', [y], { axes: [1, 2, 3], keepdims: 1 });
        const flag = g.node('Cast', [g.node('Greater', [score, 'half'])], { to: 1 });
        return g.node('Add', [y, g.node('Mul', [flag, conv(g, y, 0)])]);
      },
    ],
  ])('%s', async (_, link) => {
    const counts: number[] = [];
    for (const length of [100, 200, 400]) {
      const model = await modelOf(chain(length, link));
      counts.push(await lookUps(() => compileModel(model, declaredBinding(model)!)));
    }
    const [first, second, third] = counts as [number, number, number];
    // Of a square, the differences would grow four times.
    expect((third - second) / (second - first)).toBeLessThan(2.5);
  });

  test('a squared value is not followed on both sides', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', SHAPE);
    const weight = graph.constant(tensor(new Float32Array(4 * 4 * 9).fill(0.1), [4, 4, 3, 3]));
    const square = range(16).reduce((y) => graph.node('Mul', [y, y]), x);
    const joined = graph.node('Concat', [square, square], { axis: 1 });
    const bounds = [int64s(0), int64s(4), int64s(1)].map((bound) => graph.constant(bound));
    const layer = graph.node('Conv', [x, weight], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
    graph.output(graph.node('Add', [graph.node('Slice', [joined, ...bounds]), layer]));
    const model = await modelOf(graph);
    expect(await lookUps(() => compileModel(model, declaredBinding(model)!))).toBeLessThan(2 ** 14);
  });

  test('constants are read once, however many steps use them', async () => {
    const size = 4099;
    const graph = new GraphBuilder();
    graph.constant(tensor(new Float32Array(size).fill(2), [1, size]), 'two');
    const y = range(50).reduce((sum) => graph.node('Add', [sum, 'two']), graph.input('x', [1, size]));
    // What may be a decision is traced, through all sums.
    graph.output(graph.node('Round', [y]));
    const model = await modelOf(graph);
    const { exports: native } = loadBinding() as { exports: { extremes(data: Float32Array): boolean } };
    const extremes = jest.spyOn(native, 'extremes');
    compileModel(model, declaredBinding(model)!);
    const scans = extremes.mock.calls.filter(([data]) => data.length === size).length;
    extremes.mockRestore();
    expect(scans).toBe(1);
  });
});

describe('constants that a file asks for', () => {
  /** A constant that `count` steps in a row change, and its greatest element. */
  function filled(elements: number, count: number): GraphBuilder {
    const graph = new GraphBuilder();
    const x = graph.input('x', [1]);
    const value = { value: float32s(0.5) };
    const large = graph.node('ConstantOfShape', [graph.constant(int64s(elements))], value);
    const changed = range(count).reduce((y) => graph.node('Neg', [y]), large);
    graph.output(graph.node('Add', [x, graph.node('ReduceMax', [changed], { keepdims: 0 })]));
    return graph;
  }

  test('are computed before a run only as long as they are few', async () => {
    const { values, ops } = specializeOn(await modelOf(filled(2 ** 21, 40)));
    const bytes = [...new Set(values.flatMap(({ data }) => data ?? []))].reduce(
      (sum, { byteLength }) => sum + byteLength,
      0,
    );
    // The file's own constants are a few bytes, and allow for a few more.
    expect(bytes).toBeLessThanOrEqual(2 ** 27 + 2 ** 10);
    // The rest is computed in each run, and to the same result.
    expect(ops.map(({ op }) => op)).toEqual(expect.arrayContaining(['binary', 'reduce']));
    const [y] = Object.values(await runOnnx(filled(2 ** 21, 40), { x: new Tensor('float32', [1], [1]) }));
    expect([...y!.data]).toEqual([1.5]);
  });

  test('are computed before a run where they are as large as the weights of a network', async () => {
    const graph = new GraphBuilder();
    const weight = (rows: number, columns: number) =>
      graph.node('Expand', [graph.constant(float32s(0.5)), graph.constant(int64s(rows, columns))]);
    const hidden = graph.node('MatMul', [graph.input('x', [1, 4096]), weight(4096, 4096)]);
    graph.output(graph.node('MatMul', [hidden, weight(4096, 1024)]));
    const { ops } = specializeOn(await modelOf(graph));
    expect(ops.map(({ op }) => op)).toEqual(['gemm', 'gemm']);
  });

  test('take 128 MiB of memory at most', async () => {
    const budget = new LoweringBudget(foldCacheOf((await modelOf(filled(1, 1))).graph));
    expect(range(3).map(() => budget.spend(0, 2 ** 26))).toEqual([true, true, false]);
  });
});

describe('refused with a reason', () => {
  const recurrent = (op: string, length: number) => {
    const graph = new GraphBuilder();
    const x = graph.input('x', [length, 1, 3]);
    const weights = [3, 4].map((columns) =>
      graph.constant(tensor(new Float32Array(4 * columns), [1, 4, columns])),
    );
    return graph.output(graph.nodes(op, [x, ...weights], { hidden_size: 4 })[0]!);
  };
  const resized = () => {
    const graph = new GraphBuilder();
    const scales = graph.constant(float32s(1, 1, 2 ** 22, 1));
    return graph.output(graph.node('Resize', [graph.input('x', SHAPE), '', scales], { mode: 'linear' }));
  };
  const masked = () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', [2 ** 31 - 1]);
    const [y, mask] = graph.nodes('Dropout', [x], {}, { outputs: ['y', 'mask'] });
    return graph.output(graph.node('Where', [mask!, y!, x]));
  };
  const summed = () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', [1]);
    return graph.output(
      graph.node(
        'Sum',
        range(100_000).map(() => x),
      ),
    );
  };
  test.each<[string, () => GraphBuilder, RegExp]>([
    ['a recurrent layer over a million positions', () => recurrent('RNN', 10 ** 6), /more steps/],
    ['an image that becomes four million times as high', resized, /too many elements/],
    ['a mask of 2^31 - 1 elements', masked, /too many elements/],
    ['a sum of 100,000 operands', summed, /more steps/],
  ])('%s', async (_, build, message) => {
    const error = await loadModel(modelBytes(build())).catch((reason) => reason);
    expect(error).toBeInstanceOf(ResidualSkipError);
    expect([error.code, error.message]).toEqual(['MODEL_INVALID', expect.stringMatching(message)]);
  });
});

test('a step may have more operands than a call has arguments', async () => {
  const graph = new GraphBuilder();
  const x = graph.input('x', [1, 1]);
  const operands = range(150_000).map(() => x);
  graph.output(graph.node('Concat', operands, { axis: 1 }), [1, operands.length]);
  const session = await InferenceSession.create(modelBytes(graph));
  await session.release();
});

test('the event loop has its turns while a session is created', async () => {
  const bytes = modelBytes(chain(6000, (g, y) => g.node('Tanh', [y])));
  let turns = 0;
  let over = false;
  const turn = () => {
    turns++;
    if (!over) setImmediate(turn);
  };
  setImmediate(turn);
  const session = await InferenceSession.create(bytes, { backend: 'reference' });
  over = true;
  await session.release();
  expect(turns).toBeGreaterThan(8);
});

test('a constant that several lowerings compute counts once, although the first of them are collected', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const constant = { dtype: 'float32', shape: [1 << 20], data: new Float32Array(1 << 20) } as const;
  const graph = { constants: new Map([['w', constant]]), nodes: [] } as unknown as Graph;
  const cache = foldCacheOf(graph);
  const budget = new LoweringBudget(cache);
  const step = { op: 'unary', attrs: { act: { kind: 'abs', alpha: 0, beta: 0 } } } as const;
  // Each takes a twentieth of the budget.
  for (let lowering = 0; lowering < 25; lowering++) {
    expect(fold(cache, budget, step, [{ name: 'w', ...constant }], [constant])).toHaveLength(1);
    await setTimeout(0);
    collect();
  }
});
