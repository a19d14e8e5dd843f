import { execFileSync } from 'node:child_process';
import { createHash, generateKeyPairSync } from 'node:crypto';
import fs, {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hashItem } from 'lib/audit/hash.js';
import { removeInputs, storedInputs } from 'lib/audit/inputs.js';
import { auditLog } from 'lib/audit/log.js';
import type { AuditLogOptions } from 'lib/audit/log-options.js';
import { readAudit } from 'lib/audit/read.js';
import { auditLineSchema, encodeRecord, FIRST_LINK, linkAtEnd } from 'lib/audit/record.js';
import { filesOfLog } from 'lib/audit/rotated.js';
import { summarise } from 'lib/audit/summary.js';
import { runContext, runEvent } from '../../helpers/run-event.js';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'audit-'));
  path = join(folder, 'trace.ndjson');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Writes `count` items of one run each and closes the log. */
async function write(count: number, options: Partial<AuditLogOptions> = {}, seed = 0) {
  const log = auditLog({ path, ...options });
  const context = runContext();
  for (let i = 0; i < count; i++) log.onRun(runEvent(context, [[0.5, -0.25, 0.1]], seed + i));
  await log.onRelease();
  return log;
}

test('an item is read back as it was written', async () => {
  const context = runContext();
  const log = auditLog({ path, labels: ['cat', 'dog'] });
  const event = runEvent(context, [
    [0.1, -0.2, 3],
    [-1, 2, -3],
  ]);
  log.onRun(event);
  await log.onRelease();
  const { entries, problems } = await readAudit(path);
  expect(problems).toEqual([]);
  expect(entries.map(({ record }) => record.ran)).toEqual(['101', '010']);
  const { header, record } = entries[1]!;
  expect(header).toMatchObject({ labels: ['cat', 'dog'], isa: 'scalar', model: { sha256: context.sha256 } });
  expect(record).toMatchObject({
    item: 1,
    reasons: 'ggg',
    milliseconds: 1,
    input: hashItem(event.inputs, 1, 2),
  });
  expect(record.scores.map((score) => Math.fround(score!))).toEqual([-1, 2, -3]);
  expect(record.output).toBe(hashItem(event.outputs, 1, 2));
  expect(record.top.map(([index]) => index).sort()).toEqual([0, 1]);
  expect(log.stats().auditLog).toEqual({
    ...{ written: 2, lost: 0, inputsLost: 0, errors: 0, removed: 0, lastError: null },
  });
});

test('every line follows the published schema', async () => {
  const log = auditLog({ path });
  log.onAttach({ runFull: async () => ({}), runAgain: async () => ({}), setFullDepth: () => {} });
  log.onRun(runEvent(runContext(), [[0.1, Number.NaN, 3]]));
  await log.timeFull({});
  await log.onRelease();
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  expect(lines.map((line) => auditLineSchema().parse(JSON.parse(line)).type)).toEqual([
    'header',
    'item',
    'full',
    'end',
  ]);
  const [entry] = (await readAudit(path)).entries;
  expect(entry!.timed!.full).toBeGreaterThanOrEqual(0);
  expect(entry!.timed!.skip).toBeGreaterThanOrEqual(0);
});

test('latency saved is the ratio of mean times, both taken alike and in turns', async () => {
  // Milliseconds that each run takes, by a clock of its own; those of the recorded run itself don't matter, and neither those of a first
  // run in full, which isn't timed: where the policy runs first, it follows itself, too.
  const times = { runFull: [90, 10, 10, 90, 40], runAgain: [5, 5, 30] };
  const order: string[] = [];
  let now = 0;
  const clock = jest.spyOn(performance, 'now').mockImplementation(() => now);
  const take = (which: 'runFull' | 'runAgain') => async () => {
    order.push(which);
    now += times[which].shift()!;
    return {};
  };
  const log = auditLog({ path });
  try {
    log.onAttach({ runFull: take('runFull'), runAgain: take('runAgain'), setFullDepth: () => {} });
    for (let i = 0; i < 3; i++) {
      log.onRun(runEvent(runContext(), [[0.1, 0.2, 3]]));
      await log.timeFull({});
    }
  } finally {
    clock.mockRestore();
  }
  await log.onRelease();
  const { latencySaved, timedBothWays } = summarise((await readAudit(path)).entries);
  expect(timedBothWays).toBe(3);
  // 1 - (5 + 5 + 30) / (10 + 10 + 40); the median of the ratios would be one half.
  expect(latencySaved).toBeCloseTo(1 / 3, 9);
  const fullFirst = ['runFull', 'runFull', 'runAgain'];
  expect(order).toEqual([...fullFirst, 'runAgain', 'runFull', ...fullFirst]);
});

test('no measurement is lost where a file is rotated', async () => {
  const energy = { cpuSeconds: { full: 0.002, skip: 0.001 }, joules: null };
  const log = auditLog({ path, maxBytes: 65_536 });
  log.onAttach({ runFull: async () => ({}), runAgain: async () => ({}), setFullDepth: () => {} });
  const runs = 60;
  const id = 'x'.repeat(128);
  const requests = Array.from({ length: 8 }, () => ({ caller: id, id, clientId: id }));
  for (let run = 0; run < runs; run++) {
    log.onRun({
      ...runEvent(
        runContext(),
        requests.map(() => [1, 1, 1]),
      ),
      requests,
    });
    // Whatever is added behind a rotation, a time of the item before it or another measurement.
    if (run % 2 === 0) await log.timeFull({});
    log.recordEnergy({ ...energy, items: run + 1 });
  }
  await log.onRelease();
  const files = filesOfLog(path);
  expect(files.length).toBeGreaterThan(3);
  const lines = files.flatMap((file) => readFileSync(file, 'utf8').trim().split('\n'));
  const measured = lines.map((line) => JSON.parse(line)).filter(({ type }) => type === 'energy');
  expect(measured.map(({ items }) => items)).toEqual(Array.from({ length: runs }, (_, i) => i + 1));
  const { entries, problems } = await readAudit(folder);
  expect(problems).toEqual([]);
  expect(entries.filter(({ timed }) => timed)).toHaveLength(runs / 2);
  // A file alone may begin with the time of an item in the file before it.
  for (const file of files) expect((await readAudit(file)).problems).toEqual([]);
});

test('an id may have any character, such as a separator of lines', async () => {
  const log = auditLog({ path });
  const ids = ['a\u2028b', 'c\u2029d', 'e\rf', 'g\u0085h', '\u{1f600}'.repeat(60_000)];
  const requests = ids.map((id) => ({ caller: 'someone', id: id.slice(0, 100) }));
  log.onRun({
    ...runEvent(
      runContext(),
      ids.map(() => [1, 1, 1]),
    ),
    requests,
  });
  await log.onRelease();
  const { entries, problems } = await readAudit(path);
  expect(problems).toEqual([]);
  expect(entries.map(({ record }) => record.request)).toEqual(requests.map(({ id }) => id));
});

test('lines that a tool has ended as on Windows are read as they were written', async () => {
  const log = auditLog({ path });
  log.onRun(runEvent(runContext(), [[1, 1, 1]]));
  await log.onRelease();
  const written = readFileSync(path, 'utf8');
  writeFileSync(path, written.replaceAll('\n', '\r\n'));
  const { entries, problems } = await readAudit(path);
  expect(problems).toEqual([]);
  expect(entries).toHaveLength(1);
});

test('a measurement of energy is read back; one of another policy does not stand for this one', async () => {
  const energy = { items: 500, cpuSeconds: { full: 0.002, skip: 0.001 }, joules: { full: 0.05, skip: 0.03 } };
  const log = auditLog({ path });
  log.recordEnergy(energy);
  const context = runContext();
  log.onRun(runEvent(context, [[1, 1, 1]]));
  log.recordEnergy(energy);
  log.onRun(runEvent({ ...context, threads: 2 }, [[1, 1, 1]]));
  await log.onRelease();
  const read = await readAudit(path);
  expect(read.problems).toEqual([]);
  expect(read.energy).toMatchObject(energy);
  const types = readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => auditLineSchema().parse(JSON.parse(line)).type);
  expect(types).toEqual(['header', 'item', 'energy', 'header', 'item', 'end']);

  const other = auditLog({ path });
  other.onRun(runEvent({ ...context, policySha256: 'c'.repeat(64) }, [[1, 1, 1]]));
  await other.onRelease();
  expect((await readAudit(path)).energy).toBeNull();
});

test('a time goes with the item that it was taken of, and an item outside the sample is not timed', async () => {
  const [random, full] = [jest.spyOn(Math, 'random'), jest.fn(async () => ({}))];
  const log = auditLog({ path, sample: 0.5 });
  log.onAttach({ runFull: full, runAgain: async () => ({}), setFullDepth: () => {} });
  for (const drawn of [0.1, 0.9, 0.9, 0.2]) {
    random.mockReturnValueOnce(drawn);
    log.onRun(runEvent(runContext(), [[1, 1, 1]]));
    await log.timeFull({});
  }
  random.mockRestore();
  await log.onRelease();
  // The first of all runs twice, see above.
  expect(full).toHaveBeenCalledTimes(3);
  const { entries, problems } = await readAudit(path);
  expect(problems).toEqual([]);
  expect(entries.map(({ record, timed }) => [record.run, timed !== null])).toEqual([
    [0, true],
    [3, true],
  ]);
});

test('a time that was taken of another run than the item before it is left out', async () => {
  const log = auditLog({ path });
  log.onRun(runEvent(runContext(), [[1, 1, 1]]));
  await log.onRelease();
  const { link } = JSON.parse(readFileSync(path, 'utf8').trimEnd().split('\n').at(-1)!) as { link: string };
  const time = { type: 'full', time: 1, run: 7, milliseconds: 5, skipMilliseconds: 3 } as const;
  appendFileSync(path, encodeRecord(time, link));
  const { entries, problems } = await readAudit(path);
  expect(problems).toEqual([]);
  expect(entries.map(({ timed }) => timed)).toEqual([null]);
});

test('a line with a time that no date holds is no record', async () => {
  const log = auditLog({ path });
  log.onRun(runEvent(runContext(), [[1, 1, 1]]));
  await log.onRelease();
  const lines = readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const { link, ...end } = lines.at(-1);
  appendFileSync(path, encodeRecord({ ...end, time: 2 ** 53 - 1 }, link));
  const { entries, problems } = await readAudit(path);
  expect(entries).toHaveLength(1);
  expect(problems).toMatchObject([{ line: 4, kind: 'tampered', message: expect.stringContaining('time') }]);
});

test('a disk that is full while a header is written leaves no file behind', async () => {
  const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const write = jest.spyOn(fs, 'write').mockImplementation(((
    fd: number,
    bytes: Buffer,
    ...rest: unknown[]
  ) => {
    fs.writeSync(fd, bytes, 0, 10);
    const done = rest.at(-1) as (error: Error, written: number) => void;
    setImmediate(() => done(Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' }), 0));
  }) as never);
  const log = auditLog({ path });
  try {
    log.onRun(runEvent(runContext(), [[1, 1, 1]]));
    await log.onRelease();
    expect(log.stats().auditLog).toMatchObject({ written: 0, lost: 1 });
    expect(readdirSync(folder)).toEqual([]);
  } finally {
    write.mockRestore();
    warned.mockRestore();
  }
  log.onRun(runEvent(runContext(), [[1, 1, 1]]));
  await log.onRelease();
  const { entries, problems } = await readAudit(path);
  // The item whose header didn't fit.
  expect([entries.length, problems]).toMatchObject([
    1,
    [{ kind: 'lost', message: expect.stringMatching(/: 1$/) }],
  ]);
});

test('live logs share one listener for the end of the process, and leave none behind', async () => {
  const before = process.listenerCount('exit');
  const logs = Array.from({ length: 12 }, (_, i) => auditLog({ path: join(folder, `${i}.ndjson`) }));
  expect(process.listenerCount('exit')).toBe(before);
  for (const log of logs) log.onRun(runEvent(runContext(), [[1, 1, 1]]));
  expect(process.listenerCount('exit')).toBe(before + 1);
  for (const log of logs) await log.onRelease();
  expect(process.listenerCount('exit')).toBe(before);
});

test('a time in full needs an item before it', async () => {
  const log = auditLog({ path });
  await expect(log.timeFull({})).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await log.onRelease();
});

test('inputs are copied before onRun returns: the caller may write over them', async () => {
  const log = auditLog({ path });
  const event = runEvent(runContext(), [[1, 1, 1]]);
  const before = hashItem(event.inputs, 0, 1);
  log.onRun(event);
  (event.inputs.input!.data as Float32Array).fill(7);
  await log.onRelease();
  expect((await readAudit(path)).entries[0]!.record.input).toBe(before);
});

test('inputs that may be kept are not copied, and needed until the promise is settled', async () => {
  const log = auditLog({ path });
  const event = { ...runEvent(runContext(), [[1, 1, 1]]), inputsKept: true };
  const data = event.inputs.input!.data as Float32Array;
  const kept = log.onRun(event);
  data[0] = 5;
  const whenEncoded = hashItem(event.inputs, 0, 1);
  await kept;
  data.fill(7);
  await log.onRelease();
  expect((await readAudit(path)).entries[0]!.record.input).toBe(whenEncoded);
});

test('a run of which nothing is recorded keeps no inputs', async () => {
  const log = auditLog({ path, sample: 0 });
  expect(log.onRun({ ...runEvent(runContext(), [[1, 1, 1]]), inputsKept: true })).toBeUndefined();
  await log.onRelease();
});

test('a log that is opened again goes on, with one chain of links', async () => {
  await write(2);
  await write(3, {}, 100);
  const { entries, problems } = await readAudit(path);
  expect(problems).toEqual([]);
  expect(entries).toHaveLength(5);
});

test('a half line at the end is reported, and cut off when the log goes on', async () => {
  await write(3);
  truncateSync(path, readFileSync(path).length - 25);
  const broken = await readAudit(path);
  expect(broken.entries).toHaveLength(3);
  expect(broken.problems).toMatchObject([
    { kind: 'truncated', line: 5 },
    { kind: 'unfinished', line: 5 },
  ]);
  await write(1);
  const mended = await readAudit(path);
  // The mark that the first process had closed the log is gone.
  expect(mended.problems).toMatchObject([{ kind: 'unfinished', line: 5 }]);
  expect(mended.entries).toHaveLength(4);
});

test.each([
  ['changed', (lines: string[]) => lines.with(2, lines[2]!.replace('"ran":"101"', '"ran":"111"'))],
  ['removed', (lines: string[]) => lines.toSpliced(2, 1)],
  ['inserted', (lines: string[]) => lines.toSpliced(2, 0, lines[3]!)],
  ['garbage', (lines: string[]) => lines.with(2, '{"type":"item"')],
])('a line that was tampered with is found: %s', async (_, tamper) => {
  await write(4);
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  writeFileSync(path, `${tamper(lines).join('\n')}\n`);
  const { problems } = await readAudit(path);
  expect(problems.length).toBeGreaterThan(0);
  expect(problems[0]).toMatchObject({ kind: 'tampered' });
});

test('rotated files are whole logs each, and nothing is lost between them', async () => {
  await write(40, { maxBytes: 4096 });
  await write(40, { maxBytes: 4096 }, 40);
  const files = readdirSync(folder);
  expect(files.length).toBeGreaterThan(1);
  let items = 0;
  for (const file of files) {
    const { entries, problems } = await readAudit(join(folder, file)).catch((error) => {
      // The newest file may not have been written to yet.
      expect(readFileSync(join(folder, file), 'utf8')).toBe('');
      expect(error.code).toBe('INVALID_DATA');
      return { entries: [], problems: [] };
    });
    expect(problems).toEqual([]);
    items += entries.length;
  }
  expect(items).toBe(80);
});

test('a path that can not be written is reported once and counted; nothing is thrown', async () => {
  const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  try {
    path = join(folder, 'missing', 'trace.ndjson');
    const log = auditLog({ path });
    for (let i = 0; i < 3; i++) {
      await log.onRun(runEvent(runContext(), [[1, 1, 1]]));
    }
    await log.onRelease();
    expect(warned).toHaveBeenCalledTimes(1);
    expect(warned.mock.calls[0]![0]).toContain(path);
    expect(log.stats().auditLog).toMatchObject({ written: 0, lost: 3, errors: 3 });
  } finally {
    warned.mockRestore();
  }
});

test('sampling keeps about its share, and none at 0', async () => {
  await write(1000, { sample: 0.2 });
  const { entries } = await readAudit(path);
  expect(entries.length).toBeGreaterThan(120);
  expect(entries.length).toBeLessThan(280);
  const none = await write(10, { sample: 0 });
  expect(none.stats().auditLog.written).toBe(0);
});

test('what is no log is refused', async () => {
  appendFileSync(path, 'hello\n');
  await expect(readAudit(path)).rejects.toMatchObject({ code: 'INVALID_DATA' });
  await expect(readAudit(join(folder, 'nowhere'))).rejects.toMatchObject({ code: 'INVALID_DATA' });
  expect(() => auditLog({ path, sampel: 1 } as never)).toThrow(/sampel.*sample/);
});

test('a header that was changed is found, where the log begins and where it goes on in another file', async () => {
  await write(40, { maxBytes: 4096 });
  // The file that comes next is empty yet.
  const rotated = readdirSync(folder).filter((name) => name !== 'trace.ndjson');
  expect(rotated.length).toBeGreaterThan(2);
  for (const name of rotated) {
    const file = join(folder, name);
    const text = readFileSync(file, 'utf8');
    expect((await readAudit(file)).problems).toEqual([]);
    writeFileSync(file, text.replace('"engine":"0.0.0"', '"engine":"0.0.1"'));
    expect((await readAudit(file)).problems).toMatchObject([
      { line: 1, kind: 'tampered', message: expect.stringContaining('line 1 was changed') },
    ]);
  }
});

test('a log of fewer items than are encoded together is encoded after a while', async () => {
  const log = auditLog({ path });
  const kept = log.onRun(runEvent(runContext(), [[1, 1, 1]]));
  await kept;
  expect(log.stats().auditLog.written).toBe(0);
  await log.onRelease();
  expect(log.stats().auditLog.written).toBe(1);
});

const DAY = 24 * 60 * 60 * 1000;

test('each item names its request, with ids of bounded length', async () => {
  const log = auditLog({ path });
  const requests = [{ caller: 'camera-7', id: 'x'.repeat(1000), clientId: 'frame "1"' }];
  log.onRun({ ...runEvent(runContext(), [[1, 1, 1]]), requests });
  log.onRun(runEvent(runContext(), [[1, 1, 1]]));
  await log.onRelease();
  const [named, other] = (await readAudit(path)).entries.map(({ record }) => record);
  expect(named).toMatchObject({ caller: 'camera-7', request: 'x'.repeat(128), clientRequest: 'frame "1"' });
  expect(other).not.toHaveProperty('caller');
});

test('files are rotated by age and removed by age, and numbers are not used again', async () => {
  let now = Date.now();
  const clock = jest.spyOn(Date, 'now').mockImplementation(() => now);
  try {
    const options = { path, maxAge: DAY, keep: 10 * DAY };
    for (let day = 0; day < 4; day++) {
      const log = auditLog(options);
      for (let i = 0; i < 2; i++) log.onRun(runEvent(runContext(), [[1, 1, 1]], i));
      now += DAY;
      await log.onRelease();
      // As if it had been written on its day.
      for (const name of readdirSync(folder)) utimesSync(join(folder, name), now / 1000, now / 1000);
    }
    // Each process begins with the file of the day before, to whose end it adds its first items.
    const numbers = () =>
      readdirSync(folder).flatMap((name) => /^trace\.(\d+)\.ndjson$/.exec(name)?.[1] ?? []);
    expect(numbers().sort()).toEqual(['1', '2', '3']);
    const whole = await readAudit(folder);
    expect([whole.entries.length, whole.problems, whole.hadEarlier]).toEqual([8, [], false]);
    utimesSync(join(folder, 'trace.1.ndjson'), 0, 0);
    utimesSync(join(folder, 'trace.2.ndjson'), 0, 0);
    await write(1, options, 9);
    expect(numbers().sort()).toEqual(['3', '4']);
    const kept = await readAudit(folder);
    expect([kept.problems, kept.hadEarlier]).toEqual([[], true]);
  } finally {
    clock.mockRestore();
  }
});

test('a log that is rotated while it is read is whole', async () => {
  await write(3);
  const older = join(folder, 'trace.1.ndjson');
  renameSync(path, older);
  await write(3);
  // A pipe, which is read for as long as nobody closes it.
  const text = readFileSync(older);
  rmSync(older);
  execFileSync('mkfifo', [older]);
  const reading = readAudit(folder);
  const pipe = await fs.promises.open(older, 'w');
  renameSync(path, join(folder, 'trace.2.ndjson'));
  await write(3);
  await pipe.write(text);
  await pipe.close();
  const { entries, problems } = await reading;
  expect([entries.map(({ file }) => file), problems]).toEqual([
    ['trace.1.ndjson', 'trace.2.ndjson', 'trace.ndjson'].flatMap((file) => [file, file, file]),
    [],
  ]);
});

test('whole rotated files are removed by size, oldest first; the newest stays, and the reader knows of the gap', async () => {
  const options = { path, keepBytes: 4 * 8192 };
  const log = await write(300, options);
  const sizes = () => readdirSync(folder).map((name) => statSync(join(folder, name)).size);
  const kept = await readAudit(folder);
  expect([kept.problems, kept.hadEarlier]).toEqual([[], true]);
  expect(kept.entries.at(-1)!.record.run).toBe(299);
  expect(kept.entries.length).toBeLessThan(300);
  // Files of a quarter of the limit, each of which may exceed it by some lines.
  expect(sizes().length).toBeGreaterThanOrEqual(4);
  expect(Math.max(...sizes())).toBeLessThan(8192 + 2048);
  expect(sizes().reduce((a, b) => a + b)).toBeLessThan(4 * 8192 + 8192 + 2048);
  const numbers = readdirSync(folder).flatMap((name) => /^trace\.(\d+)\.ndjson$/.exec(name)?.slice(1) ?? []);
  const all = Math.max(...numbers.map(Number));
  expect(log.stats().auditLog).toMatchObject({ written: 300, removed: all - numbers.length, errors: 0 });
  // Less than the newest file has: it stays, as the end of the chain.
  await write(1, { path, maxBytes: 4096, keepBytes: 4 * 4096 }, 300);
  expect((await readAudit(folder)).entries.at(-1)!.record.run).toBe(0);
  expect(() => auditLog({ path, maxBytes: 65_536, keepBytes: 32_768 })).toThrow(
    /^keepBytes: it is 32768, but a file has up to 65536 bytes/,
  );
});

test('logs of a folder share a limit of their size, and nothing else in it is removed', async () => {
  const other = join(folder, 'model/1');
  mkdirSync(join(other, 'inputs/2026-01-01'), { recursive: true });
  const bystanders = ['inputs/2026-01-01/trace.1.ndjson', 'other.1.ndjson', 'trace.x.ndjson'];
  for (const name of bystanders) writeFileSync(join(other, name), 'x'.repeat(50_000));
  await write(150, { path: join(other, 'trace.ndjson'), maxBytes: 8192 });
  for (const name of readdirSync(other)) utimesSync(join(other, name), 1, 1);
  const before = readdirSync(other).length;
  await write(150, { path, keepBytes: 98_304, keepWithin: folder, maxBytes: 8192 });
  const rotated = (at: string) => readdirSync(at).filter((name) => /^trace\.\d+\./.test(name));
  expect(readdirSync(other).length).toBeLessThan(before);
  expect(readdirSync(other)).toEqual(expect.arrayContaining(['trace.ndjson', ...bystanders.slice(1)]));
  expect(readdirSync(join(other, 'inputs/2026-01-01'))).toEqual(['trace.1.ndjson']);
  const logs = [folder, other].flatMap((at) =>
    [...rotated(at), 'trace.ndjson'].map((name) => join(at, name)),
  );
  const total = logs.reduce((sum, name) => sum + statSync(name).size, 0);
  expect(total).toBeLessThan(98_304 + 8192 + 2048);
  // The older files were those of the other log.
  expect(rotated(folder)).toContain('trace.1.ndjson');
  const [own, cut] = [await readAudit(path), await readAudit(join(other, 'trace.ndjson'))];
  expect([own.problems, cut.problems]).toEqual([[], []]);
});

test('a log whose files were all too old goes on where they ended', async () => {
  await write(40, { maxBytes: 4096 });
  // As if it had been rotated last.
  renameSync(path, join(folder, 'trace.99.ndjson'));
  for (const name of readdirSync(folder)) utimesSync(join(folder, name), 0, 0);
  await write(1, { keep: DAY }, 40);
  expect(readdirSync(folder)).toEqual(['trace.ndjson']);
  expect(await readAudit(folder)).toMatchObject({ problems: [], hadEarlier: true });
});

test('a process that ends without closing the log is named, with the last item that it wrote', async () => {
  await write(2);
  const text = readFileSync(path, 'utf8');
  writeFileSync(path, text.replace(/\{"type":"end".*\n$/, ''));
  const killed = await readAudit(path);
  const { run, time } = killed.entries.at(-1)!.record;
  const after = `after run ${run} of ${new Date(time).toISOString()}`;
  expect(killed.problems).toMatchObject([
    { kind: 'unfinished', line: 3, message: expect.stringContaining(after) },
  ]);
  await write(1);
  const { entries, problems } = await readAudit(path);
  expect(entries).toHaveLength(3);
  expect(problems).toMatchObject([{ kind: 'unfinished', line: 4, message: expect.stringContaining(after) }]);
});

test('a log of schema 1, whose links have 16 digits, is read and goes on with whole links', async () => {
  const short = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 16);
  await write(1);
  let link = '0'.repeat(16);
  const lines = readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .slice(0, 2)
    .map((line) => {
      const { link: _, writer: __, lost: ___, ...record } = JSON.parse(line);
      const old = record.type === 'header' ? { ...record, schema: 1, continues: link } : record;
      const text = JSON.stringify(old);
      link = short(link + text);
      return `${text.slice(0, -1)},"link":"${link}"}\n`;
    });
  writeFileSync(path, lines.join(''));
  expect(await readAudit(path)).toMatchObject({ entries: [{}], problems: [] });
  await write(1);
  expect(await readAudit(path)).toMatchObject({ entries: [{}, {}], problems: [] });
  const written = readFileSync(path, 'utf8').trimEnd().split('\n');
  expect(written.map((line) => JSON.parse(line).link.length)).toEqual([16, 16, 64, 64, 64]);
  // Nobody can shorten a link again, to find a text with the same digits.
  const last = written.at(-1)!.replace(/([0-9a-f]{16})[0-9a-f]{48}"\}$/, '$1"}');
  writeFileSync(path, [...written.slice(0, -1), last, ''].join('\n'));
  expect((await readAudit(path)).problems).toMatchObject([{ kind: 'tampered', line: 5 }]);
});

describe('signatures', () => {
  const keyFiles = () => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    const [key, open] = [join(folder, 'key.pem'), join(folder, 'public.pem')];
    writeFileSync(key, privateKey.export({ type: 'pkcs8', format: 'pem' }));
    writeFileSync(open, publicKey.export({ type: 'spki', format: 'pem' }));
    return { key, open };
  };

  test('cover everything before them, and hold only with the key that made them', async () => {
    const { key, open } = keyFiles();
    const checkpoints: object[] = [];
    await write(3, { key, onCheckpoint: (one) => checkpoints.push(one) });
    const { problems, signed } = await readAudit(path, { key: open });
    expect([problems, signed?.itemsAfter, checkpoints.length]).toEqual([[], 0, 1]);
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    expect(checkpoints).toMatchObject([{ link: JSON.parse(lines.at(-2)!).link }]);

    // Whoever rewrites the whole log, with links that fit, can't sign it.
    let link = FIRST_LINK;
    const forged = lines.map((line) => {
      const { link: _, ...record } = JSON.parse(line.replace('"ran":"101"', '"ran":"111"'));
      const text = encodeRecord(record, link);
      link = linkAtEnd(text);
      return Buffer.from(text).toString();
    });
    writeFileSync(path, forged.join(''));
    expect((await readAudit(path)).problems).toEqual([]);
    expect((await readAudit(path, { key: open })).problems).toMatchObject([
      { kind: 'tampered', line: 6, message: expect.stringContaining("doesn't hold") },
    ]);
  });

  test('with another key are named, and a file without a key of this kind is refused', async () => {
    await write(1, { key: keyFiles().key });
    const { open: other } = keyFiles();
    expect((await readAudit(path, { key: other })).problems).toMatchObject([
      { kind: 'tampered', message: expect.stringContaining('another key') },
    ]);
    writeFileSync(join(folder, 'no.pem'), 'none');
    expect(() => auditLog({ path, key: join(folder, 'no.pem') })).toThrow(/private key of Ed25519 as PEM/);
    const rsa = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey;
    writeFileSync(join(folder, 'no.pem'), rsa.export({ type: 'pkcs8', format: 'pem' }));
    expect(() => auditLog({ path, key: join(folder, 'no.pem') })).toThrow(/of the kind rsa/);
  });
});

test('inputs are stored once a day, read back by their hash, and removed by age', async () => {
  const events = [1, 2, 1].map((seed) =>
    runEvent(
      runContext(),
      [
        [1, 1, 1],
        [0, 1, 0],
      ],
      seed,
    ),
  );
  const log = auditLog({ path, inputs: 'store', keep: DAY });
  for (const event of events) log.onRun(event);
  await log.onRelease();
  const { entries } = await readAudit(path);
  const hashes = [...new Set(entries.map(({ record }) => record.input!))];
  expect(hashes).toHaveLength(4);
  const stored = [...storedInputs(folder, hashes)];
  expect(stored.map(({ name }) => name)).toEqual(hashes);
  expect(stored[1]!.feeds.input).toMatchObject({
    type: 'float32',
    dims: [1, 4],
    data: Float32Array.of(5, 6, 7, 8),
  });
  // What was changed isn't that input any more.
  const [day] = readdirSync(join(folder, 'inputs'));
  appendFileSync(join(folder, 'inputs', day!, hashes[0]!), 'more');
  truncateSync(join(folder, 'inputs', day!, hashes[1]!), 60);
  expect([...storedInputs(folder, hashes)].map(({ name }) => name)).toEqual([
    hashes[0],
    hashes[2],
    hashes[3],
  ]);
  await removeInputs(path, Date.now());
  expect(readdirSync(join(folder, 'inputs'))).toEqual([day]);
  await removeInputs(path, Date.now() + 2 * DAY);
  expect(readdirSync(join(folder, 'inputs'))).toEqual([]);
});

test('what is too old is removed although no item comes; what cannot be removed is counted, and a warning', async () => {
  const every = jest.spyOn(globalThis, 'setInterval');
  const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  mkdirSync(join(folder, 'inputs/2020-01-01'), { recursive: true });
  for (const name of ['inputs/2020-01-01/hash', 'trace.1.ndjson']) writeFileSync(join(folder, name), 'old\n');
  utimesSync(join(folder, 'trace.1.ndjson'), 0, 0);
  const log = auditLog({ path, keep: DAY });
  log.onAttach({} as never);
  const [[tend]] = every.mock.calls as [[() => void]];
  const until = async (what: () => boolean) => {
    while (!what()) await new Promise(setImmediate);
  };
  tend();
  await until(() => readdirSync(join(folder, 'inputs')).length === 0);
  expect(readdirSync(folder)).toEqual(['inputs']);
  writeFileSync(join(folder, 'inputs/2020-01-01'), 'no folder');
  await until(() => {
    tend();
    return log.stats().auditLog.errors > 0;
  });
  expect(warn).toHaveBeenCalledTimes(1);
  await log.onRelease();
  for (const mock of [every, warn]) mock.mockRestore();
});
