/** Small files that ask for much: each must be answered, or refused with an error of this package, within the limits of `run.ts`. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FunctionProto, NodeProto } from '../../lib/model/proto.js';
import { decodeModelProto, encodeModelProto } from '../../lib/model/proto.js';
import { range } from '../../lib/numeric/shapes.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../helpers/onnx-builder.js';

type Make = (g: GraphBuilder, x: string) => string;

const SHAPE = [1, 4, 6, 6];
const MOST = 2 ** 31 - 1;

/** A network with an input `x`; its output is the value that `make` returns. */
function network(make: Make, shape: readonly (number | string)[] = SHAPE, opset = 17): Uint8Array {
  const graph = new GraphBuilder();
  graph.output(make(graph, graph.input('x', shape)));
  return modelBytes(graph, opset);
}

/** `count` nodes in a row. */
function chain(
  count: number,
  link: (g: GraphBuilder, y: string, i: number) => string,
  opset?: number,
  shape = SHAPE,
): Uint8Array {
  return network((g, x) => range(count).reduce((y, i) => link(g, y, i), x), shape, opset);
}

const ones = (...shape: number[]) =>
  tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1), shape);
const scalar = (value: number) => tensor(Float32Array.of(value), []);
/** A constant of many equal elements. */
const filled = (g: GraphBuilder, ...shape: number[]) =>
  g.node('ConstantOfShape', [g.constant(int64s(...shape))], { value: float32s(0.5) });
/** Adds the first element of something large to x. */
const touched = (g: GraphBuilder, x: string, large: string) =>
  g.node('Add', [x, g.node('ReduceMax', [large], { keepdims: 0 })]);

function conv(g: GraphBuilder, x: string, weight: string): string {
  return g.node('Conv', [x, weight], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
}

function recurrent(op: string, gates: number, length: number | string, more = {}): Uint8Array {
  const directions = 'direction' in more ? 2 : 1;
  return network(
    (g, x) =>
      g.nodes(
        op,
        [x, g.constant(ones(directions, gates * 4, 3)), g.constant(ones(directions, gates * 4, 4))],
        { hidden_size: 4, ...more },
      )[0]!,
    [length, 1, 3],
  );
}

function nested(
  depth: number,
  inside: (g: GraphBuilder) => string,
  before?: (g: GraphBuilder) => void,
): Uint8Array {
  const level = (left: number): GraphBuilder => {
    const g = new GraphBuilder(`level${left}`);
    before?.(g);
    g.output(left === 0 ? inside(g) : decide(g, left));
    return g;
  };
  const decide = (g: GraphBuilder, left: number) =>
    g.nodes(
      'If',
      ['flag'],
      { then_branch: level(left - 1), else_branch: other(left) },
      { name: `if${left}` },
    )[0]!;
  const other = (left: number) => {
    const g = new GraphBuilder(`other${left}`);
    return g.output(g.nodes('Neg', ['x'], {}, { name: `neg${left}` })[0]!);
  };
  const graph = new GraphBuilder();
  graph.input('x', SHAPE);
  graph.nodes(
    'Greater',
    [graph.node('ReduceMax', ['x'], { keepdims: 0 }), graph.constant(scalar(0))],
    {},
    { outputs: ['flag'] },
  );
  graph.output(decide(graph, depth));
  return modelBytes(graph);
}

const DOMAIN = 'crafted';
/** The functions f0, f1, ...: each calls the one before it `calls` times in a row; f0 has the nodes `leaf`. */
function functions(levels: number, calls: number, leaf: NodeProto[], name = 'c'): Uint8Array {
  const call = (level: number, i: number): NodeProto => ({
    name: `${name}${i}`,
    opType: `f${level}`,
    domain: DOMAIN,
    input: [i === 0 ? 'a' : `v${i}`],
    output: [i === calls - 1 ? 'b' : `v${i + 1}`],
  });
  const all = range(levels).map(
    (level): FunctionProto =>
      ({
        name: `f${level}`,
        domain: DOMAIN,
        input: ['a'],
        output: ['b'],
        opsetImport: [{ domain: '', version: 18 as never }],
        node: level === 0 ? leaf : range(calls).map((i) => call(level - 1, i)),
      }) as FunctionProto,
  );
  const graph = new GraphBuilder();
  graph.input('x', SHAPE);
  graph.nodes(`f${levels - 1}`, ['x'], {}, { domain: DOMAIN, outputs: ['y'], name });
  graph.output('y');
  return encodeModelProto({ ...decodeModelProto(modelBytes(graph, 18)), functions: all });
}

/** Residual blocks in a row. */
function residuals(count: number, gated: boolean): Uint8Array {
  return network(
    (g, x) => {
      const weight = g.constant(ones(4, 4, 3, 3));
      const limit = g.constant(float32s(0.5));
      return range(count).reduce((y) => {
        const body = conv(g, g.node('Relu', [conv(g, y, weight)]), weight);
        if (!gated) return g.node('Relu', [g.node('Add', [y, body])]);
        const score = g.node('ReduceMean', [y], { axes: [1, 2, 3], keepdims: 1 });
        const flag = g.node('Cast', [g.node('Greater', [score, limit])], { to: 1 });
        return g.node('Add', [y, g.node('Mul', [flag, body])]);
      }, x);
    },
    ['n', 4, 6, 6],
  );
}

function quantised(count: number): Uint8Array {
  return network((g, x) => {
    const scale = g.constant(scalar(0.1));
    const zero = g.constant(tensor(Uint8Array.of(3), []));
    const pair = (y: string) =>
      g.node('DequantizeLinear', [g.node('QuantizeLinear', [y, scale, zero]), scale, zero]);
    return range(count).reduce((y) => pair(g.node('Relu', [g.node('Add', [y, y])])), pair(x));
  });
}

/** `count` tensors that are stored in the same file of `megabytes`. @returns the model's path */
function external(count: number, megabytes: number): string {
  const graph = new GraphBuilder();
  const length = megabytes * 2 ** 18;
  const names = range(count).map((i) => {
    const name = graph.constant(
      { dataType: 1, dims: [{ low: length, high: 0, unsigned: false } as never] },
      `w${i}`,
    );
    Object.assign(graph.proto.initializer.at(-1)!, {
      dataLocation: 1,
      externalData: [{ key: 'location', value: 'w.bin' }],
    });
    return name;
  });
  const x = graph.input('x', [1, length]);
  graph.output(names.reduce((y, name) => graph.node('Add', [y, name]), x));
  const folder = mkdtempSync(join(tmpdir(), 'residual-skip-crafted-'));
  writeFileSync(join(folder, 'w.bin'), new Uint8Array(length * 4));
  writeFileSync(join(folder, 'model.onnx'), modelBytes(graph));
  return join(folder, 'model.onnx');
}

const repeated = (op: string, count: number, attributes = {}) =>
  network((g, x) =>
    g.node(
      op,
      range(count).map(() => x),
      attributes,
    ),
  );

/** By name: the bytes of a file, or its path where it lies beside another file. */
export const CRAFTED: Readonly<Record<string, () => Uint8Array | string>> = {
  'ConstantOfShape alone': () => network((g) => filled(g, MOST)),
  'ConstantOfShape of bytes': () =>
    network((g, x) =>
      touched(
        g,
        x,
        g.node(
          'Cast',
          [
            g.node('ConstantOfShape', [g.constant(int64s(MOST))], {
              value: tensor(Uint8Array.of(1), [1], 'bool'),
            }),
          ],
          { to: 1 },
        ),
      ),
    ),
  'ConstantOfShape reduced': () => network((g, x) => touched(g, x, filled(g, MOST))),
  'ConstantOfShape of 16M, used in a chain': () =>
    network((g, x) =>
      touched(
        g,
        x,
        range(1000).reduce((y) => g.node('Neg', [y]), filled(g, 2 ** 24)),
      ),
    ),
  'many constants of 1M': () =>
    network((g, x) =>
      range(5000).reduce(
        (y, i) => touched(g, y, g.node('ConstantOfShape', [g.constant(int64s(2 ** 20, 1 + (i % 7)))])),
        x,
      ),
    ),
  'constants of int64': () =>
    network((g, x) =>
      range(2000).reduce(
        (y) =>
          g.node('Add', [
            y,
            g.node(
              'Cast',
              [
                g.node(
                  'ReduceMax',
                  [g.node('ConstantOfShape', [g.constant(int64s(2 ** 21))], { value: int64s(3) })],
                  { keepdims: 0 },
                ),
              ],
              { to: 1 },
            ),
          ]),
        x,
      ),
    ),
  'Range of int64': () =>
    network((g, x) =>
      range(500).reduce((y, i) => {
        const ends = [0, 2 ** 21 + i, 1].map((value) =>
          g.constant(tensor(BigInt64Array.of(BigInt(value)), [])),
        );
        return g.node('Add', [
          y,
          g.node('Cast', [g.node('ReduceMin', [g.node('Range', ends)], { keepdims: 0 })], { to: 1 }),
        ]);
      }, x),
    ),
  'Expand of x': () =>
    network((g, x) => g.node('ReduceMax', [g.node('Expand', [x, g.constant(int64s(10 ** 7, 4, 6, 6))])])),
  'Tile of x': () =>
    network((g, x) => g.node('ReduceMax', [g.node('Tile', [x, g.constant(int64s(1, 10 ** 6, 10, 1))])])),
  'Pad by a million': () =>
    network((g, x) => g.node('Pad', [x, g.constant(int64s(0, 0, 0, 0, 0, 0, 10 ** 6, 100))])),
  'OneHot of a great depth': () =>
    network((g, x) => {
      const hot = g.node('OneHot', [
        g.constant(int64s(1)),
        g.constant(tensor(BigInt64Array.of(BigInt(MOST)), [])),
        g.constant(float32s(0, 1)),
      ]);
      return touched(g, x, hot);
    }),
  'Dropout of a large input': () =>
    network(
      (g, x) => {
        const [y, mask] = g.nodes('Dropout', [x], {}, { outputs: ['y', 'mask'] });
        return g.node('Where', [mask!, y!, x]);
      },
      [MOST],
    ),
  'Resize of x': () =>
    network((g, x) => g.node('Resize', [x, '', g.constant(float32s(1, 1, 10 ** 6, 1))], { mode: 'linear' })),
  'Resize to the nearest': () =>
    network((g, x) => g.node('Resize', [x, '', g.constant(float32s(1, 1, 10 ** 6, 1))], { mode: 'nearest' })),
  'cubic Resize': () =>
    network((g, x) => g.node('Resize', [x, '', g.constant(float32s(1, 1, 10 ** 6, 1))], { mode: 'cubic' })),
  'Resize along one axis': () =>
    network(
      (g, x) => g.node('Resize', [x, '', g.constant(float32s(10 ** 6, 1))], { mode: 'linear' }),
      [10, 1],
    ),
  'Resize with antialiasing': () =>
    network(
      (g, x) => g.node('Resize', [x, '', g.constant(float32s(1e-6, 1))], { mode: 'linear', antialias: 1 }),
      [10 ** 6, 1],
      18,
    ),
  'Resize of a constant': () =>
    network((g, x) =>
      touched(
        g,
        x,
        g.node('Resize', [g.constant(ones(1, 1, 2, 2)), '', g.constant(float32s(1, 1, 10 ** 3, 10 ** 3))], {
          mode: 'linear',
        }),
      ),
    ),
  'many Resizes': () =>
    chain(1000, (g, y) =>
      g.node('Resize', [y, '', '', g.constant(int64s(1, 4, 1000, 1000))], { mode: 'linear' }),
    ),
  'Sum of 5,000': () => repeated('Sum', 5000),
  'Sum of 200,000': () => repeated('Sum', 200_000),
  'Max of 200,000': () => repeated('Max', 200_000),
  'Mean of 100,000': () => repeated('Mean', 100_000),
  'Concat of 200,000': () => repeated('Concat', 200_000, { axis: 1 }),
  'Concat of 100,000 constants': () =>
    network((g, x) => {
      const c = g.constant(float32s(1));
      return touched(
        g,
        x,
        g.node(
          'Concat',
          range(200_000).map(() => c),
          { axis: 0 },
        ),
      );
    }),
  'ConcatFromSequence of 200,000': () =>
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
  'Einsum of 100,000': () =>
    repeated('Einsum', 100_000, {
      equation: range(100_000)
        .map(() => 'a')
        .join(),
    }),
  '4,000 multiplies by a vector': () => chain(4000, (g, y) => g.node('Mul', [y, g.constant(ones(4, 1, 1))])),
  '4,000 multiplies by one vector': () =>
    network((g, x) => {
      const c = g.constant(ones(4, 1, 1));
      return range(20_000).reduce((y) => g.node('Mul', [y, c]), x);
    }),
  '4,000 multiplies by a number': () => chain(4000, (g, y) => g.node('Mul', [y, g.constant(scalar(1.5))])),
  '10,000 multiplies by themselves': () => chain(10_000, (g, y) => g.node('Mul', [y, y])),
  '10,000 sums with one wide vector': () =>
    network(
      (g, x) => {
        const wide = g.constant(ones(100, 1, 1));
        return range(10_000).reduce((y) => g.node('Add', [y, wide]), x);
      },
      [1, 100, 6, 6],
    ),
  'squares before a sum': () =>
    network((g, x) => {
      const squares = range(100).reduce((y) => g.node('Mul', [y, y]), x);
      const weight = g.constant(ones(4, 4, 3, 3));
      const joined = g.node('Slice', [
        g.node('Concat', [squares, squares], { axis: 1 }),
        g.constant(int64s(0)),
        g.constant(int64s(4)),
        g.constant(int64s(1)),
      ]);
      return g.node('Add', [joined, conv(g, x, weight)]);
    }),
  '30,000 Relu': () => chain(30_000, (g, y) => g.node('Relu', [y])),
  '20,000 Tanh': () => chain(20_000, (g, y) => g.node('Tanh', [y])),
  '20,000 Identity': () => chain(20_000, (g, y) => g.node('Identity', [y])),
  '20,000 Neg': () => chain(20_000, (g, y) => g.node('Neg', [y])),
  '15,000 Softmax': () => chain(15_000, (g, y) => g.node('Softmax', [y], { axis: -1 })),
  '15,000 Sigmoid gates': () => chain(10_000, (g, y) => g.node('Mul', [y, g.node('Sigmoid', [y])])),
  '10,000 transposes': () => chain(10_000, (g, y) => g.node('Transpose', [y], { perm: [0, 2, 3, 1] })),
  '10,000 reshapes': () =>
    network((g, x) => {
      const shapes = [g.constant(int64s(1, 144)), g.constant(int64s(4, 36))];
      return range(10_000).reduce((y, i) => g.node('Reshape', [y, shapes[i % 2]!]), x);
    }),
  '10,000 slices': () =>
    network(
      (g, x) => {
        const [zero, one] = [g.constant(int64s(0)), g.constant(int64s(1))];
        return range(10_000).reduce(
          (y, i) => g.node('Slice', [y, zero, g.constant(int64s(20_000 - i)), one]),
          x,
        );
      },
      [1, 20_000],
    ),
  '10,000 sums with x': () => chain(10_000, (g, y) => g.node('Add', [y, 'x'])),
  '5,000 convolutions': () =>
    network((g, x) => {
      const weight = g.constant(ones(4, 4, 3, 3));
      return range(5000).reduce((y) => conv(g, y, weight), x);
    }),
  '2,000 dense layers added up': () =>
    network((g, x) => {
      const weight = g.constant(ones(4, 4, 3, 3));
      return range(2000).reduce((y) => g.node('Add', [y, conv(g, y, weight)]), x);
    }),
  'every layer reads all before it': () =>
    network((g, x) => {
      const all = [x];
      for (let i = 0; i < 300; i++) all.push(g.node('Relu', [g.node('Sum', [...all])]));
      return all.at(-1)!;
    }),
  'dense concatenations': () =>
    network((g, x) => {
      const all = [x];
      for (let i = 0; i < 300; i++)
        all.push(
          g.node('Slice', [
            g.node('Concat', [...all], { axis: 1 }),
            g.constant(int64s(0)),
            g.constant(int64s(4)),
            g.constant(int64s(1)),
          ]),
        );
      return all.at(-1)!;
    }),
  '2,000 residual blocks': () => residuals(2000, false),
  '1,000 gated blocks': () => residuals(1000, true),
  '1,000 exits': () =>
    network((g, x) => {
      const flat = g.node('ReduceMean', [x], { axes: [2, 3], keepdims: 0 });
      const limit = g.constant(float32s(0.5));
      return range(1000).reduce((rest, i) => {
        const answer = g.node('Softmax', [g.node('Mul', [flat, g.constant(scalar(i))])], { axis: -1 });
        const score = g.node('ReduceMax', [answer], { keepdims: 1 });
        return g.node('Where', [g.node('GreaterOrEqual', [score, limit]), answer, rest]);
      }, flat);
    }),
  '3,000 quantised steps': () => quantised(3000),
  'LSTM over 1,000 steps': () => recurrent('LSTM', 4, 1000),
  'LSTM both ways over 1,000 steps': () => recurrent('LSTM', 4, 1000, { direction: 'bidirectional' }),
  'LSTM over an open length': () => recurrent('LSTM', 4, 'length'),
  'LSTM over 2^31 - 1 steps': () => recurrent('LSTM', 4, MOST),
  'GRU over 10,000 steps': () => recurrent('GRU', 3, 10_000),
  'RNN over a million steps': () => recurrent('RNN', 1, 10 ** 6),
  '300 LSTM layers': () =>
    network(
      (g, x) => {
        const [w, r] = [g.constant(ones(1, 16, 4)), g.constant(ones(1, 16, 4))];
        return range(300).reduce(
          (y) =>
            g.node('Squeeze', [g.nodes('LSTM', [y, w, r], { hidden_size: 4 })[0]!, g.constant(int64s(1))]),
          x,
        );
      },
      [50, 1, 4],
    ),
  'Split into a million': () =>
    network(
      (g, x) =>
        g.node('SequenceAt', [
          g.node('SplitToSequence', [x], { axis: 0 }),
          g.constant(tensor(BigInt64Array.of(1n), [])),
        ]),
      [10 ** 6],
    ),
  'Split of 2^31 - 1': () =>
    network(
      (g, x) =>
        g.node('SequenceAt', [
          g.node('SplitToSequence', [x], { axis: 0 }),
          g.constant(tensor(BigInt64Array.of(1n), [])),
        ]),
      [MOST],
    ),
  'Split into 50,000': () =>
    network(
      (g, x) => g.nodes('Split', [x], { axis: 0 }, { outputs: range(50_000).map((i) => `s${i}`) })[7]!,
      [50_000],
    ),
  '30,000 outputs': () => {
    const graph = new GraphBuilder();
    graph.input('x', [1, 2]);
    for (let i = 0; i < 20_000; i++) graph.output(graph.nodes('Neg', ['x'], {}, { name: `n${i}` })[0]!);
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
  '30,000 initialisers': () =>
    network((g, x) => g.node('Sum', [x, ...range(20_000).map((i) => g.constant(scalar(i)))])),
  'an axis list of 100,000': () =>
    network((g, x) => g.node('Squeeze', [x], { axes: range(100_000) }), [1, 1], 11),
  'a permutation of 100,000': () => network((g, x) => g.node('Transpose', [x], { perm: range(100_000) })),
  'a shape of 100,000 axes': () =>
    network((g, x) => g.node('Reshape', [x, g.constant(int64s(...range(80_000).map(() => 1)))])),
  'a thousand names of 300 characters': () =>
    chain(1000, (g, y, i) => g.nodes('Neg', [y], {}, { name: `${'/a'.repeat(150)}${i}` })[0]!),
  'unsupported 20,000 times': () => chain(20_000, (g, y) => g.node('Nonsense', [y])),
  '90 nested Ifs': () => nested(90, (g) => g.nodes('Neg', ['x'], {}, { name: 'deep' })[0]!),
  '20 nested Ifs': () => nested(20, (g) => g.nodes('Neg', ['x'], {}, { name: 'deep' })[0]!),
  '300 nested Ifs': () => nested(300, (g) => g.nodes('Neg', ['x'], {}, { name: 'deep' })[0]!),
  'nested Ifs with a long branch': () =>
    nested(20, (g) => range(10_000).reduce((y, i) => g.nodes('Neg', [y], {}, { name: `deep${i}` })[0]!, 'x')),
  '3,000 Ifs in a row': () =>
    network((g, x) => {
      const flag = g.node('Greater', [g.node('ReduceMax', [x], { keepdims: 0 }), g.constant(scalar(0))]);
      return range(2000).reduce((y, i) => {
        const [a, b] = ['a', 'b'].map((side) => {
          const branch = new GraphBuilder(side);
          return branch.output(
            branch.nodes(side === 'a' ? 'Neg' : 'Relu', [y], {}, { name: `${side}${i}` })[0]!,
          );
        });
        return g.nodes('If', [flag], { then_branch: a!, else_branch: b! }, { name: `if${i}` })[0]!;
      }, x);
    }),
  'functions that double 40 times': () => functions(40, 2, []),
  'functions without end that pass on': () =>
    functions(40, 2, [{ opType: 'Identity', input: ['a'], output: ['b'] }]),
  'a function of 900,000 nodes': () => functions(6, 10, [{ opType: 'Neg', input: ['a'], output: ['b'] }]),
  'a function of 50,000 nodes': () => functions(5, 14, [{ opType: 'Neg', input: ['a'], output: ['b'] }]),
  'functions with long names': () =>
    functions(12, 2, [{ opType: 'Neg', input: ['a'], output: ['b'] }], 'n'.repeat(20_000)),
  'a function with weights, called 1,000 times': () =>
    functions(4, 10, [
      {
        opType: 'Constant',
        input: [],
        output: ['w'],
        attribute: [{ name: 'value', type: 4, t: ones(4, 100, 100) }],
      },
      { opType: 'ReduceMax', input: ['w'], output: ['m'] },
      { opType: 'Add', input: ['a', 'm'], output: ['b'] },
    ] as NodeProto[]),
  '500 tensors in one file': () => external(500, 4),
  'a large convolution of constants': () =>
    network((g, x) => touched(g, x, conv(g, filled(g, 1, 64, 128, 128), filled(g, 64, 64, 3, 3)))),
  '500 convolutions of constants': () =>
    network((g, x) =>
      range(500).reduce(
        (y, i) => touched(g, y, conv(g, filled(g, 1, 16, 64, 64 + (i % 3)), filled(g, 16, 16, 3, 3))),
        x,
      ),
    ),
  'a large product of constants': () =>
    network((g, x) => touched(g, x, g.node('MatMul', [filled(g, 400, 400), filled(g, 400, 400)]))),
  '2,000 products of constants': () =>
    network((g, x) =>
      touched(
        g,
        x,
        range(2000).reduce((y) => g.node('MatMul', [y, y]), filled(g, 200, 200)),
      ),
    ),
  'TopK of constants': () =>
    network((g, x) =>
      range(200).reduce(
        (y, i) => touched(g, y, g.nodes('TopK', [filled(g, 2 ** 20 + i), g.constant(int64s(1))])[0]!),
        x,
      ),
    ),
  'CumSum of constants': () =>
    network((g, x) =>
      range(500).reduce(
        (y, i) =>
          touched(
            g,
            y,
            g.node('CumSum', [filled(g, 2 ** 20 + i), g.constant(tensor(BigInt64Array.of(0n), []))]),
          ),
        x,
      ),
    ),
  'MaxPool of a constant': () =>
    network((g, x) =>
      touched(g, x, g.node('MaxPool', [filled(g, 1, 1, 2000, 2000)], { kernel_shape: [1000, 1000] })),
    ),
  'transposed convolution': () =>
    network((g, x) => g.node('ConvTranspose', [x, g.constant(ones(4, 4, 3, 3))], { strides: [1000, 1000] })),
  'dilated transposed convolution': () =>
    network((g, x) =>
      g.node('ConvTranspose', [x, g.constant(ones(4, 4, 3, 3))], { dilations: [3000, 3000] }),
    ),
  'Trilu of a large x': () => network((g, x) => g.node('Trilu', [x]), [40_000, 40_000]),
  'EyeLike of a large x': () => network((g, x) => g.node('EyeLike', [x]), [40_000, 40_000]),
  'Attention over 100,000 places': () =>
    network((g, x) => g.nodes('Attention', [x, x, x], { is_causal: 1 })[0]!, [1, 1, 100_000, 4], 23),
  'QuantizeLinear of many channels': () =>
    network((g, x) => g.node('QuantizeLinear', [x, filled(g, 2 ** 22), '']), [1, 2 ** 22]),
  'Gather from a large constant': () =>
    network((g, x) =>
      range(300).reduce(
        (y, i) =>
          touched(
            g,
            y,
            g.node('Gather', [
              filled(g, 100),
              g.node('ConstantOfShape', [g.constant(int64s(2 ** 20 + i))], { value: int64s(5) }),
            ]),
          ),
        x,
      ),
    ),
  'ScatterND into a large constant': () =>
    network((g, x) =>
      range(300).reduce(
        (y, i) =>
          touched(
            g,
            y,
            g.node('ScatterND', [
              filled(g, 2 ** 20 + i),
              g.constant(tensor(BigInt64Array.of(0n), [1, 1])),
              g.constant(float32s(1)),
            ]),
          ),
        x,
      ),
    ),
  'one weight with many factors': () =>
    network((g, x) => {
      const weight = g.constant(ones(4, 4, 50, 50));
      return range(3000).reduce((y, i) => {
        const layer = g.node('Conv', [y, weight], { kernel_shape: [50, 50], pads: [25, 25, 24, 24] });
        return g.node('Mul', [layer, g.constant(tensor(Float32Array.of(i, 1, 1, 1), [4, 1, 1]))]);
      }, x);
    }),
  'one weight with many scales': () =>
    network((g, x) => {
      const bytes = g.constant(tensor(new Uint8Array(2 ** 18), [2 ** 18]));
      return range(3000).reduce((y, i) => {
        const floats = g.node('DequantizeLinear', [bytes, g.constant(scalar(i + 1))]);
        return touched(g, y, floats);
      }, x);
    }),
  'one table of indices for many steps': () =>
    network((g, x) => {
      const indices = g.constant(tensor(new Int32Array(2 ** 17), [2 ** 17]));
      return range(5000).reduce(
        (y) =>
          g.node('Add', [
            y,
            g.node('ReduceMax', [g.node('Gather', [y, indices], { axis: 1 })], { keepdims: 0 }),
          ]),
        x,
      );
    }),
  'one list of scales for many steps': () =>
    network(
      (g, x) => {
        const scales = g.constant(ones(2 ** 17));
        return range(5000).reduce(
          (y) => g.node('QuantizeLinear', [g.node('Neg', [y]), scales], { axis: 1 }),
          x,
        );
      },
      [1, 2 ** 17],
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
  'many readers of many readers': () =>
    network((g, x) => {
      const wide = (y: string) => range(25).map(() => g.node('Mul', [y, y]));
      const all = wide(x).flatMap(wide).flatMap(wide);
      return g.node('Concat', all.slice(0, 12_000), { axis: 1 });
    }),
  'sums of single numbers': () =>
    network(
      (g, x) => {
        const y = range(8000).reduce(
          (sum) => g.node('Add', [sum, g.node('Relu', [g.node('Neg', [sum])])]),
          x,
        );
        return g.node('Mul', [y, y]);
      },
      [1],
    ),
  'values that live until the end': () =>
    network((g, x) => {
      const all = range(10_000).map((i) => g.node('Softmax', [x], { axis: (i % 3) + 1 }));
      return g.node('Concat', all, { axis: 1 });
    }),
  'steps that no value outlives': () =>
    chain(15_000, (g, y) =>
      g.node('ReduceSum', [g.node('Softmax', [y], { axis: -1 })], { keepdims: 1, noop_with_empty_axes: 1 }),
    ),
  'long skip connections': () =>
    network((g, x) => {
      const weight = g.constant(ones(4, 4, 3, 3));
      return range(5000).reduce((y) => g.node('Add', [conv(g, y, weight), x]), x);
    }),
  'chains with two summands': () =>
    network((g, x) => {
      const weight = g.constant(ones(4, 4, 3, 3));
      const other = g.node('Neg', [x]);
      return range(5000).reduce(
        (y) => g.node('Add', [g.node('Tanh', [conv(g, y, weight)]), g.node('Tanh', [other])]),
        x,
      );
    }),
  'scores behind many factors': () =>
    network((g, x) => {
      const y = range(5000).reduce(
        (sum) => g.node('Mul', [sum, g.constant(scalar(1.5))]),
        g.node('MatMul', [x, x]),
      );
      const softmax = range(100).map(() =>
        g.node('MatMul', [g.node('Softmax', [g.node('Add', [y, x])], { axis: -1 }), x]),
      );
      return g.node('Sum', softmax);
    }),
  'Ifs in functions in Ifs': () => {
    const branches = (call: string) => {
      const [then, otherwise] = [new GraphBuilder('then'), new GraphBuilder('else')];
      then.output(then.nodes(call, ['a'], {}, { domain: DOMAIN, outputs: ['t'], name: 't' })[0]!);
      otherwise.output(otherwise.nodes('Neg', ['a'], {}, { outputs: ['e'], name: 'e' })[0]!);
      return { then_branch: then, else_branch: otherwise };
    };
    const made = new GraphBuilder();
    const bodies = range(60).map((level) => {
      if (level === 0)
        return range(2000).map(
          (i): NodeProto => ({
            opType: 'Neg',
            input: [i === 0 ? 'a' : `n${i}`],
            output: [i === 1999 ? 'b' : `n${i + 1}`],
          }),
        );
      const g = new GraphBuilder();
      g.nodes('ReduceMax', ['a'], { keepdims: 0 }, { outputs: ['m'], name: 'm' });
      g.nodes('Cast', ['m'], { to: 9 }, { outputs: ['flag'], name: 'flag' });
      g.nodes('If', ['flag'], branches(`f${level - 1}`), { outputs: ['b'], name: 'if' });
      return g.proto.node;
    });
    made.input('x', SHAPE);
    made.nodes('f59', ['x'], {}, { domain: DOMAIN, outputs: ['y'], name: 'c' });
    made.output('y');
    const all = bodies.map(
      (node, level): FunctionProto =>
        ({
          name: `f${level}`,
          domain: DOMAIN,
          input: ['a'],
          output: ['b'],
          node,
          opsetImport: [{ domain: '', version: 18 }],
        }) as FunctionProto,
    );
    return encodeModelProto({ ...decodeModelProto(modelBytes(made, 17)), functions: all });
  },
  'numbers in a typed field': () =>
    network((g, x) => {
      const floatData = range(2 ** 17);
      const name = g.constant({
        dataType: 1,
        dims: [{ low: floatData.length, high: 0, unsigned: false } as never],
        floatData,
      });
      return touched(g, x, name);
    }),
  'an open length of many trials': () =>
    network(
      (g, x) =>
        range(3000).reduce(
          (y) => g.node('Add', [y, g.node('Expand', [g.constant(scalar(1)), g.node('Shape', [y])])]),
          x,
        ),
      ['n', 'm', 'k'],
    ),
};
