/** What exporters write for layer normalisation, GELU and attention becomes one step, with the results of its parts. */
import { InferenceSession, Tensor } from 'lib/index.js';
import { buildProgram } from 'lib/model/compile.js';
import { GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { modelOf, randomTensor, runOnnx, specializeOn } from '../../helpers/onnx-run.js';
import { randomFloats } from '../../helpers/random.js';

type Shape = readonly number[];
type Build = (graph: GraphBuilder) => string;
const sizeOf = (shape: Shape) => shape.reduce((a, b) => a * b, 1);

const scalar = (graph: GraphBuilder, value: number) => graph.constant(tensor(Float32Array.of(value), []));
const vector = (graph: GraphBuilder, shape: Shape, seed: number) =>
  graph.constant(tensor(Float32Array.from(randomFloats(sizeOf(shape), seed)), [...shape]));

async function stepsOf(shape: Shape, build: Build, opset = 17) {
  const graph = new GraphBuilder();
  graph.input('x', ['n', ...shape.slice(1)]);
  graph.output(build(graph));
  return buildProgram(specializeOn(await modelOf(graph, opset))).steps.map(({ op }) => op);
}

/** The output for x, on both backends. */
async function outputs(shape: Shape, build: Build, x: Tensor, opset = 17): Promise<Float32Array[]> {
  const graph = new GraphBuilder();
  graph.input('x', ['n', ...shape.slice(1)]);
  graph.output(build(graph), ['n']);
  const results: Float32Array[] = [];
  for (const backend of ['reference', 'native'] as const) {
    const session = await InferenceSession.create(modelBytes(graph, opset), { backend });
    const [y] = Object.values(await session.run({ x }));
    results.push(y!.data as Float32Array);
    await session.release();
  }
  return results;
}

/** Both backends are near `expected`. */
async function expectNear(shape: Shape, build: Build, expected: (x: Float32Array) => number[]) {
  const x = randomTensor(shape);
  for (const y of await outputs(shape, build, x)) {
    const wanted = expected(x.data as Float32Array);
    expect(y.length).toBe(wanted.length);
    for (const [i, value] of wanted.entries())
      expect(Math.abs(y[i]! - value)).toBeLessThan(2e-6 * (1 + Math.abs(value)));
  }
}

describe('layer normalisation', () => {
  const shape = [2, 3, 20];
  interface Form {
    readonly twice?: boolean;
    readonly reciprocal?: boolean;
    readonly axis?: number;
    readonly epsilon?: (graph: GraphBuilder) => string;
  }
  const written =
    ({ twice = false, reciprocal = false, axis = -1, epsilon }: Form = {}): Build =>
    (graph) => {
      const mean = graph.node('ReduceMean', ['x'], { axes: [-1] });
      const centred = graph.node('Sub', ['x', mean]);
      const again = twice ? graph.node('Sub', ['x', mean]) : centred;
      const squares = graph.node('Mul', [again, again]);
      const variance = graph.node('ReduceMean', [squares], { axes: [axis] });
      const added = graph.node('Add', [variance, epsilon?.(graph) ?? scalar(graph, 1e-5)]);
      const root = graph.node('Sqrt', [added]);
      const y = reciprocal
        ? graph.node('Mul', [graph.node('Reciprocal', [root]), centred])
        : graph.node('Div', [centred, root]);
      return graph.node('Add', [graph.node('Mul', [y, vector(graph, [20], 1)]), vector(graph, [20], 2)]);
    };
  const expected = (x: Float32Array) => {
    const [scale, shift] = [randomFloats(20, 1), randomFloats(20, 2)];
    return Array.from({ length: 6 }, (_, row) => x.subarray(row * 20, row * 20 + 20)).flatMap((line) => {
      const mean = line.reduce((a, b) => a + b, 0) / 20;
      const variance = line.reduce((sum, v) => sum + (v - mean) ** 2, 0) / 20;
      return Array.from(line, (v, i) => ((v - mean) / Math.sqrt(variance + 1e-5)) * scale[i]! + shift[i]!);
    });
  };

  test.each<[string, Form]>([
    ['with one difference', {}],
    ['with the difference twice', { twice: true }],
    ['with a reciprocal', { reciprocal: true }],
  ])('written out %s', async (_, form) => {
    expect(await stepsOf(shape, written(form))).toEqual(['layerNorm']);
    await expectNear(shape, written(form), expected);
  });

  test('as the operator', async () => {
    const build: Build = (graph) =>
      graph.node('LayerNormalization', ['x', vector(graph, [20], 1), vector(graph, [20], 2)]);
    expect(await stepsOf(shape, build)).toEqual(['layerNorm']);
    await expectNear(shape, build, expected);
  });

  test('as a batch normalisation of computed statistics, with a channel for each position', async () => {
    const build: Build = (graph) => {
      const positions = graph.node('Reshape', ['x', graph.constant(int64s(1, -1, 20, 1))]);
      const axes = { axes: [0, 2, 3] };
      const mean = graph.node('ReduceMean', [positions], axes);
      const centred = graph.node('Sub', [positions, mean]);
      const variance = graph.node('ReduceMean', [graph.node('Mul', [centred, centred])], axes);
      const channels = graph.node('Shape', [positions], { start: 1, end: 2 });
      const filled = (value: number) =>
        graph.node('ConstantOfShape', [channels], { value: tensor(Float32Array.of(value)) });
      const vectors = [mean, variance].map((id) =>
        graph.node('Squeeze', [id, graph.constant(int64s(0, 2, 3))]),
      );
      const normalised = graph.node('BatchNormalization', [positions, filled(1), filled(0), ...vectors]);
      const y = graph.node('Reshape', [normalised, graph.node('Shape', ['x'])]);
      return graph.node('Add', [graph.node('Mul', [y, vector(graph, [20], 1)]), vector(graph, [20], 2)]);
    };
    const steps = (await stepsOf(shape, build)).filter((op) => op !== 'reshape');
    expect(steps).toEqual(['layerNorm', 'binary', 'binary']);
    await expectNear(shape, build, expected);
  });

  test('along several axes, as rows', async () => {
    const build: Build = (graph) => graph.node('LayerNormalization', ['x', scalar(graph, 1)], { axis: 1 });
    expect(await stepsOf(shape, build)).toEqual(expect.arrayContaining(['layerNorm']));
  });

  test.each<[string, Form]>([
    ['a variance along another axis', { axis: 1 }],
    ['an epsilon for each element', { epsilon: (graph) => vector(graph, [3, 1], 3) }],
  ])('%s is none', async (_, form) => {
    expect(await stepsOf([2, 3, 20], written(form))).not.toContain('layerNorm');
  });
});

describe('GELU', () => {
  const erf = (root: number, half: 'first' | 'last') => (graph: GraphBuilder) => {
    const inner = graph.node('Erf', [graph.node('Div', ['x', scalar(graph, root)])]);
    const sum = graph.node('Add', [inner, scalar(graph, 1)]);
    if (half === 'first') return graph.node('Mul', [graph.node('Mul', ['x', scalar(graph, 0.5)]), sum]);
    return graph.node('Mul', [graph.node('Mul', ['x', sum]), scalar(graph, 0.5)]);
  };
  const tanh: Build = (graph) => {
    const cube = graph.node('Mul', [graph.node('Mul', ['x', 'x']), 'x']);
    const sum = graph.node('Add', ['x', graph.node('Mul', [cube, scalar(graph, 0.044715)])]);
    const inner = graph.node('Tanh', [graph.node('Mul', [sum, scalar(graph, Math.sqrt(2 / Math.PI))])]);
    return graph.node('Mul', [
      graph.node('Mul', ['x', scalar(graph, 0.5)]),
      graph.node('Add', [inner, scalar(graph, 1)]),
    ]);
  };
  const approximation = (x: Float32Array) =>
    Array.from(x, (v) => (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))));

  test('with erf, the half first or last', async () => {
    for (const half of ['first', 'last'] as const) {
      expect(await stepsOf([2, 50], erf(Math.SQRT2, half))).toEqual(['unary']);
    }
    // The two forms of the paper differ by less than 5e-4.
    const [y] = await outputs([2, 50], erf(Math.SQRT2, 'last'), randomTensor([2, 50]));
    const near = approximation(randomTensor([2, 50]).data as Float32Array);
    for (const [i, value] of near.entries()) expect(Math.abs(y![i]! - value)).toBeLessThan(5e-4);
  });

  test('with tanh', async () => {
    expect(await stepsOf([2, 50], tanh)).toEqual(['unary']);
    await expectNear([2, 50], tanh, approximation);
  });

  test('another divisor is none', async () => {
    expect((await stepsOf([2, 50], erf(1.5, 'last'))).length).toBeGreaterThan(1);
  });
});

describe('attention', () => {
  const [tokens, heads, depth] = [5, 2, 3];
  const width = heads * depth;
  const shape = [2, tokens, width];
  const weights = (seed: number, columns = width) => randomFloats(width * columns, seed);

  /** Softmax of the scores of each head, with the projections of seeds 1, 2 and 3. */
  const expected =
    (masked: (score: number, i: number, j: number) => number = (score) => score) =>
    (x: Float32Array): number[] => {
      const project = (item: number, token: number, seed: number) => {
        const matrix = weights(seed);
        const row = x.subarray((item * tokens + token) * width, (item * tokens + token + 1) * width);
        return Array.from({ length: width }, (_, c) =>
          row.reduce((sum, v, r) => sum + v * matrix[r * width + c]!, 0),
        );
      };
      const places = Array.from({ length: tokens }, (_, i) => i);
      return Array.from({ length: 2 }, (_, item) => {
        const [q, k, v] = [1, 2, 3].map((seed) => places.map((token) => project(item, token, seed)));
        return places.flatMap((i) =>
          Array.from({ length: width }, (_, c) => {
            const head = Math.floor(c / depth) * depth;
            const exps = places.map((j) => {
              let score = 0;
              for (let d = head; d < head + depth; d++) score += q![i]![d]! * k![j]![d]!;
              return Math.exp(masked(score / Math.sqrt(depth), i, j));
            });
            const sum = exps.reduce((a, b) => a + b, 0);
            return exps.reduce((total, e, j) => total + (e / sum) * v![j]![c]!, 0);
          }),
        );
      }).flat();
    };
  const matrix = (graph: GraphBuilder, seed: number) =>
    graph.constant(tensor(Float32Array.from(weights(seed)), [width, width]));
  const lengths = (graph: GraphBuilder, ...list: number[]) => graph.constant(int64s(...list));
  const joined = (graph: GraphBuilder, context: string) =>
    graph.node('Reshape', [
      graph.node('Transpose', [context], { perm: [0, 2, 1, 3] }),
      lengths(graph, 0, tokens, width),
    ]);

  /** Heads by reshape and transpose, as Hugging Face's BERT has them. */
  const separate =
    (mask?: (graph: GraphBuilder, scores: string) => string): Build =>
    (graph) => {
      const split = (seed: number, perm: number[]) => {
        const projected = graph.node('MatMul', ['x', matrix(graph, seed)]);
        const reshaped = graph.node('Reshape', [projected, lengths(graph, 0, tokens, heads, depth)]);
        return graph.node('Transpose', [reshaped], { perm });
      };
      const product = graph.node('MatMul', [split(1, [0, 2, 1, 3]), split(2, [0, 2, 3, 1])]);
      const scaled = graph.node('Div', [product, scalar(graph, Math.sqrt(depth))]);
      const weights = graph.node('Softmax', [mask ? mask(graph, scaled) : scaled], { axis: -1 });
      return joined(graph, graph.node('MatMul', [weights, split(3, [0, 2, 1, 3])]));
    };
  /** One projection, split by permute(2, 0, 3, 1, 4), as timm has it. */
  const joint: Build = (graph) => {
    const all = new Float32Array(width * 3 * width);
    for (const [i, seed] of [1, 2, 3].entries()) {
      for (const [at, w] of weights(seed).entries()) {
        all[Math.floor(at / width) * 3 * width + i * width + (at % width)] = w;
      }
    }
    const projected = graph.node('MatMul', ['x', graph.constant(tensor(all, [width, 3 * width]))]);
    const reshaped = graph.node('Reshape', [projected, lengths(graph, 0, tokens, 3, heads, depth)]);
    const moved = graph.node('Transpose', [reshaped], { perm: [2, 0, 3, 1, 4] });
    const part = (i: number) =>
      graph.node('Gather', [moved, graph.constant(tensor(BigInt64Array.of(BigInt(i)), []))], { axis: 0 });
    const q = graph.node('Mul', [part(0), scalar(graph, 1 / Math.sqrt(depth))]);
    const scores = graph.node('MatMul', [q, graph.node('Transpose', [part(1)], { perm: [0, 1, 3, 2] })]);
    return joined(graph, graph.node('MatMul', [graph.node('Softmax', [scores], { axis: -1 }), part(2)]));
  };
  const causal = (score: number, i: number, j: number) => (j > i ? -1e30 : score);

  test('with three projections', async () => {
    expect(await stepsOf(shape, separate())).toEqual(['gemm', 'gemm', 'gemm', 'attention']);
    await expectNear(shape, separate(), expected());
  });

  test('with one projection', async () => {
    expect(await stepsOf(shape, joint)).toEqual(['gemm', 'attention']);
    await expectNear(shape, joint, expected());
  });

  test('with a mask that is added', async () => {
    const added = separate((graph, scores) => {
      const mask = Float32Array.from({ length: tokens * tokens }, (_, at) =>
        causal(0, Math.floor(at / tokens), at % tokens),
      );
      return graph.node('Add', [scores, graph.constant(tensor(mask, [1, 1, tokens, tokens]))]);
    });
    expect(await stepsOf(shape, added)).toEqual(['gemm', 'gemm', 'gemm', 'attention']);
    await expectNear(shape, added, expected(causal));
  });

  /** Scores, times `factor`, of the tokens before a token, and of itself unless `behind` is -1; in place of others `least`. */
  const chosen = (least: number, factor = 1, behind = 0) =>
    separate((graph, scores) => {
      const below = Float32Array.from({ length: tokens * tokens }, (_, at) =>
        Number(at % tokens <= Math.floor(at / tokens) + behind),
      );
      const mask = graph.node('Greater', [
        graph.constant(tensor(below, [1, 1, tokens, tokens])),
        scalar(graph, 0.5),
      ]);
      const large = factor === 1 ? scores : graph.node('Mul', [scores, scalar(graph, factor)]);
      return graph.node('Where', [mask, large, scalar(graph, least)]);
    });

  test('with scores that are chosen', async () => {
    expect(await stepsOf(shape, chosen(-3e38))).toContain('attention');
    await expectNear(shape, chosen(-3e38), expected(causal));
  });

  test('with scores that are chosen over one of their own size', async () => {
    expect(await stepsOf(shape, chosen(-0.5))).toContain('attention');
    await expectNear(
      shape,
      chosen(-0.5),
      expected((score, i, j) => (j > i ? -0.5 : score)),
    );
    expect(await stepsOf(shape, chosen(0.5))).not.toContain('attention');
  });

  test.each([-1e4, -1e9])(
    'a row without any key is uniform, whatever the scores: masked by %d',
    async (least) => {
      const build = chosen(least, 1e5, -1);
      expect(await stepsOf(shape, build)).toContain('attention');
      const x = randomTensor(shape);
      // Of one token alone the mask leaves its values; the mean over all tokens has a weight of 1/5 for each.
      const mean = expected(() => 0)(x.data as Float32Array);
      for (const y of await outputs(shape, build, x)) {
        for (const [i, value] of mean.slice(0, width).entries()) expect(y[i]).toBeCloseTo(value, 6);
      }
    },
  );
});

describe('layers on channels that are last, between transposes', () => {
  const [channels, height, width, columns] = [6, 2, 3, 4];
  const shape = [2, channels, height, width];
  const matrix = randomFloats(channels * columns, 5);
  const build =
    (back: number[]): Build =>
    (graph) => {
      const last = graph.node('Transpose', ['x'], { perm: [0, 2, 3, 1] });
      const norm = graph.node('LayerNormalization', [
        last,
        vector(graph, [channels], 1),
        vector(graph, [channels], 2),
      ]);
      const product = graph.node('MatMul', [norm, vector(graph, [channels, columns], 5)]);
      const sum = graph.node('Add', [product, vector(graph, [columns], 3)]);
      return graph.node('Transpose', [sum], { perm: back });
    };
  const expected = (x: Float32Array) => {
    const [scale, shift, bias] = [
      randomFloats(channels, 1),
      randomFloats(channels, 2),
      randomFloats(columns, 3),
    ];
    const pixels = height * width;
    return Array.from({ length: 2 * columns * pixels }, (_, at) => {
      const [item, n, pixel] = [
        Math.floor(at / (columns * pixels)),
        Math.floor(at / pixels) % columns,
        at % pixels,
      ];
      const line = Array.from({ length: channels }, (_, c) => x[(item * channels + c) * pixels + pixel]!);
      const mean = line.reduce((a, b) => a + b, 0) / channels;
      const variance = line.reduce((total, v) => total + (v - mean) ** 2, 0) / channels;
      return line.reduce(
        (total, v, c) =>
          total +
          (((v - mean) / Math.sqrt(variance + 1e-5)) * scale[c]! + shift[c]!) * matrix[c * columns + n]!,
        bias[n]!,
      );
    });
  };

  test('are layers on channels that are first', async () => {
    expect(await stepsOf(shape, build([0, 3, 1, 2]))).toEqual(['layerNorm', 'conv']);
    await expectNear(shape, build([0, 3, 1, 2]), expected);
  });

  test('keep a transpose that none reverses', async () => {
    expect(await stepsOf(shape, build([0, 3, 2, 1]))).toEqual(['layerNorm', 'conv', 'transpose']);
  });
});

describe('a network whose maps have their channels last, with transposes around each convolution', () => {
  const [items, size, channels] = [2, 6, 4];
  const TO_FIRST = { perm: [0, 3, 1, 2] };
  const TO_LAST = { perm: [0, 2, 3, 1] };
  const weight = (graph: GraphBuilder, depth: number, seed: number) =>
    vector(graph, [channels, depth, 3, 3], seed);

  /** Two blocks, with all maps in one order. */
  function network(last: boolean, body: (graph: GraphBuilder, x: string, parts: Parts) => string) {
    const graph = new GraphBuilder();
    const shape = last ? [size, size, channels] : [channels, size, size];
    const parts: Parts = {
      last,
      conv: (x, seed, { pads = 1, depth = channels } = {}) => {
        const first = last ? graph.node('Transpose', [x], TO_FIRST) : x;
        const y = graph.node('Conv', [first, weight(graph, depth, seed)], { pads: [pads, pads, pads, pads] });
        return last ? graph.node('Transpose', [y], TO_LAST) : y;
      },
      perChannel: (seed) => vector(graph, last ? [channels] : [channels, 1, 1], seed),
    };
    let x = graph.node('Relu', [parts.conv(graph.input('x', ['n', ...shape]), 1)]);
    for (let block = 0; block < 2; block++) x = body(graph, x, parts);
    graph.output(graph.node('ReduceMean', [x], { axes: last ? [1, 2] : [2, 3], keepdims: 0 }));
    return graph;
  }

  interface Parts {
    readonly last: boolean;
    readonly conv: (x: string, seed: number, options?: { pads?: number; depth?: number }) => string;
    readonly perChannel: (seed: number) => string;
  }

  test.each<[string, (graph: GraphBuilder, x: string, parts: Parts) => string]>([
    [
      'activations behind the sum',
      (graph, x, { conv }) =>
        graph.node('Relu', [graph.node('Add', [x, conv(graph.node('Relu', [conv(x, 2)]), 3)])]),
    ],
    [
      'normalisations before the convolutions',
      (graph, x, { conv, perChannel }) => {
        const scaled = graph.node('Mul', [x, perChannel(4)]);
        const y = graph.node('Relu', [graph.node('Add', [scaled, perChannel(5)])]);
        return graph.node('Add', [conv(graph.node('Relu', [conv(y, 2)]), 3), x]);
      },
    ],
    [
      'padding by a node, slopes by channel and a concatenation',
      (graph, x, { last, conv, perChannel }) => {
        const pads = last ? [0, 1, 1, 0, 0, 1, 1, 0] : [0, 0, 1, 1, 0, 0, 1, 1];
        const y = conv(graph.node('Pad', [x, graph.constant(int64s(...pads))]), 2, { pads: 0 });
        const sloped = graph.node('PRelu', [y, perChannel(6)]);
        const wide = graph.node('Concat', [sloped, y], { axis: last ? 3 : 1 });
        return graph.node('Add', [x, conv(wide, 3, { depth: 2 * channels })]);
      },
    ],
  ])('%s', async (_, body) => {
    const [last, first] = [network(true, body), network(false, body)];
    const compiled = await Promise.all(
      [last, first].map(async (graph) => buildProgram(specializeOn(await modelOf(graph)))),
    );
    const [a, b] = compiled.map(({ steps }) => steps.map(({ op }) => op));
    expect(a).toEqual(['transpose', ...b!]);
    expect(compiled[0]!.blocks.map(({ skippable }) => skippable)).toEqual([true, true]);
    const x = randomTensor([items, size, size, channels]);
    const turned = new Float32Array(x.data.length);
    for (let i = 0; i < turned.length; i++) {
      const [c, pixel, item] = [
        i % channels,
        Math.floor(i / channels) % (size * size),
        Math.floor(i / (channels * size * size)),
      ];
      turned[(item * channels + c) * size * size + pixel] = x.data[i] as number;
    }
    const y = new Tensor('float32', turned, [items, channels, size, size]);
    const [left, right] = [await runOnnx(last, { x }), await runOnnx(first, { x: y })];
    expect(Object.values(left)[0]!.data).toEqual(Object.values(right)[0]!.data);
  });
});
