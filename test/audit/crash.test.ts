import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { serialize } from 'node:v8';
import { auditLog } from 'lib/audit/log.js';
import { readAudit } from 'lib/audit/read.js';
import { replayAudit } from 'lib/audit/replay.js';
import type { RunEvent } from 'lib/skip/observer.js';
import { DIST, describeBuilt } from '../helpers/dist.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { itemsOf } from '../helpers/items.js';
import { Network } from '../helpers/networks.js';
import { uniform } from '../helpers/random.js';
import { withSession } from '../helpers/sessions.js';

afterAll(removeFolders);
const network = new Network('cifar10-resnet32-gates');

/** Runs of the example images, with plain objects for tensors, so that another process can be given them. */
async function record(): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  const observers = [{ onRun: (event: RunEvent) => void events.push(event) }];
  await withSession(network.model, { observers }, async (session) => {
    for (const { feeds } of await itemsOf(network)) await session.run(feeds);
  });
  return events;
}

const plain = (tensors: RunEvent['inputs']) =>
  Object.fromEntries(
    Object.entries(tensors).map(([name, { type, data, dims }]) => [name, { type, data, dims }]),
  );

/** More than a header and some items, so that every process leaves records, however slow it is. */
const ENOUGH_BYTES = 8192;

/** Kills a process while it writes to `path`. */
async function killWhileWriting(runs: string, path: string, random: () => number): Promise<void> {
  const size = () => (existsSync(path) ? statSync(path).size : 0);
  const before = size();
  const child = spawn(process.execPath, [join(__dirname, 'writer.mjs'), DIST, runs, path], {
    stdio: 'inherit',
  });
  const ended = once(child, 'exit');
  while (child.exitCode === null && size() <= before + ENOUGH_BYTES) await sleep(1);
  await sleep(30 * random());
  child.kill('SIGKILL');
  expect(await ended).toEqual([null, 'SIGKILL']);
}

const wholeLines = (path: string) => {
  const bytes = readFileSync(path);
  return bytes.subarray(0, bytes.lastIndexOf(10) + 1);
};

describeBuilt('a process that is killed while it writes', () => {
  test('50 times: every earlier line stays, no half line is a record, and the log replays', async () => {
    const events = await record();
    const runs = join(
      folderOf({
        runs: serialize(
          events.map(({ context, inputs, outputs, items, milliseconds, trace }) => ({
            ...{ context, items, milliseconds, trace },
            inputs: plain(inputs),
            outputs: plain(outputs),
          })),
        ),
      }),
      'runs',
    );
    let half = 0;
    const logs = [1, 2].map(async (seed) => {
      const path = join(folderOf({}), 'trace.ndjson');
      const random = uniform(seed);
      let earlier: Buffer = Buffer.alloc(0);
      for (let kill = 0; kill < 25; kill++) {
        await killWhileWriting(runs, path, random);
        const lines = wholeLines(path);
        expect(lines.subarray(0, earlier.length).equals(earlier)).toBe(true);
        if (statSync(path).size > lines.length) half++;
        earlier = lines;
      }
      return path;
    });
    for (const path of await Promise.all(logs)) {
      const { entries, problems } = await readAudit(path);
      expect(entries.length).toBeGreaterThan(25);
      // Only what the last kill left may be half a line: each process cuts off its predecessor's. Every kill is named.
      expect(problems.filter(({ kind }) => kind !== 'truncated' && kind !== 'unfinished')).toEqual([]);
      expect(problems.filter(({ kind }) => kind === 'unfinished')).toHaveLength(25);
      const report = await withSession(network.model, { isa: 'scalar' }, async (session) =>
        replayAudit(entries, await itemsOf(network), session),
      );
      expect(report).toMatchObject({ replayed: entries.length, identical: entries.length, missing: 0 });
    }
    expect(half).toBeGreaterThan(0);
  });
});

test('a log cut off at any byte keeps its whole lines, and goes on', async () => {
  const [event] = await record();
  const path = join(folderOf({}), 'trace.ndjson');
  const write = async (items: number) => {
    const log = auditLog({ path });
    for (let i = 0; i < items; i++) log.onRun(event!);
    await log.onRelease();
  };
  await write(3);
  const whole = readFileSync(path);
  const ends = [...whole.keys()].filter((i) => whole[i] === 10);
  const sizes = Array.from({ length: 60 }, (_, i) => whole.length - 7 * i);
  for (const size of [...sizes, ...ends.flatMap((end) => [end, end + 1])]) {
    writeFileSync(path, whole);
    truncateSync(path, size);
    // A line is whole without its newline; the first is the header, and the last says that the log was closed.
    const kept = ends.filter((end) => end <= size).length;
    const closed = kept === ends.length;
    const items = kept - 1 - (closed ? 1 : 0);
    const unfinished = closed || kept === 0 ? [] : ['unfinished'];
    const cut = await readAudit(path);
    expect(cut.entries).toHaveLength(items);
    expect(cut.problems.map(({ kind }) => kind)).toEqual([
      ...(ends.some((end) => end === size || end === size - 1) ? [] : ['truncated']),
      ...unfinished,
    ]);
    await write(1);
    const mended = await readAudit(path);
    expect(mended.problems.map(({ kind }) => kind)).toEqual(unfinished);
    expect(mended.entries).toHaveLength(items + 1);
  }
});
