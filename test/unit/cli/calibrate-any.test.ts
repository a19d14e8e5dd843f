/** A network that no recipe of this project made, and a bare folder of images: `calibrate` needs nothing else. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SkipPolicy } from 'lib/index.js';
import '../../helpers/few-timed.js';
import '../../helpers/short-training.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign, pictures } from '../../helpers/foreign-network.js';

afterAll(removeFolders);
const IMAGES = 260;

test('is calibrated and run without a line of code', async () => {
  // The folder's policy is for another model, as after training again: it must not be in the way.
  const stale = JSON.stringify({ model: { sha256: '0'.repeat(64) }, default: 'skip' });
  const folder = folderOf({ 'foreign.onnx': foreign(), 'policy.json': stale });
  const model = join(folder, 'foreign.onnx');
  const data = await pictures(IMAGES);
  const policyFile = join(folderOf({}), 'policy.json');
  const { code, out, err } = await cli(
    ...['calibrate', folder, '--data', data, '-o', policyFile],
    ...['--task', 'single-label', '--max-disagreement', '0.1', '--penalties', '24', '--copies', '2'],
  );
  expect({ code, err }).toEqual({ code: 0, err: expect.not.stringContaining('rror') });
  expect(out).toMatch(/Certified on \d+ items: at most 10\.00 % of the answers change/);
  const policy = JSON.parse(readFileSync(policyFile, 'utf8')) as SkipPolicy;
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);

  const answersOf = async (...args: string[]) => {
    const { out } = await cli('run', model, data, '--json', ...args);
    return (JSON.parse(out) as { top: { index: number }[] }[]).map(({ top }) => top[0]!.index);
  };
  const [full, skipping] = [await answersOf('--full'), await answersOf('--policy', policyFile)];
  expect(new Set(full).size).toBeGreaterThan(1);
  expect(full).toHaveLength(IMAGES);
  expect(skipping.filter((answer, i) => answer !== full[i]).length).toBeLessThanOrEqual(0.1 * IMAGES);
});
