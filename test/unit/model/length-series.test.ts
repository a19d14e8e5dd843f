import { compileModel } from '../../../lib/model/compile.js';
import { LengthSeries } from '../../../lib/model/length-series.js';
import type { Binding, Model } from '../../../lib/model/model.js';
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
  const series = new LengthSeries(model, (binding) => {
    compiled.add(binding.get('x')!.shape[1]!);
    return compileModel(model, binding);
  });
  for (const length of LENGTHS) {
    const binding = bindingOf(model, length);
    expect(series.program(binding)).toEqual(compileModel(model, binding));
  }
  expect(compiled.size).toBeLessThanOrEqual(most);
});

test('exits have the length of their program', async () => {
  const model = await modelOf(leaving(), 17);
  const series = new LengthSeries(model, (binding) => compileModel(model, binding));
  for (const length of [10, 30, 11, 21]) series.program(bindingOf(model, length));
  const { ownExits } = series.program(bindingOf(model, 19));
  expect(ownExits!.list).toHaveLength(1);
  expect(ownExits).toEqual(compileModel(model, bindingOf(model, 19)).ownExits);
});

test('weights of interpolated programs are the same arrays', async () => {
  const model = await modelOf(transformer(), 17);
  const series = new LengthSeries(model, (binding) => compileModel(model, binding));
  const large = (length: number) =>
    series
      .program(bindingOf(model, length))
      .values.flatMap(({ data, shape }) => (data && !shape.includes(length) ? [data] : []));
  for (const length of [10, 30, 11, 21]) large(length);
  const [a, b] = [large(15), large(19)];
  expect(a.length).toBeGreaterThanOrEqual(4);
  for (const [i, data] of a.entries()) expect(b[i]).toBe(data);
});
