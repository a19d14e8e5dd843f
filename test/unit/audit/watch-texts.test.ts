/** A monitor of a network of texts, whose vectors are pooled from those of its tokens. */
import { watch } from 'lib/audit/watch.js';
import { calibrate } from 'lib/calibrate/calibrate.js';
import { Embedder, InferenceSession, type SkipPolicy, Tensor } from 'lib/index.js';
import '../../helpers/few-timed.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { randomTexts, textNetwork } from '../../helpers/text-network.js';

const TEXTS = [...new Set(randomTexts(360, 3))];
const WATCHED = [...new Set(randomTexts(24, 8))];

beforeAll(() => {
  process.env.XDG_STATE_HOME = folderOf({});
});
afterAll(() => {
  delete process.env.XDG_STATE_HOME;
  removeFolders();
});

const cosineDistance = (a: Float32Array, b: Float32Array) => {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return 1 - dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
};

const pooledBy = (mode: string) => ({ '1_Pooling/config.json': { [`pooling_mode_${mode}`]: true } });

test.each<[string, Readonly<Record<string, unknown>>]>([
  ['the mean of its tokens', {}],
  ['the mean of its tokens, later ones weighing more', pooledBy('weightedmean_tokens')],
  [
    'the largest numbers of its tokens, of length 1',
    { ...pooledBy('max_tokens'), 'modules.json': [{ type: 'sentence_transformers.models.Normalize' }] },
  ],
])('sees the losses of vectors that are pooled to %s', async (_, files) => {
  const model = textNetwork('tokens', { layers: 6, scale: 0.06, files });
  const { policy } = await calibrate(model, TEXTS, {
    ...{ metric: 'cosine', maxDisagreement: 0.05, penalties: 6, threads: 1 },
  });
  const monitor = watch({ shadow: 1, onTrip: 'warn' });
  await using embedder = await Embedder.from(model, { policy, threads: 1, observers: [monitor] });
  await using full = await Embedder.from(model, { policy: 'full', threads: 1 });
  let losses = 0;
  for (const text of WATCHED) {
    const [own, other] = [await embedder.embed(text), await full.embed(text)];
    losses += cosineDistance(own.vector, other.vector);
    await monitor.settled();
  }
  const { watch: seen } = monitor.stats();
  expect(seen).toMatchObject({ metric: 'cosine', limit: 0.05, checks: WATCHED.length, failures: 0 });
  expect(losses).toBeGreaterThan(0.01);
  expect(seen.disagreements).toBeCloseTo(losses, 4);
});

test('a session alone does not know how its tokens are pooled, and says so', async () => {
  const model = textNetwork('tokens', { layers: 6, scale: 0.06 });
  const { policy } = await calibrate(model, TEXTS, {
    ...{ metric: 'cosine', maxDisagreement: 0.05, penalties: 6, threads: 1 },
  });
  const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const monitor = watch({ shadow: 1 });
  await using session = await InferenceSession.create(model, { policy, threads: 1, observers: [monitor] });
  await using embedder = await Embedder.from(model, { policy: 'full', threads: 1 });
  await session.run(embedder.feeds(embedder.prepare('word1 word2')));
  await monitor.settled();
  expect(monitor.stats().watch.checks).toBe(0);
  expect(String(warned.mock.calls)).toMatch(/don't tell the loss of the metric 'cosine'/);
  warned.mockRestore();
});

describe('tokens', () => {
  const model = textNetwork('tokens', { layers: 6, scale: 0.06 });
  const policy: SkipPolicy = {
    blocks: { block3: 'skip', block4: 'skip' },
    promise: {
      ...{ metric: 'tokens', limit: 0.3, confidence: 0.95, items: 100, events: 10 },
      ...{ risk: 0.1, pValue: 0.01, upperBound: 0.2 },
      data: { sha256: '0'.repeat(64), seed: 1, fit: 0, order: 20, certify: 100 },
    },
  };

  /** The class of each token is its largest number. */
  const classesOf = ({ data, dims }: Tensor, tokens: number) =>
    Array.from({ length: tokens }, (_, t) => {
      const row = [...(data as Float32Array).subarray(t * dims[2]!, (t + 1) * dims[2]!)];
      return row.indexOf(Math.max(...row));
    });

  test.each([
    ['behind', 0],
    ['in front of', 2],
  ])('of texts count without those that fill them up %s them', async (_, first) => {
    const monitor = watch({ shadow: 1, onTrip: 'warn' });
    await using session = await InferenceSession.create(model, { policy, threads: 1, observers: [monitor] });
    await using embedder = await Embedder.from(model, { policy: 'full', threads: 1 });
    let [losses, filled] = [0, 0];
    for (const [i, text] of WATCHED.entries()) {
      const { input_ids: ids, attention_mask: marks } = embedder.feeds(embedder.prepare(text));
      const tokens = ids!.dims[1]!;
      // Two more, which are no part of the text.
      const longer = (of: Tensor, ...by: bigint[]) =>
        new Tensor(
          'int64',
          BigInt64Array.from([...by.slice(0, first), ...(of.data as BigInt64Array), ...by.slice(first)]),
          [1, tokens + 2],
        );
      const feeds = {
        input_ids: longer(ids!, BigInt(4 + i), BigInt(30 + i)),
        attention_mask: longer(marks!, 0n, 0n),
      };
      const { last_hidden_state: own } = await session.run(feeds);
      const { last_hidden_state: full } = await session.run(feeds, { policy: 'full' });
      const before = classesOf(full!, tokens + 2);
      const isChanged = classesOf(own!, tokens + 2).map((one, t) => one !== before[t]);
      const changed = isChanged.slice(first, first + tokens).filter(Boolean).length;
      losses += changed / tokens;
      filled += isChanged.filter(Boolean).length - changed;
      await monitor.settled();
    }
    expect(filled).toBeGreaterThan(0);
    const { watch: seen } = monitor.stats();
    // Runs with a policy of their own are left out.
    expect(seen).toMatchObject({ metric: 'tokens', limit: 0.3, checks: WATCHED.length, failures: 0 });
    expect(losses).toBeGreaterThan(0.01);
    expect(seen.disagreements).toBeCloseTo(losses, 4);
  });
});
