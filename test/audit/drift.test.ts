import type { Drift } from 'lib/audit/drift-monitor.js';
import { watch } from 'lib/audit/watch.js';
import { encodeExits } from 'lib/skip/head-codec.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { Network } from '../helpers/networks.js';
import { randomFloats, uniform } from '../helpers/random.js';
import { withSession } from '../helpers/sessions.js';

const SIDE = 32;
const PIXELS = 3 * SIDE * SIDE;
const WINDOW = 150;
const network = new Network('cifar10-resnet32-gates');
const ungated = new Network('cifar10-resnet32');

type Corruption = (pixels: Float32Array, random: () => number) => Float32Array;

/** What the network sees every day: the example images moved by up to two pixels, mirrored or not. */
const usual: Corruption = (pixels, random) => {
  const [dx, dy] = [Math.floor(random() * 5) - 2, Math.floor(random() * 5) - 2];
  const mirrored = random() < 0.5;
  const clamp = (i: number) => Math.min(SIDE - 1, Math.max(0, i));
  return pixels.map((_, i) => {
    const [c, y, x] = [Math.floor(i / SIDE ** 2), Math.floor(i / SIDE) % SIDE, i % SIDE];
    const from = clamp((mirrored ? SIDE - 1 - x : x) + dx);
    return pixels[c * SIDE ** 2 + clamp(y + dy) * SIDE + from]!;
  });
};

/** A box of 5 x 5. */
const blur: Corruption = (pixels) =>
  pixels.map((_, i) => {
    const [c, y, x] = [Math.floor(i / SIDE ** 2), Math.floor(i / SIDE) % SIDE, i % SIDE];
    let [sum, count] = [0, 0];
    for (let v = Math.max(0, y - 2); v <= Math.min(SIDE - 1, y + 2); v++) {
      for (let u = Math.max(0, x - 2); u <= Math.min(SIDE - 1, x + 2); u++) {
        sum += pixels[c * SIDE ** 2 + v * SIDE + u]!;
        count++;
      }
    }
    return sum / count;
  });

/** Uniform with a standard deviation of one, as wide as the normalised image itself. */
const noise: Corruption = (pixels, random) => pixels.map((value) => value + Math.sqrt(12) * (random() - 0.5));
const inverted: Corruption = (pixels) => pixels.map((value) => -value);

/** Drift events over windows of images: one that shows what is usual, two of the usual kind, two corrupted ones. */
async function driftsOf(
  corrupt: Corruption,
  watched = network,
  policy?: SkipPolicy,
): Promise<(readonly Drift[])[]> {
  const monitor = watch({ shadow: 0, window: WINDOW });
  const drifts: (readonly Drift[])[] = [];
  monitor.on('drift', (blocks) => drifts.push(blocks));
  const { data } = await watched.images();
  const images = data.length / PIXELS;
  const random = uniform(3);
  await withSession(watched.model, { policy, observers: [monitor] }, async (session) => {
    for (let window = 0; window < 5; window++) {
      const batch = new Float32Array(WINDOW * PIXELS);
      for (let i = 0; i < WINDOW; i++) {
        const at = (i % images) * PIXELS;
        const image = usual(data.slice(at, at + PIXELS), random);
        batch.set(window > 2 ? corrupt(image, random) : image, i * PIXELS);
      }
      await session.run({ input: new Tensor('float32', batch, [WINDOW, 3, SIDE, SIDE]) });
      if (window === 2) expect(drifts).toEqual([]);
    }
  });
  return drifts;
}

test.each([
  ['noise', noise],
  ['blur', blur],
  ['inverted images', inverted],
])('%s: drift in every window, and none before', async (_, corrupt) => {
  const drifts = await driftsOf(corrupt);
  expect(drifts).toHaveLength(2);
  for (const blocks of drifts)
    for (const { psi, skipRatePsi } of blocks) expect(Math.max(psi, skipRatePsi)).toBeGreaterThan(0.25);
});

test('of a policy that has exits only, their confidences drift', async () => {
  const head = {
    features: 'mean' as const,
    layers: [{ weight: randomFloats(10 * 32, 1), bias: new Float32Array(10) }],
  };
  const heads = encodeExits([{ after: 'block8', head, threshold: 0.9 }]);
  const drifts = await driftsOf(noise, ungated, { blocks: {}, heads });
  expect(drifts).toHaveLength(2);
  for (const [drift, ...others] of drifts) {
    expect(others).toEqual([]);
    expect(drift).toMatchObject({ kind: 'exit', block: 'block8' });
    expect(Math.max(drift!.psi, drift!.skipRatePsi)).toBeGreaterThan(0.25);
  }
});

test("scores are compared with the policy's own from the first window on, unless watch was given others", async () => {
  const low = { edges: [-1e6], shares: [1, 0], skipRate: 1 };
  const expected = { multiplyAddsSkipped: 0.3, blocksSkipped: 0.3, latencyReduction: null };
  const policy = { blocks: {}, expected: { ...expected, scores: { block1: low } } };
  const input = await network.images();
  const driftsOf = async (scores?: { block1: typeof low }) => {
    const monitor = watch({ shadow: 0, window: 60, scores });
    await withSession(network.model, { policy, observers: [monitor] }, async (session) => {
      for (let i = 0; i < 3; i++) await session.run({ input });
    });
    return monitor.stats().watch.drift;
  };
  const [drift, none] = await driftsOf();
  expect(none).toBeUndefined();
  expect(drift).toMatchObject({ block: 'block1', expectedSkipRate: 1 });
  expect(drift!.psi).toBeGreaterThan(1);
  const [given] = await driftsOf({ block1: { ...low, shares: [0, 1] } });
  expect(given!.psi).toBeLessThan(0.25);
});
