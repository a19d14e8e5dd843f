import { Tensor } from 'lib/index.js';
import {
  float,
  float32s,
  floats,
  GraphBuilder,
  int64s,
  strings,
  tensor,
} from '../../helpers/onnx-builder.js';
import { countingTensor, modelOf, opNames, runOnnx, specializeOn } from '../../helpers/onnx-run.js';

/** Runs one node on a float32 input `x` of the given shape that counts up, and returns its output. */
async function compute(
  shape: readonly number[],
  opset: number,
  build: (graph: GraphBuilder) => string,
): Promise<{ dims: readonly number[]; data: number[] }> {
  const graph = new GraphBuilder();
  graph.input('x', shape);
  graph.output(build(graph));
  const [y] = Object.values(await runOnnx(graph, { x: countingTensor(shape) }, opset));
  return { dims: y!.dims, data: Array.from(y!.data as Iterable<number | bigint>, Number) };
}

const scalar = (graph: GraphBuilder, value: number) => graph.constant(tensor(Float32Array.of(value), []));

describe('attributes that became inputs mean the same', () => {
  type Build = (graph: GraphBuilder) => string;
  test.each<
    [string, readonly number[], [number, Build], [number, Build], readonly number[], readonly number[]]
  >([
    [
      'Clip',
      [4],
      [10, (graph) => graph.node('Clip', ['x'], { min: float(1), max: float(2) })],
      [13, (graph) => graph.node('Clip', ['x', scalar(graph, 1), scalar(graph, 2)])],
      [4],
      [1, 1, 2, 2],
    ],
    [
      'Clip from below',
      [4],
      [6, (graph) => graph.node('Clip', ['x'], { min: float(2) })],
      [11, (graph) => graph.node('Clip', ['x', scalar(graph, 2)])],
      [4],
      [2, 2, 2, 3],
    ],
    [
      'Clip from above',
      [4],
      [6, (graph) => graph.node('Clip', ['x'], { max: float(1) })],
      [12, (graph) => graph.node('Clip', ['x', '', scalar(graph, 1)])],
      [4],
      [0, 1, 1, 1],
    ],
    [
      'Slice',
      [3, 3],
      [9, (graph) => graph.node('Slice', ['x'], { starts: [1], ends: [9], axes: [-1] })],
      [
        10,
        (graph) =>
          graph.node('Slice', [
            'x',
            graph.constant(int64s(1)),
            graph.constant(int64s(9)),
            graph.constant(int64s(-1)),
          ]),
      ],
      [3, 2],
      [1, 2, 4, 5, 7, 8],
    ],
    [
      'Pad',
      [2, 1],
      [10, (graph) => graph.node('Pad', ['x'], { pads: [0, 1, 1, 0], value: float(7) })],
      [11, (graph) => graph.node('Pad', ['x', graph.constant(int64s(0, 1, 1, 0)), scalar(graph, 7)])],
      [3, 2],
      [7, 0, 7, 1, 7, 7],
    ],
    [
      'Squeeze',
      [1, 2, 1],
      [12, (graph) => graph.node('Squeeze', ['x'], { axes: [-1] })],
      [13, (graph) => graph.node('Squeeze', ['x', graph.constant(int64s(-1))])],
      [1, 2],
      [0, 1],
    ],
    [
      'Squeeze of all',
      [1, 2, 1],
      [12, (graph) => graph.node('Squeeze', ['x'])],
      [13, (graph) => graph.node('Squeeze', ['x'])],
      [2],
      [0, 1],
    ],
    [
      'Unsqueeze',
      [2],
      [12, (graph) => graph.node('Unsqueeze', ['x'], { axes: [2, 0] })],
      [13, (graph) => graph.node('Unsqueeze', ['x', graph.constant(int64s(-1, 0))])],
      [1, 2, 1],
      [0, 1],
    ],
    [
      'ReduceMean',
      [2, 2],
      [17, (graph) => graph.node('ReduceMean', ['x'], { axes: [0], keepdims: 0 })],
      [18, (graph) => graph.node('ReduceMean', ['x', graph.constant(int64s(-2))], { keepdims: 0 })],
      [2],
      [1, 2],
    ],
    [
      'Split',
      [1, 4],
      [
        12,
        (graph) => {
          const attributes = { axis: 1, split: [1, 3] };
          return graph.nodes('Split', ['x'], attributes, { outputs: ['a', 'b'] })[1]!;
        },
      ],
      [
        13,
        (graph) => {
          const operands = ['x', graph.constant(int64s(1, 3))];
          return graph.nodes('Split', operands, { axis: 1 }, { outputs: ['a', 'b'] })[1]!;
        },
      ],
      [1, 3],
      [1, 2, 3],
    ],
    [
      'Dropout',
      [2],
      [7, (graph) => graph.node('Dropout', ['x'], { ratio: 0.5 })],
      [13, (graph) => graph.node('Dropout', ['x', scalar(graph, 0.5)])],
      [2],
      [0, 1],
    ],
  ])('%s', async (_, shape, [oldOpset, older], [newOpset, newer], dims, data) => {
    expect(await compute(shape, oldOpset, older)).toEqual({ dims, data });
    expect(await compute(shape, newOpset, newer)).toEqual({ dims, data });
  });
});

describe('operators that changed', () => {
  test('Softmax took the axes from its axis on as one up to opset 12', async () => {
    const old = await compute([1, 2, 2], 12, (graph) => graph.node('Softmax', ['x']));
    const sum = [0, 1, 2, 3].reduce((total, value) => total + Math.exp(value), 0);
    for (const [i, value] of old.data.entries()) expect(value).toBeCloseTo(Math.exp(i) / sum, 6);
    const current = await compute([1, 2, 2], 13, (graph) => graph.node('Softmax', ['x']));
    const pair = 1 + Math.E;
    for (const [i, value] of current.data.entries())
      expect(value).toBeCloseTo((i % 2 ? Math.E : 1) / pair, 6);
    expect(old.dims).toEqual([1, 2, 2]);
  });

  test('LogSoftmax likewise, of one axis and at the last axis', async () => {
    for (const [shape, attributes] of [
      [[1, 3], {}],
      [[3], { axis: 0 }],
    ] as const) {
      const { data } = await compute(shape, 11, (graph) => graph.node('LogSoftmax', ['x'], attributes));
      const log = Math.log(1 + Math.E + Math.E ** 2);
      for (const [i, value] of data.entries()) expect(value).toBeCloseTo(i - log, 5);
    }
  });

  test('opset 6 lays the second operand over the first from its axis on', async () => {
    const sum = (attributes: Record<string, number>) =>
      compute([2, 2, 2], 6, (graph) =>
        graph.node('Add', ['x', graph.constant(float32s(10, 20))], attributes),
      );
    expect((await sum({ broadcast: 1, axis: 1 })).data).toEqual([10, 11, 22, 23, 14, 15, 26, 27]);
    expect((await sum({ broadcast: 1, axis: 0 })).data).toEqual([10, 11, 12, 13, 24, 25, 26, 27]);
    expect((await sum({ broadcast: 1 })).data).toEqual([10, 21, 12, 23, 14, 25, 16, 27]);
  });

  test('Reshape copies a length for 0 unless zeros are allowed', async () => {
    const reshape = (attributes: Record<string, number>, ...target: number[]) =>
      compute([2, 3], 14, (graph) =>
        graph.node('Reshape', ['x', graph.constant(int64s(...target))], attributes),
      );
    expect((await reshape({}, 0, -1)).dims).toEqual([2, 3]);
    expect((await reshape({}, -1, 3, 1)).dims).toEqual([2, 3, 1]);
    await expect(reshape({ allowzero: 1 }, 0, 3)).rejects.toMatchObject({ code: 'MODEL_INVALID' });
    await expect(reshape({}, -1, 4)).rejects.toThrow(/\[2,3\].*\[-1,4\]/);
  });

  test('Shape takes a part of the shape from opset 15 on', async () => {
    const { data } = await compute([2, 3, 4], 15, (graph) =>
      graph.node('Add', [graph.node('Shape', ['x'], { start: -2 }), graph.constant(int64s(0))]),
    );
    expect(data).toEqual([3, 4]);
  });

  // ONNX's tests have no case of it.
  test('LpNormalization divides by the norm along an axis, and leaves zeros', async () => {
    const normalized = async (attributes: Record<string, number>) =>
      (await compute([2, 2], 22, (graph) => graph.node('LpNormalization', ['x'], attributes))).data;
    const close = (found: number[], expected: number[]) => {
      for (const [i, value] of expected.entries()) expect(found[i]).toBeCloseTo(value, 6);
    };
    close(await normalized({}), [0, 1, 2 / Math.sqrt(13), 3 / Math.sqrt(13)]);
    close(await normalized({ p: 1, axis: 0 }), [0, 1 / 4, 1, 3 / 4]);
    close((await compute([1, 1], 22, (graph) => graph.node('LpNormalization', ['x']))).data, [0]);
    await expect(normalized({ p: 3 })).rejects.toMatchObject({ code: 'MODEL_INVALID' });
  });

  // 3 / 0.6 is 5 in float32 and just below it with more digits; 10 * 2.3 is 23 in float32.
  test('Resize computes places and lengths in float32, as its scales are', async () => {
    const resized = (scale: number, attributes: Record<string, string>) =>
      compute([1, 1, 1, 10], 13, (graph) =>
        graph.node('Resize', ['x', '', graph.constant(float32s(1, 1, 1, scale))], attributes),
      );
    const floor = { nearest_mode: 'floor', coordinate_transformation_mode: 'asymmetric' };
    expect((await resized(0.6, floor)).data).toEqual([0, 1, 3, 5, 6, 8]);
    expect((await resized(1.7, floor)).data).toEqual([0, 0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 7, 8, 8, 9]);
    const half = await resized(2.3, {});
    expect(half.dims).toEqual([1, 1, 1, 23]);
    // The middle lies between 4 and 5, and is the lower one.
    expect(half.data[11]).toBe(4);
  });

  test('Slice with a negative step starts inside its axis', async () => {
    const sliced = (start: number, end: number) =>
      compute([3], 13, (graph) =>
        graph.node('Slice', ['x', ...[start, end, 0, -1].map((bound) => graph.constant(int64s(bound)))]),
      );
    expect((await sliced(-7, -9)).data).toEqual([0]);
    expect((await sliced(9, -9)).data).toEqual([2, 1, 0]);
    expect((await sliced(-3, -3)).data).toEqual([]);
  });

  test("activations of a recurrent layer take only the numbers that they have, in the functions' order", async () => {
    const ran = async (activations: string[], attributes: Record<string, ReturnType<typeof floats>>) => {
      const { data } = await compute([1, 1, 1], 14, (graph) => {
        const ones = graph.constant(tensor(Float32Array.of(1, 1), [2, 1, 1]));
        const x = graph.node('Sub', ['x', graph.constant(float32s(2))]);
        return graph.node('RNN', [x, ones, ones], {
          ...{ activations: strings(...activations), direction: 'bidirectional', hidden_size: 1 },
          ...attributes,
        });
      });
      return data;
    };
    expect(await ran(['Relu', 'LeakyRelu'], { activation_alpha: floats(0.5) })).toEqual([0, -1]);
    const two = { activation_alpha: floats(2, 0.5), activation_beta: floats(3, 1) };
    expect(await ran(['Affine', 'HardSigmoid'], two)).toEqual([-1, 0]);
    expect(await ran(['Affine', 'Relu'], {})).toEqual([-2, 0]);
  });

  test('TopK compares integers with all of their bits', async () => {
    const graph = new GraphBuilder();
    const k = graph.constant(int64s(2));
    const outputs = graph.nodes('TopK', [graph.input('x', [3], 'int64'), k], {}, { outputs: ['y', 'at'] });
    for (const name of outputs) graph.output(name, [2], 'int64');
    const x = new Tensor('int64', BigInt64Array.of(2n ** 53n, -(2n ** 63n), 2n ** 53n + 1n), [3]);
    const { y, at } = await runOnnx(graph, { x }, 13);
    expect([...y!.data]).toEqual([2n ** 53n + 1n, 2n ** 53n]);
    expect([...at!.data]).toEqual([2n, 0n]);
  });

  test('a node that is written as another opset has it is refused', async () => {
    const mean = (opset: number, inputs: string[], attributes: Record<string, number[]>) =>
      compute([1, 2], opset, (graph) => {
        graph.constant(int64s(1), 'axes');
        return graph.node('ReduceMean', inputs, attributes);
      });
    await expect(mean(18, ['x'], { axes: [1] })).rejects.toThrow(/opset 18 its 'axes' is an input/);
    await expect(mean(13, ['x', 'axes'], {})).rejects.toThrow(/opset 13 its 'axes' are attributes/);
    expect((await mean(13, ['x'], { axes: [1] })).data).toEqual([0.5]);
    expect((await mean(18, ['x', 'axes'], {})).data).toEqual([0.5]);
  });

  test('Clip and comparisons of integers', async () => {
    const graph = new GraphBuilder();
    const [low, high] = [-1, 2].map((value) => graph.constant(tensor(BigInt64Array.of(BigInt(value)), [])));
    graph.output(graph.node('Clip', [graph.input('x', [4], 'int64'), low!, high!]), [4], 'int64');
    const x = new Tensor('int64', BigInt64Array.of(-5n, -1n, 1n, 7n), [4]);
    const [y] = Object.values(await runOnnx(graph, { x }, 13));
    expect([...y!.data]).toEqual([-1n, -1n, 1n, 2n]);
  });
});

describe('windows', () => {
  const ones = (graph: GraphBuilder, ...shape: number[]) =>
    graph.constant(tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(1), shape));
  const conv = (length: number, attributes: Record<string, number | string | number[]>, kernel = 3) =>
    compute([1, 1, length], 17, (graph) => graph.node('Conv', ['x', ones(graph, 1, 1, kernel)], attributes));

  test.each<[string, number, Record<string, number | string | number[]>, number, readonly number[]]>([
    ['SAME_UPPER', 5, { auto_pad: 'SAME_UPPER' }, 3, [1, 3, 6, 9, 7]],
    ['SAME_UPPER pads more at the end', 4, { auto_pad: 'SAME_UPPER', strides: [2] }, 3, [3, 5]],
    ['SAME_LOWER pads more at the begin', 4, { auto_pad: 'SAME_LOWER', strides: [2] }, 3, [1, 6]],
    ['SAME with a stride beyond the kernel', 5, { auto_pad: 'SAME_UPPER', strides: [4] }, 1, [0, 4]],
    ['VALID', 5, { auto_pad: 'VALID' }, 3, [3, 6, 9]],
    ['explicit pads', 3, { pads: [2, 0] }, 3, [0, 1, 3]],
    ['dilation', 5, { dilations: [2] }, 3, [6]],
    ['SAME_UPPER with dilation', 3, { auto_pad: 'SAME_UPPER', dilations: [2] }, 3, [2, 1, 2]],
  ])('Conv: %s', async (_, length, attributes, kernel, expected) => {
    expect((await conv(length, attributes, kernel)).data).toEqual(expected);
  });

  test('ceil_mode rounds up, but no window starts in the padding', async () => {
    const pool = (length: number, attributes: Record<string, number | number[]>) =>
      compute([1, 1, length], 17, (graph) => graph.node('MaxPool', ['x'], attributes));
    expect((await pool(6, { kernel_shape: [3], strides: [2] })).data).toEqual([2, 4]);
    expect((await pool(6, { kernel_shape: [3], strides: [2], ceil_mode: 1 })).data).toEqual([2, 4, 5]);
    expect((await pool(3, { kernel_shape: [1], strides: [2], ceil_mode: 1 })).data).toEqual([0, 2]);
    expect((await pool(5, { kernel_shape: [2], strides: [3], pads: [0, 1], ceil_mode: 1 })).data).toEqual([
      1, 4,
    ]);
  });

  test.each<[string, Record<string, number | string | number[]>, RegExp]>([
    ['a kernel wider than the input', { kernel_shape: [9] }, /window of 9.*5 elements/],
    ['strides of 0', { kernel_shape: [2], strides: [0] }, /strides/],
    ['too many pads', { kernel_shape: [2], pads: [0, 0, 0] }, /pads/],
    ['negative pads', { kernel_shape: [2], pads: [-1, 0] }, /pads/],
    ['windows in nothing but padding', { kernel_shape: [2], pads: [2, 0] }, /without any element/],
    [
      'windows that step over the input',
      { kernel_shape: [2], pads: [1, 1], dilations: [7], strides: [9] },
      /window of 8|without any element/,
    ],
    ['windows around the input', { kernel_shape: [2], pads: [1, 6], dilations: [7] }, /without any element/],
    ['an unknown auto_pad', { kernel_shape: [2], auto_pad: 'SAME' }, /auto_pad 'SAME'/],
    ['no kernel', {}, /kernel_shape/],
    ['a kernel of other axes', { kernel_shape: [2, 2] }, /kernel \[2,2\]/],
  ])('a pool with %s is refused', async (_, attributes, message) => {
    const failed = compute([1, 1, 5], 17, (graph) => graph.node('MaxPool', ['x'], attributes));
    await expect(failed).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      message: expect.stringMatching(message),
    });
  });

  test.each<[string, readonly number[], Record<string, number | number[]>]>([
    ['channels', [2, 2, 3, 3], {}],
    ['groups', [2, 1, 3, 3], { group: 2 }],
    ['a kernel_shape of its own', [2, 3, 3, 3], { kernel_shape: [1, 1] }],
    ['another rank', [2, 3, 3], {}],
  ])('a convolution whose weight has %s that do not fit is refused', async (_, weight, attributes) => {
    const failed = compute([1, 3, 8, 8], 17, (graph) =>
      graph.node('Conv', ['x', ones(graph, ...weight)], attributes),
    );
    await expect(failed).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      message: expect.stringMatching(/Conv/),
    });
  });
});

describe('forms that are recognised', () => {
  const names = async (
    shape: readonly (number | string)[],
    build: (graph: GraphBuilder) => string,
    opset = 17,
  ) => {
    const graph = new GraphBuilder();
    graph.input('x', shape);
    graph.output(build(graph));
    const model = await modelOf(graph, opset);
    return opNames(specializeOn(model));
  };
  const weight = (graph: GraphBuilder, ...shape: number[]) =>
    graph.constant(tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(0.5), shape));

  test('a mean over exactly the spatial axes is a global pool', async () => {
    const mean = (axes: number[]) => (graph: GraphBuilder) => graph.node('ReduceMean', ['x'], { axes });
    expect(await names(['n', 2, 4, 4], mean([2, 3]))).toEqual(['globalPool']);
    expect(await names(['n', 2, 4, 4], mean([-1, -2]))).toEqual(['globalPool']);
    expect(await names(['n', 2, 4], mean([2]))).toEqual(['globalPool']);
    expect(await names(['n', 2, 4, 4], mean([1, 2, 3]))).toEqual(['reduceMean']);
    expect(await names(['n', 2, 4, 4], mean([3]))).toEqual(['reduceMean']);
    expect(await names(['n', 2], mean([1]))).toEqual(['reduceMean']);
  });

  test('a product with one constant matrix is fully connected', async () => {
    const product =
      (...shape: number[]) =>
      (graph: GraphBuilder) =>
        graph.node('MatMul', ['x', weight(graph, ...shape)]);
    expect(await names(['n', 3], product(3, 2))).toEqual(['gemm']);
    expect(await names(['n', 4, 3], product(3, 2))).toEqual(['gemm']);
    expect(await names(['n', 4, 3], product(1, 3, 2))).toEqual(['matmul']);
  });

  test('factors of Gemm vanish into its constants', async () => {
    const gemm = (attributes: Record<string, number>) => (graph: GraphBuilder) =>
      graph.node('Gemm', ['x', weight(graph, 3, 2), weight(graph, 2)], attributes);
    expect(await names(['n', 3], gemm({ alpha: 0.5, beta: 2 }))).toEqual(['gemm']);
    expect(await names(['n', 3], gemm({ beta: 0 }))).toEqual(['gemm']);
  });

  test('products of vectors lose the axes that they lend', async () => {
    const vector = (graph: GraphBuilder) => graph.constant(float32s(1, 10, 100));
    const right = await compute([2, 3], 17, (graph) => graph.node('MatMul', ['x', vector(graph)]));
    expect(right).toEqual({ dims: [2], data: [210, 543] });
    const left = await compute([3, 2], 17, (graph) => graph.node('MatMul', [vector(graph), 'x']));
    expect(left).toEqual({ dims: [2], data: [420, 531] });
    const both = await compute([3], 17, (graph) => graph.node('MatMul', ['x', vector(graph)]));
    expect(both).toEqual({ dims: [], data: [210] });
  });
});

test('an index out of range is refused when it is known', async () => {
  const gather = (index: number) =>
    compute([2, 3], 17, (graph) => graph.node('Gather', ['x', graph.constant(int64s(index))], { axis: 1 }));
  expect((await gather(-3)).data).toEqual([0, 3]);
  await expect(gather(3)).rejects.toMatchObject({ code: 'MODEL_INVALID', message: /index 3/ });
  await expect(gather(-4)).rejects.toMatchObject({ code: 'MODEL_INVALID', message: /index -4/ });
});

test('reflection wider than the axis is refused', async () => {
  const pad = (amount: number) =>
    compute([1, 3], 17, (graph) =>
      graph.node('Pad', ['x', graph.constant(int64s(0, amount, 0, 0))], { mode: 'reflect' }),
    );
  expect((await pad(2)).data).toEqual([2, 1, 0, 1, 2]);
  await expect(pad(3)).rejects.toMatchObject({ code: 'MODEL_INVALID' });
});

test('parameters that do not fit are refused', async () => {
  const refused = (message: RegExp) => ({ code: 'MODEL_INVALID', message: expect.stringMatching(message) });
  const slope = (shape: number[], opset: number) =>
    compute([1, 3, 2], opset, (graph) => {
      const size = shape.reduce((product, length) => product * length, 1);
      return graph.node('PRelu', ['x', graph.constant(tensor(new Float32Array(size).fill(2), shape))]);
    });
  expect((await slope([3, 1], 16)).data).toEqual([0, 1, 2, 3, 4, 5]);
  await expect(slope([3], 16)).rejects.toMatchObject(refused(/slope \[3\].*\[1,3,2\]/));
  await expect(slope([2, 1, 1, 1], 16)).rejects.toMatchObject(refused(/slope/));
  const gelu = compute([2], 20, (graph) => graph.node('Gelu', ['x'], { approximate: 'cubic' }));
  await expect(gelu).rejects.toMatchObject(refused(/'cubic'/));
  const norm = (scale: number) =>
    compute([2, 3], 17, (graph) =>
      graph.node('LayerNormalization', [
        'x',
        graph.constant(tensor(new Float32Array(scale).fill(1), [scale])),
      ]),
    );
  const [low, , high] = (await norm(3)).data;
  expect(low).toBeCloseTo(-Math.sqrt(1.5), 4);
  expect(high).toBeCloseTo(Math.sqrt(1.5), 4);
  await expect(norm(2)).rejects.toMatchObject(refused(/scale or bias \[2\].*\[2,3\]/));
});

test('negative pads crop, but leave something to pad with', async () => {
  const pad = (begin: number, end: number, mode: string) =>
    compute([3], 17, (graph) => graph.node('Pad', ['x', graph.constant(int64s(begin, end))], { mode }));
  expect((await pad(-2, 1, 'edge')).data).toEqual([2, 2]);
  expect((await pad(-3, 1, 'constant')).data).toEqual([0]);
  await expect(pad(-3, 1, 'edge')).rejects.toMatchObject({ code: 'MODEL_INVALID' });
  await expect(pad(-2, -2, 'constant')).rejects.toMatchObject({ code: 'MODEL_INVALID' });
});

test('floats of attributes are read as they are written', async () => {
  const { data } = await compute([2], 17, (graph) => {
    const value = graph.node('Constant', [], { value_floats: floats(0.1, 2) });
    return graph.node('Add', ['x', value]);
  });
  expect(data).toEqual([Math.fround(0.1), 3]);
});

describe.each(['reference', 'native'] as const)('on the %s backend', (backend) => {
  const run = async (build: (graph: GraphBuilder) => Record<string, Tensor>, opset = 17) => {
    const graph = new GraphBuilder();
    const [y] = Object.values(await runOnnx(graph, build(graph), opset, backend));
    return y!;
  };
  const int64Of = (...values: bigint[]) => tensor(BigInt64Array.from(values));

  test.each([2n ** 24n + 1n, 2n ** 53n + 1n, -(2n ** 62n) - 1n])('int64 is padded with %d', async (value) => {
    const y = await run((graph) => {
      const x = graph.input('x', [2], 'int64');
      const operands = [x, int64s(1, 1), int64Of(value)].map((operand) =>
        typeof operand === 'string' ? operand : graph.constant(operand),
      );
      graph.output(graph.node('Pad', operands), [4], 'int64');
      return { x: new Tensor('int64', BigInt64Array.of(3n, 2n ** 55n + 1n), [2]) };
    });
    expect([...y.data]).toEqual([value, 3n, 2n ** 55n + 1n, value]);
  });

  /** Each is just beyond the middle of two float32, and exactly there when it is first rounded to a double. */
  test('integers are rounded to float32 once', async () => {
    const cast = async (type: 'int64' | 'uint64', data: bigint[]) => {
      const array = type === 'int64' ? BigInt64Array.from(data) : BigUint64Array.from(data);
      const y = await run((graph) => {
        graph.output(graph.node('Cast', [graph.input('x', [data.length], type)], { to: 1 }));
        return { x: new Tensor(type, array as BigInt64Array, [data.length]) as Tensor };
      });
      return [...(y.data as Float32Array)];
    };
    const [middle, odd] = [2n ** 60n + 2n ** 36n, 2n ** 60n + 3n * 2n ** 36n];
    expect(await cast('int64', [middle, middle + 1n, -middle - 1n, odd - 1n])).toEqual([
      2 ** 60,
      2 ** 60 + 2 ** 37,
      -(2 ** 60) - 2 ** 37,
      2 ** 60 + 2 ** 37,
    ]);
    expect(await cast('uint64', [2n ** 63n + 2n ** 39n + 1n])).toEqual([2 ** 63 + 2 ** 40]);
  });

  test('Range counts int64 exactly', async () => {
    const range = async (start: bigint, limit: bigint, delta: bigint) => {
      const y = await run((graph) => {
        const [x, ...bounds] = [graph.input('x', [1], 'int64'), ...[start, limit, delta]];
        const operands = bounds.map((bound) => graph.constant(tensor(BigInt64Array.of(bound), [])));
        graph.output(graph.node('Add', [x, graph.node('Range', operands)]), undefined, 'int64');
        return { x: new Tensor('int64', BigInt64Array.of(0n), [1]) };
      });
      return [...y.data];
    };
    const far = 2n ** 53n;
    expect(await range(far, far + 4n, 1n)).toEqual([far, far + 1n, far + 2n, far + 3n]);
    expect(await range(far + 7n, far + 1n, -3n)).toEqual([far + 7n, far + 4n]);
    expect(await range(-far - 1n, -far + 2n, 2n)).toEqual([-far - 1n, -far + 1n]);
    expect(await range(4n, 4n, 1n)).toEqual([]);
    await expect(range(0n, 4n, 0n)).rejects.toMatchObject({ code: 'MODEL_INVALID' });
  });

  /** What PyTorch's avg_pool1d and avg_pool2d give, and onnxruntime. */
  test.each<[string, readonly number[], Record<string, number | readonly number[]>, readonly number[]]>([
    [
      '2-D',
      [4, 4],
      { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] },
      [14 / 9, 10 / 3, 2, 19 / 3, 11, 6, 4.5, 7.5, 4],
    ],
    ['2-D without padding', [4, 4], { kernel_shape: [3, 3], strides: [2, 2] }, [6, 7.5, 12, 13.5]],
    ['1-D', [9], { kernel_shape: [7], strides: [3], pads: [3, 3] }, [10 / 7, 4, 39 / 7, 4]],
    ['1-D without padding', [5], { kernel_shape: [2], strides: [2] }, [1.5, 3.5, 5]],
  ])(
    'AveragePool with ceil_mode divides by what lies in the padded input: %s',
    async (_, spatial, attributes, expected) => {
      for (const opset of [11, 22]) {
        const size = spatial.reduce((a, b) => a * b);
        const y = await run((graph) => {
          const x = graph.input('x', [1, 1, ...spatial]);
          graph.output(graph.node('AveragePool', [x], { ...attributes, ceil_mode: 1, count_include_pad: 1 }));
          return {
            x: new Tensor(
              'float32',
              Float32Array.from({ length: size }, (_, i) => i + 1),
              [1, 1, ...spatial],
            ),
          };
        }, opset);
        expect([...(y.data as Float32Array)]).toEqual(expected.map(Math.fround));
      }
    },
  );
});
