/** The order of settings, from careful to bold, and which of them to test. */
import type { Budget } from './budget.js';
import { Dial, type Lever, prices } from './dial.js';
import { measure, summarise, type Thresholds } from './measure.js';
import { risksOf } from './risk-curve.js';
import { NEVER, type Table } from './table.js';

/** A setting of the dial. */
export interface Setting {
  readonly price: number;
  readonly thresholds: Thresholds;
}

/** Multiply-adds that a setting must save beyond the previous one to be worth a test. */
const LEAST_GAIN = 0.005;
/** Share of the items that must leave at an exit for it to be worth what it costs the others. */
const LEAST_LEAVING = 0.01;
/** Steps from one price of the dial to the next. */
const PARTS = 8;
/** Smaller doubts are not distinguished. */
const LEAST_DOUBT = 1e-7;

/** The doubt that an exit's confidence leaves: the logarithm of its odds against. */
function doubtOf(confidence: number): number {
  return Math.log((1 - confidence + LEAST_DOUBT) / (confidence + LEAST_DOUBT));
}

/**
 * The data of each exit, from tables of items that its head was fitted without.
 * @param savings of the exits
 */
export function leversOf(tables: readonly Table[], savings: readonly number[]): Lever[] {
  const scores = savings.map((_, e) =>
    Float64Array.from(tables.flatMap(({ exits }) => [...exits[e]!.confidences])),
  );
  const evidence = scores.map((confidences, e) => ({
    doubts: confidences.map(doubtOf),
    losses: Uint8Array.from(
      tables.flatMap(({ exits, answers }) =>
        [...exits[e]!.answers].map((answer, i) => Number(answer !== answers[i])),
      ),
    ),
  }));
  const risks = evidence.length > 0 ? risksOf(evidence) : [];
  return savings.map((saving, e) => ({ saving, scores: scores[e]!, risks: risks[e]! }));
}

/**
 * The settings that skip anything, without repetitions. Between two prices, an exit may come into use for many items at
 * once; so there are settings between them, which divide the items that leave at each exit evenly.
 */
export function settingsOf(levers: readonly Lever[], steps: number): Setting[] {
  const dial = new Dial(levers);
  const ranked = levers.map(({ scores }) => Float64Array.from(scores).sort().reverse());
  const settings: Setting[] = [];
  const all = prices(steps);
  let [before, counts] = [all[0]!, levers.map(() => 0)];
  for (const price of all) {
    const next = dial.at(price).map((least, e) => ranked[e]!.filter((score) => score >= least).length);
    for (let part = 1; part <= PARTS; part++) {
      const share = part / PARTS;
      const setting = {
        price: before * (price / before) ** share,
        thresholds: next.map((count, e) => {
          const above = Math.round(counts[e]! + share * (count - counts[e]!));
          return above > 0 ? ranked[e]![above - 1]! : NEVER;
        }),
      };
      const known = settings.at(-1)?.thresholds.join() === setting.thresholds.join();
      if (!known && setting.thresholds.some((threshold) => threshold < NEVER)) settings.push(setting);
    }
    [before, counts] = [price, next];
  }
  return settings;
}

/**
 * Blocks of the exits that are worth what they cost at one of these limits, in the boldest setting that keeps it.
 * @param order items that order settings, evaluated with heads that were fitted without them
 */
export function usefulExits(
  settings: readonly Setting[],
  order: Table,
  limits: readonly number[],
): ReadonlySet<string> {
  const risks = settings.map(({ thresholds }) => summarise(order, thresholds).risk);
  const kept = limits.flatMap((limit) => {
    const failing = risks.findIndex((risk) => risk > limit);
    return settings.slice(0, failing < 0 ? settings.length : failing).slice(-1);
  });
  const leaving = kept.flatMap(({ thresholds }) => Object.entries(measure(order, thresholds).exits));
  return new Set(leaving.filter(([, share]) => share >= LEAST_LEAVING).map(([block]) => block));
}

/**
 * The settings to test, in the dial's order: up to the first that exceeds `limit` on the items that order them, which
 * is not worth testing, or that keeps within the budget.
 * @param order items that order settings, evaluated with heads that were fitted without them
 * @throws ResidualSkipError INVALID_ARGUMENT when none keeps within the budget
 */
export function worthTesting(
  settings: readonly Setting[],
  order: Table,
  limit: number,
  budget: Budget | undefined,
): Setting[] {
  const worth: Setting[] = [];
  let [spent, saved] = [Number.POSITIVE_INFINITY, 0];
  for (const setting of settings) {
    const { risk, multiplyAddsSkipped } = summarise(order, setting.thresholds);
    if (risk > limit) break;
    if (budget) spent = budget.spent(setting.thresholds, multiplyAddsSkipped);
    if (budget && spent <= budget.most) return [...worth, setting];
    if (multiplyAddsSkipped < saved + LEAST_GAIN) continue;
    saved = multiplyAddsSkipped;
    worth.push(setting);
  }
  if (budget) throw budget.outOfReach(spent);
  return worth;
}
