import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { folderOf, removeFolders } from '../../helpers/files.js';

afterAll(removeFolders);

const root = join(__dirname, '../../..');
const main = join(root, 'dist/cli/main.js');
const built = existsSync(main);
const model = 'test/models/cifar10-resnet32-gates';

function spawn(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    cwd: root,
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

// `npm run compile` makes dist; a checkout that was only type-checked has none.
(built ? describe : describe.skip)('the built command', () => {
  // A limit on the size of files stops a write in its middle, as a disk does that becomes full.
  test('a report that does not fit on the disk leaves the one before as it was', () => {
    const folder = folderOf({ 'report.html': 'the one before' });
    const write =
      "require(process.argv[1]).writeResult(process.argv[2], 'x'.repeat(5000)).catch((e) => console.log(e.code))";
    const command = `ulimit -f 1; exec "$0" -e "${write}" "$1" "$2"`;
    const args = [
      '-c',
      command,
      process.execPath,
      join(root, 'dist/cli/files.js'),
      join(folder, 'report.html'),
    ];
    const { stdout } = spawnSync('bash', args, { encoding: 'utf8' });
    expect(stdout).toBe('WRITE_FAILED\n');
    expect(readdirSync(folder)).toEqual(['report.html']);
    expect(readFileSync(join(folder, 'report.html'), 'utf8')).toBe('the one before');
  });

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
