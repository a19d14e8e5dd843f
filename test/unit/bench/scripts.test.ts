/** The scripts that nothing else runs: what they import exists, and a short measurement works. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

const ROOT = join(__dirname, '../../..');
const SCRIPTS = ['bench', 'research', 'scripts'].flatMap((folder) =>
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', `${folder}/*.mjs`], {
    cwd: ROOT,
    encoding: 'utf8',
  })
    .trim()
    .split('\n')
    .filter((script) => existsSync(join(ROOT, script))),
);

/** The source of a file that a script imports: dist/ is built from lib/. */
function sourceOf(file: string): string {
  const path = relative(ROOT, file);
  return path.startsWith('dist/') ? path.replace(/^dist/, 'lib').replace(/\.(m?)js$/, '.$1ts') : path;
}

it.each(SCRIPTS)('what %s imports exists', (script) => {
  const imports = [...readFileSync(join(ROOT, script), 'utf8').matchAll(/(?:from|import\() ?'(\.[^']+)'/g)];
  const sources = imports.map(([, name]) => sourceOf(resolve(ROOT, dirname(script), name!)));
  expect(sources.filter((source) => !existsSync(join(ROOT, source)))).toEqual([]);
});

describe('bench/cases.mjs', () => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [join(ROOT, 'bench/cases.mjs'), ...args], { encoding: 'utf8', cwd: ROOT });

  it('lists its cases', () => {
    const { status, stderr } = run();
    const listed = [...stderr.matchAll(/^ {2}(\w+) /gm)].map(([, name]) => name);
    expect({ status, listed }).toEqual({
      status: 2,
      listed: [
        'skipping',
        'int8',
        'concurrency',
        'audit',
        'texts',
        'lengths',
        'idle',
        'operators',
        'photographs',
        'published',
      ],
    });
  });

  it('measures what skipped blocks and asked gates take', () => {
    const { stdout } = run('skipping', 'models/mnist-resnet20-gates', '--rounds', '1', '--json');
    const results = JSON.parse(stdout) as {
      title: string;
      ms: number;
      msMean: number;
      cpuMs: number;
      msRatio: number[];
    }[];
    expect(results[0]!.title).toBe('0 of 9 blocks skipped, 100.0 % of the multiply-adds');
    expect(results.at(-1)!.title).toBe('all blocks run, and 7 gates are asked');
    // From none to all of the seven blocks with an identity shortcut.
    expect(results).toHaveLength(8 + 1);
    for (const { ms, msMean, cpuMs, msRatio } of results) {
      // Of one round.
      expect(msMean).toBe(ms);
      expect(ms).toBeGreaterThan(0);
      expect(cpuMs).toBeGreaterThan(0);
      expect(msRatio).toHaveLength(3);
    }
  });
});
