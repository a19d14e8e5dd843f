/** Certifies how often lists of a reranker keep their best documents when pairs leave early. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { openIn, type PairScore, type Reranker, rankingOf } from '../classify/reranker.js';
import { ResidualSkipError } from '../errors.js';
import { mean } from '../numeric/statistics.js';
import { parseStrict } from '../util/validation.js';
import { binomialPValue, fixedSequenceTest, itemsNeeded } from './certify/p-values.js';

/** A query with the documents to order. */
export interface RankingList {
  readonly query: string;
  readonly documents: readonly string[];
}

export interface RankingOptions {
  /** Documents that matter. */
  topK: number;
  /** Most lists whose best `topK` documents may be others, as a fraction; 0.01 when left out. */
  maxDisagreement?: number | undefined;
  /** Probability that the limit holds; 0.95 when left out. */
  confidence?: number | undefined;
  /** Seed of the split into lists that order margins and those that certify one; 1 when left out. */
  seed?: number | undefined;
  /** Aborting it ends the work with the error ABORTED. */
  signal?: AbortSignal | undefined;
}

/** The result of `calibrateRanking`. */
export interface RankingCalibration {
  readonly topK: number;
  /** For the option `margin` of `rank`; null where none keeps the limit: run the lists with the policy `full`. */
  readonly margin: number | null;
  /** The limit, and the confidence with which it holds. */
  readonly limit: number;
  readonly confidence: number;
  /** Lists that certified it, of which `events` had other best documents; the p-value of "more than the limit have". */
  readonly lists: number;
  readonly events: number;
  readonly pValue: number;
  /** Of these lists, the fraction of multiply-adds that is saved, pairs that run again counted twice. */
  readonly multiplyAddsSkipped: number;
}

const fraction = z.number().gt(0).lt(1);
const schema = z.strictObject({
  topK: z.int().positive(),
  maxDisagreement: fraction.default(0.01),
  confidence: fraction.default(0.95),
  seed: z.int().default(1),
  signal: z.instanceof(AbortSignal).optional(),
});
const listsSchema = z
  .array(z.strictObject({ query: z.string(), documents: z.array(z.string()).min(1) }))
  .min(1);

/** Share of the lists that certify. */
const CERTIFY = 0.8;
/** Margins to test: quantiles of how far early scores are off, from twice the largest down. */
const QUANTILES = [1, 0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.65, 0.5] as const;

/** A list that ran with the policy, and in full. */
interface RanList {
  readonly early: readonly PairScore[];
  readonly full: readonly PairScore[];
}

/**
 * Finds the least margin with which a reranker's policy keeps the best documents of lists like these. Every pair runs twice, with the
 * policy and in full.
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (too few lists), ABORTED
 */
export async function calibrateRanking(
  reranker: Reranker,
  lists: readonly RankingList[],
  options: RankingOptions,
): Promise<RankingCalibration> {
  const { topK, maxDisagreement: limit, confidence, seed, signal } = parseStrict(schema, options);
  const given = parseStrict(listsSchema, lists, { subject: 'lists' });
  const delta = 1 - confidence;
  const byPart = { order: [] as RankingList[], certify: [] as RankingList[] };
  const distinct = new Map(given.map((list) => [hashOf(seed, list), list]));
  for (const [hash, list] of [...distinct].sort(([a], [b]) => (a < b ? -1 : 1))) {
    byPart[Number.parseInt(hash.slice(0, 8), 16) / 2 ** 32 < CERTIFY ? 'certify' : 'order'].push(list);
  }
  const needed = itemsNeeded(limit, delta);
  if (byPart.certify.length < needed || byPart.order.length === 0) throw tooFew(distinct.size, limit, needed);
  const run = async (list: RankingList): Promise<RanList> => {
    const all = [...list.documents.keys()];
    return {
      early: await reranker.score(list.query, list.documents, all, { signal }),
      full: await reranker.score(list.query, list.documents, all, { signal, policy: 'full' }),
    };
  };
  const ran = async (part: readonly RankingList[]) => {
    const done: RanList[] = [];
    for (const list of part) done.push(await run(list));
    return done;
  };
  const margins = marginsOf(await ran(byPart.order));
  const certify = await ran(byPart.certify);
  const results = margins.map((margin) => certify.map((list) => settle(list, topK, margin)));
  const events = results.map((of) => of.filter(({ changed }) => changed).length);
  const pValues = events.map((count) => binomialPValue(count, certify.length, limit));
  const chosen = fixedSequenceTest(pValues, delta);
  return {
    ...{ topK, margin: margins[chosen] ?? null, limit, confidence, lists: certify.length },
    ...{ events: events[chosen] ?? 0, pValue: pValues[chosen] ?? 0 },
    multiplyAddsSkipped: chosen < 0 ? 0 : mean(results[chosen]!.map(({ saved }) => saved)),
  };
}

/** From careful to bold. */
function marginsOf(lists: readonly RanList[]): number[] {
  const errors = lists
    .flatMap(({ early, full }) => early.map(({ score }, i) => Math.abs(score - full[i]!.score)))
    .sort((a, b) => a - b);
  const quantiles = QUANTILES.map((share) => errors[Math.ceil(share * errors.length) - 1]!);
  return [...new Set([2 * quantiles[0]!, ...quantiles, 0])];
}

/** What `rank` would do with a list: whether its best documents are others, and the share of the work that it saves. */
function settle({ early, full }: RanList, topK: number, margin: number) {
  const scores = [...early];
  let saved = early.reduce((sum, { trace }) => sum + trace!.multiplyAddsSkipped, 0);
  for (let open = openIn(scores, topK, margin); open.length > 0; open = openIn(scores, topK, margin)) {
    for (const index of open) {
      scores[index] = { ...full[index]!, final: true };
      saved -= full[index]!.multiplyAdds;
    }
  }
  const best = (of: readonly PairScore[]) => new Set(rankingOf(of).slice(0, topK));
  const before = best(full);
  const work = full.reduce((sum, { multiplyAdds }) => sum + multiplyAdds, 0);
  return { changed: [...best(scores)].some((index) => !before.has(index)), saved: saved / work };
}

function hashOf(seed: number, list: RankingList): string {
  return createHash('sha256')
    .update(JSON.stringify([seed, list.query, list.documents]))
    .digest('hex');
}

function tooFew(lists: number, limit: number, needed: number): ResidualSkipError {
  const enough = Math.ceil((1.1 * needed) / CERTIFY) + 20;
  return new ResidualSkipError(
    'INVALID_DATA',
    `lists: there are too few; of ${lists} different ones, four fifths certify, and a limit of ${limit} needs ${needed} of these; about ` +
      `${enough} would be enough, or a higher limit`,
  );
}
