import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { cli } from '../helpers/cli.js';
import { describeBuilt, ROOT } from '../helpers/dist.js';
import { type Served, startServe } from '../helpers/served.js';

const MODEL = 'models/cifar10-resnet14-exits';
const hasCurl = spawnSync('curl', ['--version']).status === 0;
if (!hasCurl) console.log('there is no curl: the examples with it are not run');

/** Commands of the `sh` blocks of a page that call curl; one may have several lines. */
function examplesIn(page: string): string[] {
  const blocks = [...readFileSync(`${ROOT}/${page}`, 'utf8').matchAll(/```sh\n([\s\S]*?)```/g)];
  const commands = blocks.flatMap(([, block]) => block!.split(/\n(?=curl |residual-skip )/));
  return commands.map((command) => command.trim()).filter((command) => command.startsWith('curl '));
}

/** What the answer of each example must hold, by a part of its URL; the first that fits counts. */
const EXPECTED: readonly (readonly [string, RegExp])[] = [
  ['/health/ready', /^\{"ready":true\}$/],
  ['/infer', /"data":\["[-\d.]+:3:cat",/],
  ['/stats', /"inference_count":1,/],
  ['/repository/index', /"state":"READY"/],
  ['/metrics', /^residual_skip_requests_total\{.*outcome="ok"\} 1$/m],
  ['/v2/models/cifar10-resnet14-exits', /"platform":"onnx_onnxv1"/],
];

describeBuilt('examples with curl', () => {
  let served: Served;
  beforeAll(async () => {
    served = await startServe([MODEL]);
  });
  afterAll(() => served.stop());

  const examples = ['README.md', 'docs/serving.md'].flatMap((page) =>
    examplesIn(page).map((command) => [page, command] as const),
  );
  test('there are some on both pages', () => {
    expect(new Set(examples.map(([page]) => page)).size).toBe(2);
    for (const [part] of EXPECTED) expect(examples.some(([, command]) => command.includes(part))).toBe(true);
  });

  (hasCurl ? test : test.skip).each(examples)('%s: %s', async (_page, command) => {
    const [, expected] = EXPECTED.find(([part]) => command.includes(part))!;
    const here = command.replace('localhost:8000', served.url).replace('curl -s', 'curl -s --fail-with-body');
    const { stdout } = await promisify(execFile)('bash', ['-euo', 'pipefail', '-c', here], { cwd: ROOT });
    expect(stdout).toMatch(expected);
  });
});

describeBuilt('SIGHUP', () => {
  test('reads the token file again', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sighup-'));
    const file = join(folder, 'tokens');
    writeFileSync(file, 'old');
    const served = await startServe([MODEL, '--token-file', file]);
    const status = async (token: string) =>
      (await fetch(`${served.url}/v2`, { headers: { authorization: `Bearer ${token}` } })).status;
    expect([await status('old'), await status('new')]).toEqual([200, 401]);
    writeFileSync(file, 'new');
    process.kill(served.pid, 'SIGHUP');
    while ((await status('new')) !== 200) await sleep(20);
    expect(await status('old')).toBe(401);
    expect((await served.stop()).code).toBe(0);
    rmSync(folder, { recursive: true });
  });
});

describe('serve says what the user can mend', () => {
  const failing = (...args: string[]) => cli('serve', ...args, '--json');

  test('a folder without a model', async () => {
    const { code, err } = await failing('docs', '--port', '0', '--no-grpc-port');
    expect(code).toBe(1);
    expect(JSON.parse(err)).toMatchObject({
      error: { code: 'INVALID_ARGUMENT', message: expect.stringContaining('holds no model') },
    });
  });

  test.each(['--port', '--grpc-port'])('a %s that is taken', async (option) => {
    const other = createServer();
    await new Promise<void>((done) => other.listen(0, '127.0.0.1', done));
    const { port } = other.address() as { port: number };
    const { code, err } = await failing(MODEL, '--port', '0', '--grpc-port', '0', option, String(port));
    await new Promise((done) => other.close(done));
    expect(code).toBe(1);
    // Behind what the log says of promises.
    expect(JSON.parse(err.trim().split('\n').at(-1)!)).toMatchObject({
      error: { code: 'INVALID_ARGUMENT', message: expect.stringMatching(/EADDRINUSE|listen/) },
    });
  });

  test('a token file that is not there', async () => {
    const { err } = await failing(MODEL, '--port', '0', '--token-file', '/none/tokens');
    expect(JSON.parse(err)).toMatchObject({
      error: { code: 'INVALID_ARGUMENT', message: expect.stringContaining('/none/tokens') },
    });
  });
});
