import { type ScoreProfile, shareOut } from '../skip/profile.js';

/** What counts as drift in the industry's usual reading. */
export const PSI_DRIFT = 0.25;

/**
 * Population stability index of a sample of scores against a profile: sum over bins of
 * (actual - expected) * ln(actual / expected), bins floored at half an observation so that it is finite.
 * Below 0.1 is read as stable, above 0.25 as drift (Siddiqi 2006, Credit Risk Scorecards).
 */
export function populationStability(profile: ScoreProfile, scores: readonly number[]): number {
  if (scores.length === 0) return 0;
  const floor = 0.5 / scores.length;
  return shareOut(scores, profile.edges).reduce((sum, share, i) => {
    const actual = Math.max(share, floor);
    const expected = Math.max(profile.shares[i]!, floor);
    return sum + (actual - expected) * Math.log(actual / expected);
  }, 0);
}
