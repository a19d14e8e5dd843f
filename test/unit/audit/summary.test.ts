/** What a report says of a log, counted again from what the networks did. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { auditLog } from 'lib/audit/log.js';
import { type AuditEntry, readAudit } from 'lib/audit/read.js';
import { replayAudit } from 'lib/audit/replay.js';
import { summarise } from 'lib/audit/summary.js';
import { watch } from 'lib/audit/watch.js';
import { InferenceSession } from 'lib/index.js';
import { evaluate } from 'lib/measure/evaluate.js';
import { bytesOf, npy } from '../../helpers/arrays.js';
import { cli, cliJson } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign } from '../../helpers/foreign-network.js';
import { best, between, colours, itemsFrom, ladder, run, sureness } from '../../helpers/ladders.js';
import { runContext, runEvent, withDecisions } from '../../helpers/run-event.js';
import { withSession } from '../../helpers/sessions.js';

afterAll(removeFolders);
const newLog = () => join(folderOf({}), 'trace.ndjson');

test('the work of an item is a share of what its own shape takes', async () => {
  const path = newLog();
  const log = auditLog({ path });
  const short = runContext();
  const blocks = short.blocks.map((block) => ({ ...block, multiplyAdds: 6000 }));
  const long = { ...short, multiplyAdds: 20_000, blocks };
  // One of three blocks is skipped, then all of them.
  log.onRun(withoutHeads(runEvent(long, [[-1, 1, 1]])));
  log.onRun(withoutHeads(runEvent(short, [[-1, -1, -1]])));
  await log.onRelease();
  const summary = summarise((await readAudit(path)).entries);
  expect(summary.multiplyAddsSkipped).toBeCloseTo((6000 / 20_000 + 900 / 1000) / 2, 12);
});

/** Then the log has no sum of its own. */
function withoutHeads(event: ReturnType<typeof runEvent>): typeof event {
  const decisionsOf = (item: number) => ({ ...event.decisionsOf(item), spentMore: () => false });
  return { ...event, decisionsOf };
}

test('of several policies, thresholds that differ are not shown as one', async () => {
  const path = newLog();
  const log = auditLog({ path });
  const context = runContext();
  log.onRun(runEvent(context, [[-1, 1, 1]]));
  const event = runEvent({ ...context, policySha256: 'c'.repeat(64), guards: ['cat'] }, [
    [1, 1, 1],
    [1, 1, 1],
  ]);
  const decisionsOf = (item: number) => ({
    ...event.decisionsOf(item),
    threshold: (block: number) => (block === 0 ? 0.5 : 0),
  });
  log.onRun({ ...event, decisionsOf });
  await log.onRelease();
  const { entries } = await readAudit(path);
  for (const all of [entries, entries.toReversed()]) {
    const { blocks, policies, guards } = summarise(all);
    expect(blocks.map(({ threshold }) => threshold)).toEqual([null, 0, 0]);
    expect(new Set(policies)).toEqual(
      new Set([
        { sha256: 'b'.repeat(64), items: 1 },
        { sha256: 'c'.repeat(64), items: 2 },
      ]),
    );
    expect(guards).toEqual(['cat']);
  }
});

test('an exit behind the last block counts as an exit, and a guarded item as none', async () => {
  const path = newLog();
  const log = auditLog({ path });
  const all = runEvent(runContext(), [[1, 1, 1]]);
  const exits = [{ after: 'block2', taken: true, score: 0.9, threshold: 0.5 }];
  const item = { ...all.trace.items[0]!, exits };
  const guarded = { ...item, inFull: 'guard' as const };
  const reasons = item.blocks.map((block) => ({ ...block, reason: 'guard' as const }));
  for (const one of [item, { ...guarded, blocks: reasons }])
    log.onRun(withDecisions({ ...all, trace: { ...all.trace, items: [one] } }));
  await log.onRelease();
  const { exits: left, reasons: letters, exceptions } = summarise((await readAudit(path)).entries);
  expect(left).toEqual([{ after: 'block2', items: 1 }]);
  expect(letters).toMatchObject({ x: 1, v: 1 });
  const sum = (of: 'guarded' | 'exited') => exceptions.reduce((total, one) => total + one[of], 0);
  expect([sum('guarded'), sum('exited')]).toEqual([1, 1]);
});

test('a log that is a sample says so', async () => {
  const path = newLog();
  const shares = [1, 0.999, 0.5];
  const random = jest.spyOn(Math, 'random').mockReturnValue(0.25);
  const words = ['', '; a random sample: 99.9 % to 100.0 %', '; a random sample: 50.0 % to 100.0 %'];
  for (const [i, sample] of shares.entries()) {
    const log = auditLog({ path, sample });
    log.onRun(runEvent(runContext(), [[1, 1, 1]]));
    await log.onRelease();
    const { sample: range } = summarise((await readAudit(path)).entries);
    expect(range).toEqual([sample, 1]);
    const { out } = await cli('audit', path);
    expect(out.split('\n')[0]).toContain(`distinct path${words[i]}`);
  }
  random.mockRestore();
});

test('times span all items, also where a clock went backwards, and other networks are counted', () => {
  const header = { ...headerOf('a'.repeat(64)) };
  const entries = [
    entryOf(headerOf('b'.repeat(64)), 1),
    ...[5000, 7000, 3000].map((time) => entryOf(header, time)),
  ];
  expect(summarise(entries)).toMatchObject({ items: 3, otherItems: 1, from: 3000, to: 7000 });
});

const headerOf = (sha256: string) =>
  ({
    model: { sha256, source: null },
    policy: { sha256, guards: [] },
    labels: null,
    blocks: [],
    layers: 1,
    multiplyAdds: 10,
  }) as unknown as AuditEntry['header'];

function entryOf(header: AuditEntry['header'], time: number): AuditEntry {
  const record = { time, ran: '', reasons: '', scores: [], exits: [], top: [], milliseconds: 1 };
  return { header, record: record as unknown as AuditEntry['record'], file: '', line: 1, timed: null };
}

describe('a network without blocks behind a front', () => {
  const ITEMS = 24;
  const [model, front] = [foreign({ blocks: 0, end: 'Softmax' }), foreign({ blocks: 1, seed: 50 })];
  const pictures = colours(ITEMS);
  const items = Array.from({ length: ITEMS }, (_, i) => itemsFrom(pictures, i, i + 1));
  let guarded: number;
  let folder: string;
  /** Items that stay with the front, and that a guard takes from it. */
  let kept: number[];
  let taken: number[];
  beforeAll(async () => {
    const { rows } = await run(front, pictures);
    const sure = sureness(rows);
    const threshold = between(sure);
    const left = [...rows.keys()].filter((i) => sure[i]! >= threshold);
    guarded = best(rows[left[0]!]!);
    kept = left.filter((i) => best(rows[i]!) !== guarded);
    taken = left.filter((i) => best(rows[i]!) === guarded);
    expect(kept.length).toBeGreaterThan(0);
    folder = ladder(model, [{ name: 'first', bytes: front, threshold }], { guards: [{ labels: [guarded] }] });
  });

  test('its log tells who answered and who was guarded, whoever encodes it', async () => {
    const each = [1, 5, ITEMS].map((step) => ({ step, backend: 'native' as const }));
    for (const { step, ...options } of [...each, { step: 5, backend: 'reference' as const }]) {
      const path = newLog();
      await withSession(folder, { ...options, observers: [auditLog({ path })] }, async (session) => {
        for (let from = 0; from < ITEMS; from += step)
          await session.run({ picture: itemsFrom(pictures, from, Math.min(ITEMS, from + step)) });
      });
      const { entries, problems } = await readAudit(path);
      expect(problems).toEqual([]);
      const summary = summarise(entries);
      expect(summary).toMatchObject({
        exits: [{ after: 'first', items: kept.length }],
        reasons: { x: kept.length, v: taken.length },
        blocksSkipped: 0,
      });
      const guardedItems = summary.exceptions.reduce((sum, one) => sum + one.guarded, 0);
      expect(guardedItems).toBe(taken.length);
      const { out } = await cli('audit', path);
      expect(out).toMatch(new RegExp(`^first +${kept.length} `, 'm'));
      expect(await cliJson('audit', path)).toMatchObject({ exits: [{ after: 'first', items: kept.length }] });
    }
  });

  test("its guarded items are the network's in `evaluate`, and in `run`", async () => {
    const { rungs } = await evaluate(folder, items, { task: 'single-label' });
    expect(rungs).toMatchObject([
      { name: 'first', answered: kept.length / ITEMS },
      { name: null, answered: 1 - kept.length / ITEMS, agreement: 1 },
    ]);
  });

  test('items that ran in full because a monitor had tripped are no checks of another, and are replayed so', async () => {
    const path = newLog();
    const [tripping, other] = [watch({ shadow: 0 }), watch({ shadow: 1 })];
    const session = await InferenceSession.create(folder, {
      observers: [tripping, other, auditLog({ path })],
    });
    for (let i = 0; i < 30; i++) tripping.observe(true);
    await session.run({ picture: pictures });
    await other.settled();
    expect(other.stats().watch).toMatchObject({ items: ITEMS, checks: 0 });
    await session.release();
    const { entries } = await readAudit(path);
    expect(summarise(entries)).toMatchObject({ exits: [], reasons: { t: ITEMS } });
    const feeds = items.map((picture, i) => ({ name: `${i}`, feeds: { picture } }));
    const replayed = await withSession(folder, {}, (again) => replayAudit(entries, feeds, again));
    expect(replayed).toMatchObject({ identical: ITEMS, differences: [] });
  });

  test('`run` says what its front saves', async () => {
    const file = join(folderOf({}), 'pictures.npy');
    writeFileSync(file, npy('<f4', pictures.dims, bytesOf(pictures.data)));
    const { out } = await cli('run', folder, file);
    expect(out).toMatch(/0\.0 of 0 blocks skipped on average, .* ms instead of /);
  });
});
