/** What to promise, and the groups of items that get a promise of their own: classes, and groups that the caller names. */

import { ResidualSkipError } from '../../errors.js';
import { type Metric, maxLoss, type Promised, type TestedGroup } from '../../skip/promise.js';
import { append } from '../../util/maps.js';
import { className } from '../losses.js';
import type { CalibrationOptions } from '../options.js';
import type { CalibrationItem } from '../run/items.js';
import { itemsNeeded } from './p-values.js';

/** The promise to certify. */
export interface Rule {
  readonly metric: Metric;
  readonly limit: number;
  /** For every group. */
  readonly groupLimit: number;
  /** Error of its tests: 1 - confidence of this promise, or a share of that. */
  readonly delta: number;
  /** Set if one of several ladders is promised: their number. Their shares of the error are equal. */
  readonly ladders?: number;
  /** Set if it is one of several promises that hold together: their number and joint confidence. */
  readonly joint?: Promised['joint'];
}

export interface Group {
  readonly kind: TestedGroup['kind'];
  readonly name: string;
  /** Positions among the items that certify. */
  readonly members: readonly number[];
}

export interface Grouping {
  readonly tested: readonly Group[];
  /** Groups that would fail even without a single loss: they get no promise. */
  readonly tooSmall: readonly Group[];
}

/**
 * The groups that the options request, in order of class and of name.
 * @param classes of the items, by index; an item may have several
 */
export function groupsOf(
  items: readonly CalibrationItem[],
  classes: readonly (number | readonly number[])[],
  { perClass, labels }: Pick<CalibrationOptions, 'perClass' | 'labels'>,
): Group[] {
  const byClass = new Map<number, number[]>();
  const byName = new Map<string, number[]>();
  for (const [i, { groups = [] }] of items.entries()) {
    if (perClass) for (const index of [classes[i]!].flat()) append(byClass, index, i);
    for (const name of new Set(groups)) append(byName, name, i);
  }
  return [
    ...[...byClass]
      .sort(([a], [b]) => a - b)
      .map(([index, members]) => ({ kind: 'class', name: className(index, labels), members }) as const),
    ...[...byName]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, members]) => ({ kind: 'group', name, members }) as const),
  ];
}

/**
 * Separates, by size alone, the groups that no outcome could certify.
 * @throws ResidualSkipError INVALID_DATA when none is left
 */
export function checkGroups(
  groups: readonly Group[],
  { metric, groupLimit: limit, delta }: Pick<Rule, 'metric' | 'groupLimit' | 'delta'>,
): Grouping {
  const needed = itemsNeeded(limit / maxLoss(metric), delta);
  const tested = groups.filter(({ members }) => members.length >= needed);
  const tooSmall = groups.filter(({ members }) => members.length < needed);
  if (groups.length === 0 || tested.length > 0) return { tested, tooSmall };
  const short = groups.slice(0, 5).map(({ name, members }) => `${name} ${members.length}`);
  throw new ResidualSkipError(
    'INVALID_DATA',
    `groups: there is too little data for a promise to each of ${groups.length}: items that certify are ${short.join(', ')}, ` +
      `but a limit of ${limit} at confidence ${1 - delta} needs ${needed} in each, even without a single loss; ` +
      'give more images, or a higher limit for groups',
  );
}
