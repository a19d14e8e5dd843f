import * as crypto from 'node:crypto';
import type { TensorMap } from '../skip/observer.js';
import type { TensorData } from '../tensor.js';

/** Hex SHA-256 of one piece. `crypto.hash`, which Node has since 20.12, needs no object for it. */
export const sha256: (piece: string | TensorData) => string = crypto.hash
  ? (piece) => crypto.hash('sha256', piece, 'hex')
  : (piece) => crypto.createHash('sha256').update(piece).digest('hex');

/** Hex SHA-256 of the bytes of some pieces, one after another. */
export function sha256Of(pieces: readonly TensorData[]): string {
  if (pieces.length === 1) return sha256(pieces[0]!);
  const hash = crypto.createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest('hex');
}

/** One item's part of each tensor, in name order, not copied; a tensor that all items share is taken whole. */
export function partsOf(tensors: TensorMap, item: number, items: number): TensorData[] {
  const names = Object.keys(tensors);
  if (names.length > 1) names.sort();
  return names.map((name) => {
    const { data, dims } = tensors[name]!;
    if (items === 1 || dims[0] !== items) return data;
    const each = data.length / items;
    return data.subarray(item * each, (item + 1) * each);
  });
}

/** Hex SHA-256 of one item's tensors, as audit records hold it. */
export function hashItem(tensors: TensorMap, item: number, items: number): string {
  return sha256Of(partsOf(tensors, item, items));
}
