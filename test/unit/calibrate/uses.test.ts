import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { recordUse } from 'lib/calibrate/certify/uses.js';
import type { SkipPolicy } from 'lib/skip/policy.js';

const folder = mkdtempSync(join(tmpdir(), 'uses-'));
const file = join(folder, 'state', 'certified.json');
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => rmSync(file, { force: true }));

const images = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) =>
    createHash('sha256')
      .update(String(from + i))
      .digest('hex'),
  );

/** A policy that differs from others by its model and its seed. */
const policy = (model: string, seed: number): SkipPolicy => ({
  model: { sha256: model },
  blocks: {},
  promise: {
    ...{ metric: 'disagreement', confidence: 0.95, limit: 0.01 },
    ...{ items: 300, events: 0, risk: 0, pValue: 0.049, upperBound: 0.01 },
    data: { sha256: 'a', seed, fit: 1, order: 1, certify: 300 },
  },
});

test('counts the policies that images have certified, whatever their model', async () => {
  const use = (model: string, seed: number) => recordUse(policy(model, seed), images(0, 1000), file);
  expect([await use('a', 1), await use('a', 2), await use('b', 1)]).toEqual([1, 2, 3]);
});

test('the same calibration made again counts once, whatever times it measured', async () => {
  const timed = (latencyReduction: number): SkipPolicy => ({
    ...policy('a', 1),
    expected: { multiplyAddsSkipped: 0.2, blocksSkipped: 0.2, latencyReduction },
  });
  expect(await recordUse(timed(0.2), images(0, 1000), file)).toBe(1);
  expect(await recordUse(timed(0.3), images(0, 1000), file)).toBe(1);
});

test('another part of the same images counts, fresh images do not', async () => {
  const use = (seed: number, certifiedOn: readonly string[]) =>
    recordUse(policy('a', seed), certifiedOn, file);
  expect(await use(1, images(0, 600))).toBe(1);
  expect(await use(2, images(400, 1000))).toBe(2);
  expect(await use(3, images(1000, 1600))).toBe(1);
});

test('a file that holds something else is begun again', async () => {
  await recordUse(policy('a', 1), images(0, 10), file);
  writeFileSync(file, '{ "no": "uses"');
  expect(await recordUse(policy('a', 2), images(0, 10), file)).toBe(1);
  expect(JSON.parse(readFileSync(file, 'utf8'))).toHaveLength(1);
});
