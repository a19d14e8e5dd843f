import { createHash } from 'node:crypto';
import { watch } from 'lib/audit/watch.js';
import { InferenceSession } from 'lib/session/session.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

const [FEATURES, CLASSES, ITEMS] = [6, 4, 32] as const;

/** A linear classifier with noise on its weights. */
function network(noise: number, input = 'x'): Uint8Array {
  const graph = new GraphBuilder();
  const off = randomFloats(FEATURES * CLASSES, 2);
  const weights = randomFloats(FEATURES * CLASSES, 1).map((w, i) => w + noise * off[i]!);
  const x = graph.input(input, ['batch', FEATURES]);
  graph.nodes('Gemm', [x, graph.constant(tensor(weights, [FEATURES, CLASSES]))], {}, { outputs: ['logits'] });
  return modelBytes(graph.output('logits', ['batch', CLASSES]));
}

const MODEL = network(0.5);
const ORIGINAL = network(0);
const SHA256 = createHash('sha256').update(ORIGINAL).digest('hex');
const FEEDS = { x: new Tensor('float32', randomFloats(ITEMS * FEATURES, 3), [ITEMS, FEATURES]) };
const POLICY: SkipPolicy = {
  reference: { sha256: SHA256 },
  guards: [{ labels: [0, 1] }],
};

const rowsOf = ({ data }: Tensor) =>
  Array.from({ length: ITEMS }, (_, i) => [...(data as Float32Array).slice(i * CLASSES, (i + 1) * CLASSES)]);
const best = (row: readonly number[]) => row.indexOf(Math.max(...row));

async function rows(source: Uint8Array): Promise<number[][]> {
  await using session = await InferenceSession.create(source);
  return rowsOf((await session.run(FEEDS)).logits!);
}

test('guarded answers are those of the original, other answers those of the model', async () => {
  const [own, other] = await Promise.all([rows(MODEL), rows(ORIGINAL)]);
  const expected = own.map((row, i) => (best(row) <= 1 ? other[i]! : row));
  expect(expected.filter((row, i) => row === other[i] && best(row) !== best(own[i]!)).length).toBeGreaterThan(
    0,
  );
  expect(expected.filter((row, i) => row === own[i]).length).toBeGreaterThan(0);
  await using session = await InferenceSession.create(MODEL, { original: ORIGINAL, policy: POLICY });
  expect(rowsOf((await session.run(FEEDS)).logits!)).toEqual(expected);
  expect(rowsOf(session.runSync(FEEDS).logits!)).toEqual(expected);
});

test('a monitor compares every sampled answer with that of the original', async () => {
  const [own, other] = await Promise.all([rows(MODEL), rows(ORIGINAL)]);
  const disagreements = own.filter((row, i) => best(row) !== best(other[i]!)).length;
  expect(disagreements).toBeGreaterThan(0);
  const monitor = watch({ shadow: 1, onTrip: 'warn', maxDisagreement: 0.99 });
  await using session = await InferenceSession.create(MODEL, { original: ORIGINAL, observers: [monitor] });
  for (let i = 0; i < ITEMS; i++) {
    const part = FEEDS.x.data.slice(i * FEATURES, (i + 1) * FEATURES);
    await session.run({ x: new Tensor('float32', part, [1, FEATURES]) });
    await monitor.settled();
  }
  expect(monitor.stats().watch).toMatchObject({ checks: ITEMS, disagreements });
});

describe('what is refused', () => {
  const creating = (options: object) => InferenceSession.create(MODEL, options);

  it('a policy with guards and an original, in a session without one', async () => {
    await expect(creating({ policy: POLICY })).rejects.toMatchObject({
      code: 'INVALID_POLICY',
      message: expect.stringContaining(SHA256),
    });
  });

  it('a policy for another original, also for a single run', async () => {
    const policy = { ...POLICY, reference: { sha256: '0'.repeat(64) } };
    await expect(creating({ policy, original: ORIGINAL })).rejects.toMatchObject({
      code: 'POLICY_MISMATCH',
    });
    await using session = await creating({ original: ORIGINAL });
    await expect(session.run(FEEDS, { policy })).rejects.toMatchObject({ code: 'POLICY_MISMATCH' });
  });

  it('any original but the model itself, with a promise about its own answers', async () => {
    const policy: SkipPolicy = {
      promise: {
        ...{ metric: 'disagreement', limit: 0.3, confidence: 0.95, items: 100, events: 10 },
        ...{ risk: 0.1, pValue: 0.01, upperBound: 0.2 },
        data: { sha256: '0'.repeat(64), seed: 1, fit: 0, order: 20, certify: 100 },
      },
    };
    const error = {
      code: 'POLICY_MISMATCH',
      message: expect.stringMatching(/^policy: its promise is about the answers of the model itself in full/),
    };
    await expect(creating({ policy, original: ORIGINAL })).rejects.toMatchObject(error);
    await using other = await creating({ original: ORIGINAL });
    await expect(other.run(FEEDS, { policy })).rejects.toMatchObject(error);
    await using itself = await creating({ policy, original: MODEL });
    expect(rowsOf((await itself.run(FEEDS)).logits!)).toEqual(await rows(MODEL));
  });

  it('an original with other inputs', async () => {
    await expect(creating({ original: network(0, 'y') })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(/^options\.original: .*y: .*x: /),
    });
  });

  it('an original that is no source of a model', async () => {
    await expect(creating({ original: 7 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('but not a policy without guards: it only names what it promises', async () => {
    const { guards: _, ...policy } = POLICY;
    await using session = await creating({ policy });
    expect(session.outputNames).toEqual(['logits']);
  });
});
