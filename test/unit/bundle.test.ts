import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(__dirname, '../..');

/** The bundler lists functions that load late, by file and importer. No other short test notices that one has moved. */
it('the library can be bundled', () => {
  const folder = mkdtempSync(join(tmpdir(), 'residual-skip-bundle-'));
  try {
    const program = `import(process.argv[1]).then(({ bundle }) => bundle(process.argv[2]))`;
    const script = join(ROOT, 'scripts/bundle.mjs');
    const { status, stderr } = spawnSync(process.execPath, ['-e', program, script, folder], {
      cwd: ROOT,
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(readdirSync(folder)).toEqual(expect.arrayContaining(['index.js', 'cli', 'client', 'chunks']));
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 60_000);
