import { join } from 'node:path';
import { auditLog } from 'lib/audit/log.js';
import { type AuditEntry, readAudit } from 'lib/audit/read.js';
import { replayAudit } from 'lib/audit/replay.js';
import { watch } from 'lib/audit/watch.js';
import type { SessionOptions } from 'lib/session/options.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { itemsOf } from '../helpers/items.js';
import { Network } from '../helpers/networks.js';
import { availableIsas, withSession } from '../helpers/sessions.js';

afterAll(removeFolders);
const gated = new Network('cifar10-resnet32-gates');
const plain = new Network('cifar10-resnet32');

/** A log of the example images, `batch` of them in each run. */
async function record(options: SessionOptions = {}, batch = 1): Promise<AuditEntry[]> {
  const path = join(folderOf({}), 'trace.ndjson');
  const images = await gated.images();
  const [items, size] = [images.dims[0]!, images.data.length / images.dims[0]!];
  await withSession(gated.model, { ...options, observers: [auditLog({ path })] }, async (session) => {
    for (let i = 0; i < items; i += batch) {
      const some = images.data.slice(i * size, (i + batch) * size);
      await session.run({ input: new Tensor('float32', some, [some.length / size, 3, 32, 32]) });
    }
  });
  return [...(await readAudit(path)).entries];
}

const replay = (entries: readonly AuditEntry[], options: SessionOptions, { model } = gated) =>
  withSession(model, options, async (session) => replayAudit(entries, await itemsOf(gated), session));

test('what one instruction set recorded, another replays bit for bit', async () => {
  const isas = await availableIsas(gated.model);
  for (const [i, isa] of isas.entries()) {
    const entries = await record({ isa });
    expect(entries[0]!.header.isa).toBe(isa);
    const other = isas[(i + 1) % isas.length]!;
    const identical = { recorded: entries.length, identical: entries.length, missing: 0, differences: [] };
    expect(await replay(entries, { isa: other })).toMatchObject({ ...identical, circumstances: [] });
  }
});

test('the reference backend rounds otherwise: the first score that differs is found, and the backend named', async () => {
  const entries = (await record()).slice(0, 2);
  const { differences, circumstances } = await replay(entries, { backend: 'reference' });
  expect(circumstances).toEqual([expect.stringMatching(/the backend native, the replay ran with reference/)]);
  for (const { what, recorded, replayed } of differences) {
    expect(what).toBe('score');
    expect(Number(replayed)).toBeCloseTo(Number(recorded), 4);
  }
});

test.each([
  [1, 7],
  [2, 20],
])('recorded with %d threads in batches of %d, replayed one by one', async (threads, batch) => {
  const entries = await record({ threads }, batch);
  expect(entries).toHaveLength(gated.items.length);
  const report = await replay(entries, { threads: 3 - threads });
  expect(report).toMatchObject({ identical: entries.length, missing: 0, differences: [], circumstances: [] });
});

test('another policy: the first block that differs is named, and why', async () => {
  const report = await replay(await record(), { policy: 'full' });
  const [first] = report.differences;
  expect(first).toMatchObject({ block: 'block1', what: 'score', replayed: 'not asked' });
  expect(report.circumstances).toEqual([expect.stringMatching(/recorded with the policy of SHA-256/)]);
});

test('another model: what differs is explained by it', async () => {
  const report = await replay(await record(), {}, plain);
  expect(report.identical).toBe(0);
  expect(report.circumstances).toContainEqual(expect.stringMatching(/recorded with the model of SHA-256/));
});

test('another version of the package is named', async () => {
  const entries = (await record()).map((entry) => ({
    ...entry,
    header: { ...entry.header, engine: '0.0.1' },
  }));
  const { circumstances } = await replay(entries, {});
  expect(circumstances).toEqual([expect.stringContaining('recorded with residual-skip 0.0.1')]);
});

test('a score, an output or a decision that was changed is found where it is', async () => {
  const entries = await record();
  const change = (index: number, record: Partial<AuditEntry['record']>) => {
    entries[index] = { ...entries[index]!, record: { ...entries[index]!.record, ...record } };
  };
  const block = entries[1]!.record.scores.findIndex((score) => score !== null);
  const scores = [...entries[1]!.record.scores];
  scores[block] = scores[block]! * 1.000001;
  change(1, { scores });
  change(3, { output: 'f'.repeat(64) });
  const { ran } = entries[5]!.record;
  change(5, { ran: (ran[0] === '1' ? '0' : '1') + ran.slice(1) });
  change(7, { input: '0'.repeat(64) });
  const report = await replay(entries, {});
  expect(report.differences.map(({ line, what, block }) => [line, what, block])).toEqual([
    [entries[1]!.line, 'score', entries[1]!.header.blocks[block]!.name],
    [entries[3]!.line, 'output', null],
    [entries[5]!.line, 'decision', entries[5]!.header.blocks[0]!.name],
  ]);
  expect(report).toMatchObject({ missing: 1, identical: entries.length - 4 });
});

test('what ran in full because the monitor had tripped is replayed in full', async () => {
  const path = join(folderOf({}), 'trace.ndjson');
  const monitor = watch({ shadow: 0, maxDisagreement: 0.01 });
  const items = await itemsOf(gated);
  await withSession(gated.model, { observers: [auditLog({ path }), monitor] }, async (session) => {
    for (const { feeds } of items) await session.run(feeds);
    for (let check = 0; check < 100; check++) monitor.observe(true);
    for (const { feeds } of items) await session.run(feeds);
  });
  const { entries } = await readAudit(path);
  expect(entries.filter(({ record }) => record.reasons.includes('t'))).toHaveLength(items.length);
  const report = await replay(entries, {});
  expect(report).toMatchObject({ identical: 2 * items.length, missing: 0, differences: [] });
});

test('the data is read only until every recorded item is found', async () => {
  const [first] = await record();
  const taken: string[] = [];
  async function* items() {
    for (const item of await itemsOf(gated)) {
      taken.push(item.name);
      yield item;
    }
  }
  const report = await withSession(gated.model, {}, (session) => replayAudit([first!], items(), session));
  expect(report).toMatchObject({ identical: 1, missing: 0 });
  expect(taken).toHaveLength(2);
});
