/** Attention as one operator: ONNX's, and those that onnxruntime's optimiser writes (Vaswani et al. 2017). */

import { NONE, type ValueId } from '../../program/program.js';
import type { Node } from '../../read/graph.js';
import type { NodeLowering } from '../lowering.js';
import { unary } from './activations.js';
import { causal, givenMask, paddingMask } from './attention-masks.js';
import { arithmetic } from './elementwise.js';
import { part, transposed } from './layout.js';
import { product, scaled } from './matrix.js';
import { NO_INPUT, type OperatorTable } from './operator.js';
import { dequantized } from './quantization.js';
import { turnedByCaches } from './rotary.js';

/** Queries, keys and values: (batch, heads, tokens, elements of a head). */
type Operands = readonly [q: ValueId, k: ValueId, v: ValueId];

interface Attended {
  /** (batch, heads, queries, elements of a value) */
  readonly y: ValueId;
  /** q k' * scale */
  readonly scores: ValueId;
  /** What the softmax makes of them. */
  readonly weights: ValueId;
}

/** softmax(cap(q k' * scale) + masks) v, where cap(x) = softcap * tanh(x / softcap). */
function attend(
  node: NodeLowering,
  [q, k, v]: Operands,
  scale: number,
  masks: readonly ValueId[],
  softcap = 0,
): Attended {
  const scores = scaled(node, product(node, q, transposed(node, k, [0, 1, 3, 2])), scale);
  const capped =
    softcap > 0 ? scaled(node, unary(node, scaled(node, scores, 1 / softcap), 'tanh'), softcap) : scores;
  const [first, ...others] = masks;
  const mask = others.reduce((sum, other) => arithmetic(node, 'add', sum, other), first ?? NONE);
  const sum = mask === NONE ? capped : arithmetic(node, 'add', capped, mask);
  const output = { dtype: 'float32', shape: node.shape(sum) } as const;
  const weights = node.step('softmax', [sum], output, { axis: output.shape.length - 1, log: false });
  return { y: product(node, weights, v), scores, weights };
}

/** (batch, tokens, heads * size) as (batch, heads, tokens, size). */
function split(node: NodeLowering, x: ValueId, heads: number): ValueId {
  const [batch = 0, tokens = 0, width = 0] = node.shape(x);
  if (node.rank(x) !== 3 || !(heads > 0) || width % heads !== 0) {
    node.invalid(`its input [${node.shape(x)}] can't be split into ${heads} heads`);
  }
  return transposed(node, node.reshape(x, [batch, tokens, heads, width / heads]), [0, 2, 1, 3]);
}

function joined(node: NodeLowering, x: ValueId): ValueId {
  const [batch, heads, tokens, size] = node.shape(x) as [number, number, number, number];
  return node.reshape(transposed(node, x, [0, 2, 1, 3]), [batch, tokens, heads * size]);
}

/** Each head `times` times in a row: several heads of queries share one of keys. */
function repeated(node: NodeLowering, x: ValueId, times: number): ValueId {
  if (times === 1) return x;
  const [batch, heads, tokens, size] = node.shape(x) as [number, number, number, number];
  const apart = node.reshape(x, [batch, heads, 1, tokens, size]);
  const wide = node.expand(apart, [batch, heads, times, tokens, size]);
  return node.reshape(wide, [batch, heads * times, tokens, size]);
}

/** What onnxruntime's operators have in common behind the projections. */
function contribAttention(node: NodeLowering, operands: Operands, mask: number, bias: number): ValueId {
  const [q, k] = operands;
  const [batch, , queries, size] = node.shape(q) as [number, number, number, number];
  const keys = node.shape(k)[2]!;
  const masks: ValueId[] = [];
  if (node.optional(mask) !== NONE) masks.push(paddingMask(node, node.input(mask), queries, keys, batch));
  if (node.number('unidirectional', 0) !== 0) masks.push(causal(node, queries, keys));
  if (node.optional(bias) !== NONE) masks.push(node.float(bias));
  const scale = node.number('scale', 0) || 1 / Math.sqrt(size);
  return joined(node, attend(node, operands, scale, masks).y);
}

/** Projects to queries, keys and values first. */
function attentionWithProjection(
  node: NodeLowering,
  [x, weights]: readonly [ValueId, ValueId],
  mask: number,
  bias: number,
): ValueId {
  const width = node.shape(weights).at(-1)!;
  const sizes = node.numbers('qkv_hidden_sizes') ?? [width / 3, width / 3, width / 3];
  const [q = 0, k = 0, v = 0] = sizes;
  if (sizes.length !== 3 || q + k + v !== width || !sizes.every(Number.isInteger)) {
    node.invalid(`its weights [${node.shape(weights)}] can't be split into [${sizes}]`);
  }
  const whole = product(node, x, weights);
  const projected = node.optional(2) === NONE ? whole : arithmetic(node, 'add', whole, node.float(2));
  const heads = node.number('num_heads', 0);
  const of = (first: number, size: number) =>
    split(node, part(node, projected, 2, first, first + size), heads);
  return contribAttention(node, [of(0, q), of(q, k), of(q + k, v)], mask, bias);
}

/** The same of bytes: weights have a scale, or one for each column. */
function quantizedAttention(node: NodeLowering): ValueId {
  const operand = (at: number, axis: number) =>
    dequantized(node, node.input(at), { scale: node.float(3 + at), zero: node.optional(6 + at), axis });
  return attentionWithProjection(node, [operand(0, 0), operand(1, 1)], 5, NO_INPUT);
}

/** Operand `index`, (batch, tokens, width), with the part of the bias from `first` on, in heads. */
function biased(node: NodeLowering, index: number, first: number, heads: number): ValueId {
  const x = node.float(index);
  if (node.optional(3) === NONE) return split(node, x, heads);
  const row = part(node, node.float(3), 0, first, first + node.shape(x)[2]!);
  return split(node, arithmetic(node, 'add', x, row), heads);
}

/** Takes queries, keys and values apart, or two or three of them behind one another: (batch, tokens, heads, of them, size). */
function multiHeadAttention(node: NodeLowering): ValueId {
  const heads = node.number('num_heads', 0);
  const packed = (index: number, count: number) => {
    const x = node.float(index);
    const [batch, tokens, , , size] = node.shape(x) as [number, number, number, number, number];
    return Array.from({ length: count }, (_, i) => {
      const one = node.reshape(part(node, x, 3, i, i + 1), [batch, tokens, heads, size]);
      return transposed(node, one, [0, 2, 1, 3]);
    });
  };
  const operands = (): readonly ValueId[] => {
    if (node.rank(node.input(0)) === 5) return packed(0, 3);
    const width = node.shape(node.input(0))[2]!;
    const q = biased(node, 0, 0, heads);
    if (node.rank(node.input(1)) === 5) return [q, ...packed(1, 2)];
    // Keys and values that another node has split already.
    if (node.rank(node.input(1)) === 4) return [q, node.float(1), node.float(2)];
    return [q, biased(node, 1, width, heads), biased(node, 2, 2 * width, heads)];
  };
  return contribAttention(node, operands() as Operands, 4, 5);
}

/**
 * Causal attention in which several heads of queries share one of keys, over the tokens at hand alone. The lengths of the
 * items (seqlens_k) only matter with a cache: texts are filled up behind their tokens, which no token sees.
 */
function groupQueryAttention(node: NodeLowering): readonly ValueId[] {
  const [heads, groups] = [node.number('num_heads', 0), node.number('kv_num_heads', 0)];
  if (!(heads > 0 && groups > 0 && heads % groups === 0)) {
    node.invalid(`its ${heads} heads of queries can't share ${groups} heads of keys`);
  }
  const whole = node.float(0);
  const width = node.shape(whole).at(-1)!;
  const packed = node.optional(1) === NONE;
  const size = width / (packed ? heads + 2 * groups : heads);
  const of = (input: number, first: number, count: number) =>
    split(
      node,
      packed ? part(node, whole, 2, first * size, (first + count) * size) : node.float(input),
      count,
    );
  const turned = (x: ValueId) =>
    node.number('do_rotary', 0) === 0
      ? x
      : turnedByCaches(node, x, [node.float(7), node.float(8)], node.optional(9));
  const q = turned(of(0, 0, heads));
  const k = turned(of(1, heads, groups));
  const v = of(2, heads + groups, groups);
  const tokens = node.shape(q)[2]!;
  const window = node.number('local_window_size', -1);
  if (window > 0 && tokens > window) {
    node.unsupported(
      `its window of ${window} is shorter than its ${tokens} tokens; releases of onnxruntime differ in it`,
    );
  }
  const masks = [causal(node, tokens, tokens)];
  if (node.optional(10) !== NONE) masks.push(node.float(10));
  const operands = [q, ...[k, v].map((x) => repeated(node, x, heads / groups))] as unknown as Operands;
  const scale = node.number('scale', 0) || 1 / Math.sqrt(size);
  return [joined(node, attend(node, operands, scale, masks, node.number('softcap', 0)).y), k, v];
}

function unsupportedGroupQueryAttention({ inputs, attributes }: Node): string | undefined {
  if (named(inputs, 3, 5)) return CACHES;
  return (attributes.get('smooth_softmax') ?? 0) === 1 || named(inputs, 11)
    ? 'with smooth_softmax'
    : undefined;
}

function attention(node: NodeLowering): readonly ValueId[] {
  const flat = node.rank(node.float(0)) === 3;
  const inHeads = (index: number, heads: 'q_num_heads' | 'kv_num_heads') =>
    flat ? split(node, node.float(index), node.number(heads, 0)) : node.float(index);
  const q = inHeads(0, 'q_num_heads');
  const withPast = (fresh: ValueId, past: number): ValueId => {
    if (node.optional(past) === NONE) return fresh;
    const [shape, before] = [node.shape(fresh), node.shape(node.float(past))];
    const output = { dtype: 'float32', shape: shape.with(2, shape[2]! + before[2]!) } as const;
    return node.step('concat', [node.float(past), fresh], output, { axis: 2 });
  };
  const k = withPast(inHeads(1, 'kv_num_heads'), 4);
  const v = withPast(inHeads(2, 'kv_num_heads'), 5);
  const [, heads = 0, queries = 0, size = 0] = node.shape(q);
  const [, groups = 0, keys = 0] = node.shape(k);
  if (heads % groups !== 0) node.invalid(`its ${heads} heads of queries can't share ${groups} heads of keys`);
  const masks: ValueId[] = [];
  if (node.optional(3) !== NONE) masks.push(givenMask(node, node.input(3), keys));
  const past = node.optional(4) === NONE ? 0 : node.shape(node.input(4))[2]!;
  if (node.number('is_causal', 0) !== 0) masks.push(causal(node, queries, keys, past));
  const operands = [q, ...[k, v].map((x) => repeated(node, x, heads / groups))] as unknown as Operands;
  const scale = node.number('scale', 0) || 1 / Math.sqrt(size);
  const { y, scores, weights } = attend(node, operands, scale, masks, node.number('softcap', 0));
  const shown = node.number('qk_matmul_output_mode', 0) === 0 ? scores : weights;
  return [flat ? joined(node, y) : y, k, v, shown];
}

const CACHES = 'with a cache of earlier tokens';
const named = (names: readonly string[], first: number, end = first + 1) =>
  names.slice(first, end).some((name) => name !== '');

function unsupportedAttention({ inputs, outputs, attributes }: Node): string | undefined {
  const mode = attributes.get('qk_matmul_output_mode') ?? 0;
  // Releases of ONNX differ in what these two are.
  if (named(outputs, 3) && (mode === 1 || mode === 2)) return `with qk_matmul_output_mode ${mode}`;
  return named(inputs, 6) ? 'with nonpad_kv_seqlen' : undefined;
}

export const ATTENTION: OperatorTable = {
  Attention: { lower: attention, unsupported: unsupportedAttention },
  'com.microsoft.Attention': {
    lower: (node) => attentionWithProjection(node, [node.float(0), node.float(1)], 3, 5),
    unsupported: ({ inputs, outputs, attributes }) => {
      if (named(inputs, 4) || named(outputs, 1)) return CACHES;
      return attributes.get('do_rotary') ? 'with do_rotary' : undefined;
    },
  },
  'com.microsoft.QAttention': {
    lower: quantizedAttention,
    unsupported: ({ inputs, outputs, attributes }) => {
      if (named(inputs, 8) || named(outputs, 1)) return CACHES;
      return attributes.get('do_rotary') ? 'with do_rotary' : undefined;
    },
  },
  'com.microsoft.GroupQueryAttention': {
    lower: groupQueryAttention,
    unsupported: unsupportedGroupQueryAttention,
  },
  'com.microsoft.MultiHeadAttention': {
    lower: multiHeadAttention,
    unsupported: ({ inputs, outputs }) => (named(inputs, 6, 8) || named(outputs, 1, 3) ? CACHES : undefined),
  },
};
