/** Certifies how often lists of a reranker keep their best documents when pairs leave early. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import {
  exitsOf,
  type Ranked,
  rankingOf,
  type Stage,
  settleList,
  stagesOf,
} from '../classify/list-stages.js';
import type { CertifiedMargins, Margins, RankOptions, Reranker } from '../classify/reranker.js';
import { ResidualSkipError } from '../errors.js';
import { mean, median } from '../numeric/statistics.js';
import { late } from '../util/late.js';
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
  /**
   * What stages must save to be used: CPU time of this process on this machine, in turns with lists in full, or multiply-adds, for another
   * machine; `time` when left out.
   */
  saving?: 'time' | 'multiplyAdds' | undefined;
  /** Seed of the split into lists that order margins and those that certify one; 1 when left out. */
  seed?: number | undefined;
  /** Aborting it ends the work with the error ABORTED. */
  signal?: AbortSignal | undefined;
}

/** The result of `calibrateRanking`, for the option `margins` of `rank`. */
export interface RankingCalibration extends CertifiedMargins {
  /** The limit, and the confidence with which it holds. */
  readonly limit: number;
  readonly confidence: number;
  /** Lists that certified it, of which `events` had other best documents; the p-value of "more than the limit have". */
  readonly lists: number;
  readonly events: number;
  readonly pValue: number;
  /** Of these lists, the fraction of multiply-adds that is saved. */
  readonly multiplyAddsSkipped: number;
  /** The median fraction of a list's CPU time that is saved, of lists that order margins; null unless it was measured. */
  readonly cpuTimeSaved: number | null;
}

const fraction = late(() => z.number().gt(0).lt(1));
const schema = late(() =>
  z.strictObject({
    topK: z.int().positive(),
    maxDisagreement: fraction().default(0.01),
    confidence: fraction().default(0.95),
    saving: z.enum(['time', 'multiplyAdds']).default('time'),
    seed: z.int().default(1),
    signal: z.instanceof(AbortSignal).optional(),
  }),
);
const listsSchema = late(() =>
  z.array(z.strictObject({ query: z.string(), documents: z.array(z.string()).min(1) })).min(1),
);

/** Share of the lists that certify. */
const CERTIFY = 0.8;
/** Margins to test, at each exit: quantiles of how far scores are off there, from twice the largest down. */
const QUANTILES = [
  1, 0.9995, 0.999, 0.9975, 0.995, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55,
  0.5,
] as const;
/** Share of the multiply-adds, or of the time, that must be saved more for an exit to be used: each is a run more of many pairs. */
const WORTH = 0.02;
/** Lists whose time is measured. */
const TIMED = 10;

/** What a stage gave a pair; of its trace, the number alone. */
interface RanPair extends Ranked {
  readonly multiplyAdds: number;
  readonly skipped: number;
}
/** The pairs of a list at each stage. */
type RanList = ReadonlyMap<string | null, readonly RanPair[]>;

/**
 * Finds exits of a reranker's policy, and the least margins with which they keep the best documents of lists like these. Every pair runs once, in
 * full.
 * @throws ResidualSkipError INVALID_ARGUMENT (a policy without exits too), INVALID_DATA (too few lists), ABORTED
 */
export async function calibrateRanking(
  reranker: Reranker,
  lists: readonly RankingList[],
  options: RankingOptions,
): Promise<RankingCalibration> {
  const { topK, maxDisagreement: limit, confidence, saving, seed, signal } = parseStrict(schema(), options);
  const given = parseStrict(listsSchema(), lists, { subject: 'lists' });
  const delta = 1 - confidence;
  const byPart = { order: [] as RankingList[], certify: [] as RankingList[] };
  const distinct = new Map(given.map((list) => [hashOf(seed, list), list]));
  for (const [hash, list] of [...distinct].sort(([a], [b]) => (a < b ? -1 : 1))) {
    byPart[Number.parseInt(hash.slice(0, 8), 16) / 2 ** 32 < CERTIFY ? 'certify' : 'order'].push(list);
  }
  const needed = itemsNeeded(limit, delta);
  if (byPart.certify.length < needed || byPart.order.length === 0) throw tooFew(distinct.size, limit, needed);
  const exits = exitsOf(reranker.session.ownPolicy);
  if (exits.length === 0) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      'policy: it has no exits at which lists could end; create the reranker with one that calibrate made',
    );
  }
  const stages = stagesOf(reranker.session.ownPolicy, exits);
  const ran = (part: readonly RankingList[]) => ranInStages(reranker, part, stages, signal);
  const order = await ran(byPart.order);
  const usual = await usualMargins(order, topK, stages, limit);
  const timed = (margins: Margins) =>
    timeSaved(reranker, byPart.order.slice(0, TIMED), { topK, signal }, margins);
  let used: readonly string[] = await worthwhile(order, topK, stages, usual);
  if (saving === 'time') used = await fastest(used, (some) => timed(only(usual, some)));
  const certify = await ran(byPart.certify);
  const results: { readonly margins: Margins; readonly events: number; readonly saved: number }[] = [];
  for (const margins of candidates(order, used)) {
    const settled = [];
    for (const list of certify) settled.push(await settle(list, topK, stages, margins));
    const events = settled.filter(({ changed }) => changed).length;
    results.push({ margins, events, saved: mean(settled.map(({ saved }) => saved)) });
  }
  const pValues = results.map(({ events }) => binomialPValue(events, certify.length, limit));
  const chosen = fixedSequenceTest(pValues, delta);
  const found = results[chosen];
  const cpuTimeSaved = found && saving === 'time' ? await timed(found.margins) : null;
  const { sha256: policySha256 } = reranker.session.policy;
  const common = { topK, policySha256, limit, confidence, lists: certify.length };
  if (!found || (cpuTimeSaved !== null && cpuTimeSaved < WORTH)) {
    return { ...common, margins: null, events: 0, pValue: 0, multiplyAddsSkipped: 0, cpuTimeSaved: null };
  }
  const { margins, events, saved: multiplyAddsSkipped } = found;
  return { ...common, margins, events, pValue: pValues[chosen]!, multiplyAddsSkipped, cpuTimeSaved };
}

/** Runs every pair of the lists in full. */
async function ranInStages(
  reranker: Reranker,
  lists: readonly RankingList[],
  stages: readonly Stage[],
  signal: AbortSignal | undefined,
): Promise<RanList[]> {
  const done: RanList[] = [];
  for (const { query, documents } of lists) {
    const pairs = reranker.pairsOf(query, documents);
    const scores = new Map<string | null, readonly RanPair[]>();
    for (const { after, policy } of stages) {
      const found = await pairs.goOn([...documents.keys()], { signal, policy, trace: true }, 0);
      const slim = found.map(({ score, reach, multiplyAdds, trace }) => ({
        ...{ score, reach, multiplyAdds: multiplyAdds!, skipped: trace!.multiplyAddsSkipped },
      }));
      scores.set(after, slim);
    }
    pairs.release();
    done.push(scores);
  }
  return done;
}

/** Of exits in the order in which they were added, the first ones with which lists take least time; none where lists in full do. */
async function fastest(
  exits: readonly string[],
  saved: (some: readonly string[]) => Promise<number>,
): Promise<readonly string[]> {
  let best: { readonly exits: readonly string[]; readonly saved: number } = { exits: [], saved: 0 };
  for (const k of exits.keys()) {
    const some = exits.slice(0, k + 1);
    const now = await saved(some);
    if (now > best.saved + WORTH) best = { exits: some, saved: now };
  }
  return best.exits;
}

/** The median fraction of a list's CPU time that margins save. Each list runs in full and in stages, in turns, after a run of both that doesn't count. */
async function timeSaved(
  reranker: Reranker,
  lists: readonly RankingList[],
  options: Pick<RankOptions, 'topK' | 'signal'>,
  margins: Margins,
): Promise<number> {
  const saved: number[] = [];
  for (const [i, { query, documents }] of lists.entries()) {
    const time = async (how: Pick<RankOptions, 'margins' | 'policy'>) => {
      const start = process.cpuUsage();
      await reranker.rank(query, documents, { ...options, ...how });
      const { user, system } = process.cpuUsage(start);
      return user + system;
    };
    const [full, staged] = [() => time({ policy: 'full' }), () => time({ margins })];
    // A run finds its weights in the caches if the run before was of the same kind. Both take turns at being first, which gives them that.
    const [first, second] = i % 2 === 0 ? [full, staged] : [staged, full];
    await second();
    await first();
    const times = [await first(), await second()];
    const [inFull, inStages] = i % 2 === 0 ? times : times.reverse();
    saved.push(1 - inStages! / inFull!);
  }
  return median(saved);
}

const only = (margins: Margins, exits: readonly string[]): Margins =>
  Object.fromEntries(exits.map((exit) => [exit, margins[exit]!]));

/** From careful to bold. */
function candidates(lists: readonly RanList[], exits: readonly string[]): Margins[] {
  if (exits.length === 0) return [];
  const twice = Object.entries(marginsAt(lists, exits, 1)).map(([exit, margin]) => [exit, 2 * margin]);
  const all = [Object.fromEntries(twice), ...QUANTILES.map((share) => marginsAt(lists, exits, share))];
  return [...new Map(all.map((margins) => [JSON.stringify(margins), margins])).values()];
}

/** Those with which exits are chosen: the boldest that keep the limit on these lists with all exits. */
async function usualMargins(
  lists: readonly RanList[],
  topK: number,
  stages: readonly Stage[],
  limit: number,
): Promise<Margins> {
  const exits = stages.flatMap(({ after }) => after ?? []);
  const all = candidates(lists, exits);
  for (const margins of all.toReversed()) {
    let changed = 0;
    for (const list of lists) if ((await settle(list, topK, stages, margins)).changed) changed++;
    if (changed <= limit * lists.length) return margins;
  }
  return all[0]!;
}

/** At each exit, a quantile of how far scores are off. */
function marginsAt(lists: readonly RanList[], exits: readonly string[], share: number): Margins {
  const at = (exit: string) => {
    const errors = lists
      .flatMap((list) => list.get(exit)!.map(({ score }, i) => Math.abs(score - list.get(null)![i]!.score)))
      .sort((a, b) => a - b);
    return errors[Math.ceil(share * errors.length) - 1]!;
  };
  return Object.fromEntries(exits.map((exit) => [exit, at(exit)]));
}

/** Of the exits that have margins, those that save enough, added one by one. */
async function worthwhile(
  lists: readonly RanList[],
  topK: number,
  stages: readonly Stage[],
  margins: Margins,
) {
  const savedBy = async (exits: readonly string[]) => {
    const all = [];
    for (const list of lists) all.push((await settle(list, topK, stages, only(margins, exits))).saved);
    return mean(all);
  };
  const left = new Set(Object.keys(margins));
  let [used, saved] = [[] as string[], 0];
  for (;;) {
    let best = { exit: '', saved: saved + WORTH };
    for (const exit of left) {
      const now = await savedBy([...used, exit]);
      if (now > best.saved) best = { exit, saved: now };
    }
    if (best.exit === '') return used;
    left.delete(best.exit);
    [used, saved] = [[...used, best.exit], best.saved];
  }
}

/** What `rank` would do with a list: whether its best documents are others, and the share of the work that it saves. */
async function settle(list: RanList, topK: number, stages: readonly Stage[], margins: Margins) {
  const full = list.get(null)!;
  const used = stages.filter(({ after }) => after === null || Object.hasOwn(margins, after));
  const scores = await settleList(full.length, topK, used, (indices, { after }) =>
    indices.map((index) => ({ ...list.get(after)![index]!, reach: after === null ? 0 : margins[after]! })),
  );
  const best = (of: readonly RanPair[]) => new Set(rankingOf(of).slice(0, topK));
  const before = best(full);
  const sum = (of: readonly number[]) => of.reduce((total, value) => total + value, 0);
  const saved = sum(scores.map(({ skipped }) => skipped));
  return {
    changed: [...best(scores)].some((index) => !before.has(index)),
    saved: saved / sum(full.map(({ multiplyAdds }) => multiplyAdds)),
  };
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
