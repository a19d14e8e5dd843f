import { join } from 'node:path';
import { auditLog } from 'lib/audit/log.js';
import { readAudit } from 'lib/audit/read.js';
import { replayAudit } from 'lib/audit/replay.js';
import { summarise } from 'lib/audit/summary.js';
import { encodeExits } from 'lib/skip/head-codec.js';
import type { RunEvent } from 'lib/skip/observer.js';
import { parsePolicy, type SkipPolicy } from 'lib/skip/policy.js';
import { SKIP_REASONS, type SkipTrace } from 'lib/skip/trace.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { itemsOf } from '../../helpers/items.js';
import { Network } from '../../helpers/networks.js';
import { randomFloats } from '../../helpers/random.js';
import { withSession } from '../../helpers/sessions.js';

afterAll(removeFolders);
const network = new Network('cifar10-resnet32');
const CHANNELS = 32;
const HEAD = 10 * CHANNELS;

/** An exit behind block 8. */
function policyOf(threshold: number, more: Partial<SkipPolicy> = {}): SkipPolicy {
  const layer = { weight: randomFloats(HEAD, 1), bias: new Float32Array(10) };
  return {
    blocks: {},
    heads: encodeExits([{ after: 'block8', head: { features: 'mean', layers: [layer] }, threshold }]),
    ...more,
  };
}

async function traceOf(policy: SkipPolicy, backend: 'native' | 'reference' = 'native') {
  const input = await network.images();
  return withSession(network.model, { policy, backend }, async (session) => ({
    ...(await session.runTraced({ input })),
    blocks: session.blocks,
  }));
}

const confidencesOf = ({ items }: SkipTrace) => items.map(({ exits }) => exits[0]!.score);

/** Between the two confidences in the middle, so that no rounding decides. */
async function middle(): Promise<number> {
  const { trace } = await traceOf(policyOf(2));
  const sorted = confidencesOf(trace).sort((a, b) => a - b);
  return (sorted[sorted.length / 2]! + sorted[sorted.length / 2 - 1]!) / 2;
}

test('an item leaves where its score reaches the threshold, and the trace has what the engine compared', async () => {
  const threshold = await middle();
  const { trace, blocks } = await traceOf(policyOf(threshold));
  const at = blocks.findIndex(({ name }) => name === 'block8');
  for (const item of trace.items) {
    expect(item.exits).toHaveLength(1);
    const { score, taken, ...exit } = item.exits[0]!;
    expect(exit).toEqual({ after: 'block8', threshold: Math.fround(threshold) });
    expect(taken).toBe(score >= threshold);
    for (const { index, ran, reason } of item.blocks) {
      expect([ran, reason]).toEqual(taken && index > at ? [false, 'exit'] : [true, 'fixed']);
    }
  }
  expect(trace.items.filter(({ exits }) => exits[0]!.taken)).toHaveLength(trace.items.length / 2);
});

test('native and reference backend decide the same and answer alike', async () => {
  const threshold = await middle();
  const policy = policyOf(threshold);
  const [native, reference] = [await traceOf(policy), await traceOf(policy, 'reference')];
  const ranOf = ({ items }: SkipTrace) => items.map(({ blocks }) => blocks.map(({ ran }) => ran));
  expect(ranOf(native.trace)).toEqual(ranOf(reference.trace));
  const [ours, theirs] = [native.outputs.logits!.data, reference.outputs.logits!.data];
  for (const [i, value] of theirs.entries()) expect(ours[i]).toBeCloseTo(value as number, 3);
});

test('what is saved is net of the heads that were asked, and of the run in full that a guard takes', async () => {
  const threshold = await middle();
  const plain = await traceOf(policyOf(threshold));
  const labels = Array.from({ length: 10 }, (_, i) => `class ${i}`);
  const guards = [{ labels }];
  const guarded = await traceOf(policyOf(threshold, { labels, guards }));
  const costs = plain.blocks.map(({ multiplyAdds }) => multiplyAdds);
  for (const [i, { blocks, exits, multiplyAddsSkipped }] of plain.trace.items.entries()) {
    // Whoever leaves early needs no classifier of 64 features and 10 classes either.
    const classifier = exits.some(({ taken }) => taken) ? 64 * 10 : 0;
    const ofBlocks = blocks.reduce((sum, { ran, index }) => sum + (ran ? 0 : costs[index]!), classifier);
    expect(multiplyAddsSkipped).toBe(ofBlocks - HEAD);
    const again = guarded.trace.items[i]!;
    expect(again.blocks.every(({ ran }) => ran)).toBe(true);
    expect(again.multiplyAddsSkipped).toBe(ofBlocks > 0 ? ofBlocks - HEAD - plain.trace.multiplyAdds : -HEAD);
  }
});

test('a guard checks answers of an exit behind the last block, too, where no block is skipped', async () => {
  const last = 'block14';
  const layer = {
    weight: new Float32Array(640),
    bias: Float32Array.from({ length: 10 }, (_, i) => Number(i === 3)),
  };
  const exits = [{ after: last, head: { features: 'mean' as const, layers: [layer] }, threshold: 0 }];
  const heads = encodeExits(exits);
  const full = await traceOf({ default: 'run' });
  expect(full.blocks.at(-1)!.name).toBe(last);
  const left = await traceOf({ heads });
  const guarded = await traceOf({ heads, guards: [{ labels: [3] }] });
  expect([...left.outputs.logits!.data].slice(0, 10)).toEqual([...layer.bias]);
  expect(guarded.outputs.logits!.data).toEqual(full.outputs.logits!.data);
  for (const [i, item] of guarded.trace.items.entries()) {
    expect(item.blocks.every(({ reason }) => reason === 'guard')).toBe(true);
    // The exit saves the classifier of 64 features and 10 classes, and costs as much.
    expect(left.trace.items[i]!.multiplyAddsSkipped).toBe(0);
    expect(item.multiplyAddsSkipped).toBe(-full.trace.multiplyAdds);
  }
});

test('a log of such runs is replayed bit for bit and tells the net saving', async () => {
  const threshold = await middle();
  const policy = policyOf(threshold);
  const path = join(folderOf({}), 'trace.ndjson');
  const input = await network.images();
  const trace = await withSession(
    network.model,
    { policy, observers: [auditLog({ path })] },
    async (session) => (await session.runTraced({ input })).trace,
  );
  const entries = [...(await readAudit(path)).entries];
  expect(entries.some(({ record }) => record.reasons.includes('x'))).toBe(true);
  const net = trace.items.reduce((sum, item) => sum + item.multiplyAddsSkipped, 0) / trace.items.length;
  expect(summarise(entries).multiplyAddsSkipped).toBeCloseTo(net / trace.multiplyAdds, 12);
  const replayed = await withSession(network.model, { policy }, async (session) =>
    replayAudit(entries, await itemsOf(network), session),
  );
  expect(replayed).toMatchObject({ identical: entries.length, differences: [], circumstances: [] });
});

test.each([
  ['exits', {}],
  [
    'a guard',
    {
      labels: ['a', 'b', 'c'],
      guards: [{ labels: ['a', 'b', 'c'], margin: 0.5 }],
    },
  ],
])('decisions are copied all at once as they are told one by one: %s', async (_, more) => {
  const threshold = await middle();
  const events: RunEvent[] = [];
  const observer = { onRun: (event: RunEvent) => void events.push(event) };
  const input = await network.images();
  const policy = policyOf(threshold, more);
  await withSession(network.model, { policy, observers: [observer] }, (session) => session.run({ input }));
  const event = events[0]!;
  const blocks = event.context.blocks.length;
  const reasons = new Set<string>();
  for (const [item, { blocks: told }] of event.trace.items.entries()) {
    const [ran, why, scores] = [
      new Uint8Array(blocks + 2),
      new Uint8Array(blocks + 2),
      new Float32Array(blocks + 2),
    ];
    event.decisionsOf(item).copyTo(ran, why, scores, 1);
    for (const [index, block] of told.entries()) {
      reasons.add(block.reason);
      expect(ran[1 + index]).toBe(Number(block.ran));
      expect(SKIP_REASONS[why[1 + index]!]).toBe(block.reason);
      expect(scores[1 + index]).toBe(block.score ?? Number.NaN);
    }
    for (const column of [ran, why, scores]) expect([column[0], column[blocks + 1]]).toEqual([0, 0]);
  }
  expect(reasons.size).toBeGreaterThan(1);
});

test('a policy file may hold them; one with gates of its own is refused', () => {
  const policy = policyOf(0.9);
  expect(parsePolicy(JSON.parse(JSON.stringify(policy)))).toEqual(policy);
  const withGates = (gates: object[]) => parsePolicy({ ...policy, heads: { ...policy.heads, gates } });
  // Older files have an empty list, which their hash covers.
  expect(withGates([])).toEqual({ ...policy, heads: { ...policy.heads, gates: [] } });
  const gates = [{ block: 'block9', confidenceOf: 'block8', threshold: 0.8 }];
  expect(() => withGates(gates)).toThrow(/heads\.gates.* calibrate makes one with exits/);
});
