import { join } from 'node:path';
import type { ModelProto } from 'lib/model/read/proto.js';
import { decodeModelProto, encodeModelProto } from 'lib/model/read/proto.js';
import { type Choices, Draft } from 'lib/quantize/draft.js';
import { equalise, pairsOf } from 'lib/quantize/equalise.js';
import { Histogram } from 'lib/quantize/histogram.js';
import { Network, readNetwork } from 'lib/quantize/network.js';
import { decisionHeads, layersOf, planOf, type Shapes } from 'lib/quantize/plan.js';
import { simplify } from 'lib/quantize/simplify.js';
import { InferenceSession } from 'lib/session/session.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { float, float32s, GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

afterAll(removeFolders);

const [C, SIDE] = [8, 8] as const;
const FEEDS = { x: new Tensor('float32', randomFloats(3 * SIDE * SIDE, 9), [1, 3, SIDE, SIDE]) };

function builder() {
  const graph = new GraphBuilder();
  let seed = 1;
  const random = (shape: readonly number[], scale: number) =>
    graph.constant(
      tensor(
        randomFloats(
          shape.reduce((a, b) => a * b, 1),
          seed++,
        ).map((x) => scale * x),
        shape,
      ),
    );
  const conv = (x: string, inputs: number, group = 1) =>
    graph.node('Conv', [x, random([C, inputs / group, 3, 3], 0.3), random([C], 0.1)], {
      pads: [1, 1, 1, 1],
      group,
    });
  const relu = (x: string) => graph.node('Relu', [x]);
  return { graph, random, conv, relu, x: graph.input('x', ['n', 3, SIDE, SIDE]) };
}

/** Two blocks with identity shortcuts, the second with a gate, and a classifier. */
function gated() {
  const { graph, random, conv, relu, x } = builder();
  let stream = relu(conv(x, 3));
  stream = relu(graph.node('Add', [conv(relu(conv(stream, C)), C), stream]));
  const pooled = graph.node('Flatten', [graph.node('GlobalAveragePool', [stream])]);
  const score = graph.node('Gemm', [pooled, random([C, 1], 1)]);
  const open = graph.node('Cast', [graph.node('Greater', [score, graph.constant(float32s(0))])], { to: 1 });
  const gate = graph.node('Reshape', [open, graph.constant(tensor(BigInt64Array.from([-1n, 1n, 1n, 1n])))]);
  const body = conv(relu(conv(stream, C)), C);
  stream = relu(graph.node('Add', [graph.node('Mul', [gate, body]), stream]));
  const features = graph.node('Flatten', [graph.node('GlobalAveragePool', [stream])]);
  graph.nodes('Gemm', [features, random([C, 4], 1), random([4], 0.2)], {}, { outputs: ['logits'] });
  return { graph: graph.output('logits', ['n', 4]), score };
}

const networkOf = (graph: GraphBuilder) => new Network(decodeModelProto(modelBytes(graph)));

test('weights that Identity passes on are weights', () => {
  const { graph, random, x } = builder();
  const same = (name: string) => graph.node('Identity', [graph.node('Identity', [name])]);
  const bias = random([C], 0.1);
  const first = graph.node('Conv', [x, random([C, 3, 3, 3], 0.3), bias]);
  graph.nodes('Conv', [first, same(random([C, C, 3, 3], 0.3)), same(bias)], {}, { outputs: ['y'] });
  const network = networkOf(graph.output('y', ['n', C, 4, 4]));
  expect(layersOf(network)).toHaveLength(2);
  expect(network.nodes.map(({ opType }) => opType)).toEqual(['Conv', 'Conv']);
});

async function values(model: ModelProto, names: readonly string[]) {
  const output = names.map((name) => ({ name }));
  await using session = await InferenceSession.create(
    encodeModelProto({ ...model, graph: { ...model.graph, output } }),
    { policy: 'full' },
  );
  return session.run(FEEDS);
}

async function shapesOf(network: Network): Promise<Shapes> {
  const names = network.nodes.flatMap(({ output = [] }) => output);
  const found = Object.entries(await values(network.build(), names));
  return new Map([...found, ['x', FEEDS.x] as const].map(([name, { type, dims }]) => [name, { type, dims }]));
}

const CHOICES: Choices = { range: 'max', biasCorrected: false, equalised: false, inFloat: [] };

async function draftOf(graph: GraphBuilder, streams: [string, string][] = [], named: string[] = []) {
  const network = networkOf(graph);
  const shapes = await shapesOf(network);
  const draft = new Draft(network, shapes, streams, named, async (own, axes) => {
    const outputs = await values(
      own.build(),
      [...axes.keys()].filter((name) => name !== 'x'),
    );
    return new Map(
      [...axes].map(([name, axis]) => {
        const { data, dims } = name === 'x' ? FEEDS.x : outputs[name]!;
        const histogram = new Histogram();
        histogram.add(data as Float32Array);
        const channels = dims[axis]!;
        const largest = new Float64Array(channels).fill(1);
        return [name, { histogram, means: new Float64Array(channels), largest }];
      }),
    );
  });
  return { draft };
}

const kinds = ({ graph }: ModelProto) => graph!.node!.map(({ opType }) => opType);
const named = ({ graph }: ModelProto, name: string) => graph!.initializer!.find((each) => each.name === name);

test('layers get 8-bit weights, what they read is quantised, and the heads of gates stay in float', async () => {
  const { graph, score } = gated();
  const adds = graph.proto.node.filter(({ opType }) => opType === 'Relu').map(({ output }) => output![0]!);
  const streams: [string, string][] = [
    [adds[0]!, adds[2]!],
    [adds[2]!, adds[4]!],
  ];
  const { draft } = await draftOf(graph, streams);
  const { layers, groups } = draft.plan([]);
  expect(layers.map(({ node }) => node.opType)).toEqual(['Conv', 'Conv', 'Conv', 'Conv', 'Conv', 'Gemm']);
  expect(groups.find((names) => names.includes(adds[0]!))).toEqual([adds[0], adds[2], adds[4]]);
  const model = await draft.build(CHOICES);
  const nodes = model.graph!.node!;
  const head = nodes.find(({ output }) => output?.includes(score))!;
  expect(named(model, head.input![1]!)!.dataType).toBe(1);
  // Weights as int8 with zero points of zero, biases as int32, activations as uint8.
  const types = new Set(
    nodes
      .filter(({ opType }) => opType === 'DequantizeLinear')
      .map(({ input }) => named(model, input![0]!)?.dataType ?? 2),
  );
  expect(types).toEqual(new Set([3, 6, 2]));
  for (const node of nodes.filter(({ opType }) => opType === 'Conv')) {
    for (const name of node.input!)
      expect(nodes.find(({ output }) => output?.includes(name))?.opType).toBe('DequantizeLinear');
  }
  expect(model.graph!.output!.map(({ name }) => name)).toEqual(['logits']);
  // The parts of one stream have equal scales, so that a skipped block passes its bytes on.
  const scales = [0, 2, 4].map((i) => {
    const quantize = nodes.find(({ opType, input }) => opType === 'QuantizeLinear' && input![0] === adds[i])!;
    return quantize.input!.slice(1).map((name) => [...named(model, name)!.rawData!]);
  });
  expect(scales[1]).toEqual(scales[0]);
  expect(scales[2]).toEqual(scales[0]);
});

test('a layer that stays in float keeps its weights, and reads numbers', async () => {
  const { graph } = gated();
  const convs = graph.proto.node.filter(({ opType }) => opType === 'Conv');
  const { draft } = await draftOf(graph, [], [convs[1]!.name!]);
  const model = await draft.build({ ...CHOICES, inFloat: [0] });
  for (const { name, input } of convs.slice(0, 2)) {
    expect(model.graph!.node!.find((node) => node.name === name)!.input![1]).toBe(input![1]);
  }
  expect(model.graph!.node!.find((node) => node.name === convs[0]!.name)!.input![0]).toBe('x');
});

test('an unknown layer is named with those that there are', async () => {
  await expect(draftOf(gated().graph, [], ['nothing'])).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/^float: 'nothing' is not a layer; the layers are Conv\d+/),
  });
});

test('batch normalisation becomes a part of the convolution before it, and the answers stay', async () => {
  const { graph, conv, relu, random, x } = builder();
  const factors = (offset: number) =>
    graph.constant(tensor(randomFloats(C, 50 + offset).map((v) => Math.abs(v) + offset)));
  const normal = graph.node(
    'BatchNormalization',
    [conv(x, 3), factors(1), factors(0), factors(0), factors(0.5)],
    {
      epsilon: float(0.01),
    },
  );
  const pooled = graph.node('Flatten', [
    graph.node('GlobalAveragePool', [relu(graph.node('Identity', [normal]))]),
  ]);
  graph.nodes('Gemm', [pooled, random([C, 4], 1)], {}, { outputs: ['logits'] });
  const network = networkOf(graph.output('logits', ['n', 4]));
  const before = await values(network.build(), ['logits']);
  simplify(network);
  expect(kinds(network.build())).toEqual(['Conv', 'Relu', 'GlobalAveragePool', 'Flatten', 'Gemm']);
  const after = await values(network.build(), ['logits']);
  [...(after.logits!.data as Float32Array)].forEach((value, i) => {
    expect(value).toBeCloseTo((before.logits!.data as Float32Array)[i]!, 4);
  });
});

test('a residual sum in float reads the normalised value that a layer reads as bytes', async () => {
  const { graph, random, x } = builder();
  const norm = (y: string) =>
    graph.node('LayerNormalization', [y, random([SIDE], 1), random([SIDE], 0.1)], { axis: -1 });
  const layer = (y: string) => graph.node('MatMul', [y, random([SIDE, SIDE], 0.3)]);
  const first = norm(x);
  const inner = graph.node('Add', [layer(first), first]);
  graph.nodes('Identity', [layer(norm(inner))], {}, { outputs: ['y'] });
  const { draft } = await draftOf(graph.output('y', ['n', 3, SIDE, SIDE]));
  const network = new Network(await draft.build(CHOICES));
  const readers = (name: string) => network.consumers(name).map(({ opType }) => opType);
  expect(readers(first).sort()).toEqual(['Add', 'QuantizeLinear']);
  expect(readers(`${first}_uint8_float`)).toEqual(['MatMul']);
});

test('equalised layers compute the same, and the channels between them have similar ranges', async () => {
  const { graph, conv, random, x } = builder();
  const limits = [
    graph.constant(tensor(Float32Array.of(0), [])),
    graph.constant(tensor(Float32Array.of(6), [])),
  ];
  const hidden = graph.node('Clip', [conv(x, 3), ...limits]);
  const between = graph.node('Relu', [conv(hidden, C, C)]);
  const pooled = graph.node('Flatten', [graph.node('GlobalAveragePool', [conv(between, C)])]);
  graph.nodes('Gemm', [pooled, random([C, 4], 1)], {}, { outputs: ['logits'] });
  const network = networkOf(graph.output('logits', ['n', 4]));
  const shapes = await shapesOf(network);
  const { layers } = planOf(network, shapes, [], new Set());
  expect(layers).toEqual(layersOf(network));
  const pairs = pairsOf(network, layers);
  expect(pairs.map((pair) => [pair.between, pair.cut])).toEqual([
    [hidden, 6],
    [between, Number.POSITIVE_INFINITY],
  ]);
  const largestOf = async () => {
    const seen = await values(network.build(), [hidden, between, 'logits']);
    const by = (name: string) => {
      const data = seen[name]!.data as Float32Array;
      return Float64Array.from({ length: C }, (_, c) =>
        Math.max(...data.slice(c * SIDE ** 2, (c + 1) * SIDE ** 2)),
      );
    };
    return { [hidden]: by(hidden), [between]: by(between), logits: [...(seen.logits!.data as Float32Array)] };
  };
  const before = await largestOf();
  const observed = new Map(
    [hidden, between].map((name) => [
      name,
      { histogram: new Histogram(), means: new Float64Array(C), largest: before[name] as Float64Array },
    ]),
  );
  equalise(network, pairs, observed);
  const after = await largestOf();
  after.logits.forEach((value, i) => {
    expect(value).toBeCloseTo(before.logits[i]!, 3);
  });
  const spread = (largest: ArrayLike<number>) =>
    Math.max(...Array.from(largest)) / Math.min(...Array.from(largest));
  expect(spread(before[hidden]!)).toBeGreaterThan(1.3);
  expect(spread(after[hidden]!)).toBeLessThan(1.01);
  expect(spread(after[between]!)).toBeLessThan(spread(before[between]!));
});

test('an exit whose score is a pool of its probabilities is decided in float', () => {
  const { graph, random, conv, relu, x } = builder();
  const stream = relu(conv(x, 3));
  const vector = () => graph.node('Flatten', [graph.node('GlobalAveragePool', [stream])]);
  const early = graph.node('Gemm', [vector(), random([C, 4], 1)]);
  const axes = (axis: bigint) => graph.constant(tensor(BigInt64Array.from([axis])));
  const row = graph.node('Unsqueeze', [graph.node('Softmax', [early]), axes(1n)]);
  const most = graph.node('GlobalMaxPool', [row]);
  const score = graph.node('Flatten', [most]);
  const sure = graph.node('Greater', [score, graph.constant(float32s(0.5))]);
  const late = graph.node('Gemm', [vector(), random([C, 4], 1)]);
  graph.nodes('Where', [sure, early, late], {}, { outputs: ['logits'] });
  const network = networkOf(graph.output('logits', ['n', 4]));
  const shapes = new Map(
    Object.entries({
      [stream]: [1, C, SIDE, SIDE],
      [early]: [1, 4],
      [row]: [1, 1, 4],
      [most]: [1, 1, 1],
    }).map(([name, dims]) => [name, { type: 'float32', dims }]),
  );
  const heads = [...decisionHeads(network, shapes)].filter(({ opType }) => opType === 'Gemm');
  expect(heads).toEqual([network.producer(early)]);
});

it('all weights of a large file are read', async () => {
  const graph = new GraphBuilder();
  const weights = randomFloats(1100 * 1024, 3);
  const name = graph.constant(tensor(weights, [1024, 1100]));
  graph.nodes('MatMul', [graph.input('x', ['n', 1024]), name], {}, { outputs: ['y'] });
  const folder = folderOf({ 'model.onnx': modelBytes(graph.output('y', ['n', 1100])) });
  const { network } = await readNetwork(join(folder, 'model.onnx'));
  // A difference of a million elements would take minutes to print.
  expect(network.weights(name)!.data.every((value, i) => value === weights[i])).toBe(true);
});

describe('what is refused', () => {
  const refused = (bytes: Uint8Array) => readNetwork(join(folderOf({ 'model.onnx': bytes }), 'model.onnx'));

  it('an opset without scales by channel', async () => {
    await expect(refused(modelBytes(gated().graph, 12))).rejects.toMatchObject({
      code: 'UNSUPPORTED_MODEL',
      message: expect.stringContaining('opset 12'),
    });
  });

  it('a network that is quantised already', async () => {
    const { draft } = await draftOf(gated().graph);
    await expect(refused(encodeModelProto(await draft.build(CHOICES)))).rejects.toMatchObject({
      code: 'UNSUPPORTED_MODEL',
      message: expect.stringContaining('quantised already'),
    });
  });

  it('a network without layers', async () => {
    const graph = new GraphBuilder();
    graph.nodes('Relu', [graph.input('x', ['n', 3, SIDE, SIDE])], {}, { outputs: ['y'] });
    await expect(draftOf(graph.output('y'))).rejects.toMatchObject({
      code: 'UNSUPPORTED_MODEL',
      message: expect.stringContaining('nothing to quantise'),
    });
  });
});
