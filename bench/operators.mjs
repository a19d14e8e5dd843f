// Single operators, and small groups of them that networks have, beside onnxruntime-node: where the long tail is slow.
import { InferenceSession, Tensor } from '../dist/index.js';
import { encodeModelProto } from '../dist/model/read/proto.js';
import { inRow, inRowSync, median, ratioOf, table, takeTurns } from './harness.mjs';

const FLOAT = 1;
const INT64 = 7;

const initializer = (name, values) => {
  const whole = values instanceof BigInt64Array;
  return {
    name,
    dataType: whole ? INT64 : FLOAT,
    dims: values.dims ?? [values.length],
    rawData: new Uint8Array(values.buffer),
  };
};
const int64s = (...values) => BigInt64Array.from(values, BigInt);
/** Numbers between -0.5 and 1.5, of this shape; as variances they are too small, so `least` moves them up. */
function numbers(dims, least = -0.5) {
  const length = dims.reduce((product, dim) => product * dim, 1);
  return Object.assign(
    Float32Array.from({ length }, (_, i) => least + 1 + Math.sin(0.7 * i)),
    { dims },
  );
}
const scalar = (value) => Object.assign(Float32Array.of(value), { dims: [] });

function attribute([name, value]) {
  if (typeof value === 'string') return { name, type: 3, s: new TextEncoder().encode(value) };
  if (Array.isArray(value)) return { name, type: 7, ints: value };
  return Number.isInteger(value) ? { name, type: 2, i: value } : { name, type: 1, f: value };
}

/** A network of `x` alone. Nodes are [operator, inputs, attributes]; the n-th writes `n`, and the last one is the output. */
function network({ shape, constants = {}, nodes, output = FLOAT }) {
  const last = String(nodes.length - 1);
  const node = nodes.map(([opType, input, attributes = {}], i) => ({
    opType,
    input,
    output: [String(i)],
    attribute: Object.entries(attributes).map(attribute),
  }));
  const dim = shape.map((dimValue) => ({ dimValue }));
  return encodeModelProto({
    irVersion: 8,
    opsetImport: [{ version: 17 }],
    graph: {
      name: 'operators',
      node,
      initializer: Object.entries(constants).map(([name, values]) => initializer(name, values)),
      input: [{ name: 'x', type: { tensorType: { elemType: FLOAT, shape: { dim } } } }],
      output: [{ name: last, type: { tensorType: { elemType: output } } }],
    },
  });
}

const perChannel = (channels) => ({
  scale: numbers([channels]),
  shift: numbers([channels]),
  mean: numbers([channels]),
  variance: numbers([channels], 0.5),
});
const batchNorm = ['BatchNormalization', ['x', 'scale', 'shift', 'mean', 'variance']];
const instanceNorm = ['InstanceNormalization', ['x', 'scale', 'shift']];
const resize = (shape, sizes, mode, coordinates) => ({
  shape,
  constants: { sizes: int64s(...sizes) },
  nodes: [['Resize', ['x', '', '', 'sizes'], { mode, coordinate_transformation_mode: coordinates }]],
});

const OPERATORS = {
  'BatchNormalization, ReLU': {
    shape: [1, 64, 56, 56],
    constants: perChannel(64),
    nodes: [batchNorm, ['Relu', ['0']]],
  },
  'BatchNormalization, LeakyReLU': {
    shape: [1, 64, 56, 56],
    constants: perChannel(64),
    nodes: [batchNorm, ['LeakyRelu', ['0'], { alpha: 0.2 }]],
  },
  'InstanceNormalization, ReLU': {
    shape: [1, 64, 64, 64],
    constants: perChannel(64),
    nodes: [instanceNorm, ['Relu', ['0']]],
  },
  'GroupNormalization, ReLU': {
    shape: [1, 64, 64, 64],
    constants: {
      groups: int64s(0, 32, -1),
      back: int64s(1, 64, 64, 64),
      ones: numbers([32]),
      zeros: numbers([32]),
      weight: numbers([64, 1, 1]),
      bias: numbers([64, 1, 1]),
    },
    nodes: [
      ['Reshape', ['x', 'groups']],
      ['InstanceNormalization', ['0', 'ones', 'zeros']],
      ['Reshape', ['1', 'back']],
      ['Mul', ['2', 'weight']],
      ['Add', ['3', 'bias']],
      ['Relu', ['4']],
    ],
  },
  'Convolution, InstanceNormalization, LeakyReLU': {
    shape: [1, 32, 64, 64],
    constants: { w: numbers([32, 32, 3, 3]), scale: numbers([32]), shift: numbers([32]) },
    nodes: [
      ['Conv', ['x', 'w'], { pads: [1, 1, 1, 1] }],
      ['InstanceNormalization', ['0', 'scale', 'shift']],
      ['LeakyRelu', ['1'], { alpha: 0.2 }],
    ],
  },
  'Resize, linear, 21 x 28 to 224': resize([1, 21, 28, 28], [1, 21, 224, 224], 'linear', 'half_pixel'),
  'Resize, linear, 64 x 32 to 64': resize([1, 64, 32, 32], [1, 64, 64, 64], 'linear', 'align_corners'),
  'Resize, nearest, 64 x 32 to 64': resize([1, 64, 32, 32], [1, 64, 64, 64], 'nearest', 'asymmetric'),
  'Convolution 3x3, dilation 24': {
    shape: [1, 64, 28, 28],
    constants: { w: numbers([64, 64, 3, 3]) },
    nodes: [['Conv', ['x', 'w'], { dilations: [24, 24], pads: [24, 24, 24, 24] }]],
  },
  'Convolution 3x3, dilation 6': {
    shape: [1, 64, 28, 28],
    constants: { w: numbers([64, 64, 3, 3]) },
    nodes: [['Conv', ['x', 'w'], { dilations: [6, 6], pads: [6, 6, 6, 6] }]],
  },
  'ReduceMean, last axis of 64': { shape: [1, 4096, 64], nodes: [['ReduceMean', ['x'], { axes: [-1] }]] },
  'ReduceMean, last axis of 7': { shape: [1, 4096, 7], nodes: [['ReduceMean', ['x'], { axes: [-1] }]] },
  'ReduceMax, last axis of 64': { shape: [1, 4096, 64], nodes: [['ReduceMax', ['x'], { axes: [-1] }]] },
  'ReduceMean, channels': { shape: [1, 64, 56, 56], nodes: [['ReduceMean', ['x'], { axes: [1] }]] },
  'ConvTranspose 2x2': {
    shape: [1, 64, 28, 28],
    constants: { w: numbers([64, 32, 2, 2]) },
    nodes: [['ConvTranspose', ['x', 'w'], { strides: [2, 2] }]],
  },
  'ConvTranspose 4x4': {
    shape: [1, 32, 28, 28],
    constants: { w: numbers([32, 32, 4, 4]) },
    nodes: [['ConvTranspose', ['x', 'w'], { strides: [2, 2], pads: [1, 1, 1, 1] }]],
  },
  'AveragePool 3x3': {
    shape: [1, 64, 28, 28],
    nodes: [['AveragePool', ['x'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }]],
  },
  'AveragePool 2x2': {
    shape: [1, 64, 56, 56],
    nodes: [['AveragePool', ['x'], { kernel_shape: [2, 2], strides: [2, 2] }]],
  },
  'MaxPool 3x3': {
    shape: [1, 64, 56, 56],
    nodes: [['MaxPool', ['x'], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] }]],
  },
  'Softmax, 2 channels': { shape: [1, 2, 128, 128], nodes: [['Softmax', ['x'], { axis: 1 }]] },
  'Softmax, 21 channels': { shape: [1, 21, 64, 64], nodes: [['Softmax', ['x'], { axis: 1 }]] },
  'Softmax, rows of 7': { shape: [4096, 7], nodes: [['Softmax', ['x'], { axis: -1 }]] },
  'ArgMax, 21 channels': {
    shape: [1, 21, 64, 64],
    nodes: [['ArgMax', ['x'], { axis: 1 }]],
    output: INT64,
  },
  'ArgMax, last axis of 64': { shape: [1024, 64], nodes: [['ArgMax', ['x'], { axis: -1 }]], output: INT64 },
  DepthToSpace: { shape: [1, 64, 56, 56], nodes: [['DepthToSpace', ['x'], { blocksize: 2, mode: 'CRD' }]] },
  'Transpose to channels last': {
    shape: [1, 64, 56, 56],
    nodes: [['Transpose', ['x'], { perm: [0, 2, 3, 1] }]],
  },
  'Transpose to channels first': {
    shape: [1, 56, 56, 64],
    nodes: [['Transpose', ['x'], { perm: [0, 3, 1, 2] }]],
  },
  'Concat, 24 and 40 channels': {
    shape: [1, 24, 56, 56],
    constants: { more: numbers([1, 40, 56, 56]) },
    nodes: [['Concat', ['x', 'more'], { axis: 1 }]],
  },
  'GELU with tanh, eight steps': {
    shape: [1, 512, 256],
    constants: {
      three: scalar(3),
      cubic: scalar(0.044715),
      root: scalar(Math.sqrt(2 / Math.PI)),
      one: scalar(1),
      half: scalar(0.5),
    },
    nodes: [
      ['Pow', ['x', 'three']],
      ['Mul', ['0', 'cubic']],
      ['Add', ['x', '1']],
      ['Mul', ['2', 'root']],
      ['Tanh', ['3']],
      ['Add', ['4', 'one']],
      ['Mul', ['x', '5']],
      ['Mul', ['6', 'half']],
    ],
  },
  'GELU with tanh, products': {
    shape: [1, 512, 256],
    constants: { cubic: scalar(0.044715), root: scalar(0.7978845), one: scalar(1), half: scalar(0.5) },
    nodes: [
      ['Mul', ['x', 'x']],
      ['Mul', ['0', 'x']],
      ['Mul', ['1', 'cubic']],
      ['Add', ['x', '2']],
      ['Mul', ['3', 'root']],
      ['Tanh', ['4']],
      ['Add', ['5', 'one']],
      ['Mul', ['x', '6']],
      ['Mul', ['7', 'half']],
    ],
  },
  'Add of a row': {
    shape: [1, 512, 256],
    constants: { row: numbers([256]) },
    nodes: [['Add', ['x', 'row']]],
  },
  'Mul by channels': {
    shape: [1, 64, 56, 56],
    constants: { v: numbers([64, 1, 1]) },
    nodes: [['Mul', ['x', 'v']]],
  },
  'PRelu by channels': {
    shape: [1, 64, 56, 56],
    constants: { v: numbers([64, 1, 1]) },
    nodes: [['PRelu', ['x', 'v']]],
  },
  'Max with a number': {
    shape: [1, 64, 56, 56],
    constants: { v: scalar(0.3) },
    nodes: [['Max', ['x', 'v']]],
  },
  'Convolution 1d, 3': {
    shape: [1, 64, 1000],
    constants: { w: numbers([64, 64, 3]) },
    nodes: [['Conv', ['x', 'w'], { pads: [1, 1] }]],
  },
  'Dense 768 to 768': {
    shape: [1, 768],
    constants: { w: numbers([768, 768]), b: numbers([768]) },
    nodes: [
      ['Gemm', ['x', 'w', 'b']],
      ['Relu', ['0']],
    ],
  },
  'Dense 4096 to 256': {
    shape: [1, 4096],
    constants: { w: numbers([4096, 256]), b: numbers([256]) },
    nodes: [
      ['Gemm', ['x', 'w', 'b']],
      ['Relu', ['0']],
    ],
  },
};

/** For operators whose names contain `part`: both packages' CPU time of a run on one thread, ours in each turn over onnxruntime's. */
export async function operators(part, { rounds, isa }, ort) {
  const rows = [];
  for (const [title, graph] of Object.entries(OPERATORS)) {
    if (!title.toLowerCase().includes(part.toLowerCase())) continue;
    const bytes = network(graph);
    const own = await InferenceSession.create(bytes, { threads: 1, isa });
    const peer = await ort.InferenceSession.create(bytes, { intraOpNumThreads: 1, interOpNumThreads: 1 });
    const data = numbers(graph.shape);
    const variants = [
      { title, runs: inRowSync(() => own.runSync({ x: new Tensor('float32', data, graph.shape) })) },
      { title, runs: inRow(() => peer.run({ x: new ort.Tensor('float32', data, graph.shape) })) },
    ];
    await takeTurns(variants, { rounds: Number(rounds), turnMs: 20 });
    const [ownMs, peerMs] = variants.map(({ turns }) => median(turns.map(({ cpuMs }) => cpuMs)).toFixed(4));
    rows.push([title, ownMs, peerMs, ratioOf(variants[1], variants[0], 'cpuMs')[0].toFixed(2)]);
    await Promise.all([own, peer].map((session) => session.release()));
  }
  return [table(['operator', 'CPU ms', 'onnxruntime-node', 'times as fast'], rows)];
}
