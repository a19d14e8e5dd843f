import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Effort, EnergyMeter, measureEnergy } from 'lib/measure/energy.js';
import { folderOf, removeFolders } from '../../helpers/files.js';

afterAll(removeFolders);

test('joules are the sum over the packages, a counter that began again included', () => {
  const root = folderOf({
    'intel-rapl:0/energy_uj': '1000000\n',
    'intel-rapl:0/max_energy_range_uj': '262143328850\n',
    'intel-rapl:0:0/energy_uj': '5\n',
    'intel-rapl:1/energy_uj': '9000000\n',
    'intel-rapl:1/max_energy_range_uj': '10000000\n',
  });
  const stop = new EnergyMeter(root).start();
  writeFileSync(join(root, 'intel-rapl:0/energy_uj'), '3500000\n');
  writeFileSync(join(root, 'intel-rapl:1/energy_uj'), '500000\n');
  expect(stop().joules).toBeCloseTo(2.5 + 1.5, 9);
});

test.each([
  ['no counters', {}],
  ['counters without a range', { 'intel-rapl:0/energy_uj': '1' }],
])('%s: CPU seconds alone', (_, files) => {
  const stop = new EnergyMeter(folderOf(files)).start();
  const end = process.cpuUsage().user + 20_000;
  while (process.cpuUsage().user < end) Math.hypot(1, 2);
  const { cpuSeconds, joules } = stop();
  expect(joules).toBeNull();
  expect(cpuSeconds).toBeGreaterThanOrEqual(0.02);
});

/** A meter on which an item takes 2 ms and 3 J in full, half of that with skipping. */
function fakeMeter(readable: (round: number) => boolean) {
  let spent = 0;
  let starts = 0;
  return {
    spend: (mode: 'full' | 'skip') => {
      spent += mode === 'full' ? 2 : 1;
    },
    start: () => {
      const before = spent;
      const round = starts++;
      return (): Effort => ({
        cpuSeconds: (spent - before) / 1000,
        joules: readable(round) ? 1.5 * (spent - before) : null,
      });
    },
  };
}

test('modes take turns, and what is reported is of one item', () => {
  const meter = fakeMeter(() => true);
  const modes: string[] = [];
  const report = measureEnergy(
    4,
    (mode) => {
      modes.push(mode);
      for (let i = 0; i < 4; i++) meter.spend(mode);
    },
    meter,
  );
  expect(modes.slice(0, 4)).toEqual(['full', 'skip', 'full', 'skip']);
  expect(report.items).toBe(2 * modes.length);
  expect(report.cpuSeconds.full).toBeCloseTo(0.002, 9);
  expect(report.cpuSeconds.skip).toBeCloseTo(0.001, 9);
  expect(report.joules!.full).toBeCloseTo(3, 9);
  expect(report.joules!.skip).toBeCloseTo(1.5, 9);
});

test('of many items all count, in stretches that are spread over them', () => {
  const meter = fakeMeter(() => true);
  const stretches: (readonly number[])[] = [];
  const counts = new Array<number>(1030).fill(0);
  const report = measureEnergy(
    counts.length,
    (mode, indices) => {
      if (mode === 'full') return;
      stretches.push(indices);
      for (const i of indices) {
        counts[i]!++;
        // The last tenth takes ten times as long.
        for (let k = 0; k < (i < 927 ? 1 : 10); k++) meter.spend(mode);
      }
    },
    meter,
  );
  expect(new Set(counts).size).toBe(1);
  expect(Math.max(...stretches.map((indices) => indices.length))).toBeLessThanOrEqual(100);
  for (const indices of stretches)
    expect(indices.filter((i) => i >= 927).length / indices.length).toBeCloseTo(0.1, 1);
  expect(report.cpuSeconds.skip).toBeCloseTo(0.001 * (0.9 + 10 * 0.1), 9);
});

test('counters that fail in between give no joules', () => {
  const meter = fakeMeter((round) => round !== 3);
  const report = measureEnergy(1, meter.spend, meter);
  expect(report.joules).toBeNull();
  expect(report.cpuSeconds.full).toBeCloseTo(0.002, 9);
});
