/** Operators of onnxruntime's own domain, which its optimiser and some exporters write. */
import { range } from '../../../numeric/shapes.js';
import { type ActivationKind, NONE, type ValueId } from '../../program/program.js';
import type { Node } from '../../read/graph.js';
import type { NodeLowering } from '../lowering.js';
import { swish, unary } from './activations.js';
import { conv } from './convolution.js';
import { arithmetic } from './elementwise.js';
import { transposed } from './layout.js';
import { gemm, product, scaled } from './matrix.js';
import { layerNorm, rmsNorm } from './normalization.js';
import { NO_INPUT, type Operator, type OperatorTable } from './operator.js';
import { dequantized } from './quantization.js';
import { sum } from './reduction.js';

/** x plus the operand `index`, if there is one. */
function plus(node: NodeLowering, x: ValueId, index: number): ValueId {
  return node.optional(index) === NONE ? x : arithmetic(node, 'add', x, node.float(index));
}

const FUSED: Readonly<Record<string, readonly [ActivationKind, number, number]>> = {
  Relu: ['relu', 0, 0],
  Sigmoid: ['sigmoid', 0, 0],
  Tanh: ['tanh', 0, 0],
  LeakyRelu: ['leakyRelu', 0.01, 0],
  HardSigmoid: ['hardSigmoid', 0.2, 0.5],
  Clip: ['clip', Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
};

function unknownActivation({ attributes }: Node): string | undefined {
  const name = attributes.get('activation') as string | undefined;
  return name === undefined || name === '' || Object.hasOwn(FUSED, name)
    ? undefined
    : `with activation ${name}`;
}

/** Applies the activation that the node's attributes name. */
function activated(node: NodeLowering, x: ValueId, given: readonly (number | undefined)[]): ValueId {
  const name = node.string('activation', '');
  if (name === '') return x;
  const [kind, alpha, beta] = FUSED[name]!;
  return unary(node, x, kind, given[0] ?? alpha, given[1] ?? beta);
}

function fusedConv(node: NodeLowering): ValueId {
  const parameters = (node.node.attributes.get('activation_params') ?? []) as readonly number[];
  return activated(node, plus(node, conv(node), 3), parameters);
}

function fusedGemm(node: NodeLowering): ValueId {
  const parameter = (name: string) => node.node.attributes.get(name) as number | undefined;
  return activated(node, gemm(node), [parameter('activation_alpha'), parameter('activation_beta')]);
}

/** A transposition of the batch moves the first axis behind the other axes of the batch; it precedes that of the matrix. */
function fusedMatMul(node: NodeLowering): ValueId {
  const operand = (index: number, name: 'A' | 'B') => {
    const x = node.float(index);
    const axes = range(node.rank(x));
    const moved =
      node.number(`transBatch${name}`, 0) !== 0 && axes.length > 2
        ? [...axes.slice(1, -1), 0, axes.at(-1)!]
        : axes;
    const flip = node.number(`trans${name}`, 0) !== 0 && axes.length > 1;
    return transposed(node, x, flip ? [...moved.slice(0, -2), moved.at(-1)!, moved.at(-2)!] : moved);
  };
  return scaled(node, product(node, operand(0, 'A'), operand(1, 'B')), node.number('alpha', 1));
}

/** Normalises the sum of two tensors and a bias; the sum is an output, too. */
function skipNormalization(node: NodeLowering, simplified: boolean): readonly ValueId[] {
  const shape = node.shape(node.float(0));
  // The optimiser takes the bias from the layer that computes the first tensor.
  const layer = plus(node, node.float(0), simplified ? 3 : 4);
  const total = arithmetic(node, 'add', layer, node.float(1));
  const epsilon = node.number('epsilon', simplified ? 1e-6 : 1e-12);
  const axes = [shape.length - 1];
  if (simplified) {
    const [y, factor] = rmsNorm(node, total, axes, epsilon, node.float(2));
    return [y!, factor!, factor!, total];
  }
  const beta = node.optional(3) === NONE ? NONE : node.float(3);
  return [...layerNorm(node, total, axes, epsilon, node.float(2), beta), total];
}

/** Where the tables of embeddings and the normalisation's parameters are in bytes, their scales and zero points follow. */
interface Embedding {
  /** Inputs with the tables and parameters, by their numbers: words, positions, segments, gamma, beta. */
  readonly floats: (node: NodeLowering, at: number, rows?: ValueId) => ValueId;
  readonly positions: number;
}

const rowsOf = (node: NodeLowering, data: ValueId, indices: ValueId) => {
  const { dtype, shape } = node.value(data);
  return node.step(
    'gather',
    [data, indices],
    { dtype, shape: [...node.shape(indices), shape[1]!] },
    { axis: 0 },
  );
};

const OF_FLOATS: Embedding = {
  floats: (node, at, rows) => (rows === undefined ? node.float(at) : rowsOf(node, node.float(at), rows)),
  positions: 8,
};
const OF_BYTES: Embedding = {
  floats: (node, at, rows) => {
    const data = rows === undefined ? node.input(at) : rowsOf(node, node.input(at), rows);
    return dequantized(node, data, { scale: node.float(at + 6), zero: node.optional(at + 11), axis: 0 });
  },
  positions: NO_INPUT,
};

/** Sums the embeddings of words, positions and segments, and normalises them. */
function embedNormalization(node: NodeLowering, { floats, positions: given }: Embedding): readonly ValueId[] {
  const ids = node.input(0);
  const [batch, length] = node.shape(ids) as [number, number];
  node.afford('int64', length);
  const counted = node.constantOf(
    'int64',
    [1, length],
    BigInt64Array.from({ length }, (_, i) => BigInt(i)),
  );
  const positions = node.optional(given) === NONE ? counted : node.input(given);
  const words = arithmetic(node, 'add', floats(node, 2, ids), floats(node, 3, positions));
  const segments = node.optional(1);
  const total = segments === NONE ? words : arithmetic(node, 'add', words, floats(node, 4, segments));
  const [y] = layerNorm(node, total, [2], node.number('epsilon', 1e-12), floats(node, 5), floats(node, 6));
  const mask = node.optional(7);
  const tokens =
    mask === NONE
      ? node.expand(node.cast(node.scalar(0), 'int32'), [batch])
      : node.cast(sum(node, node.cast(mask, 'int32'), [1], false), 'int32');
  return [y!, tokens, total];
}

function plain(kind: ActivationKind): Operator {
  return { lower: (node) => unary(node, plus(node, node.float(0), 1), kind) };
}

export const CONTRIB: OperatorTable = {
  'com.microsoft.BiasGelu': plain('gelu'),
  'com.microsoft.FastGelu': plain('geluTanh'),
  'com.microsoft.Gelu': plain('gelu'),
  'com.microsoft.QuickGelu': { lower: (node) => swish(node, node.float(0), node.number('alpha', 1.702)) },
  'com.microsoft.FusedConv': { lower: fusedConv, unsupported: unknownActivation },
  'com.microsoft.FusedGemm': { lower: fusedGemm, unsupported: unknownActivation },
  'com.microsoft.FusedMatMul': { lower: fusedMatMul },
  'com.microsoft.SkipLayerNormalization': { lower: (node) => skipNormalization(node, false) },
  'com.microsoft.SkipSimplifiedLayerNormalization': { lower: (node) => skipNormalization(node, true) },
  'com.microsoft.EmbedLayerNormalization': {
    lower: (node) => embedNormalization(node, OF_FLOATS),
  },
  'com.microsoft.QEmbedLayerNormalization': { lower: (node) => embedNormalization(node, OF_BYTES) },
};
