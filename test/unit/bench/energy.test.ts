import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { EnergyMeter } from '../../../lib/bench/energy.js';
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
