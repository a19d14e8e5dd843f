import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { recordUse } from 'lib/calibrate/certify/uses.js';

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

/** A calibration that differs from others by its model and its seed. */
const calibration = (sha256: string, seed: number) => ({
  sha256,
  data: { seed },
  settings: [[['block', 0.9]]],
});

test('counts the calibrations that images have certified, whatever their model', async () => {
  const use = (model: string, seed: number) => recordUse(calibration(model, seed), images(0, 1000), file);
  expect([await use('a', 1), await use('a', 2), await use('b', 1)]).toEqual([1, 2, 3]);
});

test('the same calibration made again counts once', async () => {
  expect(await recordUse(calibration('a', 1), images(0, 1000), file)).toBe(1);
  expect(await recordUse(calibration('a', 1), images(0, 1000), file)).toBe(1);
});

test('what older versions counted by their policies still counts', async () => {
  mkdirSync(dirname(file), { recursive: true });
  const sketch = images(0, 1000)
    .map((hash) => hash.slice(0, 16))
    .sort()
    .slice(0, 32);
  writeFileSync(file, JSON.stringify([{ policy: 'f'.repeat(64), sketch }]));
  expect(await recordUse(calibration('a', 1), images(0, 1000), file)).toBe(2);
});

test('another part of the same images counts, fresh images do not', async () => {
  const use = (seed: number, certifiedOn: readonly string[]) =>
    recordUse(calibration('a', seed), certifiedOn, file);
  expect(await use(1, images(0, 600))).toBe(1);
  expect(await use(2, images(400, 1000))).toBe(2);
  expect(await use(3, images(1000, 1600))).toBe(1);
});

test('a file that holds something else is begun again', async () => {
  await recordUse(calibration('a', 1), images(0, 10), file);
  writeFileSync(file, '{ "no": "uses"');
  expect(await recordUse(calibration('a', 2), images(0, 10), file)).toBe(1);
  expect(JSON.parse(readFileSync(file, 'utf8'))).toHaveLength(1);
});
