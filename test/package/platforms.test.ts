/** The installed package in the hands of bundlers, and in runtimes other than Node. The tools are those of scripts/release. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { InstalledPackage } from './installed.js';

const TOOLS = resolve(__dirname, '../../scripts/release/node_modules');

let installed: InstalledPackage;
let expected: string;
beforeAll(() => {
  installed = new InstalledPackage();
  expected = installed.run('use.cjs', 'native').stdout;
  expect(JSON.parse(expected)).toMatchObject({ backend: 'native' });
}, 240_000);
afterAll(() => installed?.remove());

/** Runs a script that requires the tools, in the folder of the installed package. */
function script(source: string) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', source], {
    cwd: installed.folder,
    env: { ...process.env, NODE_PATH: TOOLS },
    encoding: 'utf8',
  });
  return { status, output: (stdout + stderr).slice(0, 2000) };
}

describe('what require loads', () => {
  const loaded = (program: string): string[] => {
    const { stdout, stderr } = installed.node(
      '-e',
      `(async () => { ${program}; console.log(JSON.stringify(Object.keys(require.cache))); })()`,
    );
    expect(stderr).toBe('');
    return (JSON.parse(stdout) as string[]).map((path) => path.split('/node_modules/')[1]!);
  };

  it('is a handful of files of this package, and no other package', () => {
    const files = loaded("require('residual-skip')");
    expect(files.length).toBeLessThanOrEqual(4);
    for (const file of files) expect(file).toMatch(/^residual-skip\/dist\//);
    // Half of the time goes into reading code.
    const bytes = files.reduce(
      (sum, file) => sum + statSync(join(installed.folder, 'node_modules', file)).size,
      0,
    );
    expect(bytes).toBeLessThan(135_000);
  });

  it.each([
    ['runner', "InferenceSession.create('node_modules/residual-skip/demo')"],
    ['lowering', "InferenceSession.create('node_modules/residual-skip/demo')"],
    ['stored', "InferenceSession.create('node_modules/residual-skip/demo', { cache: 'cache' })"],
    ['policies', 'loadPolicy({ blocks: {} })'],
    ['classify', 'ImageClassifier.from'],
    ['audit', 'watch()'],
    ['inspect', "inspect('node_modules/residual-skip/demo')"],
    ['calibrate', "calibrate('missing', 'missing').catch(() => {})"],
    ['quantize', "quantize('missing', 'missing').catch(() => {})"],
    ['speedup', "speedup('missing', 'missing').catch(() => {})"],
    ['evaluate', "evaluate('missing', 'missing').catch(() => {})"],
    ['render', "renderAudit('missing').catch(() => {})"],
    ['replay', "replayAudit('missing', 'missing').catch(() => {})"],
    ['schemas', "InferenceSession.create('node_modules/residual-skip/demo', { backend: 'native' })"],
  ])('has no %s before its function is called', (chunk, call) => {
    const file = `residual-skip/dist/chunks/${chunk}.js`;
    expect(loaded("require('residual-skip')")).not.toContain(file);
    expect(loaded(`await require('residual-skip').${call}`)).toContain(file);
  });

  it('has no schemas for a session with the options that most have', () => {
    const files = loaded(
      "await require('residual-skip').InferenceSession.create('node_modules/residual-skip/demo', { threads: 1 })",
    );
    expect(files).toContain('residual-skip/dist/chunks/runner.js');
    expect(files).not.toContain('residual-skip/dist/chunks/schemas.js');
  });

  it('has nothing that lowers networks for a session whose program is in a cache', () => {
    const create = "const session = await require('residual-skip').InferenceSession.create";
    const run = (cache: string) =>
      loaded(`${create}('node_modules/residual-skip/demo', { cache: '${cache}' })`);
    const lowering = 'residual-skip/dist/chunks/lowering.js';
    expect(run('programs')).toContain(lowering);
    expect(run('programs')).not.toContain(lowering);
  });

  it('has classes that are used as others, before they are loaded', () => {
    const { stdout, stderr } = installed.node(
      '--input-type=module',
      '-e',
      `import { ImageClassifier, InferenceSession } from 'residual-skip';
      class Sub extends ImageClassifier {}
      const classifier = await ImageClassifier.from('node_modules/residual-skip/demo');
      const refused = ((call) => { try { return call(); } catch (error) { return error.name; } })(() => ImageClassifier());
      console.log(JSON.stringify([
        ImageClassifier.name, classifier instanceof ImageClassifier, Sub.prototype instanceof ImageClassifier, refused,
        {} instanceof ImageClassifier, Object.getPrototypeOf(classifier) === ImageClassifier.prototype,
      ]));`,
    );
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual(['ImageClassifier', true, true, 'TypeError', false, true]);
  });

  it('says whose code it has in its bundle', () => {
    expect(installed.files).toContain('dist/third-party-licences.txt');
    const { dependencies } = JSON.parse(
      execFileSync('tar', ['-xzOf', installed.tarball, 'package/package.json'], { encoding: 'utf8' }),
    );
    const text = execFileSync('tar', ['-xzOf', installed.tarball, 'package/dist/third-party-licences.txt'], {
      encoding: 'utf8',
    });
    for (const name of ['zod', '@protobuf-ts/runtime']) {
      expect(Object.keys(dependencies)).not.toContain(name);
      expect(text).toMatch(new RegExp(`^${name} \\d+\\.\\d+\\.\\d+`, 'm'));
    }
  });
});

describe('a bundle that was made without externals', () => {
  it('is made by esbuild', () => {
    const built = script(`require('esbuild').buildSync(
      { entryPoints: ['use.cjs'], bundle: true, platform: 'node', outfile: 'esbuild/use.cjs', logLevel: 'warning' })`);
    expect(built).toEqual({ status: 0, output: '' });
    expect(installed.run('esbuild/use.cjs', 'native')).toEqual({ status: 0, stderr: '', stdout: expected });
  });

  it('is made by Rollup, as an ES module', () => {
    const built = script(`
      const { rollup } = require('rollup');
      const plugins = [require('@rollup/plugin-node-resolve').default({ preferBuiltins: true }), require('@rollup/plugin-commonjs')()];
      const onLog = (level, log) => { if (!(log.exporter ?? '').startsWith('vega') && log.code !== 'CIRCULAR_DEPENDENCY') console.log(log.message); };
      rollup({ input: 'use.mjs', plugins, onLog }).then((bundle) => bundle.write({ dir: 'rollup', entryFileNames: '[name].mjs', chunkFileNames: '[name].mjs' }));`);
    expect(built).toEqual({ status: 0, output: '' });
    expect(installed.run('rollup/use.mjs', 'native')).toEqual({ status: 0, stderr: '', stdout: expected });
  });

  it('is made by webpack', () => {
    const built = script(`
      const output = { path: process.cwd() + '/webpack', filename: 'use.cjs' };
      require('webpack')({ mode: 'development', devtool: false, target: 'node', entry: './use.cjs', output }, (error, stats) => {
        if (error ?? stats.hasErrors()) throw error ?? new Error(stats.toString());
      });`);
    expect(built).toEqual({ status: 0, output: '' });
    expect(installed.run('webpack/use.cjs', 'native')).toEqual({ status: 0, stderr: '', stdout: expected });
  });

  it('finds the addon beside itself where there is no node_modules, and says so where it is missing', () => {
    const away = mkdtempSync(join(tmpdir(), 'rskip-bundle-'));
    try {
      const built = script(`require('esbuild').buildSync(
        { entryPoints: ['use.cjs'], bundle: true, platform: 'node', outfile: ${JSON.stringify(join(away, 'use.cjs'))}, logLevel: 'warning' })`);
      expect(built).toEqual({ status: 0, output: '' });
      const demo = join(away, 'node_modules/residual-skip/demo');
      mkdirSync(demo, { recursive: true });
      copyFileSync(join(installed.packageFolder, 'demo/model.onnx'), join(demo, 'model.onnx'));
      const run = () =>
        spawnSync(process.execPath, ['use.cjs', 'native'], { cwd: away, encoding: 'utf8', timeout: 120_000 });
      expect(run().stderr).toMatch(/tried in .*: residual-skip\.node is missing.*beside the bundle/s);
      const modules = join(installed.folder, 'node_modules');
      const platform = readdirSync(modules).find((name) => name.startsWith('residual-skip-'))!;
      copyFileSync(join(modules, platform, 'residual-skip.node'), join(away, 'residual-skip.node'));
      const { status, stdout, stderr } = run();
      expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: expected, stderr: '' });
    } finally {
      rmSync(away, { recursive: true });
    }
  });
});

const onLinux = process.platform === 'linux' ? it : it.skip;

onLinux('a Lambda function with one vCPU answers event after event', () => {
  const { status, stdout, stderr } = spawnSync('taskset', ['-c', '0', process.execPath, 'lambda.cjs'], {
    cwd: installed.folder,
    encoding: 'utf8',
    timeout: 120_000,
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const answers = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(answers).toEqual([JSON.parse(expected), JSON.parse(expected)]);
});

describe('another runtime', () => {
  /** The program of a runtime, which its npm package has in a package for this platform. */
  const programOf = (scope: string, path: string): string => {
    const [platform] = readdirSync(join(TOOLS, scope));
    const program = join(TOOLS, scope, platform!, path);
    chmodSync(program, 0o755);
    return program;
  };
  const run = (program: string, ...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(program, args, {
      cwd: installed.folder,
      env: { ...process.env, PATH: dirname(process.execPath), DENO_NO_UPDATE_CHECK: '1' },
      encoding: 'utf8',
      timeout: 120_000,
    });
    return { status, stdout, stderr: stderr.slice(0, 2000) };
  };

  it.each(['use.cjs', 'use.mjs'])('Bun runs %s with equal bits', (program) => {
    const bun = programOf('@oven', 'bin/bun');
    expect(run(bun, program, 'native')).toEqual({ status: 0, stderr: '', stdout: expected });
  });

  it('Deno runs use.mjs with equal bits, with the permissions that docs/platforms.md names', () => {
    const deno = programOf('@deno', 'deno');
    const folder = realpathSync(installed.folder);
    const permissions = [
      `--allow-read=${folder},/sys,/proc`,
      '--allow-env',
      '--allow-sys',
      `--allow-ffi=${folder}`,
    ];
    const result = run(deno, 'run', '--no-prompt', ...permissions, 'use.mjs', 'native');
    expect(result).toEqual({ status: 0, stderr: '', stdout: expected });
  });
});
