import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ImageClassifier, InferenceSession } from 'lib/index.js';

const MODELS = resolve(__dirname, '../../models');
const EXAMPLES = resolve(__dirname, '../../examples/images');
const SHIPPED = readdirSync(MODELS).filter((name) => existsSync(join(MODELS, name, 'model.int8.onnx')));
const sha256 = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');

test('there are 8-bit networks', () => {
  expect(SHIPPED.length).toBeGreaterThan(0);
});

describe.each(SHIPPED)('%s', (name) => {
  const [float, int8, policy] = ['model.onnx', 'model.int8.onnx', 'policy.int8.json'].map((file) =>
    join(MODELS, name, file),
  ) as [string, string, string];

  test('the 8-bit form has the same blocks, gates and exits in a third of the bytes, but for exits, which stay floats', async () => {
    await using before = await InferenceSession.create(float);
    await using after = await InferenceSession.create(int8);
    const described = ({ blocks }: InferenceSession) =>
      blocks.map(({ name: block, skippable, gate }) => [block, skippable, gate?.threshold]);
    expect(described(after)).toEqual(described(before));
    const plain = statSync(join(MODELS, name.replace(/-(exits|gates)$/, ''), 'model.onnx')).size;
    expect(statSync(int8).size).toBeLessThan(0.35 * plain + (statSync(float).size - plain));
  });

  const withPolicy = existsSync(policy) ? test : test.skip;

  withPolicy('its policy is for these two files, and runs', async () => {
    const { model, reference, promise } = JSON.parse(readFileSync(policy, 'utf8'));
    expect([model.sha256, reference.sha256]).toEqual([sha256(int8), sha256(float)]);
    expect(promise.upperBound).toBeLessThanOrEqual(promise.limit);
    await using session = await InferenceSession.create(int8, { policy, original: float });
    expect(session.blocks.some(({ skippable }) => skippable)).toBe(true);
  });
});

test('CIFAR-10: images of the examples get the answers of the float network', async () => {
  const names = readdirSync(EXAMPLES).filter((name) => name.endsWith('.jpg'));
  for (const name of SHIPPED.filter((one) => one.startsWith('cifar10'))) {
    const [float, int8] = await Promise.all(
      ['model.onnx', 'model.int8.onnx'].map((file) =>
        ImageClassifier.from(join(MODELS, name, file), { policy: 'full' }),
      ),
    );
    let changed = 0;
    for (const image of names) {
      const [before, after] = await Promise.all(
        [float!, int8!].map((network) => network.classify(join(EXAMPLES, image))),
      );
      if (before!.label !== after!.label) changed++;
    }
    expect(changed).toBeLessThanOrEqual(1);
    await Promise.all([float!.release(), int8!.release()]);
  }
});
