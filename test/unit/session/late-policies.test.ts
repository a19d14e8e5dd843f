import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { NativeBackend } from 'lib/backends/native.js';
import { type InferenceSession, loadPolicy, type SessionControl, Tensor } from 'lib/index.js';
import { encodeExits } from 'lib/skip/head-codec.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { Network } from '../../helpers/networks.js';
import { randomFloats } from '../../helpers/random.js';
import { withSession } from '../../helpers/sessions.js';

afterAll(removeFolders);

const head = (outputs: number, seed: number) => ({
  features: 'mean' as const,
  layers: [{ weight: randomFloats(outputs * 32, seed), bias: new Float32Array(outputs) }],
});
const policy: SkipPolicy = {
  blocks: {},
  heads: encodeExits([{ after: 'block8', head: head(10, 1), threshold: 0.5 }]),
};
const network = new Network('cifar10-resnet32');

/** A session has freed the weights of its model by the time when a run brings a policy with heads of its own. */
it('a policy with heads does the same for one run as for a session', async () => {
  const input = await network.images();
  const resultsOf = async (session: InferenceSession, options: { policy?: SkipPolicy }) => {
    const { outputs, trace } = await session.runTraced({ input }, { ...options });
    return { logits: [...outputs.logits!.data], trace };
  };
  const expected = await withSession(network.model, { policy }, (session) => resultsOf(session, {}));
  await withSession(network.model, {}, async (session) => {
    const plain = await resultsOf(session, {});
    const late = await resultsOf(session, { policy });
    expect(late).toEqual(expected);
    expect(late.logits).not.toEqual(plain.logits);
    expect(await resultsOf(session, {})).toEqual(plain);
  });
});

it('a policy with heads is compiled for its first run alone, in whatever form it is given', async () => {
  const input = await network.images();
  const path = `${folderOf({})}/policy.json`;
  writeFileSync(path, JSON.stringify(policy, null, 2));
  const compile = jest.spyOn(NativeBackend.prototype, 'compile');
  const forms = [
    policy,
    path,
    loadPolicy(policy),
    loadPolicy(path),
    structuredClone(policy),
    { ...policy, default: 'gate' },
  ];
  await withSession(network.model, {}, async (session) => {
    for (const form of [...forms, ...forms]) await session.run({ input }, { policy: form as SkipPolicy });
  });
  expect(compile).toHaveBeenCalledTimes(2);
  compile.mockRestore();
});

it("a model's exits can be used by later policies, whichever the session's own policy uses", async () => {
  const folder = resolve('models/fashion-mnist-resnet26-exits');
  const file = `${folder}/model.onnx`;
  const [first, ...others] = JSON.parse(readFileSync(`${folder}/policy.json`, 'utf8')).heads.exits;
  const of = (exits: object[]) => ({ version: 1, blocks: {}, heads: { exits, gates: [] } }) as SkipPolicy;
  const input = new Tensor('float32', randomFloats(784 * 4, 5), [4, 1, 28, 28]);
  const run = (session: InferenceSession, policy: SkipPolicy | 'model') =>
    session.runTraced({ input }, { policy });
  for (const late of [of(others), 'model'] as const) {
    const expected = await withSession(file, { policy: late }, (session) => run(session, late));
    const answer = await withSession(file, { policy: of([first]) }, (session) => run(session, late));
    expect(answer).toEqual(expected);
  }
});

it('a session describes its own policy, whatever ran before and in the background', async () => {
  const input = await network.images();
  let control: SessionControl | undefined;
  const onAttach = (given: SessionControl) => {
    control = given;
  };
  await withSession(network.model, { policy, observers: [{ onAttach }] }, async (session) => {
    const described = () => ({ blocks: session.blocks, context: session.context, model: session.model });
    const before = described();
    expect(control!.policy).toBe(session.context.policy);
    await session.run({ input }, { policy: 'full' });
    expect(described()).toEqual(before);
    await control!.runFull({ input });
    expect(described()).toEqual(before);
    control!.setFullDepth(true);
    session.runSync({ input });
    expect(described()).toEqual(before);
  });
});
