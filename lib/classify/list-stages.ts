/** A list that is ranked in stages: all pairs run as far as the first exit, and those that may still be among the best go on. */
import { ResidualSkipError } from '../errors.js';
import { loadPolicy } from '../skip/load-policy.js';
import type { SkipPolicy } from '../skip/policy.js';
import type { ItemTrace } from '../skip/trace.js';
import { suggest } from '../util/suggest.js';

/** What is known of a document's score. */
export interface Ranked {
  readonly score: number;
  /** How far it may be from the network's own score at most; 0 if it is that score. */
  readonly reach: number;
}

/** The score of a pair. */
export interface PairScore extends Ranked {
  /** Null unless asked for. */
  readonly trace: ItemTrace | null;
  /** Of the pair in full; null without a trace. */
  readonly multiplyAdds: number | null;
}

/** How far pairs run. */
export interface Stage {
  /** The exit that they leave by; null for the end of the network. */
  readonly after: string | null;
  readonly policy: SkipPolicy;
}

/** Thresholds of an exit that is always taken, and of one that never is. */
const [ALWAYS, NEVER] = [-3e38, 3e38];

/** Names of the exits that a policy lists. */
export const exitsOf = ({ heads }: SkipPolicy): string[] => heads?.exits.map(({ after }) => after) ?? [];

/**
 * A stage for each of these exits of a policy, in its order, and one for the end of the network. All of them have one program, and run
 * every block on their way.
 * @throws ResidualSkipError INVALID_ARGUMENT for an exit that the policy doesn't have
 */
export function stagesOf(policy: SkipPolicy, exits: readonly string[]): Stage[] {
  const { model, reference, precision, fronts, heads } = policy;
  const given = exitsOf(policy);
  const unknown = exits.find((name) => !given.includes(name));
  if (unknown !== undefined) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `margins: the policy has no exit after '${unknown}'; ${suggest(unknown, given)}`,
    );
  }
  const used = new Set(exits);
  const all = heads?.exits ?? [];
  for (const exit of [...all].reverse()) {
    if (used.has(exit.after) && 'reads' in exit && exit.reads !== undefined) used.add(exit.reads);
  }
  const kept = all.filter(({ after }) => used.has(after));
  const names = given.filter((name) => exits.includes(name));
  return [...names, null].map((name) => ({
    after: name,
    policy: loadPolicy({
      ...{ default: 'run', blocks: {} },
      ...(model && { model }),
      ...(reference && { reference }),
      ...(precision && { precision }),
      ...(fronts && { fronts }),
      heads: { exits: kept.map((exit) => ({ ...exit, threshold: exit.after === name ? ALWAYS : NEVER })) },
    }),
  }));
}

/** Indices of a list, best first; of equal ones, the first. */
export function rankingOf(scores: readonly Pick<Ranked, 'score'>[]): number[] {
  return [...scores.keys()].sort((a, b) => scores[b]!.score - scores[a]!.score || a - b);
}

/**
 * The documents that may be among the best `topK`, and whose score isn't the network's own yet. Best first; none when the best `topK` have
 * their own scores and no other document can reach those.
 */
export function openIn(scores: readonly Ranked[], topK: number): number[] {
  const lows = scores.map(({ score, reach }) => score - reach).sort((a, b) => b - a);
  const least = lows[Math.min(topK, lows.length) - 1] ?? Number.NEGATIVE_INFINITY;
  const isOpen = ({ score, reach }: Ranked) => reach > 0 && !(score + reach < least);
  return rankingOf(scores).filter((index) => isOpen(scores[index]!));
}

/**
 * The scores of a list of which the best `topK`, and their order, are known.
 * @param run the scores of these documents when they run as far as a stage leads
 */
export async function settleList<T extends Ranked>(
  documents: number,
  topK: number,
  stages: readonly Stage[],
  run: (indices: readonly number[], stage: Stage) => Promise<readonly T[]> | readonly T[],
): Promise<T[]> {
  const scores: T[] = [];
  let open = [...Array(documents).keys()];
  const go = async (indices: readonly number[], stage: Stage) => {
    const found = await run(indices, stage);
    for (const [k, index] of indices.entries()) {
      scores[index] = stage.after === null ? { ...found[k]!, reach: 0 } : found[k]!;
    }
    open = openIn(scores, topK);
  };
  for (const stage of stages.slice(0, -1)) if (open.length > 0) await go(open, stage);
  // To the end first those that will probably be among the best: their own scores may settle the others. More than two turns would be
  // runs of single pairs.
  const last = stages.at(-1)!;
  if (open.length > 0) await go(open.slice(0, Math.max(topK, Math.ceil(open.length / 2))), last);
  if (open.length > 0) await go(open, last);
  return scores;
}
