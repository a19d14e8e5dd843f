import { Tensor } from 'lib/index.js';
import type { Ir } from 'lib/model/program/ir.js';
import type { Value } from 'lib/model/program/program.js';
import type { Model } from 'lib/model/read/model.js';
import { expectClose } from '../../helpers/compare.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { allOps, modelOf, opNames, randomTensor, runOnnx, specializeOn } from '../../helpers/onnx-run.js';
import { randomFloats } from '../../helpers/random.js';
import { withSession } from '../../helpers/sessions.js';

function constantsOf(ir: Ir, op: string): (Value | undefined)[] {
  const step = allOps(ir.ops).find((candidate) => candidate.op === op)!;
  return step.inputs.map((id) => ir.values[id]).filter((value) => value?.data);
}

function initialiser(model: Model, name: string) {
  return model.graph.constants.get(name)!.data;
}

/** What one output of a graph without run-time steps is. */
async function constantOutput(graph: GraphBuilder, opset?: number) {
  const ir = specializeOn(await modelOf(graph, opset));
  expect(ir.ops).toEqual([]);
  const { shape, data } = ir.values[ir.outputs[0]!.value]!;
  return { shape, data: Array.from(data!, Number) };
}

/** A graph over an input of shape [1, 3, 8, 6] whose output comes from shapes and constants alone. */
function shapeGraph(build: (graph: GraphBuilder, x: string) => string, type: 'int64' | 'float32' = 'int64') {
  const graph = new GraphBuilder();
  const x = graph.input('x', [1, 3, 8, 6]);
  return graph.output(build(graph, x), undefined, type);
}

describe('arithmetic on shapes leaves no step', () => {
  const ints = (graph: GraphBuilder, ...values: number[]) => graph.constant(int64s(...values));
  const shapeOf = (graph: GraphBuilder, x: string) => graph.node('Shape', [x]);
  const height = (graph: GraphBuilder, x: string) =>
    graph.node('Gather', [shapeOf(graph, x), graph.constant(tensor(BigInt64Array.of(2n), []))], { axis: 0 });

  test.each<[string, (graph: GraphBuilder, x: string) => string, readonly number[], readonly number[]]>([
    ['Shape', shapeOf, [4], [1, 3, 8, 6]],
    ['Shape of a part', (graph, x) => graph.node('Shape', [x], { start: -3, end: -1 }), [2], [3, 8]],
    ['Size', (graph, x) => graph.node('Size', [x]), [], [144]],
    ['Gather', height, [], [8]],
    ['Unsqueeze', (graph, x) => graph.node('Unsqueeze', [height(graph, x), ints(graph, 0)]), [1], [8]],
    [
      'Concat',
      (graph, x) => graph.node('Concat', [shapeOf(graph, x), ints(graph, 5)], { axis: 0 }),
      [5],
      [1, 3, 8, 6, 5],
    ],
    [
      'Slice',
      (graph, x) => graph.node('Slice', [shapeOf(graph, x), ints(graph, 2), ints(graph, 2 ** 40)]),
      [2],
      [8, 6],
    ],
    [
      'Slice backwards',
      (graph, x) =>
        graph.node('Slice', [
          shapeOf(graph, x),
          ints(graph, -1),
          ints(graph, -(2 ** 40)),
          ints(graph, 0),
          ints(graph, -2),
        ]),
      [2],
      [6, 3],
    ],
    [
      'Reshape',
      (graph, x) => graph.node('Reshape', [shapeOf(graph, x), ints(graph, 2, -1)]),
      [2, 2],
      [1, 3, 8, 6],
    ],
    ['Squeeze', (graph, x) => graph.node('Squeeze', [graph.node('Shape', [x], { end: 1 })]), [], [1]],
    [
      'Cast, Div and back',
      (graph, x) => {
        const half = graph.node('Div', [
          graph.node('Cast', [height(graph, x)], { to: 1 }),
          graph.constant(float32s(3)),
        ]);
        return graph.node('Cast', [half], { to: 7 });
      },
      [1],
      [2],
    ],
    [
      'Mul, Sub and Add',
      (graph, x) => {
        const product = graph.node('Mul', [height(graph, x), ints(graph, 3, -2)]);
        return graph.node('Add', [graph.node('Sub', [product, ints(graph, 1)]), ints(graph, 10)]);
      },
      [2],
      [33, -7],
    ],
    ['Div of integers', (graph) => graph.node('Div', [ints(graph, 7, -7), ints(graph, 2)]), [2], [3, -3]],
    [
      'ConstantOfShape',
      (graph) => graph.node('ConstantOfShape', [ints(graph, 2, 2)], { value: int64s(7) }),
      [2, 2],
      [7, 7, 7, 7],
    ],
    [
      'Expand',
      (graph, x) =>
        graph.node('Expand', [graph.node('Unsqueeze', [height(graph, x), ints(graph, 0)]), ints(graph, 3)]),
      [3],
      [8, 8, 8],
    ],
    [
      'Range',
      (graph, x) => {
        const scalar = (value: number) => graph.constant(tensor(BigInt64Array.of(BigInt(value)), []));
        return graph.node('Range', [scalar(1), height(graph, x), scalar(3)]);
      },
      [3],
      [1, 4, 7],
    ],
    [
      'Where and Equal',
      (graph, x) => {
        const odd = graph.node('Equal', [shapeOf(graph, x), ints(graph, 8)]);
        return graph.node('Where', [odd, ints(graph, -1), shapeOf(graph, x)]);
      },
      [4],
      [1, 3, -1, 6],
    ],
    [
      'an If whose condition is known',
      (graph, x) => {
        const [large, small] = [new GraphBuilder('large'), new GraphBuilder('small')];
        large.output(large.node('Identity', ['one']), [1], 'int64');
        small.output(small.node('Identity', ['two']), [1], 'int64');
        graph.constant(int64s(1), 'one');
        graph.constant(int64s(2), 'two');
        const wide = graph.node('Greater', [
          height(graph, x),
          graph.constant(tensor(BigInt64Array.of(7n), [])),
        ]);
        return graph.node('If', [wide], { then_branch: large, else_branch: small });
      },
      [1],
      [1],
    ],
  ])('%s', async (_, build, shape, data) => {
    expect(await constantOutput(shapeGraph(build))).toEqual({ shape, data });
  });

  test('the clutter of a flatten by hand becomes one reshape', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['n', 3, 8, 6]);
    const batch = graph.node('Unsqueeze', [
      graph.node('Gather', [graph.node('Shape', [x]), graph.constant(tensor(BigInt64Array.of(0n), []))], {
        axis: 0,
      }),
      graph.constant(int64s(0)),
    ]);
    const target = graph.node('Concat', [batch, graph.constant(int64s(-1))], { axis: 0 });
    graph.output(graph.node('Reshape', [x, target]), ['n', 144]);
    const model = await modelOf(graph);
    expect(model.batching).toBe('item');
    expect(opNames(specializeOn(model))).toEqual(['reshape']);
  });
});

describe('what changes nothing is dropped', () => {
  test.each<[string, (graph: GraphBuilder, x: string) => string]>([
    ['Identity', (graph, x) => graph.node('Identity', [x])],
    ['Dropout', (graph, x) => graph.node('Dropout', [x, graph.constant(tensor(Float32Array.of(0.5), []))])],
    ['Reshape to its own shape', (graph, x) => graph.node('Reshape', [x, graph.constant(int64s(0, -1, 6))])],
    ['Transpose in place', (graph, x) => graph.node('Transpose', [x], { perm: [0, 1, 2] })],
    ['Cast to its own type', (graph, x) => graph.node('Cast', [x], { to: 1 })],
    ['Cast to a half', (graph, x) => graph.node('Cast', [x], { to: 10 })],
    ['Expand to its own shape', (graph, x) => graph.node('Expand', [x, graph.constant(int64s(8, 1))])],
    ['Pad by nothing', (graph, x) => graph.node('Pad', [x, graph.constant(int64s(0, 0, 0, 0, 0, 0))])],
    [
      'Slice of everything',
      (graph, x) => graph.node('Slice', [x, graph.constant(int64s(0)), graph.constant(int64s(999))]),
    ],
    ['Concat of one', (graph, x) => graph.node('Concat', [x], { axis: 1 })],
    ['Sum of one', (graph, x) => graph.node('Sum', [x])],
    ['ReduceMean over nothing', (graph, x) => graph.node('ReduceMean', [x], { noop_with_empty_axes: 1 })],
  ])('%s', async (_, build) => {
    const graph = new GraphBuilder();
    const y = build(graph, graph.input('x', ['n', 8, 6]));
    graph.output(graph.node('Relu', [y]), ['n', 8, 6]);
    expect(opNames(specializeOn(await modelOf(graph)))).toEqual(['unary']);
  });

  test('steps that no output needs', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['n', 8]);
    graph.node('Tanh', [graph.node('Sigmoid', [x])]);
    graph.output(graph.node('Relu', [x]), ['n', 8]);
    expect(opNames(specializeOn(await modelOf(graph)))).toEqual(['unary']);
  });
});

describe('weights keep their identity', () => {
  test('an initialiser is never copied; a reshaped one shares its array', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['n', 2, 'h', 'w']);
    const flat = graph.constant(tensor(randomFloats(3 * 2 * 9, 1)), 'weight');
    const weight = graph.node('Reshape', [flat, graph.constant(int64s(3, 2, 3, 3))]);
    graph.output(graph.node('Conv', [x, weight]), ['n', 3, 'a', 'b']);
    const model = await modelOf(graph);
    const [first] = constantsOf(specializeOn(model, [1, 2, 8, 8]), 'conv');
    const [second] = constantsOf(specializeOn(model, [1, 2, 9, 5]), 'conv');
    expect(first!.data).toBe(initialiser(model, 'weight'));
    expect(second!.data).toBe(first!.data);
    expect(first!.shape).toEqual([3, 2, 3, 3]);
  });

  test.each<[string, string, (graph: GraphBuilder, x: string) => string]>([
    [
      'a transposed weight',
      'gemm',
      (graph, x) => {
        const weight = graph.constant(tensor(randomFloats(12, 1), [4, 3]));
        return graph.node('MatMul', [x, graph.node('Transpose', [weight], { perm: [1, 0] })]);
      },
    ],
    [
      'a scaled weight',
      'gemm',
      (graph, x) =>
        graph.node('Gemm', [x, graph.constant(tensor(randomFloats(12, 1), [3, 4]))], { alpha: 0.5 }),
    ],
    [
      'a normalisation',
      'affine',
      (graph, x) => {
        const parameters = [1, 2, 3, 4].map((seed) => {
          return graph.constant(tensor(randomFloats(3, seed).map((value) => value * value)));
        });
        return graph.node('BatchNormalization', [x, ...parameters]);
      },
    ],
  ])('%s is computed once for all specialisations', async (_, op, build) => {
    const graph = new GraphBuilder();
    graph.output(build(graph, graph.input('x', ['n', 3])));
    const model = await modelOf(graph);
    const [first, second] = [constantsOf(specializeOn(model), op), constantsOf(specializeOn(model), op)];
    expect(first.length).toBeGreaterThan(0);
    for (const [i, value] of first.entries()) expect(second[i]!.data).toBe(value!.data);
  });

  test('equal steps on different weights stay different', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['n', 3]);
    const product = (seed: number) => {
      const weight = graph.constant(tensor(randomFloats(9, seed), [3, 3]));
      return graph.node('MatMul', [x, graph.node('Transpose', [weight])]);
    };
    graph.output(graph.node('Sub', [product(1), product(2)]));
    const feeds = { x: randomTensor([1, 3]) };
    const [difference] = Object.values(await runOnnx(graph, feeds));
    expect(difference!.data.some((value) => Math.abs(Number(value)) > 0.01)).toBe(true);
  });

  test('half weights become float32', async () => {
    const graph = new GraphBuilder();
    const halves = tensor(new Uint8Array(Uint16Array.of(0x3c00, 0xc000, 0x3800).buffer), [3], 'float16');
    graph.output(graph.node('Mul', [graph.input('x', ['n', 3]), graph.constant(halves)]));
    const [y] = Object.values(await runOnnx(graph, { x: randomTensor([1, 3]) }));
    const expected = [...(randomTensor([1, 3]).data as Float32Array)].map(
      (value, i) => value * [1, -2, 0.5][i]!,
    );
    expect([...y!.data]).toEqual(expected);
  });
});

test('a normalisation is folded in double', async () => {
  const graph = new GraphBuilder();
  const [gamma, beta, mean, variance] = [[1.7], [0.3], [12345.678], [3e-7]].map((values) =>
    float32s(...values),
  );
  const names = [gamma!, beta!, mean!, variance!].map((value) => graph.constant(value));
  graph.output(
    graph.node('BatchNormalization', [graph.input('x', ['n', 1, 2]), ...names], { epsilon: 1e-5 }),
  );
  const [scale, shift] = constantsOf(specializeOn(await modelOf(graph)), 'affine');
  const exact = Math.fround(1.7) / Math.sqrt(Math.fround(3e-7) + Math.fround(1e-5));
  expect(scale!.data![0]).toBe(Math.fround(exact));
  expect(shift!.data![0]).toBe(Math.fround(Math.fround(0.3) - Math.fround(12345.678) * exact));
});

describe('a normalisation by channels', () => {
  const [gamma, beta, mean, variance] = [
    [2, -0.5, 1.5],
    [0.25, 1, -3],
    [0.5, -1, 4],
    [4, 0.25, 9],
  ] as const;
  const expected = (x: readonly number[]) =>
    x.map((value, i) => {
      const c = Math.floor(i / 2) % 3;
      return ((value - mean[c]!) / Math.sqrt(variance[c]! + 1e-5)) * gamma[c]! + beta[c]!;
    });
  const x = randomTensor([2, 3, 2]);
  const feeds = { x };

  test.each(['native', 'reference'] as const)('whose parameters are fed: %s', async (backend) => {
    const graph = new GraphBuilder();
    const parameters = ['gamma', 'beta', 'mean', 'variance'];
    const names = parameters.map((name) => graph.input(name, [3]));
    graph.output(graph.node('BatchNormalization', [graph.input('x', [2, 3, 2]), ...names]));
    const vectors = [gamma, beta, mean, variance].map((values) => new Tensor('float32', [...values], [3]));
    const all = { ...feeds, ...Object.fromEntries(parameters.map((name, i) => [name, vectors[i]!])) };
    await withSession(modelBytes(graph), { backend }, async (session) => {
      const [y] = Object.values(await session.run(all));
      expectClose(y!.data as Float32Array, expected([...(x.data as Float32Array)]), {
        absolute: 1e-6,
        relative: 1e-6,
      });
    });
  });

  test('whose scale is kept in bytes', async () => {
    const graph = new GraphBuilder();
    const bytes = graph.constant(tensor(Int8Array.of(4, -1, 3)));
    const scale = graph.node('DequantizeLinear', [bytes, graph.constant(tensor(Float32Array.of(0.5), []))]);
    const rest = [beta, mean, variance].map((values) => graph.constant(float32s(...values)));
    graph.output(graph.node('BatchNormalization', [graph.input('x', ['n', 3, 2]), scale, ...rest]));
    expect(opNames(specializeOn(await modelOf(graph)))).toEqual(['affine']);
    const [y] = Object.values(await runOnnx(graph, feeds));
    expectClose(y!.data as Float32Array, expected([...(x.data as Float32Array)]), {
      absolute: 1e-6,
      relative: 1e-6,
    });
  });
});
