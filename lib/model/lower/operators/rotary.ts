import { NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { arithmetic } from './elementwise.js';
import { part, transposed } from './layout.js';
import type { OperatorTable } from './operator.js';

/** Rows of a cache for each position of each item: (batch, 1, length, angles). */
function angles(
  node: NodeLowering,
  cache: ValueId,
  positions: ValueId,
  batch: number,
  length: number,
): ValueId {
  const shape = node.shape(cache);
  const count = shape.at(-1)!;
  if (positions === NONE) {
    if (shape.length !== 3) node.invalid(`its cache [${shape}] needs position_ids`);
    return node.reshape(cache, [shape[0]!, 1, shape[1]!, count]);
  }
  const [rows = 0, columns] = node.shape(positions);
  if (columns !== length || (rows !== batch && rows !== 1)) {
    node.invalid(`its position_ids [${node.shape(positions)}] don't fit ${batch} items of ${length} tokens`);
  }
  const output = { dtype: 'float32', shape: [rows, length, count] } as const;
  const taken = node.step('gather', [cache, positions], output, { axis: 0 });
  return node.reshape(taken, [rows, 1, length, count]);
}

/** One position for the first token is that of all tokens, counted on. */
function positionsOf(node: NodeLowering, id: ValueId, length: number): ValueId {
  if (id === NONE || node.rank(id) === 2) return id;
  const { dtype } = node.value(id);
  node.afford('int64', length);
  const steps = node.constantOf(
    'int64',
    [1, length],
    BigInt64Array.from({ length }, (_, i) => BigInt(i)),
  );
  return arithmetic(node, 'add', node.reshape(id, [1, 1]), node.cast(steps, dtype));
}

/**
 * Turns pairs of elements of each head by angles that grow with the position (Su et al., 2021). Pairs are neighbours if
 * `interleaved`, otherwise an element of the first half and one of the second.
 */
function rotary(node: NodeLowering, [cosine, sine, position]: readonly [number, number, number]): ValueId {
  const given = node.float(0);
  const shape = node.shape(given);
  const heads = node.number('num_heads', 0);
  const [cosines, sines] = [node.float(cosine), node.float(sine)];
  const rotated = node.number('rotary_embedding_dim', 0) || 2 * node.shape(cosines).at(-1)!;
  // (batch, length, hidden) or (batch, heads, length, size)
  const flat = shape.length === 3;
  const count = flat ? heads || shape[2]! / rotated : shape[1]!;
  const size = flat ? shape[2]! / count : shape[3]!;
  if ((!flat && shape.length !== 4) || !Number.isInteger(size) || rotated > size || rotated % 2 !== 0) {
    node.invalid(`its input [${shape}] has no ${count} heads with ${rotated} elements to turn`);
  }
  const [batch, length] = [shape[0]!, flat ? shape[1]! : shape[2]!];
  const x = flat ? transposed(node, node.reshape(given, [batch, length, count, size]), [0, 2, 1, 3]) : given;
  const positions = positionsOf(node, node.optional(position), length);
  const rows = [cosines, sines].map((cache) => angles(node, cache, positions, batch, length));
  const whole = turned(node, x, rows as [ValueId, ValueId], rotated, node.number('interleaved', 0) !== 0);
  return flat ? node.reshape(transposed(node, whole, [0, 2, 1, 3]), shape) : whole;
}

/** The first `rotated` elements of each head, (batch, heads, length, size), turned; cosines and sines are (batch or 1, 1, length, ...). */
function turned(
  node: NodeLowering,
  x: ValueId,
  rows: readonly [cosines: ValueId, sines: ValueId],
  rotated: number,
  interleaved: boolean,
): ValueId {
  const [batch, count, length, size] = node.shape(x) as [number, number, number, number];
  const pairs = rotated / 2;
  const [cos, sin] = rows.map((cache) => part(node, cache, 3, 0, pairs)) as [ValueId, ValueId];
  const first = part(node, x, 3, 0, rotated);
  const lead = [batch, count, length];
  const split = node.reshape(first, interleaved ? [...lead, pairs, 2] : [...lead, 2, pairs]);
  const axis = interleaved ? 4 : 3;
  const half = (i: number) => node.reshape(part(node, split, axis, i, i + 1), [...lead, pairs]);
  const [a, b] = [half(0), half(1)];
  const times = (p: ValueId, q: ValueId) => arithmetic(node, 'mul', p, q);
  const halves = [
    arithmetic(node, 'sub', times(a, cos), times(b, sin)),
    arithmetic(node, 'add', times(a, sin), times(b, cos)),
  ].map((value) =>
    node.reshape(value, [...lead, pairs, 1].toSpliced(3, 2, ...(interleaved ? [pairs, 1] : [1, pairs]))),
  );
  const output = { dtype: 'float32', shape: node.shape(split) } as const;
  const joined = node.reshape(node.step('concat', halves, output, { axis }), [...lead, rotated]);
  if (rotated === size) return joined;
  const rest = part(node, x, 3, rotated, size);
  return node.step('concat', [joined, rest], { dtype: 'float32', shape: [...lead, size] }, { axis: 3 });
}

/**
 * Queries or keys in heads, turned as onnxruntime's GroupQueryAttention does with its own caches of cosines and sines: tokens
 * count from 0 if there are no positions.
 */
export function turnedByCaches(
  node: NodeLowering,
  x: ValueId,
  caches: readonly [cosines: ValueId, sines: ValueId],
  positions: ValueId,
): ValueId {
  const [batch, , length, size] = node.shape(x) as [number, number, number, number];
  const rows = caches.map((cache) => {
    const [known = 0, pairs = 0] = node.shape(cache);
    if (node.rank(cache) !== 2 || known < length || 2 * pairs > size) {
      node.invalid(`its cache [${node.shape(cache)}] doesn't fit ${length} tokens and heads of ${size}`);
    }
    if (positions !== NONE) return angles(node, cache, positions, batch, length);
    return node.reshape(part(node, cache, 0, 0, length), [1, 1, length, pairs]);
  });
  const rotated = 2 * node.shape(caches[0]).at(-1)!;
  return turned(node, x, rows as [ValueId, ValueId], rotated, node.number('rotary_interleaved', 0) !== 0);
}

export const ROTARY: OperatorTable = {
  RotaryEmbedding: { lower: (node) => rotary(node, [1, 2, 3]) },
  'com.microsoft.RotaryEmbedding': { lower: (node) => rotary(node, [2, 3, 1]) },
};
