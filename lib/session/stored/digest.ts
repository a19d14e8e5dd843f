/** SHA-256 of what may be large, on the calling thread. */
import { createHash } from 'node:crypto';
import { nativeSha256 } from '../../backends/addon.js';
import type { Sliced } from '../../util/slices.js';

const BYTES = 32;
/** What is hashed between two turns of the event loop. */
export const PIECE = 1 << 20;

/** Native code saves loading `node:crypto`. */
function digestsOf(messages: readonly Uint8Array[]): Buffer {
  const native = nativeSha256();
  if (!native) return Buffer.concat(messages.map((message) => createHash('sha256').update(message).digest()));
  const digests = Buffer.alloc(BYTES * messages.length);
  native(messages, digests);
  return digests;
}

export function digestOf(message: Uint8Array | string): Buffer {
  return digestsOf([typeof message === 'string' ? Buffer.from(message) : message]);
}

/** Hex digest of the digests of all pieces. */
export function* digesting(parts: Iterable<Uint8Array>): Sliced<string> {
  const digests: Buffer[] = [];
  for (const part of parts) {
    for (let at = 0; at < part.length; at += PIECE) {
      digests.push(digestsOf([part.subarray(at, at + PIECE)]));
      yield;
    }
  }
  return digestOf(Buffer.concat(digests)).toString('hex');
}
