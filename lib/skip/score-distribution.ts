/** The distribution of gates' scores on some data: quantile bins, to compare later scores with. */
import { z } from 'zod';
import { late } from '../util/late.js';

/** Of equal frequency in the reference. */
const BINS = 10;

const fraction = late(() => z.number().min(0).max(1));

export const distributionSchema = late(() =>
  z
    .strictObject({
      edges: z
        .array(z.number())
        .meta({ description: 'Increasing cut points: deciles, fewer where scores repeat.' }),
      shares: z.array(fraction()).meta({ description: 'Of the items, per bin; one more than edges.' }),
      skipRate: fraction().meta({
        description: 'Of the items whose gate was evaluated, those that skipped the block.',
      }),
    })
    .refine(({ edges, shares }) => shares.length === edges.length + 1, {
      error: 'expected one share more than edges',
    }),
);

/**
 * The distribution of a block's scores when the policy was calibrated.
 * @interface
 */
export type ScoreDistribution = z.infer<ReturnType<typeof distributionSchema>>;
/** By the names of blocks. */
export type ScoreDistributions = { readonly [block: string]: ScoreDistribution };

/** @param scores of the items whose gate was evaluated @param skipRate fraction of them that skipped the block */
export function distributionOf(scores: readonly number[], skipRate: number): ScoreDistribution {
  // NaN comes last.
  const sorted = Float64Array.from(scores).sort();
  const cuts = Array.from(
    { length: BINS - 1 },
    (_, i) => sorted[Math.floor(((i + 1) * sorted.length) / BINS)]!,
  );
  const edges = [...new Set(cuts)].filter((edge) => Number.isFinite(edge));
  return { edges, shares: shareOut(scores, edges), skipRate };
}

/** Fraction of `scores` in each of the edges.length + 1 bins. */
export function shareOut(scores: readonly number[], edges: readonly number[]): number[] {
  const counts = new Array<number>(edges.length + 1).fill(0);
  for (const score of scores) {
    let bin = 0;
    while (bin < edges.length && score >= edges[bin]!) bin++;
    counts[bin]!++;
  }
  return counts.map((count) => count / Math.max(1, scores.length));
}
