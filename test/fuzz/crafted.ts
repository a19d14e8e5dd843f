/**
 * Files of at most 1 MB that ask for much: each must be answered, or refused with an error of this package, within 2 s of the processor
 * and 512 MiB. See run.ts.
 */
import { range } from 'lib/numeric/shapes.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../helpers/onnx-builder.js';
import {
  chain,
  conditionalFunctions,
  conv,
  doubling,
  filled,
  int64,
  many,
  nested,
  network,
  ones,
  recurrent,
  scalar,
  touched,
} from './crafting.js';

const MOST = 2 ** 31 - 1;

type Cases = Readonly<Record<string, () => Uint8Array>>;

const CONSTANTS: Cases = {
  'ConstantOfShape of 2^31 - 1 elements': () => many(1, (g) => filled(g, MOST)),
  'a chain on 16M elements': () =>
    many(1, (g) => range(1000).reduce((y) => g.node('Neg', [y]), filled(g, 2 ** 24))),
  '3,000 constants of 1M and more': () => many(3000, (g, i) => filled(g, 2 ** 20, 1 + (i % 7))),
  '1,000 lists of int64': () =>
    many(1000, (g, i) => {
      const value = { value: int64s(3) };
      return g.node('Cast', [g.node('ConstantOfShape', [g.constant(int64s(2 ** 21 + i))], value)], { to: 1 });
    }),
  '500 ranges': () =>
    many(500, (g, i) => {
      const ends = [0, 2 ** 21 + i, 1].map((value) => g.constant(int64(value)));
      return g.node('Cast', [g.node('Range', ends)], { to: 1 });
    }),
  'OneHot of a great depth': () =>
    many(1, (g) => {
      const operands = [int64s(1), int64(MOST), float32s(0, 1)].map((value) => g.constant(value));
      return g.node('OneHot', operands);
    }),
  'a mask of Dropout': () =>
    network(
      (g, x) => g.node('Where', [g.nodes('Dropout', [x], {}, { outputs: ['y', 'm'] })[1]!, x, x]),
      [MOST],
    ),
  'a large convolution': () => many(1, (g) => conv(g, filled(g, 1, 64, 128, 128), filled(g, 64, 64, 3, 3))),
  '500 convolutions': () =>
    many(500, (g, i) => conv(g, filled(g, 1, 16, 64, 64 + i), filled(g, 16, 16, 3, 3))),
  '2,000 products': () =>
    many(1, (g) => range(2000).reduce((y) => g.node('MatMul', [y, y]), filled(g, 200, 200))),
  '200 sorted lists': () =>
    many(200, (g, i) => g.nodes('TopK', [filled(g, 2 ** 20 + i), g.constant(int64s(1))])[0]!),
  '500 running sums': () =>
    many(500, (g, i) => g.node('CumSum', [filled(g, 2 ** 20 + i), g.constant(int64(0))])),
  'a pool with a large window': () =>
    many(1, (g) => g.node('MaxPool', [filled(g, 1, 1, 2000, 2000)], { kernel_shape: [1000, 1000] })),
  '300 gathers': () =>
    many(300, (g, i) => {
      const indices = g.node('ConstantOfShape', [g.constant(int64s(2 ** 20 + i))], { value: int64s(5) });
      return g.node('Gather', [filled(g, 100), indices]);
    }),
  '300 scatters': () =>
    many(300, (g, i) => {
      const at = g.constant(tensor(BigInt64Array.of(0n), [1, 1]));
      return g.node('ScatterND', [filled(g, 2 ** 20 + i), at, g.constant(float32s(1))]);
    }),
  'numbers in a typed field': () =>
    many(1, (g) => {
      const floatData = range(2 ** 17);
      return g.constant({ dataType: 1, dims: [floatData.length], floatData });
    }),
};

const SIZES: Cases = {
  'Expand of x': () => network((g, x) => g.node('Expand', [x, g.constant(int64s(10 ** 7, 4, 6, 6))])),
  'Pad by a million': () =>
    network((g, x) => g.node('Pad', [x, g.constant(int64s(0, 0, 0, 0, 0, 0, 10 ** 6, 100))])),
  ...Object.fromEntries(
    ['nearest', 'linear', 'cubic'].map((mode) => [
      `Resize by 10^6 (${mode})`,
      () => network((g, x) => g.node('Resize', [x, '', g.constant(float32s(1, 1, 10 ** 6, 1))], { mode })),
    ]),
  ),
  'Resize of a constant by 10^3': () =>
    many(1, (g) => {
      const scales = g.constant(float32s(1, 1, 1000, 1000));
      return g.node('Resize', [g.constant(ones(1, 1, 2, 2)), '', scales], { mode: 'linear' });
    }),
  '1,000 Resizes': () =>
    chain(1000, (g, y) =>
      g.node('Resize', [y, '', '', g.constant(int64s(1, 4, 1000, 1000))], { mode: 'linear' }),
    ),
  'ConvTranspose with large strides': () =>
    chain(1, (g, y) => g.node('ConvTranspose', [y, 'weight'], { strides: [1000, 1000] })),
  'ConvTranspose with large dilations': () =>
    chain(1, (g, y) => g.node('ConvTranspose', [y, 'weight'], { dilations: [3000, 3000] })),
  'Trilu of a large matrix': () => network((g, x) => g.node('Trilu', [x]), [40_000, 40_000]),
  'causal attention over 100,000 places': () =>
    network((g, x) => g.node('Attention', [x, x, x], { is_causal: 1 }), [1, 1, 100_000, 4], 23),
  'LSTM over 1,000 steps': () => recurrent('LSTM', 4, 1000),
  'LSTM both ways over 1,000 steps': () => recurrent('LSTM', 4, 1000, 'bidirectional'),
  'LSTM over an open length': () => recurrent('LSTM', 4, 'length'),
  'GRU over 10,000 steps': () => recurrent('GRU', 3, 10_000),
  'RNN over a million steps': () => recurrent('RNN', 1, 10 ** 6),
  'a sequence of a million': () =>
    network(
      (g, x) => g.node('SequenceAt', [g.node('SplitToSequence', [x]), g.constant(int64(1))]),
      [10 ** 6],
    ),
  'a shape of 80,000 axes': () =>
    network((g, x) => g.node('Reshape', [x, g.constant(int64s(...range(80_000).map(() => 1)))])),
  'a permutation of 100,000': () => network((g, x) => g.node('Transpose', [x], { perm: range(100_000) })),
};

const repeated = (op: string, count: number, attributes = {}) =>
  network((g, x) =>
    g.node(
      op,
      range(count).map(() => x),
      attributes,
    ),
  );

const WIDE: Cases = {
  'Sum of 5,000': () => repeated('Sum', 5000),
  'Sum of 200,000': () => repeated('Sum', 200_000),
  'Concat of 200,000': () => repeated('Concat', 200_000, { axis: 1 }),
  'Einsum of 100,000': () =>
    repeated('Einsum', 100_000, {
      equation: range(100_000)
        .map(() => 'a')
        .join(),
    }),
  'a sequence of 200,000': () =>
    network((g, x) =>
      g.node(
        'ConcatFromSequence',
        [
          g.node(
            'SequenceConstruct',
            range(200_000).map(() => x),
          ),
        ],
        { axis: 1 },
      ),
    ),
  '20,000 outputs': () => {
    const graph = new GraphBuilder();
    graph.input('x', [1, 2]);
    for (const i of range(20_000)) graph.output(graph.nodes('Neg', ['x'], {}, { name: `n${i}` })[0]!);
    return modelBytes(graph);
  },
  '20,000 inputs': () => {
    const graph = new GraphBuilder();
    graph.output(
      graph.node(
        'Sum',
        range(20_000).map((i) => graph.input(`x${i}`, ['n', 2])),
      ),
    );
    return modelBytes(graph);
  },
  '20,000 initialisers': () =>
    network((g, x) => g.node('Sum', [x, ...range(20_000).map((i) => g.constant(scalar(i)))])),
  'every step reads all before it': () =>
    network(
      (g, x) =>
        range(300)
          .reduce((all: string[]) => [...all, g.node('Relu', [g.node('Sum', all)])], [x])
          .at(-1)!,
    ),
  'idle functions beside one another': () =>
    network((g, x) => {
      const y = g.node('Relu', [x]);
      return g.node(
        'Concat',
        range(10_000).map(() => g.node('Relu', [y])),
        { axis: 1 },
      );
    }),
  'values that live until the end': () =>
    network((g, x) =>
      g.node(
        'Concat',
        range(10_000).map((i) => g.node('Softmax', [x], { axis: (i % 3) + 1 })),
        { axis: 1 },
      ),
    ),
  'readers of readers': () =>
    network((g, x) => {
      const wide = (y: string) => range(22).map(() => g.node('Mul', [y, y]));
      return g.node('Concat', wide(x).flatMap(wide).flatMap(wide), { axis: 1 });
    }),
};

const LONG: Cases = {
  '20,000 multiplies by a vector': () => chain(20_000, (g, y) => g.node('Mul', [y, 'vector'])),
  '10,000 multiplies by themselves': () => chain(10_000, (g, y) => g.node('Mul', [y, y])),
  '24,000 times Relu': () => chain(24_000, (g, y) => g.node('Relu', [y])),
  '20,000 times Neg': () => chain(20_000, (g, y) => g.node('Neg', [y])),
  '9,000 times Swish': () => chain(9000, (g, y) => g.node('Mul', [y, g.node('Sigmoid', [y])])),
  '10,000 transposes': () => chain(10_000, (g, y) => g.node('Transpose', [y], { perm: [0, 2, 3, 1] })),
  '10,000 sums with x': () => chain(10_000, (g, y) => g.node('Add', [y, 'x'])),
  '5,000 convolutions': () => chain(5000, (g, y) => conv(g, y)),
  '2,000 residual blocks': () =>
    chain(2000, (g, y) => g.node('Relu', [g.node('Add', [y, conv(g, g.node('Relu', [conv(g, y)]))])])),
  '1,000 gated blocks': () =>
    chain(1000, (g, y) => {
      const score = g.node('ReduceMean', [y], { axes: [1, 2, 3], keepdims: 1 });
      const flag = g.node('Cast', [g.node('Greater', [score, g.constant(scalar(0.5))])], { to: 1 });
      return g.node('Add', [y, g.node('Mul', [flag, conv(g, g.node('Relu', [conv(g, y)]))])]);
    }),
  '5,000 sums with x behind convolutions': () => chain(5000, (g, y) => g.node('Add', [conv(g, y), 'x'])),
  '4,000 sums of two chains': () =>
    chain(4000, (g, y) => g.node('Add', [g.node('Tanh', [conv(g, y)]), g.node('Tanh', ['x'])])),
  'sums of single numbers': () =>
    network(
      (g, x) => range(7000).reduce((y) => g.node('Add', [y, g.node('Relu', [g.node('Neg', [y])])]), x),
      [1],
    ),
  'squares before a sum': () =>
    chain(1, (g, x) => {
      const squares = range(100).reduce((y) => g.node('Mul', [y, y]), x);
      const bounds = [0, 4, 1].map((bound) => g.constant(int64s(bound)));
      const half = g.node('Slice', [g.node('Concat', [squares, squares], { axis: 1 }), ...bounds]);
      return g.node('Add', [half, conv(g, x)]);
    }),
  'scores behind many factors': () =>
    network((g, x) => {
      const y = range(5000).reduce(
        (product) => g.node('Mul', [product, g.constant(scalar(1.5))]),
        g.node('MatMul', [x, x]),
      );
      const attend = () => g.node('MatMul', [g.node('Softmax', [g.node('Add', [y, x])], { axis: -1 }), x]);
      return g.node('Sum', range(100).map(attend));
    }),
  '1,000 exits': () =>
    network((g, x) => {
      const flat = g.node('ReduceMean', [x], { axes: [2, 3], keepdims: 0 });
      const limit = g.constant(float32s(0.5));
      return range(1000).reduce((rest, i) => {
        const answer = g.node('Softmax', [g.node('Mul', [flat, g.constant(scalar(i))])], { axis: -1 });
        const sure = g.node('GreaterOrEqual', [g.node('ReduceMax', [answer], { keepdims: 1 }), limit]);
        return g.node('Where', [sure, answer, rest]);
      }, flat);
    }),
  '3,000 quantised steps': () =>
    network((g, x) => {
      const [scale, zero] = [g.constant(scalar(0.1)), g.constant(tensor(Uint8Array.of(3), []))];
      const pair = (y: string) =>
        g.node('DequantizeLinear', [g.node('QuantizeLinear', [y, scale, zero]), scale, zero]);
      return range(3000).reduce((y) => pair(g.node('Relu', [g.node('Add', [y, y])])), pair(x));
    }),
  'trials of many lengths': () =>
    network(
      (g, x) =>
        range(2800).reduce(
          (y) => g.node('Add', [y, g.node('Expand', [g.constant(scalar(1)), g.node('Shape', [y])])]),
          x,
        ),
      ['n', 'm', 'k'],
    ),
  'one weight with many factors': () =>
    network((g, x) => {
      const weight = g.constant(ones(4, 4, 50, 50));
      const window = { kernel_shape: [50, 50], pads: [25, 25, 24, 24] };
      const factor = (i: number) => g.constant(tensor(Float32Array.of(i, 1, 1, 1), [4, 1, 1]));
      return range(3000).reduce((y, i) => g.node('Mul', [g.node('Conv', [y, weight], window), factor(i)]), x);
    }),
  'one weight with many scales': () =>
    network((g, x) => {
      const bytes = g.constant(tensor(new Uint8Array(2 ** 18)));
      const floats = (i: number) => g.node('DequantizeLinear', [bytes, g.constant(scalar(i + 1))]);
      return range(3000).reduce((y, i) => touched(g, y, floats(i)), x);
    }),
  'one list of indices for many steps': () =>
    network((g, x) => {
      const indices = g.constant(tensor(new Int32Array(2 ** 16)));
      return range(3500).reduce((y) => touched(g, y, g.node('Gather', [y, indices], { axis: 1 })), x);
    }),
  'one list of scales for many steps': () =>
    network(
      (g, x) => {
        const scales = g.constant(ones(2 ** 16));
        return range(4000).reduce(
          (y) => g.node('QuantizeLinear', [g.node('Neg', [y]), scales], { axis: 1 }),
          x,
        );
      },
      [1, 2 ** 16],
    ),
  '16,000 unknown operators': () => chain(16_000, (g, y) => g.node('Nonsense', [y])),
};

const NESTED: Cases = {
  '20 nested Ifs': () => nested(20, 1),
  '20 nested Ifs around 10,000 nodes': () => nested(20, 10_000),
  '300 nested Ifs': () => nested(300, 1),
  '2,000 Ifs in a row': () =>
    network((g, x) => {
      const flag = g.node('Greater', [g.node('ReduceMax', [x], { keepdims: 0 }), g.constant(scalar(0))]);
      return range(2000).reduce((y, i) => {
        const branch = (op: string) => {
          const graph = new GraphBuilder(op);
          return graph.output(graph.nodes(op, [y], {}, { name: `${op}${i}` })[0]!);
        };
        return g.node('If', [flag], { then_branch: branch('Neg'), else_branch: branch('Relu') });
      }, x);
    }),
  'functions that double 40 times, of nothing': () => doubling(40, 2, []),
  'functions that double 40 times': () =>
    doubling(40, 2, [{ opType: 'Identity', input: ['a'], output: ['b'] }]),
  'functions with long names': () =>
    doubling(12, 2, [{ opType: 'Neg', input: ['a'], output: ['b'] }], 'n'.repeat(20_000)),
  'a function with weights, called 1,000 times': () =>
    doubling(4, 10, [
      { opType: 'Constant', output: ['w'], attribute: [{ name: 'value', type: 4, t: ones(4, 100, 100) }] },
      { opType: 'ReduceMax', input: ['w'], output: ['m'] },
      { opType: 'Add', input: ['a', 'm'], output: ['b'] },
    ]),
  '60 Ifs in functions': () => conditionalFunctions(60, 2000),
};

/** By name. */
export const CRAFTED: Cases = { ...CONSTANTS, ...SIZES, ...WIDE, ...LONG, ...NESTED };
