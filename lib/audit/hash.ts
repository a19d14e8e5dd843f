import * as crypto from 'node:crypto';
import { nativeSha256 } from '../backends/addon.js';
import type { TensorMap } from '../skip/observer.js';
import type { TensorData } from '../tensor/tensor.js';

/** Hex SHA-256 of one buffer or string. */
export const sha256 = (piece: string | Uint8Array): string => crypto.hash('sha256', piece, 'hex');

export const DIGEST_BYTES = 32;

/**
 * SHA-256 of many messages, each in several parts: DIGEST_BYTES for each, one after another. It is fastest if
 * neighbours have equal length.
 */
export function hashAll(messages: readonly (readonly TensorData[])[]): Uint8Array {
  const digests = new Uint8Array(DIGEST_BYTES * messages.length);
  const native = nativeSha256();
  if (native && messages.every(({ length }) => length === 1)) {
    native(
      messages.map(([piece]) => piece!),
      digests,
    );
    return digests;
  }
  for (const [i, pieces] of messages.entries()) digests.set(digestOf(pieces), DIGEST_BYTES * i);
  return digests;
}

function digestOf(pieces: readonly TensorData[]): Uint8Array {
  const hash = crypto.createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest();
}

/** One item's part of each tensor, in name order, without copies; a tensor that all items share is taken whole. */
export function partsOf(tensors: TensorMap, item: number, items: number): TensorData[] {
  const names = Object.keys(tensors);
  if (names.length > 1) names.sort();
  else if (items === 1) return [tensors[names[0]!]!.data];
  return names.map((name) => {
    const { data, dims } = tensors[name]!;
    if (items === 1 || dims[0] !== items) return data;
    const each = data.length / items;
    return data.subarray(item * each, (item + 1) * each);
  });
}

/** Hex SHA-256 of one item's tensors, as stored in audit records: of the bytes of all of them, in name order. */
export function hashItem(tensors: TensorMap, item: number, items: number): string {
  return Buffer.from(digestOf(partsOf(tensors, item, items))).toString('hex');
}
