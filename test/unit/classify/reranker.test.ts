import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { calibrateRanking, type RankingList } from 'lib/calibrate/ranking.js';
import { openIn, type PairScore, settleList, stagesOf } from 'lib/classify/list-stages.js';
import { Reranker } from 'lib/classify/reranker.js';
import { encodeExits } from 'lib/skip/head-codec.js';
import { FULL_POLICY } from 'lib/skip/load-policy.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { allowedEvents } from '../../helpers/binomial.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { randomFloats } from '../../helpers/random.js';
import { randomTexts, textNetwork, WIDTH } from '../../helpers/text-network.js';

afterAll(removeFolders);

/** Blocks whose bodies move a score by little. */
const model = textNetwork('score', { layers: 6, scale: 0.008 });
const QUERY = 'word1 word2';
const DOCUMENTS = randomTexts(24, 3);

/** Exits that answer what the network's own last layer says of the tokens there: near its score, and nearer the deeper they are. */
const POLICY: SkipPolicy = {
  blocks: {},
  heads: encodeExits(
    [0, 2, 4].map((block) => ({
      after: `block${block}`,
      threshold: 0.5,
      head: {
        features: 'rows' as const,
        layers: [{ weight: randomFloats(WIDTH, 100).map((x) => 4 * x), bias: new Float32Array(1) }],
        score: [{ weight: new Float32Array(WIDTH), bias: Float32Array.of(-1) }],
      },
    })),
  ),
};

/** The scores of a list, early ones by exit, and in full. */
async function scoresOf(reranker: Reranker, documents: readonly string[]) {
  const pairs = reranker.pairsOf(QUERY, documents);
  const all = [...documents.keys()];
  const scores = new Map<string | null, PairScore[]>();
  for (const { after, policy } of stagesOf(POLICY, ['block0', 'block2', 'block4'])) {
    scores.set(after, await pairs.goOn(all, { policy, trace: true }, 0));
  }
  return { scores, full: await pairs.score(all, { policy: 'full' }) };
}

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

  test('goes on in stages, with the scores of pairs that run at once', async () => {
    await using reranker = await Reranker.from(model, { threads: 1, policy: POLICY });
    const { scores, full } = await scoresOf(reranker, DOCUMENTS);
    expect(scores.get(null)!.map(({ score }) => score)).toEqual(full.map(({ score }) => score));
    for (const { trace } of scores.get(null)!) {
      expect(trace!.exits.map(({ after, taken }) => [after, taken])).toEqual([
        ['block0', false],
        ['block2', false],
        ['block4', false],
      ]);
    }
    // Each exit gives what it gives alone, without others on the way.
    for (const exit of ['block0', 'block2', 'block4']) {
      const [stage] = stagesOf(POLICY, [exit]);
      const pairs = reranker.pairsOf(QUERY, DOCUMENTS);
      const alone = await pairs.score([...DOCUMENTS.keys()], { policy: stage!.policy });
      const early = scores.get(exit)!;
      expect(alone.map(({ score }) => score)).toEqual(early.map(({ score }) => score));
      expect(early.filter(({ score }, i) => score !== full[i]!.score).length).toBeGreaterThan(20);
    }
  });

  test('ends when its best can no longer change, and they are those of the full network, in its order', async () => {
    await using reranker = await Reranker.from(model, { threads: 1, policy: POLICY });
    const { scores, full } = await scoresOf(reranker, DOCUMENTS);
    const farthest = (exit: string) =>
      Math.max(...scores.get(exit)!.map(({ score }, i) => Math.abs(score - full[i]!.score)));
    const margins = { block2: farthest('block2'), block4: farthest('block4') };
    const options = { topK: 4, trace: true };
    const ranked = await reranker.rank(QUERY, DOCUMENTS, { ...options, margins });
    const plain = await reranker.rank(QUERY, DOCUMENTS, { ...options, policy: 'full' });
    const answers = (of: typeof ranked) => of.map(({ index, score }) => [index, score]);
    expect(answers(ranked)).toEqual(answers(plain));
    for (const { trace } of ranked) expect(trace!.blocks.every(({ ran }) => ran)).toBe(true);
    // Most of the list left at the first of the exits.
    const all = await reranker.rank(QUERY, DOCUMENTS, { ...options, margins: { block2: margins.block2 } });
    expect(answers(all)).toEqual(answers(plain));
    let ran = 0;
    const used = stagesOf(POLICY, ['block2', 'block4']);
    await settleList(DOCUMENTS.length, 4, used, (indices, { after }) => {
      ran += after === 'block4' ? indices.length : 0;
      return indices.map((i) => ({
        ...scores.get(after)![i]!,
        reach: after === null ? 0 : margins[after as 'block2'],
      }));
    });
    expect(ran).toBeGreaterThan(3);
    expect(ran).toBeLessThan(12);
  });

  test('is the same on the reference backend, where pairs begin again', async () => {
    const margins = { block0: 0.1, block4: 0.01 };
    const ranks = [];
    for (const backend of ['native', 'reference'] as const) {
      await using reranker = await Reranker.from(model, { policy: POLICY, backend });
      ranks.push(await reranker.rank(QUERY, DOCUMENTS, { topK: 4, margins }));
    }
    const [native, reference] = ranks.map((ranked) => ranked.map(({ index }) => index));
    expect(reference).toEqual(native);
  });

  test('ends with ABORTED between stages, and the reranker still works', async () => {
    await using reranker = await Reranker.from(model, { threads: 1, policy: POLICY });
    const controller = new AbortController();
    const running = reranker.rank(QUERY, DOCUMENTS, {
      topK: 4,
      margins: { block0: 9 },
      signal: controller.signal,
    });
    controller.abort();
    await expect(running).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await reranker.rank(QUERY, DOCUMENTS, { topK: 4, margins: { block0: 9 } })).toHaveLength(4);
  });
});

test('documents are open while they may be among the best, until they have their own scores', () => {
  const list = (reach: number) => [3, 5, 2, 0].map((score, i) => ({ score, reach: i === 0 ? 0 : reach }));
  expect(openIn(list(0), 2)).toEqual([]);
  // 5 is sure to be in, but the score isn't its own yet.
  expect(openIn(list(0.4), 2)).toEqual([1]);
  expect(openIn(list(1.2), 2)).toEqual([1, 2]);
  expect(openIn(list(1), 2)).toEqual([1, 2]);
  expect(openIn(list(3.5), 2)).toEqual([1, 2, 3]);
  expect(openIn(list(0.1), 4)).toEqual([1, 2, 3]);
  expect(openIn(list(0.1), 9)).toEqual([1, 2, 3]);
  expect(openIn([], 2)).toEqual([]);
});

test('a list whose scores are no numbers ends', async () => {
  const nan = { score: Number.NaN, reach: 1, trace: {} as never, multiplyAdds: 1 };
  const stages = [
    { after: 'a', policy: FULL_POLICY },
    { after: null, policy: FULL_POLICY },
  ];
  const scores = await settleList(5, 2, stages, (indices) => indices.map(() => nan));
  expect(scores.map(({ reach }) => reach)).toEqual([0, 0, 0, 0, 0]);
});

describe('calibration', () => {
  const lists: RankingList[] = Array.from({ length: 100 }, (_, i) => ({
    query: `word${i % 60}`,
    documents: randomTexts(10, 100 + i, 6),
  }));
  const limit = 0.15;

  test('certifies margins that keep the best documents', async () => {
    await using reranker = await Reranker.from(model, { threads: 1, policy: POLICY });
    const found = await calibrateRanking(reranker, lists, {
      ...{ topK: 3, maxDisagreement: limit, saving: 'multiplyAdds' },
    });
    expect(found).toMatchObject({ topK: 3, limit, confidence: 0.95 });
    expect(found.margins).not.toBeNull();
    expect(found.events).toBeLessThanOrEqual(allowedEvents(found.lists, limit, 0.05));
    expect(found.multiplyAddsSkipped).toBeGreaterThan(0.1);
    // Fresh lists keep it as well: with 40 of them, 12 or more changes have a probability below 2 % at a rate of 0.15.
    let changed = 0;
    for (let i = 0; i < 40; i++) {
      const documents = randomTexts(10, 900 + i, 6);
      const [fast, full] = [
        await reranker.rank(`word${i}`, documents, { topK: 3, margins: found.margins! }),
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
    const found = await calibrateRanking(reranker, long(90, 2000), {
      ...{ topK: 10, maxDisagreement: 0.05, saving: 'multiplyAdds' },
    });
    expect(found.lists).toBeGreaterThanOrEqual(59);
    expect(found.events).toBeLessThanOrEqual(allowedEvents(found.lists, 0.05, 0.05));
    expect(found.multiplyAddsSkipped).toBeGreaterThan(0.4);
    // The policy's exits are what `rank` uses.
    const [{ query, documents }] = long(1, 5000) as [RankingList];
    const ranked = await reranker.rank(query, documents, { topK: 10, margins: found.margins! });
    expect(ranked).toHaveLength(10);
    expect(ranked).toEqual(await reranker.rank(query, documents, { topK: 10, policy: 'full' }));
    // What was certified says itself what it is for.
    expect(await reranker.rank(query, documents, { margins: found })).toEqual(ranked);
    await expect(reranker.rank(query, documents, { topK: 20, margins: found })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(/^margins: they are certified for the best 10, not for the best 20/),
    });
    const exits = POLICY.heads!.exits.map((exit) => ({ ...exit, threshold: 0.25 }));
    const other = { ...POLICY, heads: { exits } } as SkipPolicy;
    await expect(reranker.rank(query, documents, { policy: other, margins: found })).rejects.toMatchObject({
      code: 'POLICY_MISMATCH',
      message: expect.stringMatching(/^margins: they are certified for another policy/),
    });
    const none = { ...found, margins: null };
    const full = await reranker.rank(query, documents, { margins: none, trace: true });
    expect(full.map(({ index, score }) => [index, score])).toEqual(
      ranked.map(({ index, score }) => [index, score]),
    );
    expect(full.every(({ trace }) => trace!.multiplyAddsSkipped === 0)).toBe(true);
  });

  test('uses no stages where they save no time', async () => {
    await using reranker = await Reranker.from(model, { threads: 1, policy: POLICY });
    const clock = jest.spyOn(process, 'cpuUsage');
    const rank = jest.spyOn(reranker, 'rank');
    /** Makes lists in stages take as many times as long as those in full. */
    const times = (factor: number) => {
      let now = 0;
      clock.mockImplementation((before) => {
        if (before) now += rank.mock.lastCall![2]!.margins ? factor : 1;
        return { user: now - (before?.user ?? 0), system: 0 };
      });
    };
    const options = { topK: 3, maxDisagreement: limit };
    times(0.5);
    const found = await calibrateRanking(reranker, lists, options);
    expect(found).toMatchObject({ margins: expect.anything(), cpuTimeSaved: 0.5 });
    expect(found.multiplyAddsSkipped).toBeGreaterThan(0.1);
    times(1.17);
    const none = { margins: null, multiplyAddsSkipped: 0, cpuTimeSaved: null };
    expect(await calibrateRanking(reranker, lists, options)).toMatchObject(none);
    jest.restoreAllMocks();
  });

  test('refuses a policy without exits', async () => {
    await using reranker = await Reranker.from(model, { threads: 1 });
    const options = { topK: 3, maxDisagreement: limit };
    await expect(calibrateRanking(reranker, lists, options)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(/^policy: it has no exits/),
    });
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
  ['a', ['b'], { margins: {} }, /margins need topK/],
  ['a', ['b'], { topK: 1, margins: { block7: 1 } }, /^margins: the policy has no exit after 'block7'/],
  ['a', ['b'], { topk: 1 }, /topk.*topK/],
])('refuses the list %p, %p with %p', async (query, documents, options, message) => {
  await using reranker = await Reranker.from(model, { threads: 1 });
  await expect(reranker.rank(query as string, documents as string[], options)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(message),
  });
});
