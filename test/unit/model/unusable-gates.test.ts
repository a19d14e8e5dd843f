import { InferenceSession } from 'lib/index.js';
import { inspect } from 'lib/inspect/inspect.js';
import { buildProgram } from 'lib/model/compile.js';
import { NO_ACTIVATION } from 'lib/model/program/program.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

type Make = (b: IrBuilder, x: number) => number;
const SHAPE = [1, 4, 6, 6];

function unusableOf(make: Make): string[] {
  const b = new IrBuilder();
  const x = b.act(b.conv(b.input([1, 3, 6, 6]), 4));
  const output = b.gemm(b.globalPool(make(b, x)), 3);
  const { unusableGates = [], blocks } = buildProgram(b.build(output));
  expect(blocks.filter(({ gate }) => gate)).toEqual([]);
  return unusableGates.map(({ reason }) => reason);
}

const flags = (b: IrBuilder, x: number, outputs: number) =>
  b.cast(b.compare('gt', b.logits(x, outputs), b.constant(0.05)));

describe('gates that can not be used are named', () => {
  test('a decision for each channel', () => {
    const make: Make = (b, x) => {
      const mask = b.reshape(flags(b, x, 4), [1, 4, 1, 1]);
      return b.binary('add', x, b.binary('mul', b.body(x), mask));
    };
    expect(unusableOf(make)).toEqual([expect.stringMatching(/several decisions \(shape \[1,4,1,1\]\)/)]);
  });

  test('a decision for each position, by Where', () => {
    const make: Make = (b, x) => {
      const scores = b.conv(x, 1);
      return b.where(b.compare('gt', scores, b.constant(0)), b.act(b.body(x)), x);
    };
    expect(unusableOf(make)).toEqual([expect.stringMatching(/several decisions \(shape \[1,1,6,6\]\)/)]);
  });

  test('a choice of two bodies', () => {
    const make: Make = (b, x) => {
      const gate = b.reshape(flags(b, x, 1), [1, 1, 1, 1]);
      const rest = b.binary('sub', b.constant(1), gate);
      const [first, second] = [b.act(b.body(x)), b.act(b.body(x))];
      return b.binary('add', b.binary('mul', gate, first), b.binary('mul', rest, second));
    };
    expect(unusableOf(make)).toEqual(
      Array(2).fill(expect.stringMatching(/not a block around an earlier value/)),
    );
  });

  test('a gate inside the block of another', () => {
    const b = new IrBuilder();
    const x = b.act(b.conv(b.input([1, 3, 6, 6]), 4));
    const gate = (score: number) => b.reshape(b.cast(b.compare('gt', score, b.constant(0))), [1, 1, 1, 1]);
    const [outer, inner] = [gate(b.logits(x)), gate(b.logits(b.act(x, 'tanh')))];
    const first = b.conv(x, 4);
    const body = b.act(b.binary('add', first, b.binary('mul', inner, b.body(first))));
    const y = b.binary('add', x, b.binary('mul', outer, body));
    const { unusableGates, blocks } = buildProgram(b.build(b.gemm(b.globalPool(y), 3)));
    expect(blocks.filter((block) => block.gate)).toHaveLength(1);
    expect(unusableGates).toEqual([
      { node: expect.any(String), reason: expect.stringMatching(/inside the block of another gate/) },
    ]);
  });
});

test.each<[string, Make]>([
  ['a soft factor', (b, x) => b.binary('add', x, b.binary('mul', b.body(x), b.act(x, 'sigmoid')))],
  [
    'a relu written as Where',
    (b, x) =>
      b.binary(
        'add',
        x,
        b.where(b.compare('gt', b.body(x), b.constant(0)), x, b.constant(new Float32Array(144), SHAPE)),
      ),
  ],
  [
    'a clip written with Min and Max',
    (b, x) =>
      b.step(
        'unary',
        [b.binary('add', x, b.body(x))],
        { act: { ...NO_ACTIVATION, kind: 'clip', beta: 1 } },
        SHAPE,
      ),
  ],
])('%s is no gate', (_, make) => expect(unusableOf(make)).toEqual([]));

/** One layer, gated by its own score; `mixed`: with something of all items in it. */
function gatedModel(mixed: boolean): Uint8Array {
  const graph = new GraphBuilder();
  const x = graph.input('x', ['n', 4]);
  const random = (...shape: number[]) =>
    graph.constant(
      tensor(
        randomFloats(
          shape.reduce((a, b) => a * b, 1),
          shape.length,
        ),
        shape,
      ),
    );
  const score = graph.node('Gemm', [x, random(4, 1)]);
  const gate = graph.node('Cast', [graph.node('Greater', [score, graph.constant(float32s(0))])], { to: 1 });
  const y = graph.node('Add', [x, graph.node('Mul', [gate, graph.node('Gemm', [x, random(4, 4)])])]);
  const centred = mixed ? graph.node('Sub', [y, graph.node('ReduceMean', [y], { axes: [0] })]) : y;
  graph.output(graph.node('Reshape', [centred, graph.constant(int64s(-1, 4))]), ['n', 4]);
  return modelBytes(graph);
}

test('inspect names the gates of a graph that mixes the batch, and create warns of them', async () => {
  const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  try {
    for (const mixed of [false, true]) {
      const model = gatedModel(mixed);
      const { unusableGates, blocks } = await inspect(model);
      expect(blocks.filter(({ gate }) => gate)).toHaveLength(1);
      const reason = expect.stringMatching(
        /batch of one; the batch runs as one item, because node 'ReduceMean/,
      );
      expect(unusableGates).toEqual(mixed ? [{ node: blocks[0]!.name, reason }] : []);
      const session = await InferenceSession.create(model, { backend: 'reference' });
      await session.release();
    }
    expect(warn.mock.calls).toEqual([
      [expect.stringMatching(/only in a batch of one/), { code: 'RESIDUAL_SKIP_GATE' }],
    ]);
  } finally {
    warn.mockRestore();
  }
});

/** A recurrent layer over four steps; the sequences' lengths are an input, or computed from one. */
function recurrentModel(kind: 'LSTM' | 'GRU' | 'RNN', batch: number, computed: boolean): Uint8Array {
  const graph = new GraphBuilder();
  const [features, hidden] = [3, 5];
  const rows = hidden * { LSTM: 4, GRU: 3, RNN: 1 }[kind];
  const weights = (seed: number, shape: readonly number[]) =>
    graph.constant(
      tensor(
        randomFloats(
          shape.reduce((a, b) => a * b),
          seed,
        ),
        shape,
      ),
    );
  const x = graph.input('x', [4, batch, features]);
  const lengths = () => {
    const scores = graph.node('MatMul', [graph.input('m', [batch, 4]), weights(4, [4, 1])]);
    const flat = graph.node('Reshape', [scores, graph.constant(int64s(-1))]);
    return graph.node('Cast', [flat], { to: 6 });
  };
  const operands = [
    ...[x, weights(1, [1, rows, features]), weights(2, [1, rows, hidden]), weights(3, [1, 2 * rows])],
    computed ? lengths() : graph.input('lengths', [batch], 'int32'),
  ];
  graph.nodes(kind, operands, { hidden_size: hidden }, { outputs: ['y'] });
  return modelBytes(graph.output('y', [4, 1, batch, hidden]));
}

test.each(
  (['LSTM', 'GRU', 'RNN'] as const).flatMap((kind) =>
    [1, 2].flatMap((batch) => [false, true].map((computed) => [kind, batch, computed] as const)),
  ),
)('the lengths of sequences are no gates: %s, batch %i, computed: %s', async (kind, batch, computed) => {
  const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  try {
    const model = recurrentModel(kind, batch, computed);
    const { unusableGates, blocks } = await inspect(model);
    expect(unusableGates).toEqual([]);
    expect(blocks.filter(({ gate }) => gate)).toEqual([]);
    const session = await InferenceSession.create(model, { backend: 'reference' });
    await session.release();
    expect(warn).not.toHaveBeenCalled();
  } finally {
    warn.mockRestore();
  }
});
