/** The order of settings, from careful to bold: which kinds of levers it is made of, and which of them are worth testing. */
import type { Heads } from '../skip/attach.js';
import type { Budget } from './budget.js';
import { Dial, headsOf, prices } from './dial.js';
import type { Judge, Judged, Measured } from './judge.js';
import type { Lever } from './levers.js';

/** A setting of the dial. */
export interface Setting {
  readonly price: number;
  readonly heads: Heads;
  /** The same thresholds on heads that were fitted without the items of `order`, which judge it by them. */
  readonly trial: Heads;
}

/** Kinds of levers that an order of settings can be made of, from plain to rich. */
const KINDS: readonly (readonly Lever['kind'][])[] = [
  ['exit'],
  ['exit', 'gate'],
  ['exit', 'confidence'],
  ['exit', 'gate', 'confidence'],
];
/** Settings of each of them that are tried on `order`. */
const PROBES = 12;
/** Multiply-adds that further kinds of levers must save, to be worth their while; and a setting, to be worth a test. */
const [LEAST_PROFIT, LEAST_GAIN] = [0.01, 0.005];

/** Settings that are run on `order`. */
export function settingsTried(steps: number): number {
  return steps + KINDS.length * Math.min(PROBES, steps);
}

/** The settings that skip anything; those that set the same thresholds as the one before are left out. */
function settingsOf(dial: Dial, kinds: readonly Lever['kind'][], steps: number): Setting[] {
  const settings: Setting[] = [];
  let before = '[]';
  for (const price of prices(steps)) {
    const pulled = dial.at(price, kinds);
    const thresholds = JSON.stringify(
      pulled.map(({ lever, threshold }) => [lever.kind, lever.block, threshold]),
    );
    if (thresholds !== before) {
      settings.push({ price, heads: headsOf(pulled), trial: headsOf(pulled, 'trial') });
    }
    before = thresholds;
  }
  return settings;
}

/**
 * Of all kinds of levers those whose settings save most within the limit on `order`: a gate that earns nothing there is left
 * out altogether.
 */
export async function bestSettings(
  levers: readonly Lever[],
  judge: Pick<Judge, 'measure'>,
  order: Judged,
  limit: number,
  steps: number,
): Promise<Setting[]> {
  const dial = new Dial(levers);
  let best: { settings: Setting[]; saved: number } | undefined;
  for (const kinds of KINDS) {
    const settings = settingsOf(dial, kinds, steps);
    const saved = await mostSaved(settings, judge, order, limit);
    if (!best || saved >= best.saved + LEAST_PROFIT) best = { settings, saved };
  }
  return best!.settings;
}

/** Multiply-adds that the best of a few settings saves which keep the limit on `order`; 0 when none does. */
async function mostSaved(
  settings: readonly Setting[],
  judge: Pick<Judge, 'measure'>,
  order: Judged,
  limit: number,
): Promise<number> {
  const every = Math.max(1, settings.length / PROBES);
  let most = 0;
  for (let at = every; Math.round(at) <= settings.length; at += every) {
    const { risk, multiplyAddsSkipped } = await judge.measure(settings[Math.round(at) - 1]!.trial, order);
    if (risk > 2 * limit) break;
    if (risk <= limit) most = Math.max(most, multiplyAddsSkipped);
  }
  return most;
}

/**
 * The settings to test, in the dial's order: up to the first that breaks `limit` on `order`, which is not worth testing,
 * or that keeps within the budget.
 * @throws ResidualSkipError INVALID_ARGUMENT when none keeps within the budget
 */
export async function worthTesting(
  settings: readonly Setting[],
  judge: Pick<Judge, 'measure'>,
  order: Judged,
  limit: number,
  budget: Budget | undefined,
): Promise<Setting[]> {
  const worth: Setting[] = [];
  let [spent, saved] = [Number.POSITIVE_INFINITY, 0];
  for (const setting of settings) {
    const measured: Measured = await judge.measure(setting.trial, order);
    if (measured.risk > limit) break;
    // Heads that were fitted on the images of `order` are surer of them: more of them would exit there than elsewhere.
    if (budget) spent = budget.spent(setting.trial, measured);
    if (budget && spent <= budget.most) return [...worth, setting];
    if (measured.multiplyAddsSkipped < saved + LEAST_GAIN) continue;
    saved = measured.multiplyAddsSkipped;
    worth.push(setting);
  }
  if (budget) throw budget.outOfReach(spent);
  return worth;
}
