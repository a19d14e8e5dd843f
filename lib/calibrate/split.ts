/** Divides the data into parts, of which one certifies and influences nothing that is chosen. */
import { createHash } from 'node:crypto';
import { ResidualSkipError } from '../errors.js';
import { sizeOf } from '../numeric/shapes.js';
import { maxLoss, type Promised } from '../skip/promise.js';

import type { TensorData } from '../tensor/tensor.js';
import type { Rule } from './certify/groups.js';
import { itemsNeeded } from './certify/p-values.js';
import {
  type CalibrationOptions,
  checkConflicts,
  DEFAULT_LIMIT,
  limitsByMetric,
  type ParsedOptions,
} from './options.js';
import type { Programs } from './run/evaluator.js';
import type { CalibrationItem } from './run/items.js';
import type { Task } from './task.js';

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

/**
 * The items without duplicates: copies would wrongly count as independent evidence.
 * @throws ResidualSkipError INVALID_SHAPE, INVALID_DATA when an item doesn't fit the model or lacks a required label
 */
function distinctItems(
  items: readonly CalibrationItem[],
  { main: { inputs, outputs, values }, shapes }: Programs,
  { metric, labels, budget, about }: ParsedOptions,
): CalibrationItem[] {
  const size = sizeOf(values[inputs[0]!.value]!.shape);
  const promised = outputs.find(({ name }) => name === about?.outputs?.[0]) ?? outputs[0]!;
  const classes = values[promised.value]!.shape[1]!;
  const invalid = (why: string) => new ResidualSkipError('INVALID_DATA', why);
  if (labels && labels.length !== classes) {
    throw invalid(`labels: there are ${labels.length}, but the model has ${classes} classes`);
  }
  const known = new Map<string, CalibrationItem>();
  for (const [i, item] of items.entries()) {
    const { input, sha256, label, groups = [] } = item;
    if (groups.length > 0) checkConflicts({ budget, groupsFrom: true });
    if (!shapes && input.length !== size) {
      throw new ResidualSkipError(
        'INVALID_SHAPE',
        `item ${i}: it has ${input.length} values, but the model takes ${size}; prepare all images to one size`,
      );
    }
    if (label === undefined && metric === 'accuracy') {
      throw invalid(`metric: 'accuracy' needs a label for every item, but item ${i} has none`);
    }
    if (label !== undefined && !(Number.isInteger(label) && label >= 0 && label < classes)) {
      throw invalid(`item ${i}: its label is ${label}, but the model's classes are 0 to ${classes - 1}`);
    }
    if (!known.has(sha256)) known.set(sha256, item);
  }
  return [...known.values()];
}

/** Fewest items to fit heads on, or to choose thresholds by. */
export const MIN_FIT = 50;

/** The items of each part, in the order of their hashes: results depend only on the set. */
export function split(
  items: readonly CalibrationItem[],
  seed: number,
  first: Part = 'fit',
): Record<Part, CalibrationItem[]> {
  const parts: Record<Part, CalibrationItem[]> = { fit: [], order: [], certify: [] };
  const ordered = items.toSorted((a, b) => (a.sha256 < b.sha256 ? -1 : 1));
  for (const item of ordered) parts[partOf(item.sha256, seed, first)].push(item);
  return parts;
}

/** The data, divided. */
export interface Split extends Readonly<Record<Part, readonly CalibrationItem[]>> {
  /** All different items. */
  readonly items: readonly CalibrationItem[];
  /** Items left out because another one has the same content. */
  readonly duplicates: number;
}

/**
 * Divides the items into parts.
 * @param first the first thing that the items are needed for
 * @throws ResidualSkipError what distinctItems throws; INVALID_DATA that says how many would be enough
 */
export function splitItems(
  given: readonly CalibrationItem[],
  { programs, options, rules, further }: Task,
  first: Part,
): Split {
  const items = distinctItems(given, programs, options);
  const parts = split(items, options.seed, first);
  checkParts(parts, [rules[0], ...further], first, options.budget !== undefined);
  return { ...parts, items, duplicates: given.length - items.length };
}

/** What a promise says of its data. */
export function describeData({ items, fit, order, certify }: Split, seed: number): Promised['data'] {
  return {
    sha256: fingerprint(items),
    seed,
    fit: fit.length,
    order: order.length,
    certify: certify.length,
  };
}

/**
 * @param first the first thing that the items are needed for
 * @param anyway the items certify what they can: one is enough
 */
function checkParts(
  { fit, order, certify }: Record<Part, CalibrationItem[]>,
  rules: readonly [Rule, ...Rule[]],
  first: Part,
  anyway: boolean,
): void {
  const neededFor = ({ metric, limit, delta }: Rule) => itemsNeeded(limit / maxLoss(metric), delta);
  const { limit, delta } = rules.reduce((most, rule) => (neededFor(rule) > neededFor(most) ? rule : most));
  const needed = anyway ? 1 : Math.max(...rules.map(neededFor));
  const chosen = first === 'certify' || (fit.length + order.length >= MIN_FIT && order.length > 0);
  if (certify.length >= needed && chosen) return;
  const enough = enoughItems(needed, first);
  const all = fit.length + order.length + certify.length;
  const evidence = anyway
    ? 'a bound needs 1'
    : `a limit of ${limit} at confidence ${1 - delta} needs ${needed} even without a single loss`;
  const remain =
    first === 'certify'
      ? ''
      : `${fit.length + order.length} of at least ${MIN_FIT} remain to ${first === 'fit' ? 'fit' : 'choose thresholds by'}, ` +
        `${order.length || 'none'} of them to order settings; `;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `data: there is too little; of ${all} different images, ${certify.length || 'none'} certify, and ${evidence}; ${remain}` +
      `about ${enough} different images would be enough${anyway ? '' : ', or a higher limit'}`,
  );
}

/** Items of a dry run, unless a low limit needs more. */
const DRY_RUN = 300;

/** How many items a dry run reads. */
export function dryRunItems(
  {
    limits,
    maxDisagreement = DEFAULT_LIMIT,
    metric = 'disagreement',
  }: Pick<CalibrationOptions, 'limits' | 'maxDisagreement' | 'metric'>,
  confidence: number,
): number {
  const several = limitsByMetric(limits);
  const settings = Array.isArray(limits) ? (limits as readonly number[]) : [maxDisagreement];
  const all = several ?? settings.map((limit) => ({ metric, limit }));
  const error = (1 - confidence) / (several ? 1 : all.length);
  const needed = Math.max(...all.map((one) => itemsNeeded(one.limit / maxLoss(one.metric), error)));
  return Math.max(DRY_RUN, enoughItems(needed, 'order'));
}

/**
 * About how many different items are enough, so that their last part has `needed` of them.
 * @param first the first thing that the items are needed for
 */
export function enoughItems(needed: number, first: Part): number {
  // Parts vary in size by chance; a tenth and a few more compensate for that.
  const certifying = SHARES[first].at(-1)![1];
  const others = first === 'certify' ? 0 : MIN_FIT / (1 - certifying);
  return Math.ceil(1.1 * Math.max(needed / certifying, others)) + 20;
}

/** Hex SHA-256 of a prepared item. */
export function contentHash(...arrays: readonly TensorData[]): string {
  const hash = createHash('sha256');
  for (const { buffer, byteOffset, byteLength } of arrays)
    hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  return hash.digest('hex');
}

/** SHA-256 over the sorted hashes: equal for equal sets of items, however they are named and ordered. */
function fingerprint(items: readonly CalibrationItem[]): string {
  const hash = createHash('sha256');
  for (const sha256 of items.map((item) => item.sha256).sort()) hash.update(sha256);
  return hash.digest('hex');
}
