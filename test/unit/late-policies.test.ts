import type { InferenceSession } from '../../lib/index.js';
import { encodeHeads } from '../../lib/skip/heads.js';
import type { SkipPolicy } from '../../lib/skip/policy.js';
import { Network } from '../helpers/networks.js';
import { randomFloats } from '../helpers/random.js';
import { withSession } from '../helpers/sessions.js';

/** A session has freed the weights of its model by the time when a run brings a policy with heads of its own. */
it('a policy with heads does the same for one run as for a session', async () => {
  const network = new Network('cifar10-resnet32');
  const input = await network.images();
  const head = (outputs: number, seed: number) => ({
    features: 'mean' as const,
    layers: [{ weight: randomFloats(outputs * 32, seed), bias: new Float32Array(outputs) }],
  });
  const policy: SkipPolicy = {
    blocks: {},
    heads: encodeHeads({
      exits: [{ after: 'block8', head: head(10, 1), threshold: 0.5 }],
      gates: [{ block: 'block7', head: head(1, 2), threshold: 0 }],
    }),
  };
  const resultsOf = async (session: InferenceSession, options: { policy?: SkipPolicy }) => {
    const { outputs, trace } = await session.run({ input }, { ...options, trace: true });
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
