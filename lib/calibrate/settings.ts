/** The order of settings, from careful to bold, and which of them to test. */
import type { Budget } from './budget.js';
import { Dial, type Lever, prices } from './dial.js';
import { summarise, type Thresholds } from './measure.js';
import { risksOf } from './risk-curve.js';
import { NEVER, type Table } from './table.js';

/** A setting of the dial. */
export interface Setting {
  readonly price: number;
  readonly thresholds: Thresholds;
}

/** Multiply-adds that a setting must save beyond the previous one to be worth a test. */
const LEAST_GAIN = 0.005;
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

/** The settings that skip anything; settings with the same thresholds as the previous one are left out. */
export function settingsOf(levers: readonly Lever[], steps: number): Setting[] {
  const dial = new Dial(levers);
  const settings: Setting[] = [];
  let before = '';
  for (const price of prices(steps)) {
    const thresholds = dial.at(price);
    if (thresholds.join() !== before && thresholds.some((threshold) => threshold < NEVER)) {
      settings.push({ price, thresholds });
    }
    before = thresholds.join();
  }
  return settings;
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
