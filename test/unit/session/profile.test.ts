import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { ProfileReport } from 'lib/cli/profile.js';
import { type ProfileEvent, type SkipPolicy, Tensor } from 'lib/index.js';
import { cli, cliJson } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { randomFloats } from '../../helpers/random.js';
import { withSession } from '../../helpers/sessions.js';

afterAll(removeFolders);

const DEMO = resolve(__dirname, '../../../demo');
const MODEL = join(DEMO, 'model.onnx');
const images = (count: number) => new Tensor('float32', randomFloats(count * 784, 1), [count, 1, 28, 28]);

function named(events: readonly ProfileEvent[], cat: ProfileEvent['cat']): string[] {
  return events.filter((event) => event.cat === cat).map(({ name }) => name);
}

describe.each(['native', 'reference'] as const)('a profile of %s', (backend) => {
  it('has the blocks that ran and their steps, one within the other', async () => {
    await withSession(MODEL, { backend, threads: 1 }, async (session) => {
      const input = images(1);
      const before = await session.run({ input });
      session.startProfiling();
      const { outputs, trace } = await session.runTraced({ input });
      const { traceEvents, otherData } = session.endProfiling();
      expect(outputs.logits!.data).toEqual(before.logits!.data);
      expect(otherData).toMatchObject({ backend, runs: 1, runsLeftOut: 0 });
      const ran = trace.items[0]!.blocks.filter((block) => block.ran).map(({ block }) => block);
      const asked = trace.items[0]!.blocks.filter(({ score }) => score !== null).map(({ block }) => block);
      expect(ran.length).toBeLessThan(session.blocks.length);
      expect(named(traceEvents, 'block').sort()).toEqual(ran.sort());
      // An unconditional block has no gate; all others have been asked.
      expect(named(traceEvents, 'gate').sort()).toEqual(asked.sort());
      const [item] = traceEvents;
      expect(item).toMatchObject({ name: 'item 0', cat: 'item', ph: 'X', ts: 0, pid: process.pid });
      for (const { name, ts, dur, cat, args } of traceEvents) {
        expect({ name, inside: ts >= 0 && dur >= 0 && ts + dur <= item!.dur + 1e-3 }).toEqual({
          name,
          inside: true,
        });
        if (cat !== 'step' || args.block === undefined) continue;
        const around = traceEvents.filter((event) => event.cat !== 'step' && event.name === args.block);
        expect(around.some((event) => event.ts <= ts && ts + dur <= event.ts + event.dur + 1e-3)).toBe(true);
      }
      expect(traceEvents.filter(({ args }) => args.op === 'conv').length).toBeGreaterThan(3);
    });
  });

  it('keeps apart items that ran at the same time, and ends', async () => {
    await withSession(MODEL, { backend, enableProfiling: true }, async (session) => {
      await Promise.all([session.run({ input: images(3) }), session.run({ input: images(2) })]);
      session.runSync({ input: images(1) });
      const { traceEvents, otherData } = session.endProfiling();
      expect(otherData.runs).toBe(3);
      const items = traceEvents.filter(({ cat }) => cat === 'item');
      expect(items).toHaveLength(6);
      for (const [i, a] of items.entries()) {
        for (const b of items.slice(i + 1).filter(({ tid }) => tid === a.tid)) {
          expect(a.ts + a.dur <= b.ts || b.ts + b.dur <= a.ts).toBe(true);
        }
      }
      expect(() => session.endProfiling()).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
      session.startProfiling();
      expect(session.endProfiling().traceEvents).toEqual([]);
    });
  });
});

const GUARDING: SkipPolicy = { default: 'skip', guards: [{ labels: [...Array(10).keys()] }] };

test('an item that a guard runs again has two events of one number', async () => {
  await withSession(MODEL, { policy: GUARDING, enableProfiling: true }, async (session) => {
    await session.run({ input: images(2) });
    session.runSync({ input: images(1) });
    const { traceEvents, otherData } = session.endProfiling();
    expect(otherData.runs).toBe(2);
    const items = traceEvents.filter(({ cat }) => cat === 'item').map(({ name, args }) => [args.item, name]);
    expect(items.sort()).toEqual([
      [0, 'item 0'],
      [0, 'item 0, verified'],
      [1, 'item 1'],
      [1, 'item 1, verified'],
      [2, 'item 0'],
      [2, 'item 0, verified'],
    ]);
  });
});

describe('residual-skip profile', () => {
  it('counts the run in full of a guard as a part of its item', async () => {
    const folder = folderOf({ 'policy.json': JSON.stringify({ version: 1, blocks: {}, ...GUARDING }) });
    const output = join(folder, 'events.json');
    const args = ['--runs', '4', '--policy', join(folder, 'policy.json'), '--threads', '1', '-o', output];
    const report = (await cliJson('profile', DEMO, ...args)) as ProfileReport;
    const { traceEvents } = JSON.parse(readFileSync(output, 'utf8')) as { traceEvents: ProfileEvent[] };
    const spent = traceEvents.filter(({ cat }) => cat === 'item').reduce((sum, { dur }) => sum + dur, 0);
    expect(report.runs).toBe(4);
    expect(report.milliseconds).toBeCloseTo(spent / 4 / 1000, 9);
    // Every block ran once for each item, in its run in full.
    expect(report.blocks.map(({ ran }) => ran)).toEqual(report.blocks.map(() => 1));
    expect(report.blocks).toHaveLength(9);
  });

  it('keeps the blocks and steps of an original apart from those of the model', async () => {
    const folder = resolve(__dirname, '../../../models/cifar10-resnet14-exits');
    const [int8, original] = [join(folder, 'model.int8.onnx'), join(folder, 'model.onnx')];
    const reference = { sha256: createHash('sha256').update(readFileSync(original)).digest('hex') };
    const policy = join(
      folderOf({
        'policy.json': JSON.stringify({
          ...{ version: 1, blocks: {}, default: 'run', reference },
          guards: [{ labels: [...Array(10).keys()] }],
        }),
      }),
      'policy.json',
    );
    const args = ['--runs', '2', '--threads', '1', '--policy', policy];
    const { blocks, steps } = (await cliJson(
      ...['profile', int8, ...args, '--original', original],
    )) as ProfileReport;
    const own = (rows: ProfileReport['blocks']) => rows.filter(({ name }) => !name.endsWith(' (original)'));
    const others = (rows: ProfileReport['blocks']) => rows.filter(({ name }) => name.endsWith(' (original)'));
    expect(others(blocks).map(({ name }) => name)).toEqual(
      own(blocks).map(({ name }) => `${name} (original)`),
    );
    expect(own(blocks)).toHaveLength(6);
    const names = new Set(others(steps).map(({ block }) => block));
    for (const { name } of others(blocks)) expect(names).toContain(name);
    // Only the 8-bit network multiplies bytes.
    const ops = (rows: ProfileReport['steps']) => new Set(rows.map(({ op }) => op));
    expect(ops(own(steps))).toContain('qconv');
    expect(ops(others(steps))).toContain('conv');
    expect(ops(others(steps))).not.toContain('qconv');
  });

  it('prints a table of steps and blocks, and writes the events', async () => {
    const output = join(folderOf({}), 'events.json');
    const { code, out, err } = await cli('profile', DEMO, '--runs', '4', '-o', output, '--threads', '1');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(/^demo: [\d.]+ ms an item, mean of 4 runs on random inputs; native backend/);
    expect(out).toMatch(/\/blocks\.1\/Relu_output_0 +conv +blocks\.1 +100 % +[\d.]+ +[\d.]+ %/);
    const { traceEvents } = require(output) as { traceEvents: ProfileEvent[] };
    expect(named(traceEvents, 'item')).toHaveLength(4);
  });

  it('adds up', async () => {
    const report = (await cliJson(
      'profile',
      DEMO,
      '--runs',
      '3',
      '--policy',
      'full',
      '--backend',
      'reference',
    )) as {
      blocks: { name: string; ran: number; milliseconds: number }[];
      steps: { block: string | null; milliseconds: number; share: number; ran: number }[];
    };
    expect(report.blocks).toHaveLength(9);
    expect(report.blocks.every(({ ran }) => ran === 1)).toBe(true);
    const share = report.steps.reduce((sum, step) => sum + step.share * step.ran, 0);
    expect(share).toBeGreaterThan(0.5);
    expect(share).toBeLessThanOrEqual(1 + 1e-9);
  });

  it('says what it needs where shapes are open', async () => {
    const { code, err } = await cli('profile', join(DEMO, 'config.json'));
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining('MODEL_CORRUPT') });
  });
});
