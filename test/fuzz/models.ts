/** Small ONNX models to mutate: every operator at least once, and residual blocks with every form of gate. */
import {
  ELEMENT_TYPE,
  float,
  float32s,
  GraphBuilder,
  int64s,
  modelBytes,
  tensor,
} from '../helpers/onnx-builder.js';
import { QUANTISED } from './quantised.js';

type Operands = Record<
  string,
  number | string | readonly number[] | GraphBuilder | ReturnType<typeof tensor>
>;

const weights = (...shape: number[]) => {
  const size = shape.reduce((product, length) => product * length, 1);
  return tensor(
    Float32Array.from({ length: size }, (_, i) => ((i * 7) % 11) / 11 - 0.5),
    shape,
  );
};
const bool = (...values: number[]) => tensor(Uint8Array.from(values), [values.length], 'bool');
const int64 = (value: number) => tensor(BigInt64Array.of(BigInt(value)), []);

/** A network with an input of `shape`; its output is the value that `make` returns. */
function network(
  make: (g: GraphBuilder, x: string) => string,
  shape: (number | string)[],
  opset?: number,
): Uint8Array {
  const graph = new GraphBuilder();
  graph.output(make(graph, graph.input('x', shape)));
  return modelBytes(graph, opset);
}

const IMAGE = ['batch', 4, 6, 6];

/** One node with an input of `shape`; its other inputs are constants. */
function single(
  op: string,
  shape: (number | string)[] = IMAGE,
  constants: readonly ReturnType<typeof tensor>[] = [],
  attributes: Operands = {},
  opset?: number,
): Uint8Array {
  return network((g, x) => g.node(op, [x, ...constants.map((c) => g.constant(c))], attributes), shape, opset);
}

function conv(g: GraphBuilder, x: string, filters = 4, channels = 4, stride = 1): string {
  const operands = [x, g.constant(weights(filters, channels, 3, 3)), g.constant(weights(filters))];
  return g.node('Conv', operands, { kernel_shape: [3, 3], pads: [1, 1, 1, 1], strides: [stride, stride] });
}

function body(g: GraphBuilder, x: string): string {
  return conv(g, g.node('Relu', [conv(g, x)]));
}

function score(g: GraphBuilder, x: string, outputs = 1): string {
  const flat = g.node('Flatten', [g.node('GlobalAveragePool', [x])]);
  return g.node('Gemm', [flat, g.constant(weights(4, outputs)), g.constant(weights(outputs))]);
}

function classes(g: GraphBuilder, x: string): string {
  const flat = g.node('Flatten', [g.node('GlobalAveragePool', [x])]);
  return g.node('Softmax', [g.node('Gemm', [flat, g.constant(weights(3, 4))], { transB: 1 })]);
}

/** 1 where the block runs, [N, 1, 1, 1]. */
function gate(g: GraphBuilder, x: string): string {
  const flag = g.node('Cast', [g.node('Greater', [score(g, x), g.constant(float32s(0.05))])], {
    to: ELEMENT_TYPE.float32,
  });
  return g.node('Reshape', [flag, g.constant(int64s(-1, 1, 1, 1))]);
}

type Block = (g: GraphBuilder, x: string) => string;

const residual = (block: Block): Uint8Array =>
  network((g, x) => classes(g, block(g, block(g, g.node('Relu', [conv(g, x, 4, 3)])))), ['batch', 3, 6, 6]);

const plainBlock: Block = (g, x) => g.node('Relu', [g.node('Add', [x, body(g, x)])]);
const projectionBlock: Block = (g, x) => {
  const shortcut = g.node('Conv', [x, g.constant(weights(4, 4, 1, 1))], { strides: [2, 2] });
  return g.node('Relu', [g.node('Add', [shortcut, conv(g, g.node('Relu', [conv(g, x, 4, 4, 2)]))])]);
};
const paddedBlock: Block = (g, x) => {
  const slice = g.node('Slice', [
    x,
    ...[int64s(0, 0), int64s(9, 9), int64s(2, 3), int64s(2, 2)].map((c) => g.constant(c)),
  ]);
  const shortcut = g.node('Pad', [slice, g.constant(int64s(0, 0, 0, 0, 0, 0, 0, 0))]);
  return g.node('Add', [shortcut, conv(g, g.node('Relu', [conv(g, x, 4, 4, 2)]))]);
};
const normalizedBlock: Block = (g, x) => {
  const parameters = [weights(4), weights(4), weights(4), tensor(Float32Array.of(1, 2, 3, 0.5))].map((c) =>
    g.constant(c),
  );
  const normalized = g.node('BatchNormalization', [x, ...parameters], { epsilon: float(1e-5) as never });
  return g.node('Add', [x, body(g, g.node('Relu', [normalized]))]);
};
const invertedBlock: Block = (g, x) => {
  const wide = g.node('Clip', [
    g.node('Conv', [x, g.constant(weights(8, 4, 1, 1))]),
    g.constant(tensor(Float32Array.of(0), [])),
    g.constant(tensor(Float32Array.of(6), [])),
  ]);
  const deep = g.node('Conv', [wide, g.constant(weights(8, 1, 3, 3))], { group: 8, pads: [1, 1, 1, 1] });
  return g.node('Add', [g.node('Conv', [deep, g.constant(weights(4, 8, 1, 1))]), x]);
};
const multiplyBlock: Block = (g, x) =>
  g.node('Relu', [g.node('Add', [x, g.node('Mul', [gate(g, x), body(g, x)])])]);
const blendBlock: Block = (g, x) => {
  const mask = gate(g, x);
  const rest = g.node('Sub', [g.constant(float32s(1)), mask]);
  return g.node('Add', [g.node('Mul', [mask, body(g, x)]), g.node('Mul', [rest, x])]);
};
const argMaxBlock: Block = (g, x) => {
  const chosen = g.node('ArgMax', [score(g, x, 2)], { axis: 1, keepdims: 0 });
  const factor = g.node('Gather', [g.constant(float32s(0, 1)), chosen]);
  return g.node('Add', [
    x,
    g.node('Mul', [g.node('Reshape', [factor, g.constant(int64s(-1, 1, 1, 1))]), body(g, x)]),
  ]);
};
const oneHotBlock: Block = (g, x) => {
  const chosen = g.node('ArgMax', [score(g, x, 2)], { axis: 1, keepdims: 0 });
  const hot = g.node('OneHot', [chosen, g.constant(int64(2)), g.constant(float32s(0, 1))], { axis: 1 });
  const [, run] = g.nodes(
    'Split',
    [hot, g.constant(int64s(1, 1))],
    { axis: 1 },
    { name: `split_${hot}`, outputs: [`${hot}_a`, `${hot}_b`] },
  );
  return g.node('Add', [
    x,
    g.node('Mul', [g.node('Reshape', [run!, g.constant(int64s(-1, 1, 1, 1))]), body(g, x)]),
  ]);
};
const whereBlock: Block = (g, x) => {
  const flag = g.node('Less', [score(g, x), g.constant(float32s(0.05))]);
  const wide = g.node('Unsqueeze', [flag, g.constant(int64s(2, 3))]);
  return g.node('Where', [wide, x, g.node('Add', [x, body(g, x)])]);
};
const ifBlock: Block = (g, x) => {
  const mean = g.node('ReduceMean', [x], { keepdims: 0 });
  const [then, otherwise] = [new GraphBuilder(`then_${x}`), new GraphBuilder(`else_${x}`)];
  const named = (op: string, inputs: string[], at: string) =>
    then.nodes(op, inputs, {}, { name: `${at}_${x}` })[0]!;
  const inner = named('Conv', [x, then.constant(weights(4, 4, 1, 1), `weight_${x}`)], 'conv');
  then.output(named('Add', [x, inner], 'then'));
  otherwise.output(otherwise.nodes('Identity', [x], {}, { name: `else_${x}` })[0]!);
  const flag = g.node('Greater', [mean, g.constant(tensor(Float32Array.of(0.1), []))]);
  return g.node('If', [flag], { then_branch: then, else_branch: otherwise });
};

const logic: Block = (g, x) => {
  const zero = g.constant(float32s(0));
  const flags = ['Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual', 'Equal'].map((op) =>
    g.node(op, [x, zero]),
  );
  const all = flags.reduce((a, b, i) => g.node(i % 2 ? 'And' : 'Or', [a, b]));
  return g.node('Cast', [g.node('Not', [all])], { to: ELEMENT_TYPE.float32 });
};
const shapes: Block = (g, x) => {
  const shape = g.node('Shape', [x]);
  const [zero, one] = [g.constant(int64s(0)), g.constant(int64s(1))];
  const head = g.node('Slice', [shape, zero, one]);
  const count = g.node('Cast', [g.node('Size', [x])], { to: ELEMENT_TYPE.int64 });
  const target = g.node('Concat', [head, g.node('Unsqueeze', [count, zero])], { axis: 0 });
  const filled = g.node('ConstantOfShape', [g.constant(int64s(1, 144))], { value: float32s(0.5) });
  return g.node('Add', [
    g.node('Reshape', [x, g.node('Concat', [head, g.constant(int64s(-1))], { axis: 0 })]),
    g.node('Dropout', [g.node('Expand', [filled, target])]),
  ]);
};

/** The residual network for the policies. */
export const GATED = residual(multiplyBlock);
export const GATED_BLOCKS = ['block0', 'block1'] as const;

export const MODELS: readonly Uint8Array[] = [
  GATED,
  ...[plainBlock, projectionBlock, paddedBlock, normalizedBlock, invertedBlock, blendBlock].map(residual),
  ...[argMaxBlock, oneHotBlock, whereBlock, ifBlock].map(residual),
  ...QUANTISED,
  network(logic, IMAGE),
  network(shapes, [1, 4, 6, 6]),
  ...['Relu', 'Sigmoid', 'Tanh', 'HardSwish', 'Neg', 'Identity', 'GlobalMaxPool', 'Flatten'].map((op) =>
    single(op),
  ),
  single('LeakyRelu', IMAGE, [], { alpha: 2 }),
  single('HardSigmoid', IMAGE),
  single('Clip', IMAGE, [tensor(Float32Array.of(-1), []), tensor(Float32Array.of(1), [])]),
  single('Conv', IMAGE, [weights(2, 4, 3, 3)], { dilations: [2, 2], auto_pad: 'SAME_UPPER' }),
  single('Conv', IMAGE, [weights(4, 1, 2, 2), weights(4)], { group: 4, pads: [1, 0, 1, 0] }),
  single('Conv', ['batch', 4, 9], [weights(8, 4, 3), weights(8)], { strides: [2] }),
  single('Conv', ['batch', 2, 4, 4, 4], [weights(2, 2, 2, 2, 2)]),
  single('MaxPool', IMAGE, [], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] }),
  single('MaxPool', IMAGE, [], { kernel_shape: [2, 2], dilations: [2, 2], ceil_mode: 1, storage_order: 1 }),
  single('AveragePool', IMAGE, [], { kernel_shape: [3, 3], pads: [1, 1, 1, 1], count_include_pad: 1 }),
  single('MatMul', ['batch', 5], [weights(5, 7)]),
  single('MatMul', [2, 3, 5], [weights(2, 5, 4)]),
  single('Gemm', ['batch', 6], [weights(3, 6), weights(3)], { transB: 1, alpha: 2 }),
  single('Transpose', IMAGE, [], { perm: [0, 2, 3, 1] }),
  single('Squeeze', ['batch', 1, 5, 1], [int64s(1, 3)]),
  single('Unsqueeze', ['batch', 5], [int64s(1, -1)]),
  single('Expand', ['batch', 1, 3], [int64s(1, 4, 3)]),
  single('Pad', IMAGE, [int64s(0, 0, 1, 2, 0, 0, 3, 1), tensor(Float32Array.of(2), [])]),
  single('Pad', IMAGE, [int64s(0, 0, 1, 2, 0, 0, 1, 1)], { mode: 'reflect' }),
  single('Slice', IMAGE, [int64s(1, 5), int64s(4, -7), int64s(1, 2), int64s(1, -2)]),
  single('Gather', IMAGE, [int64s(3, 0, -1)], { axis: 1 }),
  single('ReduceMean', IMAGE, [], { axes: [2, 3], keepdims: 0 }),
  single('ReduceMean', [3, 4, 5], [], { axes: [1] }),
  single('ArgMax', ['batch', 7], [], { axis: 1, select_last_index: 1 }),
  single('TopK', ['batch', 7], [int64s(3)], { axis: 1, largest: 0 }),
  single('LogSoftmax', ['batch', 3, 4], [], { axis: 1 }),
  single('Softmax', ['batch', 3, 4], [], { axis: 1 }, 11),
  single('Sum', ['batch', 4], [weights(4), weights(1, 4)]),
  single('Div', ['batch', 4], [weights(4)]),
  network((g, x) => g.node('Where', [g.constant(bool(1, 0, 1)), x, g.constant(weights(3))]), ['batch', 3]),
  network((g, x) => g.node('Concat', [x, g.node('Neg', [x]), x], { axis: 1 }), IMAGE),
  network((g, x) => g.nodes('Split', [x], { axis: 1 }, { outputs: ['a', 'b'] })[1]!, IMAGE),
  network(
    (g, x) => {
      const range = g.node(
        'Range',
        [int64(0), int64(4), int64(1)].map((c) => g.constant(c)),
      );
      return g.node('Add', [x, g.node('Cast', [range], { to: ELEMENT_TYPE.float32 })]);
    },
    ['batch', 4],
  ),
];
