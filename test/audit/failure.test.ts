import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { auditLog } from 'lib/audit/log.js';
import { readAudit } from 'lib/audit/read.js';
import { DIST, describeBuilt, ROOT } from '../helpers/dist.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { itemsOf } from '../helpers/items.js';
import { Network } from '../helpers/networks.js';
import { withSession } from '../helpers/sessions.js';

afterAll(removeFolders);
const network = new Network('cifar10-resnet32-gates');
const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
beforeEach(() => warned.mockClear());
afterAll(() => warned.mockRestore());

/** Runs the example images twice with a log at `path`, `between` in the middle; the outputs of the second time. */
async function runWith(path: string | undefined, between = async () => {}) {
  const items = await itemsOf(network);
  const observers = path ? [auditLog({ path })] : [];
  const outputs: unknown[] = [];
  let released: Readonly<Record<string, unknown>> = {};
  await withSession(network.model, { observers }, async (session) => {
    for (const { feeds } of items) await session.run(feeds);
    await between();
    for (const { feeds } of items) outputs.push((await session.run(feeds)).logits!.data);
    await session.release();
    released = session.stats();
  });
  return { outputs, stats: released.auditLog, items: items.length };
}

const full = existsSync('/dev/full') ? test : test.skip;
full('a full disk: the same outputs, one warning, all counted', async () => {
  const { outputs, stats, items } = await runWith('/dev/full', () => sleep(250));
  expect(outputs).toEqual((await runWith(undefined)).outputs);
  expect(stats).toMatchObject({ written: 0, lost: 2 * items });
  expect((stats as { errors: number }).errors).toBeGreaterThan(1);
  expect(warned).toHaveBeenCalledTimes(1);
  expect(warned.mock.calls[0]![0]).toMatch(/\/dev\/full.*ENOSPC/);
});

test('a path that can not be written, and can later: the log begins then', async () => {
  const path = join(folderOf({}), 'trace.ndjson');
  mkdirSync(path);
  const { stats, items } = await runWith(path, async () => {
    await sleep(50);
    rmdirSync(path);
  });
  expect(stats).toMatchObject({ written: items, lost: items });
  expect(warned).toHaveBeenCalledTimes(1);
  const { entries, problems } = await readAudit(path);
  // The first line that could be written says what could not.
  expect(problems).toMatchObject([
    { kind: 'lost', line: 1, message: expect.stringMatching(new RegExp(`: ${items}$`)) },
  ]);
  expect(entries).toHaveLength(items);
});

// A limit on the size of files stops a write in its middle, as a disk does that becomes full.
describeBuilt('a file that can not grow', () => {
  test('keeps whole lines and no more; the command says what is lost, and fails', async () => {
    const path = join(folderOf({}), 'trace.ndjson');
    const command = `ulimit -f 8; exec "$0" "$1/cli/main.js" record test/models/cifar10-resnet32-gates --data "$2" -o "$3" --json`;
    const data = folderOf(
      Object.fromEntries(
        network.items.map(({ file }, i) => {
          const [label, name] = file.split('/').slice(-2) as [string, string];
          return [`${label}/${i}.jpg`, readFileSync(join(ROOT, 'examples/images', `${label}-${name}`))];
        }),
      ),
    );
    const child = spawnSync('bash', ['-c', command, process.execPath, DIST, data, path], {
      cwd: ROOT,
      encoding: 'utf8',
    });
    expect(child.status).toBe(1);
    expect(child.stderr).toMatch(/items? lost/);
    expect(child.stderr.match(/inference continues/g)).toHaveLength(1);
    const { written, lost } = JSON.parse(child.stdout);
    expect(written + lost).toBe(network.items.length);
    expect(lost).toBeGreaterThan(0);
    const { entries, problems } = await readAudit(path);
    expect(problems.map(({ kind }) => kind)).toEqual(['truncated', 'unfinished']);
    expect(entries.length).toBeGreaterThan(0);
  });
});
