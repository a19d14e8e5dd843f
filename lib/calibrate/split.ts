import { createHash } from 'node:crypto';

/** What each part of the data is for; nothing of `certify` touches anything that was chosen. */
export type Part = 'fit' | 'order' | 'certify';

/** Shares of the parts: half of the data certifies, since that is what the promise is made of. */
const SHARES: readonly (readonly [Part, number])[] = [
  ['fit', 0.3],
  ['order', 0.2],
  ['certify', 0.5],
];

/**
 * The part that an item belongs to, by a hash of its content and the seed: equal items always share a part, whatever
 * their names and their order.
 */
export function partOf(contentSha256: string, seed: number): Part {
  const digest = createHash('sha256').update(`${seed}:${contentSha256}`).digest();
  let position = digest.readUInt32BE(0) / 2 ** 32;
  for (const [part, share] of SHARES) {
    if (position < share) return part;
    position -= share;
  }
  return 'certify';
}
