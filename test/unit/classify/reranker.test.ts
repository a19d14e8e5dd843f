import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { calibrateRanking, type RankingList } from 'lib/calibrate/ranking.js';
import { openIn, Reranker, rankingOf } from 'lib/classify/reranker.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { allowedEvents } from '../../helpers/binomial.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { randomTexts, textNetwork } from '../../helpers/text-network.js';

afterAll(removeFolders);

/** Blocks whose bodies move a score by little. */
const model = textNetwork('score', { layers: 6, scale: 0.008 });
const QUERY = 'word1 word2';
const DOCUMENTS = randomTexts(24, 3);

/** Leaves out the last blocks of all pairs: scores are near the network's own, and none is final. */
const POLICY: SkipPolicy = { blocks: { 3: 'skip', 4: 'skip', 5: 'skip' } };

describe('a list', () => {
  test('is in the order of the scores that a session gives its pairs', async () => {
    await using reranker = await Reranker.from(model, { threads: 1 });
    const scores: number[] = [];
    for (const pair of DOCUMENTS) {
      const feeds = reranker.feeds(reranker.prepare({ text: QUERY, pair }));
      const outputs = await reranker.session.run(feeds);
      scores.push(Number(outputs.logits!.data[0]));
    }
    const ranked = await reranker.rank(QUERY, DOCUMENTS);
    expect(ranked.map(({ score }) => score)).toEqual([...scores].sort((a, b) => b - a));
    for (const { index, score, trace } of ranked) expect([scores[index], trace]).toEqual([score, null]);
    const best = await reranker.rank(QUERY, DOCUMENTS, { topK: 3, trace: true });
    expect(best.map(({ index }) => index)).toEqual(ranked.slice(0, 3).map(({ index }) => index));
    expect(best[0]!.trace!.blocks).toHaveLength(6);
    expect(await reranker.rank(QUERY, [])).toEqual([]);
  });

  test('is the same in the layout of transformers.js', async () => {
    const layout = folderOf({ 'config.json': JSON.stringify({ model_type: 'bert', num_labels: 1 }) });
    mkdirSync(join(layout, 'onnx'));
    cpSync(join(model, 'model.onnx'), join(layout, 'onnx/model.onnx'));
    cpSync(join(model, 'tokenizer.json'), join(layout, 'tokenizer.json'));
    const scoresOf = async (path: string) => {
      await using reranker = await Reranker.from(path, { threads: 1 });
      return await reranker.rank(QUERY, DOCUMENTS);
    };
    expect(await scoresOf(layout)).toEqual(await scoresOf(model));
  });

  test('of equal documents keeps their order', async () => {
    await using reranker = await Reranker.from(model, { threads: 1 });
    const ranked = await reranker.rank(QUERY, ['word3', 'word3', 'word3']);
    expect(ranked.map(({ index }) => index)).toEqual([0, 1, 2]);
  });

  test('ends when its best can no longer change, and they are those of the full network', async () => {
    await using reranker = await Reranker.from(model, { threads: 1, policy: POLICY });
    const all = [...DOCUMENTS.keys()];
    const [full, early] = [
      await reranker.score(QUERY, DOCUMENTS, all, { policy: 'full' }),
      await reranker.score(QUERY, DOCUMENTS, all, {}),
    ];
    const errors = early.map(({ score }, i) => Math.abs(score - full[i]!.score));
    expect(Math.min(...errors)).toBeGreaterThan(0);
    const ranked = await reranker.rank(QUERY, DOCUMENTS, {
      topK: 4,
      margin: Math.max(...errors),
      trace: true,
    });
    const indices = ranked.map(({ index }) => index);
    expect(new Set(indices)).toEqual(new Set(rankingOf(full).slice(0, 4)));
    // Those around the border ran in full; most of the list did not.
    const again = ranked.filter(({ index, score }) => score !== early[index]!.score);
    expect(again.length).toBeGreaterThan(0);
    expect(again.length).toBeLessThan(4);
    for (const { index, score, trace } of again) {
      expect(score).toBe(full[index]!.score);
      expect(trace!.multiplyAddsSkipped).toBe(0);
    }
    expect(await reranker.rank(QUERY, DOCUMENTS, { topK: 4, margin: 0 })).toEqual(
      rankingOf(early)
        .slice(0, 4)
        .map((index) => ({ index, score: early[index]!.score, trace: null })),
    );
  });
});

test('documents are open only while they may cross the border', () => {
  const list = [5, 3, 2, 0].map((score, i) => ({ score, final: i === 1 }));
  expect(openIn(list, 2, 0.4)).toEqual([]);
  expect(openIn(list, 2, 1.2)).toEqual([2]);
  // The nearest first: its own score may settle the other.
  expect(openIn(list, 2, 2.4)).toEqual([2]);
  expect(
    openIn(
      [5, 3, 2, 0].map((score, i) => ({ score, final: i === 1 || i === 2 })),
      2,
      3.5,
    ),
  ).toEqual([0]);
  expect(openIn(list, 4, 9)).toEqual([]);
  expect(openIn(list, undefined, 9)).toEqual([]);
});

describe('calibration', () => {
  const lists: RankingList[] = Array.from({ length: 100 }, (_, i) => ({
    query: `word${i % 60}`,
    documents: randomTexts(10, 100 + i, 6),
  }));
  const limit = 0.15;

  test('certifies a margin that keeps the best documents', async () => {
    await using reranker = await Reranker.from(model, { threads: 1, policy: POLICY });
    const found = await calibrateRanking(reranker, lists, { topK: 3, maxDisagreement: limit });
    expect(found).toMatchObject({ topK: 3, limit, confidence: 0.95 });
    expect(found.margin).not.toBeNull();
    expect(found.events).toBeLessThanOrEqual(allowedEvents(found.lists, limit, 0.05));
    expect(found.multiplyAddsSkipped).toBeGreaterThan(0.1);
    // Fresh lists keep it as well: with 40 of them, 12 or more changes have a probability below 2 % at a rate of 0.15.
    let changed = 0;
    for (let i = 0; i < 40; i++) {
      const documents = randomTexts(10, 900 + i, 6);
      const [fast, full] = [
        await reranker.rank(`word${i}`, documents, { topK: 3, margin: found.margin! }),
        await reranker.rank(`word${i}`, documents, { topK: 3, policy: 'full' }),
      ];
      const before = new Set(full.map(({ index }) => index));
      changed += Number(fast.some(({ index }) => !before.has(index)));
    }
    expect(changed).toBeLessThan(12);
  });

  test('keeps the best ten of lists of 100 with three fifths of the work', async () => {
    const long = (count: number, seed: number): RankingList[] =>
      Array.from({ length: count }, (_, i) => ({
        query: `word${i % 60}`,
        documents: randomTexts(100, seed + i, 6),
      }));
    await using reranker = await Reranker.from(model, { threads: 1, policy: POLICY });
    const found = await calibrateRanking(reranker, long(90, 2000), { topK: 10, maxDisagreement: 0.05 });
    expect(found.lists).toBeGreaterThanOrEqual(59);
    expect(found.events).toBeLessThanOrEqual(allowedEvents(found.lists, 0.05, 0.05));
    expect(found.multiplyAddsSkipped).toBeGreaterThan(0.4);
    // What is counted is what `rank` does: half of the blocks are left out, and few pairs run again.
    const [{ query, documents }] = long(1, 5000) as [RankingList];
    const ranked = await reranker.rank(query, documents, { topK: 10, margin: found.margin!, trace: true });
    expect(ranked).toHaveLength(10);
    expect(ranked.filter(({ trace }) => trace!.multiplyAddsSkipped > 0).length).toBeGreaterThan(0);
  });

  test('refuses too few lists', async () => {
    await using reranker = await Reranker.from(model, { threads: 1 });
    await expect(calibrateRanking(reranker, lists.slice(0, 20), { topK: 3 })).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/^lists: there are too few; of 20 different ones.* needs 299 of these/),
    });
  });
});

test.each<[string, () => Promise<unknown>, RegExp]>([
  [
    'a network without a score',
    () => Reranker.from(textNetwork('tokens')),
    /no output of floats \[batch, 1\]/,
  ],
  ['three classes', () => Reranker.from(textNetwork('classes')), /no output of floats \[batch, 1\]/],
])('refuses %s', async (_, act, message) => {
  await expect(act()).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(message),
  });
});

test.each<[unknown, unknown, object, RegExp]>([
  [1, ['a'], {}, /^rank: expected a query and an array of documents/],
  ['a', 'b', {}, /^rank: expected a query and an array of documents/],
  ['a', ['b'], { margin: 1 }, /margin needs topK/],
  ['a', ['b'], { topk: 1 }, /topk.*topK/],
])('refuses the list %p, %p with %p', async (query, documents, options, message) => {
  await using reranker = await Reranker.from(model, { threads: 1 });
  await expect(reranker.rank(query as string, documents as string[], options)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(message),
  });
});
