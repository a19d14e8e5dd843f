/** Which of the possible ladders is fastest at the risk that can be certified. */

import { rulesOf } from '../calibrate/certify/certify.js';
import { binomialPValue, canSetOff, netPValue } from '../calibrate/certify/p-values.js';
import type { Thresholds } from '../calibrate/order/measure.js';
import { allSettingsOf } from '../calibrate/order/settings.js';
import { isCounted } from '../skip/promise.js';
import { NEVER } from '../skip/scores.js';
import { type Pool, type Prediction, predictionOf } from './pool.js';

export type Goal = 'mean' | 'p95';

/** Some of a pool's exits with the order of their settings. */
export interface Ladder {
  readonly pool: Pool;
  /** From careful to bold. */
  readonly settings: readonly Thresholds[];
  /**
   * What they do to the items that order, each half of which is predicted by thresholds that were searched on the other one: those of many
   * exits fit the items that they are searched on better than any others.
   */
  readonly points: readonly Prediction[];
  /** The boldest setting that is sure to be certified; if none is, that may be; -1 if no exit decides. */
  readonly boldest: number;
  /** Whether a setting keeps the risk by as much as the number of items that order leaves open. */
  readonly sure: boolean;
  /** What it does; where none keeps the risk, the most careful one. */
  readonly predicted: Prediction;
  /** `unsafe`: no setting keeps the risk; `slow`: none that does is faster than the network in full. */
  readonly state: 'pays' | 'slow' | 'unsafe';
}

/** Penalties that are searched for each ladder. */
const PENALTIES = 24;
/** Most fronts of a ladder: each has to be asked before the next. */
const MAX_FRONTS = 3;
/** Ladders that are timed, whatever their kind. */
const FASTEST = 3;
/** The mean time of a setting is at most this part of that of the one before, to be worth a test: near the boldest one, and far from it. */
const [NEAR, FAR] = [0.985, 0.93];
/** Times from the boldest setting's that are near. */
const [BEFORE, BEHIND] = [1.5, 0.6];
/** Standard errors by which the risk that is predicted for the boldest setting keeps what can be certified. */
const MARGIN = 1;
/** Where no number of events is certified, but a mean: part of the limit that a setting may use. */
const USABLE = 0.85;

/**
 * Whether the items that certify would prove the limit if answers changed as often there; with a margin, if they changed more often by that
 * many standard errors of the prediction.
 */
export type Proves = (prediction: Pick<Prediction, 'risk' | 'changed'>, margin?: number) => boolean;

/** @param items those that certify */
export function provable({ task, tables }: Pool, items: number): Proves {
  const [{ metric, limit, delta }] = rulesOf(task.options);
  const ordering = tables.reduce((sum, table) => sum + table.items.length, 0);
  if (!isCounted(metric)) return ({ risk }) => risk <= USABLE * limit;
  const setsOff = metric === 'accuracy' && canSetOff(items, limit, delta);
  const known = new Map<string, boolean>();
  return ({ risk, changed }, margin = 0) => {
    const error = margin * Math.sqrt(Math.max(changed, 1 / ordering) / ordering);
    const lost = Math.round(((changed + risk) / 2 + error) * items);
    const gained = Math.round(((changed - risk) / 2) * items);
    const key = `${lost} ${gained}`;
    const proved = () =>
      (setsOff ? netPValue({ lost, gained, items }, limit, delta) : binomialPValue(lost, items, limit)) <=
      delta;
    const proves = known.get(key) ?? proved();
    known.set(key, proves);
    return proves;
  };
}

/**
 * All ladders that can be made of a pool, also those that don't pay: any of its fronts, in their order, with and without exits in them and
 * in the network. One that pays, but leaves a network unused, or uses the same exits as another with fewer, is left out.
 */
export function laddersOf(pool: Pool, proves: Proves): Ladder[] {
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
      const ladder = ladderOf(some, proves);
      if (ladder.state === 'pays') {
        const used = usedExits(ladder);
        const names = used.map((e) => some.exits[e]!.after).join();
        const networks = new Set(used.map((e) => some.times[e]!.network));
        const idle = ladder.boldest >= 0 && some.times.some(({ network }) => !networks.has(network));
        if (idle || known.has(names)) continue;
        known.add(names);
      }
      ladders.push(ladder);
    }
  }
  return ladders;
}

/** The exits that may answer in the boldest setting that may be certified. */
function usedExits({ settings, boldest }: Ladder): number[] {
  return (settings[boldest] ?? []).flatMap((threshold, e) => (threshold < NEVER ? [e] : []));
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
export function ladderOf(pool: Pool, proves: Proves): Ladder {
  const [{ limit }] = rulesOf(pool.task.options);
  const searched = (of: Pool) => allSettingsOf(of.scores(), PENALTIES, of.costs);
  const halves = ([0, 1] as const).map((odd) => pool.half(odd));
  const [ofEven, ofOdd] = halves.map(searched) as [Thresholds[], Thresholds[]];
  const settings: Thresholds[] = [];
  const points: Prediction[] = [];
  for (const [i, setting] of searched(pool).entries()) {
    const [even, odd] = [halves[0]!.effects(ofOdd[i]!), halves[1]!.effects(ofEven[i]!)];
    const predicted = predictionOf({
      losses: [...even.losses, ...odd.losses],
      times: [...even.times, ...odd.times],
    });
    // The first one stands for the ladder if none keeps the risk.
    if (predicted.risk > 2 * limit && points.length > 0) break;
    if (predicted.mean > NEAR * (points.at(-1)?.mean ?? Number.POSITIVE_INFINITY)) continue;
    if (setting.every((threshold) => threshold >= NEVER)) continue;
    settings.push(setting);
    points.push(predicted);
  }
  const surest = points.findLastIndex((point) => proves(point, MARGIN));
  const boldest = surest >= 0 ? surest : points.findLastIndex((point) => proves(point));
  // An 8-bit network may be faster without any exit.
  const plain = pool.predict(pool.exits.map(() => NEVER));
  if (pool.task.original && proves(plain) && plain.mean <= (points[boldest]?.mean ?? 1)) {
    const alone = { settings: [], points: [plain], boldest: -1, predicted: plain };
    return { pool, ...alone, sure: proves(plain, MARGIN), state: 'pays' };
  }
  const predicted = points[Math.max(0, boldest)] ?? plain;
  const fast = predicted.mean < 1 ? 'pays' : 'slow';
  const state = proves(predicted) ? fast : 'unsafe';
  return { pool, settings, points, boldest, sure: surest >= 0, predicted, state };
}

/**
 * The settings of a ladder that items certify, from careful to bold: the whole order, so that these items decide how far it goes. They are
 * closest where that is expected.
 */
export function settingsToTest({ settings, points, predicted }: Ladder): Thresholds[] {
  const isNear = ({ mean }: Prediction) => mean < BEFORE * predicted.mean && mean > BEHIND * predicted.mean;
  let last = Number.POSITIVE_INFINITY;
  return settings.filter((_, i) => {
    const point = points[i]!;
    if (point.mean > (isNear(point) ? NEAR : FAR) * last) return false;
    last = point.mean;
    return true;
  });
}

/** What to expect of a ladder of this time: where it isn't sure, it fails about every other time, and nothing is gained. */
export const expectedTime = ({ sure }: Ladder, time: number) => (sure ? time : (time + 1) / 2);

/** The fastest first. */
export function ranked(ladders: readonly Ladder[], goal: Goal): Ladder[] {
  const time = (ladder: Ladder, of: Goal) => expectedTime(ladder, ladder.predicted[of]);
  return [...ladders].sort((a, b) => time(a, goal) - time(b, goal) || time(a, 'mean') - time(b, 'mean'));
}

/** The subsets of up to `max` elements, each in the order given; the empty one is first. */
function subsets(elements: readonly number[], max: number): number[][] {
  const sets: number[][] = [[]];
  for (const element of elements) {
    for (const set of [...sets]) if (set.length < max) sets.push([...set, element]);
  }
  return sets;
}
