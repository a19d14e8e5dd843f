/** The order of settings of exits, from careful to bold, and which of them to test. */
import { ResidualSkipError } from '../../errors.js';
import type { Metric } from '../../skip/promise.js';
import { NEVER } from '../../skip/scores.js';
import { measure, summarise, type Thresholds } from './measure.js';
import { risksOf } from './risk-curve.js';
import type { ExitColumn, Table } from './table.js';
import { type Costs, type ExitScores, penalties, rankingOf, ThresholdSearch } from './thresholds.js';

/** Multiply-adds that a setting must save beyond the previous one to be worth a test. */
const MIN_GAIN = 0.005;
/** Share of the items that must leave at an exit for it to be worth what it costs the others. */
export const MIN_LEAVING = 0.01;
/** Steps from one penalty to the next. */
const PARTS = 8;
/** Penalties are for risks near this one. */
const TYPICAL_LIMIT = 0.01;
/**
 * What a right answer gained makes up for, of one that is lost: each change, whatever it does, widens the interval that must keep the
 * limit. Where 4,000 items certify 0.5 %, changing 1 % of them, the best rate is about this one.
 */
const SET_OFF = 0.8;
/** Smaller doubts are not distinguished. */
const MIN_DOUBT = 1e-7;

/** The doubt that an exit's confidence leaves: the logarithm of its odds against. */
function doubtOf(confidence: number): number {
  return Math.log((1 - confidence + MIN_DOUBT) / (confidence + MIN_DOUBT));
}

/** Of an item that leaves at an exit: whether its answer changes, or of a vector its loss in units of the limit, times a hundredth. */
function harmOf({ of, answers }: Table, exit: ExitColumn, limit: number): number[] {
  const { answers: given, losses } = exit;
  if (of !== 'classes') return [...losses].map((loss) => Math.min(1, (TYPICAL_LIMIT * loss) / limit));
  return [...given].map((answer, i) => Number(answer !== answers[i]));
}

/** Where right answers are counted, those that are lost, and that are gained. */
const netOf = [1, -1].map(
  (sign) =>
    (_: Table, { losses }: ExitColumn) =>
      [...losses].map((loss) => Number(sign * loss > 0)),
);

/**
 * The scores of each exit, from tables of items that its head was not fitted on. With the metric `accuracy` the risk of an item is that
 * its right answer is lost, less most of the chance that one is gained.
 * @param savings of the exits
 * @param limit on the mean loss of vectors
 */
export function exitScoresOf(
  tables: readonly Table[],
  savings: readonly number[],
  { limit = TYPICAL_LIMIT, metric }: { limit?: number; metric?: Metric } = {},
): ExitScores[] {
  const scores = savings.map((_, e) =>
    Float64Array.from(tables.flatMap(({ exits }) => [...exits[e]!.confidences])),
  );
  const doubts = scores.map((confidences) => confidences.map(doubtOf));
  const rare = tables.every(({ of }) => of === 'classes');
  const risksBy = (harm: typeof harmOf) => {
    const evidence = doubts.map((own, e) => ({
      doubts: own,
      losses: Float64Array.from(tables.flatMap((table) => harm(table, table.exits[e]!, limit))),
    }));
    return evidence.length > 0 ? risksOf(evidence, rare) : [];
  };
  const [lost, gained] = metric === 'accuracy' ? netOf.map(risksBy) : [risksBy(harmOf)];
  const riskOf = (e: number) =>
    gained ? lost![e]!.map((risk, row) => risk - SET_OFF * gained[e]![row]!) : lost![e]!;
  return savings.map((saving, e) => ({
    ...{ saving, scores: scores[e]!, risks: riskOf(e) },
    ranked: rankingOf(scores[e]!),
  }));
}

/**
 * All settings that the penalties give, from careful to bold. Between two penalties, an exit may come into use for many items at
 * once; so there are settings between them, which divide the items that leave at each exit evenly. Those of other items, or other exits,
 * are as many, and the ones of one index belong to one penalty.
 */
export function allSettingsOf(exits: readonly ExitScores[], steps: number, costs?: Costs): Thresholds[] {
  const search = new ThresholdSearch(exits, costs);
  const sorted = exits.map(({ scores, ranked }) => Float64Array.from(ranked, (row) => scores[row]!));
  let counts = exits.map(() => 0);
  return penalties(steps).flatMap((penalty) => {
    const next = search.at(penalty).map((threshold, e) => above(sorted[e]!, threshold));
    const from = counts;
    counts = next;
    return Array.from({ length: PARTS }, (_, part) =>
      next.map((count, e) => {
        const leaving = Math.round(from[e]! + ((part + 1) / PARTS) * (count - from[e]!));
        return leaving > 0 ? sorted[e]![leaving - 1]! : NEVER;
      }),
    );
  });
}

/** How many of the scores, which fall, reach a threshold. */
function above(sorted: Float64Array, threshold: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! >= threshold) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The settings that skip anything, without repetitions. */
export function settingsOf(exits: readonly ExitScores[], steps: number, costs?: Costs): Thresholds[] {
  const all = allSettingsOf(exits, steps, costs);
  const skips = (setting: Thresholds) => setting.some((threshold) => threshold < NEVER);
  return all.filter((setting, i) => skips(setting) && setting.join() !== all[i - 1]?.join());
}

/**
 * Blocks of the exits that are worth what they cost at one of these limits, in the boldest setting that keeps it.
 * @param order items that order settings, evaluated with heads that were fitted without them
 */
export function usefulExits(
  settings: readonly Thresholds[],
  order: Table,
  limits: readonly number[],
): ReadonlySet<string> {
  const risks = settings.map((setting) => summarise(order, setting).risk);
  const kept = limits.flatMap((limit) => {
    const failing = risks.findIndex((risk) => risk > limit);
    return settings.slice(0, failing < 0 ? settings.length : failing).slice(-1);
  });
  const leaving = kept.flatMap((setting) => Object.entries(measure(order, setting).exits));
  return new Set(leaving.filter(([, share]) => share >= MIN_LEAVING).map(([block]) => block));
}

/**
 * The settings to test, in their order: up to the first that exceeds `limit` on the items that order them, which
 * is not worth testing, or that keeps within the budget.
 * @param order items that order settings, evaluated with heads that were fitted without them
 * @param budget fraction of the multiply-adds
 * @param riskOf where it isn't the mean of the losses by exit
 * @throws ResidualSkipError INVALID_ARGUMENT when none keeps within the budget
 */
export function settingsToTest(
  settings: readonly Thresholds[],
  order: Table,
  limit: number,
  budget?: number,
  riskOf?: (thresholds: Thresholds) => number,
): Thresholds[] {
  const tested: Thresholds[] = [];
  let [spent, saved] = [Number.POSITIVE_INFINITY, 0];
  for (const setting of settings) {
    const { risk, multiplyAddsSkipped } = summarise(order, setting);
    if (risk > limit) break;
    spent = 1 - multiplyAddsSkipped;
    if (budget !== undefined && spent <= budget) return [...tested, setting];
    if (multiplyAddsSkipped < saved + MIN_GAIN) continue;
    if (riskOf && riskOf(setting) > limit) break;
    saved = multiplyAddsSkipped;
    tested.push(setting);
  }
  if (budget !== undefined) throw outOfReach(budget, spent);
  return tested;
}

/** @param min the least that any setting spent */
function outOfReach(budget: number, min: number): ResidualSkipError {
  const reached = Number.isFinite(min)
    ? `the boldest one spends ${Number(min.toPrecision(3))}`
    : 'nothing that was fitted skips anything';
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    `budget: no setting keeps within ${budget} of the multiply-adds; ${reached}`,
  );
}
