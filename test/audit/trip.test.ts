import { auditLog } from 'lib/audit/log.js';
import { readAudit } from 'lib/audit/read.js';
import { watch } from 'lib/audit/watch.js';
import { encodeExits } from 'lib/skip/head-codec.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { Network } from '../helpers/networks.js';
import { randomFloats } from '../helpers/random.js';
import { withSession } from '../helpers/sessions.js';

afterAll(removeFolders);

const head = (outputs: number, seed: number) => ({
  features: 'mean' as const,
  layers: [{ weight: randomFloats(outputs * 32, seed), bias: new Float32Array(outputs) }],
});
/** Heads that know nothing, as `calibrate` writes heads: they change answers all the time. */
const policy: SkipPolicy = {
  blocks: {},
  heads: encodeExits([{ after: 'block8', head: head(10, 1), threshold: 0 }]),
};

test('a policy with heads of its own: a tripped session runs in full and says so, and skips again when rearmed', async () => {
  const network = new Network('cifar10-resnet32');
  const input = await network.images();
  const path = `${folderOf({})}/trace.ndjson`;
  const monitor = watch({ shadow: 1, maxDisagreement: 0.01 });
  await withSession(network.model, { policy, observers: [auditLog({ path }), monitor] }, async (session) => {
    const { context } = session;
    const full = await session.run({ input }, { policy: 'full' });
    const before = await session.runTraced({ input });
    expect(before.outputs.logits!.data).not.toEqual(full.logits!.data);
    await monitor.settled();
    expect(session.stats()).toMatchObject({ watch: { tripped: true, failures: 0 } });

    const tripped = await session.runTraced({ input });
    expect(tripped.outputs.logits!.data).toEqual(full.logits!.data);
    expect(session.runSync({ input }).logits!.data).toEqual(full.logits!.data);
    expect(session.context.policySha256).toBe(context.policySha256);
    for (const { blocks } of tripped.trace.items) {
      expect(blocks.every(({ ran }) => ran)).toBe(true);
      // The exit is behind block 8.
      expect(blocks.map(({ reason }) => reason[0]).join('')).toBe('ffffffffftttttt');
    }

    monitor.rearm();
    expect((await session.runTraced({ input })).trace).toEqual(before.trace);
  });
  const { entries, problems } = await readAudit(path);
  expect(problems).toEqual([]);
  expect(new Set(entries.map(({ header }) => header.policy.sha256)).size).toBe(2);
  const tripped = entries.filter(({ record }) => record.reasons.includes('t'));
  expect(tripped).toHaveLength(2 * 20);
});
