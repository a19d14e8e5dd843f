import {
  distributionOf,
  type ScoreDistribution,
  type ScoreDistributions,
  shareOut,
} from '../skip/score-distribution.js';
import type { ItemTrace } from '../skip/trace.js';

/** The usual threshold for drift. */
export const PSI_DRIFT = 0.25;

/**
 * Population stability index of a sample of scores against an expected distribution: the sum over bins of (actual - expected) *
 * ln(actual / expected), with bins floored at half an observation so that it is finite. Below 0.1 the scores count as
 * stable, above 0.25 as drifted (Siddiqi 2006, Credit Risk Scorecards).
 */
export function populationStability(expected: ScoreDistribution, scores: readonly number[]): number {
  if (scores.length === 0) return 0;
  const floor = 0.5 / scores.length;
  return shareOut(scores, expected.edges).reduce((sum, share, i) => {
    const actual = Math.max(share, floor);
    const usual = Math.max(expected.shares[i]!, floor);
    return sum + (actual - usual) * Math.log(actual / usual);
  }, 0);
}

/** What decides to skip: a block's gate, or an early exit behind a block. */
export type DriftKind = 'gate' | 'exit';

/** The drift of one gate or exit in one window. */
export interface Drift {
  readonly kind: DriftKind;
  /** The block of the gate or exit. */
  readonly block: string;
  /**
   * Population stability index of the scores (an exit's are its confidences). A value above 0.25 plus what chance
   * gives for so few scores is drift.
   */
  readonly psi: number;
  /** The same index for the shares that skipped and that did not. */
  readonly skipRatePsi: number;
  /**
   * For a gate, the fraction that skipped the block of the items whose gate was evaluated; for an exit, the fraction
   * that left of those that reached it.
   */
  readonly skipRate: number;
  readonly expectedSkipRate: number;
}

/** Scores to compare with, if there are any. */
export type ExpectedScores = { readonly [K in DriftKind]?: ScoreDistributions };

const KINDS: readonly DriftKind[] = ['gate', 'exit'];

interface Seen {
  readonly scores: number[];
  skipped: number;
}

/** The result of a closed window. */
export interface ClosedWindow {
  readonly drift: readonly Drift[];
  /** The ones that have drifted. */
  readonly moved: readonly Drift[];
}

/** Compares windows of a stream with the expected scores. Of a kind without any, the first window is what is expected. */
export class DriftMonitor {
  readonly #window: number;
  readonly #expected: { [K in DriftKind]?: ScoreDistributions };
  #seen = { gate: new Map<string, Seen>(), exit: new Map<string, Seen>() };
  #items = 0;

  /** @param window number of items with a score that make a window */
  constructor(window: number, expected: ExpectedScores) {
    this.#window = window;
    this.#expected = { ...expected };
  }

  /** @returns the result of the window if this item closes one that can be compared */
  see({ blocks, exits, inFull }: ItemTrace): ClosedWindow | undefined {
    let scored = exits.length > 0;
    for (const { block, score, ran } of blocks) {
      if (score === null) continue;
      scored = true;
      this.#count('gate', block, score, !ran);
    }
    // A guarded item ran in full, so in the end it skipped nothing.
    const guarded = inFull === 'guard';
    for (const { after, score, taken } of exits) this.#count('exit', after, score, taken && !guarded);
    if (!scored || ++this.#items < this.#window) return undefined;
    return this.#close();
  }

  #count(kind: DriftKind, block: string, score: number, skipped: boolean): void {
    const seen = this.#seen[kind].get(block) ?? { scores: [], skipped: 0 };
    this.#seen[kind].set(block, seen);
    seen.scores.push(score);
    if (skipped) seen.skipped++;
  }

  #close(): ClosedWindow | undefined {
    const seen = this.#seen;
    this.#seen = { gate: new Map(), exit: new Map() };
    this.#items = 0;
    const compared = KINDS.flatMap((kind) => {
      const expected = this.#expected[kind];
      if (expected) return compareAll(kind, seen[kind], expected);
      if (seen[kind].size > 0) this.#expected[kind] = distributionsOf(seen[kind]);
      return [];
    });
    if (compared.length === 0) return undefined;
    const moved = compared.filter(({ hasMoved }) => hasMoved);
    return { drift: compared.map(({ drift }) => drift), moved: moved.map(({ drift }) => drift) };
  }
}

const skipRateOf = ({ scores, skipped }: Seen) => skipped / scores.length;

function distributionsOf(seen: ReadonlyMap<string, Seen>): ScoreDistributions {
  return Object.fromEntries(
    [...seen].map(([block, some]) => [block, distributionOf(some.scores, skipRateOf(some))]),
  );
}

function compareAll(kind: DriftKind, seen: ReadonlyMap<string, Seen>, expected: ScoreDistributions) {
  return [...seen].flatMap(([block, some]) => {
    const distribution = expected[block];
    return distribution ? [compare(kind, block, some, distribution)] : [];
  });
}

function compare(kind: DriftKind, block: string, seen: Seen, distribution: ScoreDistribution) {
  const { scores, skipped } = seen;
  const { skipRate: expected, edges } = distribution;
  const psi = populationStability(distribution, scores);
  const rates = { edges: [0.5], shares: [1 - expected, expected], skipRate: expected };
  const skips = scores.map((_, i) => (i < skipped ? 1 : 0));
  const skipRatePsi = populationStability(rates, skips);
  // By chance alone, two samples of n observations have a mean index of 2 (bins - 1) / n.
  const hasMoved = [
    [psi, edges.length],
    [skipRatePsi, 1],
  ].some(([index, cuts]) => index! > PSI_DRIFT + (2 * cuts!) / scores.length);
  const drift: Drift = {
    kind,
    block,
    psi,
    skipRatePsi,
    skipRate: skipRateOf(seen),
    expectedSkipRate: expected,
  };
  return { drift, hasMoved };
}
