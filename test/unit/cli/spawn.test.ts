import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const root = join(__dirname, '../../..');
const main = join(root, 'dist/cli/main.js');
const built = existsSync(main);
const model = 'test/models/cifar10-resnet32-gated';

function spawn(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    cwd: root,
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

// `npm run compile` makes dist; a checkout that was only type-checked has none.
(built ? describe : describe.skip)('the built command', () => {
  test('answers in JSON and exits with 0', () => {
    const { status, stdout, stderr } = spawn('run', model, 'examples/images/frog-0000.jpg', '--json');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(JSON.parse(stdout)[0]).toMatchObject({
      input: 'examples/images/frog-0000.jpg',
      blocks: { total: 15 },
    });
  });

  test('draws no colour and no bar when nobody watches', () => {
    const { status, stdout, stderr } = spawn('run', model, 'examples/images');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain('20 images');
    expect(stdout).not.toContain('\u001b');
  });

  test('exits with 1 on a failure and 2 on a usage error, the output empty', () => {
    const failure = spawn('run', model, 'nowhere.jpg', '--json');
    expect(failure).toMatchObject({ status: 1, stdout: '' });
    expect(JSON.parse(failure.stderr)).toMatchObject({ error: { code: 'INVALID_DATA' } });
    expect(spawn('run', model)).toMatchObject({ status: 2, stdout: '' });
    expect(spawn()).toMatchObject({ status: 2, stdout: '', stderr: expect.stringContaining('Usage') });
  });
});
