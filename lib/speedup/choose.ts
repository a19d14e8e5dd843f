/** Which of the possible ladders is fastest at the risk that can be certified. */

import { rulesOf } from '../calibrate/certify/certify.js';
import { binomialPValue, canSetOff, itemsNeeded, netPValue } from '../calibrate/certify/p-values.js';
import type { Thresholds } from '../calibrate/order/measure.js';
import { allSettingsOf, MIN_LEAVING } from '../calibrate/order/settings.js';
import { isCounted, maxLoss } from '../skip/promise.js';
import { NEVER } from '../skip/scores.js';
import type { Sliced } from '../util/slices.js';
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
  /**
   * Whether its network alone, without any exit, keeps the risk by a wider margin. It always does in float32. In 8 bits or bfloat16, some of
   * its own answers change, whatever the thresholds are.
   */
  readonly sureEnd: boolean;
  /** What it does; where none keeps the risk, the most careful one. */
  readonly predicted: Prediction;
  /** `unsafe`: no setting keeps the risk; `slow`: none that does is faster than the network in full. */
  readonly state: 'pays' | 'slow' | 'unsafe';
}

/** Penalties that are searched for each ladder. */
const PENALTIES = 24;
/** Most fronts of a ladder: each has to be asked before the next. */
const MAX_FRONTS = 3;
/** How many ladders of one kind get another front. */
const WIDENED = 4;
/** Ladders that are timed, whatever their kind. */
const FASTEST = 3;
/** A second ladder without exits can win if it takes less than this many times the time of the fastest. */
const MAX_BEHIND = 1.25;
/** The mean time of a setting is at most this part of that of the one before, to be worth a test: near the boldest one, and far from it. */
const [NEAR, FAR] = [0.985, 0.93];
/** Times from the boldest setting's that are near. */
const [BEFORE, BEHIND] = [1.5, 0.6];
/** Standard errors by which the risk that is predicted for the boldest setting keeps what can be certified. */
const MARGIN = 1;
/** The same for a network without exits, whose answers no threshold can change. */
const END_MARGIN = 2;
/** Where no number of events is certified, but a mean: part of the limit that a setting may use. */
const USABLE = 0.85;

/**
 * Whether the items that certify would prove the limit if answers changed as often there; with a margin, if they changed more often by that
 * many standard errors of the prediction.
 */
export type Proves = (prediction: Pick<Prediction, 'risk' | 'changed'>, margin?: number) => boolean;

/**
 * @param items those that certify
 * @param ladders how many share the error
 */
export function provable({ task, tables }: Pool, items: number, ladders = 1): Proves {
  const [{ metric, limit, delta }] = rulesOf({ ...task.options, choice: { ladders } });
  const ordering = tables.reduce((sum, table) => sum + table.items.length, 0);
  if (!isCounted(metric)) {
    const enough = items >= itemsNeeded(limit / maxLoss(metric), delta);
    return ({ risk }) => enough && risk <= USABLE * limit;
  }
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
 * The ladders of a pool, also those that don't pay: fronts in their order, with and without exits in them and in the network. Every front
 * is tried alone; of the ladders with the same number of fronts and the same kinds of exits, the fastest few get one more. One that pays, but leaves a
 * network unused, or uses the same exits as another with fewer, is left out.
 * @param isLate whether no further front is to be tried
 */
export function* laddersOf(
  pool: Pool,
  proves: Proves,
  goal: Goal = 'mean',
  isLate: () => boolean = () => false,
): Sliced<Ladder[]> {
  const tried = new Map<string, Ladder>();
  const widen = function* (sets: readonly (readonly number[])[], [exits, inside]: Kind): Sliced<Ladder[]> {
    const found = new Set<Ladder>();
    for (const set of sets) {
      const some = pool.only(set, exits, inside);
      // The network alone is no ladder, unless it is the 8-bit form of another.
      if (some.exits.length === 0 && !some.task.original) continue;
      // Where there are no such exits, kinds are the same.
      const key = some.exits.map(({ after }) => after).join();
      const known = tried.get(key);
      const ladder = known ?? ladderOf(some, proves);
      found.add(ladder);
      if (known) continue;
      tried.set(key, ladder);
      yield;
    }
    return [...found];
  };
  for (const kind of KINDS) {
    yield* widen([[]], kind);
    let sets = [...Array(pool.own).keys()].map((front) => [front]);
    for (let fronts = 1; fronts <= MAX_FRONTS && sets.length > 0; fronts++) {
      const widened = yield* widen(sets, kind);
      if (isLate()) break;
      // A front that doesn't pay alone may pay before another.
      const paying = widened.filter(inUse);
      const others = widened.filter((ladder) => !inUse(ladder));
      const best = [...ranked(paying, goal), ...ranked(others, goal)].slice(0, WIDENED);
      const larger = best.flatMap(({ pool: { fronts: set } }) =>
        [...Array(pool.own).keys()].filter((front) => !set.includes(front)).map((front) => [...set, front]),
      );
      sets = distinct(larger.map((set) => set.sort((a, b) => a - b)));
    }
  }
  const known = new Set<string>();
  const byExits = [...tried.values()].sort((a, b) => a.pool.exits.length - b.pool.exits.length);
  return byExits.filter((ladder) => {
    if (ladder.state !== 'pays') return true;
    const names = usedExits(ladder)
      .map((e) => ladder.pool.exits[e]!.after)
      .join();
    if (!inUse(ladder) || known.has(names)) return false;
    known.add(names);
    return true;
  });
}

/** Whether it pays, and every network in it may answer. */
function inUse(ladder: Ladder): boolean {
  const { pool, boldest, state } = ladder;
  const networks = new Set(usedExits(ladder).map((e) => pool.times[e]!.network));
  return state === 'pays' && (boldest < 0 || pool.times.every(({ network }) => networks.has(network)));
}

const distinct = (sets: readonly number[][]) => [...new Map(sets.map((set) => [set.join(), set])).values()];

/** The exits at which enough items leave in the boldest setting that may be certified. */
function usedExits({ pool, settings, boldest }: Ladder): number[] {
  const setting = settings[boldest];
  if (!setting) return [];
  const { counts, items } = pool.tally(setting);
  return setting.flatMap((_, e) => (counts[e]! >= MIN_LEAVING * items ? [e] : []));
}

/** Whether the network keeps its exits, and whether its fronts do. */
const KINDS = [
  [false, false],
  [true, false],
  [false, true],
  [true, true],
] as const satisfies readonly Kind[];
type Kind = readonly [exits: boolean, inside: boolean];

/** A ladder that was timed as it is, in shares of the full network's time: its mean, and what to expect of the time that is to be short. */
export interface TimedLadder {
  readonly ladder: Ladder;
  readonly mean: number;
  readonly time: number;
}

/** Whether it saves mean time, and of the time that is to be short. */
export const isFaster = ({ mean, time }: Omit<TimedLadder, 'ladder'>) => mean < 1 && time < 1;

/**
 * The ladders to time as they are: the fastest, and the fastest of each kind, with a sure end and without one. Exits are timed by runs that
 * all leave there; where paths change from item to item they cost more, by an amount that only a trial shows.
 */
export function finalists(ladders: readonly Ladder[]): Ladder[] {
  const kinds = ladders.map((ladder) => [...kindOf(ladder), ladder.sureEnd].join());
  return ladders.filter((_, i) => i < FASTEST || kinds.indexOf(kinds[i]!) === i);
}

/** Whether there are exits in the network, and in its fronts. */
function kindOf({ pool: { times, own } }: Ladder): Kind {
  const inNetwork = times.filter(({ network }) => network === own).length;
  return [inNetwork > 0, times.length - inNetwork > own];
}

/**
 * The ladders to certify: the fastest, and a second one with a sure end. If the fastest has none, the items that certify may refuse it in
 * every setting, and the second is the fastest with a sure end, however slow. Otherwise it is the fastest of them without exits behind
 * blocks, whose few thresholds fit chance less, and is left out where it can't win. Both are tested at half of the error, so that whichever
 * is taken keeps its promise. If the items are too few to prove both, the fastest is tested alone.
 * @param timed the fastest first
 * @param provesAt of a ladder, where so many are tested
 */
export function contenders<T extends TimedLadder>(
  timed: readonly T[],
  provesAt: (ladder: Ladder, ladders: number) => Proves,
): T[] {
  const [first] = timed;
  if (!first) return [];
  const { sureEnd } = first.ladder;
  const second = timed.find(({ ladder }) => ladder.sureEnd && !(sureEnd && kindOf(ladder).includes(true)));
  if (!second || second === first || (sureEnd && second.time >= MAX_BEHIND * first.time)) return [first];
  const both = [first, second];
  const isProvable = ({ ladder }: T) => {
    const proves = provesAt(ladder, both.length);
    return ladder.points.some((point) => proves(point));
  };
  return both.every(isProvable) ? both : [first];
}

/** Of a pool with all its exits. */
export function ladderOf(pool: Pool, proves: Proves): Ladder {
  const [{ limit }] = rulesOf(pool.task.options);
  const halves = ([0, 1] as const).map((odd) => pool.half(odd)) as [Pool, Pool];
  const searches = [pool, ...halves].map((some) => allSettingsOf(some.scores(), PENALTIES, some.costs));
  const [all, ofEven, ofOdd] = searches as [Thresholds[], Thresholds[], Thresholds[]];
  const settings: Thresholds[] = [];
  const points: Prediction[] = [];
  for (const [i, setting] of all.entries()) {
    if (i > 0 && searches.every((found) => isSame(found[i]!, found[i - 1]!))) continue;
    const predicted = predictionOf([halves[0].tally(ofOdd[i]!), halves[1].tally(ofEven[i]!)]);
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
  const sureEnd = !pool.task.original || proves(plain, END_MARGIN);
  if (pool.task.original && proves(plain) && plain.mean <= (points[boldest]?.mean ?? 1)) {
    const alone = { settings: [], points: [plain], boldest: -1, predicted: plain };
    return { pool, ...alone, sure: proves(plain, MARGIN), sureEnd, state: 'pays' };
  }
  const predicted = points[Math.max(0, boldest)] ?? plain;
  const fast = predicted.mean < 1 ? 'pays' : 'slow';
  const state = proves(predicted) ? fast : 'unsafe';
  return { pool, settings, points, boldest, sure: surest >= 0, sureEnd, predicted, state };
}

const isSame = (one: Thresholds, other: Thresholds) => one.every((threshold, e) => threshold === other[e]);

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
