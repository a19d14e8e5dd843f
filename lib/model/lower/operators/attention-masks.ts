/** Masks of attention, as addends of the scores: 0 where a query sees a key. */

import type { ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { part } from './layout.js';

/** Added to the score of a key that must not be seen. */
const HIDDEN = -3.4028234663852886e38;

/** (queries, keys): a query sees the keys up to its own position, which is `offset` behind its number. */
export function causal(node: NodeLowering, queries: number, keys: number, offset = 0): ValueId {
  const [data] = node.context.cache.memoise(
    () => `causal ${queries} ${keys} ${offset}`,
    [],
    () => {
      node.afford('float32', queries * keys);
      const hidden = new Float32Array(queries * keys);
      for (let row = 0; row < queries; row++) {
        hidden.fill(HIDDEN, row * keys + Math.min(row + offset + 1, keys), (row + 1) * keys);
      }
      return [hidden];
    },
  );
  return node.constantOf('float32', [queries, keys], data!);
}

/** 0 where `seen` holds, otherwise `filter`. */
function chosen(node: NodeLowering, seen: ValueId, filter: number): ValueId {
  const output = { dtype: 'float32', shape: node.shape(seen) } as const;
  return node.step('where', [seen, node.scalar(0), node.scalar(filter)], output, {});
}

/** Of bytes or integers: which are above 0. */
function positive(node: NodeLowering, x: ValueId): ValueId {
  const { dtype, shape } = node.value(x);
  if (dtype === 'bool') return x;
  return node.step(
    'compare',
    [x, node.cast(node.scalar(0), dtype)],
    { dtype: 'bool', shape },
    { kind: 'gt' },
  );
}

/** Which keys come before the bound of each item, or at or behind it. */
function bounded(node: NodeLowering, bounds: ValueId, keys: number, kind: 'lt' | 'ge'): ValueId {
  const { dtype, shape } = node.value(bounds);
  node.afford('int64', keys);
  const numbers = BigInt64Array.from({ length: keys }, (_, i) => BigInt(i));
  const places = node.cast(node.constantOf('int64', [1, 1, 1, keys], numbers), dtype);
  const column = node.reshape(bounds, [shape[0]!, 1, 1, 1]);
  return node.step('compare', [places, column], { dtype: 'bool', shape: [shape[0]!, 1, 1, keys] }, { kind });
}

/**
 * onnxruntime's mask of keys as an addend of the scores: the number of keys of each item; the ends of all items, then their
 * beginnings; or which keys (or pairs of query and key) count.
 */
export function paddingMask(
  node: NodeLowering,
  mask: ValueId,
  queries: number,
  keys: number,
  batch: number,
): ValueId {
  const shape = node.shape(mask);
  const filter = node.number('mask_filter_value', -10000);
  if (shape.length === 1 && shape[0] === batch) return chosen(node, bounded(node, mask, keys, 'lt'), filter);
  if (shape.length === 1 && shape[0] === 2 * batch) {
    const bound = (first: number, kind: 'lt' | 'ge') =>
      bounded(node, part(node, mask, 0, first, first + batch), keys, kind);
    const both = [bound(0, 'lt'), bound(batch, 'ge')];
    const output = { dtype: 'bool', shape: [batch, 1, 1, keys] } as const;
    return chosen(node, node.step('logical', both, output, { kind: 'and' }), filter);
  }
  const seen = positive(node, mask);
  const [items = 0] = shape;
  const lengths = [...shape.slice(1)];
  if (shape.length === 2 && lengths[0] === keys)
    return chosen(node, node.reshape(seen, [items, 1, 1, keys]), filter);
  if (shape.length === 3 && lengths[0] === queries && lengths[1] === keys) {
    return chosen(node, node.reshape(seen, [items, 1, queries, keys]), filter);
  }
  if (shape.length === 4 && lengths[1]! >= queries && lengths[2]! >= keys) {
    return chosen(node, part(node, part(node, seen, 2, 0, queries), 3, 0, keys), filter);
  }
  return node.invalid(
    `its mask [${shape}] doesn't fit ${batch} items of ${queries} queries and ${keys} keys`,
  );
}

/** The mask of ONNX's operator for all keys; keys beyond its end are not seen. */
export function givenMask(node: NodeLowering, id: ValueId, keys: number): ValueId {
  const { dtype, shape } = node.value(id);
  const mask = dtype === 'bool' ? chosen(node, id, HIDDEN) : node.float(3);
  const missing = keys - (shape.at(-1) ?? keys);
  if (missing === 0) return mask;
  if (missing < 0) node.invalid(`its mask [${shape}] is longer than ${keys} keys`);
  const pads = new Array<number>(2 * shape.length).fill(0).with(-1, missing);
  const output = { dtype: 'float32', shape: shape.with(-1, keys) } as const;
  return node.step('pad', [mask, node.scalar(HIDDEN)], output, { pads, mode: 'constant' });
}
