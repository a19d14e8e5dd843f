/**
 * The dial: one number that turns all levers together, from "no skipping" to the most aggressive. At price `p` each
 * lever is pulled down to the score where what it saves is worth `p` times the answers it changes.
 */
import type { Heads } from '../skip/attach.js';
import type { Lever } from './levers.js';

/** A lever with the score from which it is pulled. */
export interface Setting {
  readonly lever: Lever;
  readonly threshold: number;
}

/** Losses that are added to those counted, so that a clean sample is not taken for a clean truth. */
const PRIOR_LOSSES = 0.5;

/**
 * The threshold at which pulling the lever on all items scored at least that high has the best
 * saving - price * loss, over `pool`; undefined when none is worth it.
 */
export function bestThreshold(lever: Lever, pool: readonly number[], price: number): number | undefined {
  const order = [...pool].sort((a, b) => lever.scores[b]! - lever.scores[a]!);
  let losses = PRIOR_LOSSES;
  let best = 0;
  let threshold: number | undefined;
  for (const [rank, item] of order.entries()) {
    losses += lever.losses[item]!;
    // Items with the same score are pulled together.
    const next = order[rank + 1];
    if (next !== undefined && lever.scores[next] === lever.scores[item]) continue;
    const worth = (rank + 1) * lever.saving - price * losses;
    if (worth <= best) continue;
    best = worth;
    threshold = lever.scores[item]!;
  }
  return threshold;
}

/**
 * Settings at one price. Levers are taken in the network's order: an item that an exit took is out of the pool of
 * all that come behind it.
 * @param levers in the order in which they stand in the network
 */
export function settingsAt(levers: readonly Lever[], items: number, price: number): Setting[] {
  let pool = Array.from({ length: items }, (_, i) => i);
  const settings: Setting[] = [];
  for (const lever of levers) {
    const threshold = bestThreshold(lever, pool, price);
    if (threshold === undefined) continue;
    settings.push({ lever, threshold });
    if (lever.kind === 'exit') pool = pool.filter((item) => lever.scores[item]! < threshold);
  }
  return settings;
}

/** Prices of the dial, dear first: the first settings skip least. */
export function prices(steps: number): number[] {
  const [dear, cheap] = [Math.log(400), Math.log(2)];
  return Array.from({ length: steps }, (_, i) => Math.exp(dear + ((cheap - dear) * i) / (steps - 1)));
}

/** The heads that a policy with these settings brings along. A gate's score is that of running: the negative. */
export function headsOf(settings: readonly Setting[]): Heads {
  return {
    exits: settings
      .filter(({ lever }) => lever.kind === 'exit')
      .map(({ lever, threshold }) => ({ after: lever.block, head: lever.head, threshold })),
    gates: settings
      .filter(({ lever }) => lever.kind === 'gate')
      .map(({ lever, threshold }) => ({ block: lever.block, head: lever.head, threshold: -threshold })),
  };
}
