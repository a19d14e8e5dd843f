/** Calibration of networks of texts: with classes by exits, without by blocks that are left out. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import { lossesOf, type Pairs } from 'lib/calibrate/losses.js';
import type { CalibrateOptions } from 'lib/calibrate/options.js';
import { ResumableBackend } from 'lib/calibrate/run/resume.js';
import { contentHash, partOf } from 'lib/calibrate/split.js';
import { Embedder, TextClassifier } from 'lib/index.js';
import { mean } from 'lib/numeric/statistics.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import type { Metric, VectorMetric } from 'lib/skip/promise.js';
import '../../helpers/few-timed.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { untimed } from '../../helpers/policies.js';
import { randomTexts, textNetwork } from '../../helpers/text-network.js';

const TEXTS = [...new Set(randomTexts(420, 3))];
const QUICK = { penalties: 6, threads: 1 } satisfies CalibrateOptions;

beforeAll(() => {
  process.env.XDG_STATE_HOME = folderOf({});
});
afterAll(() => {
  delete process.env.XDG_STATE_HOME;
  removeFolders();
});

test('a classifier of texts gets exits, and the policy does what was certified', async () => {
  const model = textNetwork('classes', { layers: 6 });
  const { policy, certifiedOn, classes } = await calibrate(model, TEXTS, { ...QUICK, maxDisagreement: 0.1 });
  const { promise, expected } = policy;
  expect(promise).toMatchObject({ metric: 'disagreement', limit: 0.1, items: certifiedOn.length });
  expect(expected!.multiplyAddsSkipped).toBeGreaterThan(0.05);
  expect(classes.map(({ label }) => label).every((label) => ['bad', 'fair', 'good'].includes(label))).toBe(
    true,
  );

  await using classifier = await TextClassifier.from(model, { policy, threads: 1 });
  const known = new Set(certifiedOn);
  const certify = TEXTS.filter((text) => known.has(contentHash(classifier.prepare(text).data)));
  expect(certify).toHaveLength(certifiedOn.length);
  const full = await classifier.classify(certify, { policy: 'full' });
  const skipping = await classifier.classify(certify, { trace: true });
  expect(skipping.filter(({ index }, i) => index !== full[i]!.index)).toHaveLength(promise!.events);
  const skipped = skipping.map(({ trace }) => trace!.blocks.filter(({ ran }) => !ran).length / 6);
  expect(mean(skipped)).toBeCloseTo(expected!.blocksSkipped, 9);
});

test('a policy for bfloat16 promises the answers in float32, and runs in bfloat16 alone', async () => {
  const model = textNetwork('classes', { layers: 6 });
  const options = { ...QUICK, maxDisagreement: 0.1, precision: 'bfloat16' } as const;
  const { policy, certifiedOn } = await calibrate(model, TEXTS, options);
  expect(policy).toMatchObject({ precision: 'bfloat16', reference: policy.model });
  await using classifier = await TextClassifier.from(model, { policy, threads: 1 });
  expect(classifier.session.precision).toBe('bfloat16');
  await using float = await TextClassifier.from(model, { policy: 'full', threads: 1 });
  const known = new Set(certifiedOn);
  const certify = TEXTS.filter((text) => known.has(contentHash(classifier.prepare(text).data)));
  const [skipping, full] = [await classifier.classify(certify), await float.classify(certify)];
  expect(skipping.filter(({ index }, i) => index !== full[i]!.index)).toHaveLength(policy.promise!.events);
  const refused = TextClassifier.from(model, { policy, precision: 'float32' });
  await expect(refused).rejects.toMatchObject({ code: 'POLICY_MISMATCH' });
  const vectors = calibrate(textNetwork('tokens', { layers: 6 }), TEXTS, { ...options, metric: 'cosine' });
  await expect(vectors).rejects.toMatchObject({
    message: expect.stringMatching(/^precision: it doesn't go with/),
  });
});

test.each<[VectorMetric, number]>([
  ['cosine', 0.05],
  ['relative', 0.3],
  ['recall@3', 0.4],
])('an embedder keeps a promise on %s, and the policy does what was certified', async (metric, limit) => {
  const model = textNetwork('tokens', { layers: 6, scale: 0.03 });
  const options = { ...QUICK, metric, maxDisagreement: limit };
  const { policy, certifiedOn, chosen } = await calibrate(model, TEXTS, options);
  const { promise, expected } = policy;
  expect(chosen).toBeGreaterThanOrEqual(0);
  expect(promise).toMatchObject({ metric, limit, items: certifiedOn.length });
  expect(promise!.pValue).toBeLessThanOrEqual(0.05);

  await using embedder = await Embedder.from(model, { policy, threads: 1 });
  const seed = promise!.data.seed;
  const textsOf = (part: 'order' | 'certify') =>
    TEXTS.map((text) => ({ text, sha256: contentHash(embedder.prepare(text).data) }))
      .filter(({ sha256 }) => partOf(sha256, seed) === part)
      .sort((a, b) => (a.sha256 < b.sha256 ? -1 : 1))
      .map(({ text }) => text);
  const pairs = async (part: 'order' | 'certify'): Promise<Pairs> => {
    const some = textsOf(part);
    const vectorsOf = async (of?: 'full') =>
      (await embedder.embed(some, { policy: of })).map(({ vector }) => vector);
    return { full: await vectorsOf('full'), skipping: await vectorsOf() };
  };
  const traced = await embedder.embed(textsOf('certify'), { trace: true });
  const skipped = traced.map(({ trace }) => trace!.blocks.filter(({ ran }) => !ran).length / 6);
  expect(mean(skipped)).toBeCloseTo(expected!.blocksSkipped, 9);
  expect(certifiedOn).toHaveLength(traced.length);
  const losses = lossesOf(metric, await pairs('certify'), (await pairs('order')).full);
  expect(losses).toHaveLength(promise!.items);
  expect(mean(losses)).toBeCloseTo(promise!.risk, 12);
  expect(mean(losses)).toBeGreaterThan(0);
});

test('heads of a state are taken for the same pooling only', async () => {
  const model = textNetwork('tokens', { layers: 6, scale: 0.03 });
  const state = join(folderOf({}), 'state');
  const remember = jest.spyOn(ResumableBackend.prototype, 'remember');
  /** What names the heads in the state. */
  const keyOf = async (pooling: string) => {
    const config = JSON.stringify({ [`pooling_mode_${pooling}_tokens`]: true });
    mkdirSync(join(model, '1_Pooling'), { recursive: true });
    writeFileSync(join(model, '1_Pooling/config.json'), config);
    remember.mockClear();
    await calibrate(model, TEXTS, { ...QUICK, metric: 'cosine', maxDisagreement: 0.1, state });
    return remember.mock.calls.map(([, inputs]) => inputs);
  };
  const mean = await keyOf('mean');
  expect(mean).toHaveLength(1);
  expect(await keyOf('max')).not.toEqual(mean);
  expect(await keyOf('mean')).toEqual(mean);
  remember.mockRestore();
});

test('the command takes files of texts, groups by a column, and repeats itself from its state', async () => {
  const model = textNetwork('vectors', { layers: 4, scale: 0.03 });
  const folder = folderOf({});
  const rows = TEXTS.map((text, i) => `${text},${i % 2 ? 'odd' : 'even'}`);
  writeFileSync(join(folder, 'texts.csv'), ['text,half', ...rows].join('\n'));
  const run = async (name: string, ...args: string[]) => {
    const output = join(folder, name);
    const data = ['--data', join(folder, 'texts.csv'), '--groups', 'half', '-o', output];
    const limits = ['--metric', 'cosine', '--max-disagreement', '0.1', '--max-group-disagreement', '0.15'];
    const { code, out, err } = await cli('calibrate', model, ...data, ...limits, '--threads', '1', ...args);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    return { out, policy: JSON.parse(readFileSync(output, 'utf8')) as SkipPolicy };
  };
  const state = join(folder, 'state');
  const first = await run('a.json', '--state', state);
  expect(first.out).toMatch(
    /the mean cosine distance of the vectors is at most 0\.1, and at most 15\.00 % in each of 2 groups/,
  );
  expect(first.policy.promise!.groups!.map(({ name }) => name)).toEqual(['even', 'odd']);
  const second = await run('b.json', '--state', state);
  expect(second.out).toMatch(/runs? taken from an earlier calibration/);
  expect(untimed(second.policy)).toEqual(untimed(first.policy));
});

test.each<[string, 'classes' | 'tokens', CalibrateOptions, RegExp]>([
  [
    'a metric of classes',
    'tokens',
    { metric: 'disagreement' },
    /'disagreement' is about classes.* isn't a row of two scores or more for each item; take cosine/,
  ],
  [
    'a promise for each class',
    'tokens',
    { perClass: true },
    /perClass: it doesn't go with the metric 'cosine'/,
  ],
  ['a metric that nobody knows', 'tokens', { metric: 'recall@0' as Metric }, /options\.metric/],
])('refuses %s', async (_, kind, options, message) => {
  await expect(calibrate(textNetwork(kind), TEXTS, { ...QUICK, ...options })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(message),
  });
});

test('losses are distances, and the most where a number is missing', () => {
  const full = [Float32Array.of(1, 0), Float32Array.of(0, 2), Float32Array.of(3, 0)];
  const skipping = [Float32Array.of(0, 1), Float32Array.of(0, -1), Float32Array.of(Number.NaN, 0)];
  expect(lossesOf('cosine', { full, skipping })).toEqual([1, 2, 2]);
  expect(lossesOf('relative', { full, skipping })).toEqual([1, 1, 1]);
  const database = [Float32Array.of(1, 0.1), Float32Array.of(0.1, 1)];
  // The neighbour of the first changes, that of the second doesn't, and NaN has none.
  skipping[1] = Float32Array.of(0.1, 3);
  expect(lossesOf('recall@1', { full, skipping }, database)).toEqual([1, 0, 1]);
});
