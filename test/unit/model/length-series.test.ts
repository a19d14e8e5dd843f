import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildProgram, compileModel } from 'lib/model/compile.js';
import { LengthSeries } from 'lib/model/length-series.js';
import { loadModel } from 'lib/model/load.js';
import type { Ir } from 'lib/model/program/ir.js';
import type { Binding, Model } from 'lib/model/read/model.js';
import { float32s, GraphBuilder, int64s, tensor } from '../../helpers/onnx-builder.js';
import { modelOf } from '../../helpers/onnx-run.js';
import { randomFloats } from '../../helpers/random.js';

const MOST = 40;
const WIDTH = 8;
const HEADS = 2;

const floats = (shape: readonly number[], seed: number) =>
  tensor(
    Float32Array.from(
      randomFloats(
        shape.reduce((a, b) => a * b),
        seed,
      ),
    ),
    [...shape],
  );

/** x (batch, tokens, width), and its number of tokens. */
function tokens(): { graph: GraphBuilder; length: string } {
  const graph = new GraphBuilder();
  graph.input('x', ['batch', 'tokens', WIDTH]);
  const shape = graph.node('Shape', ['x']);
  return { graph, length: graph.node('Gather', [shape, graph.constant(int64s(1))]) };
}

function head(graph: GraphBuilder, table: string, end: string, axis: number): string {
  return graph.node('Slice', [table, graph.constant(int64s(0)), end, graph.constant(int64s(axis))]);
}

/** Positions from a table, and attention under a triangular mask that is cut out of a constant. */
function transformer(): GraphBuilder {
  const { graph, length } = tokens();
  const places = head(graph, graph.constant(floats([1, MOST, WIDTH], 1)), length, 1);
  const x = graph.node('Add', ['x', places]);
  const part = (seed: number, perm: number[]) => {
    const projected = graph.node('MatMul', [x, graph.constant(floats([WIDTH, WIDTH], seed))]);
    const apart = graph.node('Reshape', [projected, graph.constant(int64s(0, 0, HEADS, WIDTH / HEADS))]);
    return graph.node('Transpose', [apart], { perm });
  };
  const triangle = new Float32Array(MOST * MOST).map((_, i) => (i % MOST > Math.floor(i / MOST) ? -1e9 : 0));
  const mask = head(
    graph,
    head(graph, graph.constant(tensor(triangle, [1, 1, MOST, MOST])), length, 2),
    length,
    3,
  );
  const scores = graph.node('MatMul', [part(2, [0, 2, 1, 3]), part(3, [0, 2, 3, 1])]);
  const weights = graph.node('Softmax', [graph.node('Add', [scores, mask])], { axis: -1 });
  const mixed = graph.node('MatMul', [weights, part(4, [0, 2, 1, 3])]);
  const joined = graph.node('Reshape', [
    graph.node('Transpose', [mixed], { perm: [0, 2, 1, 3] }),
    graph.constant(int64s(0, 0, WIDTH)),
  ]);
  graph.output(
    graph.node('Add', [graph.node('MatMul', [joined, graph.constant(floats([WIDTH, WIDTH], 5))]), x]),
  );
  return graph;
}

/** At most 20 tokens count. */
function cut(): GraphBuilder {
  const { graph } = tokens();
  graph.output(graph.node('Relu', [head(graph, 'x', graph.constant(int64s(20)), 1)]));
  return graph;
}

/** Filled up to a multiple of 4 tokens. */
function filled(): GraphBuilder {
  const { graph, length } = tokens();
  const four = graph.constant(int64s(4));
  const missing = graph.node('Mod', [graph.node('Sub', [four, graph.node('Mod', [length, four])]), four]);
  const zeros = (count: number) => graph.constant(int64s(...new Array<number>(count).fill(0)));
  const pads = graph.node('Concat', [zeros(4), missing, zeros(1)], { axis: 0 });
  graph.output(graph.node('Relu', [graph.node('Pad', ['x', pads])]));
  return graph;
}

/** Each position as a share of the length: constants of other contents for each length. */
function shares(): GraphBuilder {
  const { graph, length } = tokens();
  const scalar = (id: string) => graph.node('Squeeze', [id, graph.constant(int64s(0))]);
  const [zero, one] = [tensor(BigInt64Array.of(0n), []), tensor(BigInt64Array.of(1n), [])];
  const places = graph.node('Range', [graph.constant(zero), scalar(length), graph.constant(one)]);
  const asFloat = (id: string) => graph.node('Cast', [id], { to: 1 });
  const share = graph.node('Div', [asFloat(places), asFloat(length)]);
  graph.output(graph.node('Mul', ['x', graph.node('Unsqueeze', [share, graph.constant(int64s(1))])]));
  return graph;
}

/** With as many tokens as channels a transpose is a square's, and with one it moves nothing. */
function turned(): GraphBuilder {
  const { graph } = tokens();
  const y = graph.node('Transpose', ['x'], { perm: [0, 2, 1] });
  const flat = graph.node('Reshape', [y, graph.constant(int64s(0, -1))]);
  graph.output(graph.node('Mul', [flat, graph.constant(float32s(2))]));
  return graph;
}

/** Two blocks with attention, and an exit between them that reads the mean of all tokens. */
function leaving(): GraphBuilder {
  const { graph } = tokens();
  const block = (x: string, seed: number) => {
    const y = graph.node('MatMul', [x, graph.constant(floats([WIDTH, WIDTH], seed))]);
    const scores = graph.node('MatMul', [y, graph.node('Transpose', [x], { perm: [0, 2, 1] })]);
    return graph.node('Add', [x, graph.node('MatMul', [graph.node('Softmax', [scores], { axis: -1 }), x])]);
  };
  const read = (x: string, outputs: number, seed: number) => {
    const mean = graph.node('ReduceMean', [x], { axes: [1], keepdims: 0 });
    return graph.node('MatMul', [mean, graph.constant(floats([WIDTH, outputs], seed))]);
  };
  const early = block('x', 6);
  const sure = graph.node('GreaterOrEqual', [read(early, 1, 7), graph.constant(float32s(0.25))]);
  graph.output(graph.node('Where', [sure, read(early, 3, 8), read(block(early, 9), 3, 10)]));
  return graph;
}

/** x (batch, channels, length), of which a layer rounds the length, and a convolution. */
function signal(layer: (graph: GraphBuilder, x: string, length: () => string) => string): GraphBuilder {
  const graph = new GraphBuilder();
  const weight = graph.constant(floats([WIDTH, WIDTH, 3], 1));
  const conv = (x: string) => graph.node('Conv', [x, weight], { pads: [1, 1] });
  const x = conv(graph.input('x', ['batch', WIDTH, 'length']));
  const length = () => graph.node('Gather', [graph.node('Shape', [x]), graph.constant(int64s(2))]);
  graph.output(conv(layer(graph, x, length)));
  return graph;
}

const pooled = (graph: GraphBuilder, x: string, size: number, ceil = 0) =>
  graph.node('MaxPool', [x], { kernel_shape: [size], strides: [size], ceil_mode: ceil });
const resized = (graph: GraphBuilder, x: string, scale: number) =>
  graph.node('Resize', [x, '', graph.constant(float32s(1, 1, scale))], { mode: 'nearest' });
const halved = (graph: GraphBuilder, length: string) =>
  graph.node('Div', [length, graph.constant(int64s(2))]);

const bindingOf = ({ inputs: [x] }: Model, length: number): Binding =>
  new Map([[x!.name, { shape: [1, length, WIDTH] }]]);

/** 1 to 40 in an order that begins with neighbours and special lengths. */
const LENGTHS = [
  16,
  17,
  8,
  1,
  33,
  32,
  40,
  4,
  2,
  ...Array.from({ length: MOST }, (_, i) => 1 + ((i * 23) % MOST)),
];

test.each([
  ['a transformer', transformer, 15],
  ['a limit', cut, MOST],
  ['a multiple', filled, MOST],
  ['constants that depend on the length', shares, MOST],
  ['a transpose', turned, 15],
  ['a network with an exit', leaving, 15],
] as const)('%s: every length has the program that compiling gives', async (_name, build, most) => {
  const model = await modelOf(build(), 17);
  const compiled = new Set<number>();
  // biome-ignore lint/correctness/useYield: it comes in one slice
  const series = new LengthSeries(model, function* (ir) {
    compiled.add(ir.values[ir.inputs[0]!.value]!.shape[1]!);
    return buildProgram(ir);
  });
  for (const length of LENGTHS) {
    const binding = bindingOf(model, length);
    expect(series.program(binding)).toEqual(compileModel(model, binding));
  }
  expect(compiled.size).toBeLessThanOrEqual(most);
});

test.each([
  ['a pool', signal((graph, x) => pooled(graph, x, 2)), 0],
  ['a pool that rounds up', signal((graph, x) => pooled(graph, x, 2, 1)), 1],
  [
    'a strided convolution',
    signal((graph, x) =>
      graph.node('Conv', [x, graph.constant(floats([WIDTH, WIDTH, 2], 2))], { strides: [2] }),
    ),
    0,
  ],
  ['a resize', signal((graph, x) => resized(graph, x, 0.5)), 0],
  [
    'a slice with a step',
    signal((graph, x) => {
      const bounds = [0, 1000, 2, 2].map((number) => graph.constant(int64s(number)));
      return graph.node('Slice', [x, ...bounds]);
    }),
    1,
  ],
  ['a slice up to half', signal((graph, x, length) => head(graph, x, halved(graph, length()), 2)), 0],
  [
    'a reshape to pairs of all but the last',
    signal((graph, x, length) => {
      const two = graph.constant(int64s(2));
      const half = halved(graph, graph.node('Sub', [length(), graph.constant(int64s(1))]));
      const target = [graph.constant(int64s(0, WIDTH)), half, two];
      const even = head(graph, x, graph.node('Mul', [half, two]), 2);
      const pairs = graph.node('Reshape', [even, graph.node('Concat', target, { axis: 0 })]);
      return graph.node('ReduceMean', [pairs], { axes: [3], keepdims: 0 });
    }),
    1,
  ],
] as const)('%s: lengths that fit a polynomial by chance', async (_name, graph, odd) => {
  const model = await modelOf(graph, 17);
  const series = new LengthSeries(model);
  const at = (length: number): Binding => new Map([['x', { shape: [1, WIDTH, length + odd] }]]);
  // floor(length / 2) of the first four is 5 + k (k - 1) / 42 with k = length - 10. That is whole for the last two, but wrong.
  for (const length of [10, 11, 31, 32, 17, 25]) {
    expect(series.program(at(length))).toEqual(compileModel(model, at(length)));
  }
});

test('a computed end that is linear by chance', async () => {
  const multiple = (graph: GraphBuilder, length: string, of: number) => {
    const factor = graph.constant(int64s(of));
    return graph.node('Mul', [graph.node('Div', [length, factor]), factor]);
  };
  const model = await modelOf(
    signal((graph, x, length) => {
      const sum = graph.node('Add', [multiple(graph, length(), 2), multiple(graph, length(), 3)]);
      return head(graph, x, graph.node('Sub', [sum, length()]), 2);
    }),
    17,
  );
  const series = new LengthSeries(model);
  // 2 floor(length / 2) + 3 floor(length / 3) - length is length - 2 for the first four, but not for the last ones.
  for (const length of [19, 20, 31, 32, 21, 22, 23, 24]) {
    const binding: Binding = new Map([['x', { shape: [1, WIDTH, length] }]]);
    expect(series.program(binding)).toEqual(compileModel(model, binding));
  }
});

test.each(['sst2-encoder', 'sst2-encoder-exits'])('%s is compiled for few of its lengths', async (name) => {
  const model = await loadModel(readFileSync(join(__dirname, `../../../models/${name}/model.onnx`)));
  const compiled = new Set<Ir>();
  // biome-ignore lint/correctness/useYield: it comes in one slice
  const series = new LengthSeries(model, function* (ir) {
    compiled.add(ir);
    return buildProgram(ir);
  });
  const binding = (length: number): Binding =>
    new Map(model.inputs.map((input) => [input.name, { shape: [1, length] }]));
  for (const length of [10, 50, 11, 49, 20, 21, 22]) series.program(binding(length));
  expect(compiled.size).toBe(4);
  expect(series.program(binding(23)).steps).toEqual(compileModel(model, binding(23)).steps);
});

test('exits have the length of their program', async () => {
  const model = await modelOf(leaving(), 17);
  const series = new LengthSeries(model);
  for (const length of [10, 30, 11, 21]) series.program(bindingOf(model, length));
  const { ownExits } = series.program(bindingOf(model, 19));
  expect(ownExits!.list).toHaveLength(1);
  expect(ownExits).toEqual(compileModel(model, bindingOf(model, 19)).ownExits);
});

test('weights of interpolated programs are the same arrays', async () => {
  const model = await modelOf(transformer(), 17);
  const series = new LengthSeries(model);
  const large = (length: number) =>
    series
      .program(bindingOf(model, length))
      .values.flatMap(({ data, shape }) => (data && !shape.includes(length) ? [data] : []));
  for (const length of [10, 30, 11, 21]) large(length);
  const [a, b] = [large(15), large(19)];
  expect(a.length).toBeGreaterThanOrEqual(4);
  for (const [i, data] of a.entries()) expect(b[i]).toBe(data);
});
