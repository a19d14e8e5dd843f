import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { InferenceSession } from '../../lib/index.js';
import { argMax } from '../../lib/numeric/softmax.js';
import { itemOf, Network } from '../helpers/networks.js';

const MODELS = resolve(__dirname, '../../models');
const SHIPPED = readdirSync(MODELS).filter((name) => existsSync(join(MODELS, name, 'model.int8.onnx')));
const sha256 = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');

test('there are 8-bit networks', () => {
  expect(SHIPPED.length).toBeGreaterThan(0);
});

describe.each(SHIPPED)('%s', (name) => {
  const [float, int8, policy] = ['model.onnx', 'model.int8.onnx', 'policy.int8.json'].map((file) =>
    join(MODELS, name, file),
  ) as [string, string, string];

  test('the 8-bit form has the same blocks, gates and exits in a third of the bytes', async () => {
    await using before = await InferenceSession.create(float);
    await using after = await InferenceSession.create(int8);
    const described = ({ blocks }: InferenceSession) =>
      blocks.map(({ name: block, skippable, gate }) => [block, skippable, gate?.threshold]);
    expect(described(after)).toEqual(described(before));
    expect(statSync(int8).size).toBeLessThan(0.35 * statSync(float).size);
  });

  const withPolicy = existsSync(policy) ? test : test.skip;

  withPolicy('its policy is for these two files, and runs', async () => {
    const { model, reference, promise } = JSON.parse(readFileSync(policy, 'utf8'));
    expect([model.sha256, reference.sha256]).toEqual([sha256(int8), sha256(float)]);
    expect(promise.upperBound).toBeLessThanOrEqual(promise.limit);
    await using session = await InferenceSession.create(int8, { policy, reference: float });
    expect(session.blocks.some(({ skippable }) => skippable)).toBe(true);
  });
});

test('CIFAR-10: images of the examples get the same answers', async () => {
  for (const name of SHIPPED.filter((one) => one.startsWith('cifar10'))) {
    const network = new Network(name);
    const images = await network.images();
    await using session = await InferenceSession.create(join(MODELS, name, 'model.int8.onnx'));
    const changed = network.items.filter(({ full, gated = full }, i) => {
      const { logits } = session.runSync({ input: itemOf(images, i) });
      return argMax(logits!.data as Float32Array) !== argMax(Float32Array.from(gated));
    });
    expect(changed.length).toBeLessThanOrEqual(1);
  }
});
