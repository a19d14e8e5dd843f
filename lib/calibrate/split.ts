import { createHash } from 'node:crypto';
import { ResidualSkipError } from '../errors.js';
import { mostLoss } from '../skip/promise.js';
import type { TensorData } from '../tensor/tensor.js';
import type { Rule } from './certify.js';
import type { CalibrationItem } from './options.js';
import { itemsNeeded } from './risk.js';

/** The purpose of each part of the data; nothing that was chosen depends on `certify`. */
export type Part = 'fit' | 'order' | 'certify';

/**
 * Shares of the parts, by the first thing that the items are needed for. Most of them certify, because the promise rests on
 * that part.
 */
const SHARES: Readonly<Record<Part, readonly (readonly [Part, number])[]>> = {
  fit: [
    ['fit', 0.3],
    ['order', 0.1],
    ['certify', 0.6],
  ],
  order: [
    ['order', 0.2],
    ['certify', 0.8],
  ],
  certify: [['certify', 1]],
};

/**
 * The part of an item, by a hash of its content and the seed: equal items always share a part, whatever their names
 * and order.
 * @param first the first thing that the items are needed for
 */
export function partOf(contentSha256: string, seed: number, first: Part = 'fit'): Part {
  const digest = createHash('sha256').update(`${seed}:${contentSha256}`).digest();
  let position = digest.readUInt32BE(0) / 2 ** 32;
  for (const [part, share] of SHARES[first]) {
    if (position < share) return part;
    position -= share;
  }
  return 'certify';
}

/** Fewest items to fit heads on, or to choose thresholds by. */
export const LEAST_FIT = 50;

/** Indices of the items of each part, in the order of their hashes: results depend only on the set. */
export function split(
  items: readonly CalibrationItem[],
  seed: number,
  first: Part = 'fit',
): Record<Part, number[]> {
  const parts: Record<Part, number[]> = { fit: [], order: [], certify: [] };
  items.forEach(({ sha256 }, i) => {
    parts[partOf(sha256, seed, first)].push(i);
  });
  const hash = (i: number) => items[i]!.sha256;
  for (const part of Object.values(parts)) part.sort((a, b) => (hash(a) < hash(b) ? -1 : 1));
  return parts;
}

/**
 * @param first the first thing that the items are needed for
 * @param anyway the items certify what they can: one is enough
 * @throws ResidualSkipError INVALID_DATA that says how many would be enough
 */
export function checkParts(
  parts: Record<Part, number[]>,
  { metric, limit, delta }: Rule,
  first: Part,
  anyway: boolean,
): void {
  const needed = anyway ? 1 : itemsNeeded(limit / mostLoss(metric), delta);
  const { fit, order, certify } = parts;
  const chosen = first === 'certify' || (fit.length + order.length >= LEAST_FIT && order.length > 0);
  if (certify.length >= needed && chosen) return;
  // Parts vary in size by chance; a tenth and a few more compensate for that.
  const certifying = SHARES[first].at(-1)![1];
  const others = first === 'certify' ? 0 : LEAST_FIT / (1 - certifying);
  const enough = Math.ceil(1.1 * Math.max(needed / certifying, others)) + 20;
  const all = fit.length + order.length + certify.length;
  const evidence = anyway
    ? 'a bound needs 1'
    : `a limit of ${limit} at confidence ${1 - delta} needs ${needed} even without a single loss`;
  const remain =
    first === 'certify'
      ? ''
      : `${fit.length + order.length} of at least ${LEAST_FIT} remain to ${first === 'fit' ? 'fit' : 'choose thresholds by'}, ` +
        `${order.length || 'none'} of them to order settings; `;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `data: there is too little; of ${all} different images, ${certify.length || 'none'} certify, and ${evidence}; ${remain}` +
      `about ${enough} different images would be enough${anyway ? '' : ', or a higher limit'}`,
  );
}

/** Hex SHA-256 of a prepared item. */
export function contentHash({ buffer, byteOffset, byteLength }: TensorData): string {
  return createHash('sha256')
    .update(new Uint8Array(buffer, byteOffset, byteLength))
    .digest('hex');
}

/** SHA-256 over the sorted hashes: equal for equal sets of items, however they are named and ordered. */
export function fingerprint(items: readonly CalibrationItem[]): string {
  const hash = createHash('sha256');
  for (const sha256 of items.map((item) => item.sha256).sort()) hash.update(sha256);
  return hash.digest('hex');
}
