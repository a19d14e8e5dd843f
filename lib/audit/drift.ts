/** Equal-frequency bins of the reference, and what counts as drift in the industry's usual reading. */
const BINS = 10;
export const PSI_DRIFT = 0.25;

/** What a block's scores looked like when the policy was made. */
export interface ScoreProfile {
  /** BINS - 1 increasing cut points, or fewer where scores repeat. */
  readonly edges: readonly number[];
  /** Fraction of the reference in each of the edges.length + 1 bins. */
  readonly shares: readonly number[];
  /** Fraction of the items that skipped the block. */
  readonly skipRate: number;
}

export function profileOf(scores: readonly number[], skipRate: number): ScoreProfile {
  const sorted = [...scores].sort((a, b) => a - b);
  const cuts = Array.from(
    { length: BINS - 1 },
    (_, i) => sorted[Math.floor(((i + 1) * sorted.length) / BINS)]!,
  );
  const edges = [...new Set(cuts)].filter((edge) => Number.isFinite(edge));
  return { edges, shares: binned(scores, edges), skipRate };
}

function binned(scores: readonly number[], edges: readonly number[]): number[] {
  const counts = new Array<number>(edges.length + 1).fill(0);
  for (const score of scores) {
    let bin = 0;
    while (bin < edges.length && score >= edges[bin]!) bin++;
    counts[bin]!++;
  }
  return counts.map((count) => count / Math.max(1, scores.length));
}

/**
 * Population stability index of a sample of scores against a profile: sum over bins of
 * (actual - expected) * ln(actual / expected), bins floored at half an observation so that it is finite.
 * Below 0.1 is read as stable, above 0.25 as drift (Siddiqi 2006, Credit Risk Scorecards).
 */
export function populationStability(profile: ScoreProfile, scores: readonly number[]): number {
  if (scores.length === 0) return 0;
  const floor = 0.5 / scores.length;
  return binned(scores, profile.edges).reduce((sum, share, i) => {
    const actual = Math.max(share, floor);
    const expected = Math.max(profile.shares[i]!, floor);
    return sum + (actual - expected) * Math.log(actual / expected);
  }, 0);
}
