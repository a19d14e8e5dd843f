import fs, {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hashItem } from 'lib/audit/hash.js';
import { type AuditLogOptions, auditLog } from 'lib/audit/log.js';
import { readAudit } from 'lib/audit/read.js';
import { auditLineSchema, encodeRecord } from 'lib/audit/record.js';
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
  expect(log.stats().auditLog).toEqual({ written: 2, lost: 0, errors: 0, lastError: null });
});

test('every line follows the published schema', async () => {
  const log = auditLog({ path });
  log.onAttach({ runFull: async () => ({}), runAgain: async () => ({}), setFullDepth: () => {} });
  log.onRun(runEvent(runContext(), [[0.1, Number.NaN, 3]]));
  await log.timeFull({});
  await log.onRelease();
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  expect(lines.map((line) => auditLineSchema.parse(JSON.parse(line)).type)).toEqual([
    'header',
    'item',
    'full',
  ]);
  const [entry] = (await readAudit(path)).entries;
  expect(entry!.timed!.full).toBeGreaterThanOrEqual(0);
  expect(entry!.timed!.skip).toBeGreaterThanOrEqual(0);
});

test('latency saved is the ratio of mean times, both taken alike and in turns', async () => {
  // Milliseconds that each run takes, by a clock of its own; those of the recorded run itself don't matter.
  const times = { runFull: [10, 10, 40], runAgain: [5, 5, 30] };
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
  expect(order).toEqual(['runFull', 'runAgain', 'runAgain', 'runFull', 'runFull', 'runAgain']);
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
    .map((line) => auditLineSchema.parse(JSON.parse(line)).type);
  expect(types).toEqual(['header', 'item', 'energy', 'header', 'item']);

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
  expect(full).toHaveBeenCalledTimes(2);
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
  const { link, ...item } = lines.at(-1);
  appendFileSync(path, encodeRecord({ ...item, time: 2 ** 53 - 1 }, link));
  const { entries, problems } = await readAudit(path);
  expect(entries).toHaveLength(1);
  expect(problems).toEqual([{ line: 3, kind: 'tampered', message: expect.stringContaining('time') }]);
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
  expect([entries.length, problems]).toEqual([1, []]);
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
  expect(broken.entries).toHaveLength(2);
  expect(broken.problems).toMatchObject([{ kind: 'truncated', line: 4 }]);
  await write(1);
  const mended = await readAudit(path);
  expect(mended.problems).toEqual([]);
  expect(mended.entries).toHaveLength(3);
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
    expect((await readAudit(file)).problems).toEqual([
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
