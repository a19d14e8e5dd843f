/** Which of the possible ladders is fastest at the risk that can be certified. */

import { rulesOf } from '../calibrate/certify/certify.js';
import { binomialPValue } from '../calibrate/certify/p-values.js';
import type { Thresholds } from '../calibrate/order/measure.js';
import { settingsOf } from '../calibrate/order/settings.js';
import { isCounted } from '../skip/promise.js';
import { NEVER } from '../skip/scores.js';
import type { Pool, Prediction } from './pool.js';

export type Goal = 'mean' | 'p95';

/** Some of a pool's exits with the order of their settings. */
export interface Ladder {
  readonly pool: Pool;
  /** From careful to bold. */
  readonly settings: readonly Thresholds[];
  /** What they do to the items that order. */
  readonly points: readonly Prediction[];
  /** The boldest setting that may be certified, those before which are tested on the way; -1 if no exit decides. */
  readonly boldest: number;
  /** What it does; where none keeps the risk, the most careful one. */
  readonly predicted: Prediction;
  /** `unsafe`: no setting keeps the risk; `slow`: none that does is faster than the network in full. */
  readonly state: 'pays' | 'slow' | 'unsafe';
}

/** Penalties that are searched for each ladder. */
const PENALTIES = 24;
/** Least time that a setting saves beyond the one before it to be worth a test. */
const MIN_GAIN = 0.005;
/** Most fronts of a ladder: each has to be asked before the next. */
const MAX_FRONTS = 3;
/** Ladders that are timed, whatever their kind. */
const FASTEST = 3;
/** Numbers of settings to test: just before the boldest one that may be certified, behind it, and from the more careful ones. */
const [BEFORE, BEHIND, CAREFUL] = [8, 12, 6];
/** Where no number of events is certified, but a mean: part of the limit that a setting may use. */
const USABLE = 0.85;

/**
 * The largest mean loss that so many items certify; negative if none does.
 * @param items those that certify
 */
export function certifiable({ task }: Pool, items: number): number {
  const [{ metric, limit, delta }] = rulesOf(task.options);
  if (!isCounted(metric)) return USABLE * limit;
  let events = -1;
  while (binomialPValue(events + 1, items, limit) <= delta) events++;
  return events / items;
}

/**
 * All ladders that can be made of a pool, also those that don't pay: any of its fronts, in their order, with and without exits in them and
 * in the network. One that pays, but uses the same exits as another with fewer, is left out.
 */
export function laddersOf(pool: Pool, risk: number): Ladder[] {
  const ladders: Ladder[] = [];
  const known = new Set<string>();
  for (const set of subsets([...Array(pool.own).keys()], MAX_FRONTS)) {
    const tried = new Set<number>();
    for (const [exits, inside] of KINDS) {
      const some = pool.only(set, exits, inside);
      // Where there are no such exits, kinds are the same.
      if (tried.has(some.exits.length)) continue;
      tried.add(some.exits.length);
      // The network alone is no ladder, unless it is the 8-bit form of another.
      if (some.exits.length === 0 && !some.task.original) continue;
      const ladder = ladderOf(some, risk);
      const used = usedExits(ladder).join();
      if (ladder.state === 'pays' && known.has(used)) continue;
      if (ladder.state === 'pays') known.add(used);
      ladders.push(ladder);
    }
  }
  return ladders;
}

/** Names of the exits that may answer in the boldest setting that may be certified. */
function usedExits({ pool, settings, boldest }: Ladder): string[] {
  const thresholds = settings[boldest] ?? [];
  return pool.exits.filter((_, e) => (thresholds[e] ?? NEVER) < NEVER).map(({ after }) => after);
}

/** Whether the network keeps its exits, and whether its fronts do. */
const KINDS = [
  [false, false],
  [true, false],
  [false, true],
  [true, true],
] as const;

/**
 * The ladders to time as they are: the fastest, and the fastest of each kind. Exits are timed by runs that all leave there; where paths
 * change from item to item they cost more, by an amount that only a trial shows.
 */
export function finalists(ladders: readonly Ladder[]): Ladder[] {
  const kindOf = ({ pool: { times, own } }: Ladder) => {
    const inNetwork = times.filter(({ network }) => network === own).length;
    return `${inNetwork > 0} ${times.length - inNetwork > own}`;
  };
  const kinds = ladders.map(kindOf);
  return ladders.filter((_, i) => i < FASTEST || kinds.indexOf(kinds[i]!) === i);
}

/** Of a pool with all its exits. */
export function ladderOf(pool: Pool, risk: number): Ladder {
  const [{ limit }] = rulesOf(pool.task.options);
  const settings: Thresholds[] = [];
  const points: Prediction[] = [];
  let boldest = -1;
  for (const setting of settingsOf(pool.scores(), PENALTIES, pool.costs)) {
    const predicted = pool.predict(setting);
    // The first one stands for the ladder if none keeps the risk.
    if (predicted.risk > 2 * limit && points.length > 0) break;
    if (predicted.mean > (points.at(-1)?.mean ?? Number.POSITIVE_INFINITY) - MIN_GAIN) continue;
    settings.push(setting);
    points.push(predicted);
    if (predicted.risk <= risk) boldest = settings.length - 1;
  }
  // An 8-bit network may be faster without any exit.
  const plain = pool.predict(pool.exits.map(() => NEVER));
  if (pool.task.original && plain.risk <= risk && plain.mean <= (points[boldest]?.mean ?? 1)) {
    return { pool, settings: [], points: [plain], boldest: -1, predicted: plain, state: 'pays' };
  }
  const predicted = points[Math.max(0, boldest)] ?? plain;
  const fast = predicted.mean < 1 ? 'pays' : 'slow';
  return { pool, settings, points, boldest, predicted, state: predicted.risk <= risk ? fast : 'unsafe' };
}

/** The settings of a ladder that items certify, from careful to bold. */
export function settingsToTest({ settings, boldest }: Ladder): Thresholds[] {
  const from = Math.max(0, boldest - BEFORE);
  const careful = settings.slice(0, from).filter((_, i) => i % Math.ceil(from / CAREFUL) === 0);
  return [...careful, ...settings.slice(from, boldest + BEHIND)];
}

/** The fastest first. */
export function ranked(ladders: readonly Ladder[], goal: Goal): Ladder[] {
  return [...ladders].sort(({ predicted: a }, { predicted: b }) => a[goal] - b[goal] || a.mean - b.mean);
}

/** The subsets of up to `most` elements, each in the order given; the empty one is first. */
function subsets(elements: readonly number[], max: number): number[][] {
  const sets: number[][] = [[]];
  for (const element of elements) {
    for (const set of [...sets]) if (set.length < max) sets.push([...set, element]);
  }
  return sets;
}
