import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, realpathSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { InstalledPackage } from './installed.js';

const ROOT = resolve(__dirname, '../..');

jest.setTimeout(240_000);

let installed: InstalledPackage;
beforeAll(() => {
  installed = new InstalledPackage();
});
afterAll(() => installed?.remove());

function tool(script: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, script), ...args], {
    cwd: installed.folder,
    encoding: 'utf8',
  });
  return { status, output: stdout + stderr };
}

/** The remedy that the message names where no addon fits. */
const BUILD = ['npm', 'explore', 'residual-skip', '--', 'npm', 'run', 'build:native'];

/** Moves the installed addons away for as long as `action` takes. */
function withoutAddons<T>(action: () => T): T {
  const modules = join(installed.folder, 'node_modules');
  const addons = readdirSync(modules).filter((name) => name.startsWith('residual-skip-'));
  expect(addons.length).toBeGreaterThan(0);
  for (const name of addons) renameSync(join(modules, name), join(modules, `.away-${name}`));
  try {
    return action();
  } finally {
    for (const name of addons) renameSync(join(modules, `.away-${name}`), join(modules, name));
  }
}

describe('the packed package', () => {
  it('holds what a user needs and nothing else', () => {
    const top = new Set(installed.files.map((path) => path.split('/')[0]));
    const allowed = ['LICENSE', 'README.md', 'demo', 'dist', 'native', 'package.json'];
    expect([...top].sort()).toEqual(allowed);
    expect(installed.files).toEqual(
      expect.arrayContaining([
        'dist/index.js',
        'dist/index.mjs',
        'dist/index.d.mts',
        'dist/policy.schema.json',
        'dist/audit.schema.json',
        'dist/serve.schema.json',
      ]),
    );
    expect(installed.size).toBeLessThan(1.5e6);
  });

  it('has all C++ sources, so that it can be built where no prebuild fits', () => {
    const { core, kernels, small, addon } = JSON.parse(
      readFileSync(join(ROOT, 'native/sources.json'), 'utf8'),
    ) as Record<'core' | 'kernels' | 'small' | 'addon', string[]>;
    expect(installed.files).toEqual(expect.arrayContaining([...core, ...kernels, ...small, ...addon]));
  });

  it('runs no script when a user installs it', () => {
    const manifest = JSON.parse(readFileSync(join(installed.packageFolder, 'package.json'), 'utf8'));
    expect(Object.keys(manifest.scripts)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(pre|post)?install$/)]),
    );
    // npm would run node-gyp for it, whatever the manifest says, where a lock file is (npm/cli#3341).
    expect(installed.files).not.toContain('binding.gyp');
    expect(installed.files).toContain('native/binding.gyp');
  });

  it('names the addons of all platforms that it has as optional dependencies, each for its platform alone', () => {
    const manifest = JSON.parse(readFileSync(join(installed.packageFolder, 'package.json'), 'utf8'));
    const names = Object.keys(manifest.optionalDependencies);
    if (process.env.RSKIP_TARBALLS) expect(names).toHaveLength(8);
    const lock = JSON.parse(readFileSync(join(installed.folder, 'package-lock.json'), 'utf8'));
    for (const name of names) {
      const [os, cpu, libc] = name.replace('residual-skip-', '').split('-');
      const { optional, ...entry } = lock.packages[`node_modules/${name}`];
      expect({ optional, os: entry.os, cpu: entry.cpu, libc: entry.libc }).toEqual({
        optional: true,
        os: [os],
        cpu: [cpu],
        libc: libc && [libc],
      });
    }
  });

  it('names its repository, by which npm resolves the links of the README', () => {
    const manifest = JSON.parse(readFileSync(join(installed.packageFolder, 'package.json'), 'utf8'));
    const name = process.env.GITHUB_REPOSITORY ?? 'owner/residual-skip';
    const { repository, homepage, bugs } = manifest;
    expect({ repository, homepage, bugs }).toEqual({
      repository: { type: 'git', url: `git+https://github.com/${name}.git` },
      homepage: `https://github.com/${name}#readme`,
      bugs: { url: `https://github.com/${name}/issues` },
    });
  });

  it.each(['tarball', 'serverTarball'] as const)('passes publint (%s)', (tarball) => {
    expect(
      tool('scripts/release/node_modules/publint/src/cli.js', 'run', installed[tarball], '--strict'),
    ).toEqual({
      status: 0,
      output: expect.stringContaining('All good'),
    });
  });

  it('has types for ES modules and CommonJS', () => {
    const attw = 'scripts/release/node_modules/@arethetypeswrong/cli/dist/index.js';
    const { status, output } = tool(attw, installed.tarball, '--format', 'ascii', '--entrypoints', '.');
    expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining('No problems found') });
  });

  it.each(['nodenext', 'preserve'])('compiles in the strictest project, as its modules %s', (module) => {
    const strict = ['--strict', '--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess'];
    const options = [...strict, '--noEmit', '--target', 'es2022', '--module', module, '--types', 'node'];
    const compiled = tool('node_modules/typescript/bin/tsc', ...options, 'consumer.mts', 'consumer.cts');
    expect(compiled).toEqual({ status: 0, output: '' });
  });

  it('has the types of the checkout where they follow from schemas', () => {
    const checkout = join(installed.folder, 'node_modules/checkout');
    symlinkSync(ROOT, checkout);
    const options = ['--strict', '--noEmit', '--target', 'es2022', '--module', 'nodenext', '--skipLibCheck'];
    const compiled = tool('node_modules/typescript/bin/tsc', ...options, 'schema-types.mts');
    rmSync(checkout);
    expect(compiled).toEqual({ status: 0, output: '' });
  });
});

describe('the installed package', () => {
  it('is at most 11 packages and 8 MB', () => {
    const { packages } = installed;
    const bytes = [...packages.values()].reduce((sum, size) => sum + size, 0);
    console.log(
      `${packages.size} packages, ${(bytes / 1e6).toFixed(2)} MB, tarball ${(installed.size / 1e6).toFixed(2)} MB`,
    );
    expect(packages.size).toBeLessThanOrEqual(11);
    expect(bytes).toBeLessThanOrEqual(8e6);
  });

  it('has a small network to try it with', () => {
    const demo = installed.files.filter((path) => path.startsWith('demo/'));
    const sizes = demo.map((path) => statSync(join(installed.packageFolder, path)).size);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(1e6);
    const { status, stdout } = installed.node('-p', "require.resolve('residual-skip/demo/model.onnx')");
    expect({ status, stdout: stdout.trim() }).toEqual({
      status: 0,
      stdout: join(realpathSync(installed.packageFolder), 'demo/model.onnx'),
    });
  });

  it.each(['native', 'reference'])('works as ES module and as CommonJS on the %s backend', (backend) => {
    const [esm, cjs] = ['use.mjs', 'use.cjs'].map((program) => installed.run(program, backend));
    expect(esm).toEqual({ status: 0, stderr: '', stdout: expect.any(String) });
    expect(cjs).toEqual(esm);
    const { logits, pattern, backend: used } = JSON.parse(esm!.stdout);
    expect(used).toBe(backend);
    expect(logits).toHaveLength(10);
    expect(pattern).toMatch(/^[01]{9}$/);
  });

  it('is one implementation, whether it is imported or required', () => {
    const { status, stdout, stderr } = installed.run('both.mjs');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const { names, ...rest } = JSON.parse(stdout);
    expect(rest).toEqual({ classes: [], tensor: true, error: true });
    expect(names[0]).toEqual(names[1]);
    expect(names[0]).toContain('InferenceSession');
  });

  it('has a command line', () => {
    const model = 'node_modules/residual-skip/demo';
    const { bin } = JSON.parse(readFileSync(join(installed.packageFolder, 'package.json'), 'utf8'));
    const command = join(installed.packageFolder, bin['residual-skip']);
    const { status, stdout, stderr } = installed.node(command, 'inspect', model, '--json');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(JSON.parse(stdout).blocks).toHaveLength(9);
  });

  it('survives workers that are terminated in mid-run', () => {
    const { status, stdout, stderr } = installed.run('workers.mjs');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const completed = ['running', '64x10', '64x10'];
    expect(JSON.parse(stdout)).toEqual([completed, completed, completed, completed]);
  });

  it('survives an exit in mid-run', () => {
    expect(installed.run('exit.mjs')).toEqual({ status: 0, stderr: '', stdout: 'leaving\n' });
  });

  it('lets the process end when nothing runs', () => {
    expect(installed.run('idle.mjs')).toEqual({ status: 0, stderr: '', stdout: '1x10\n' });
  });

  it('explains itself where no binary fits, and still has the reference backend', () => {
    const { status, stdout, stderr } = withoutAddons(() => installed.run('missing.mjs'));
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const { code, message, blocks } = JSON.parse(stdout);
    expect({ code, blocks }).toEqual({ code: 'NATIVE_UNAVAILABLE', blocks: 9 });
    const here = `${process.platform}-${process.arch}`;
    const tried = ['build/Release/residual_skip.node is missing', `residual-skip-${here}-glibc is missing`];
    const { glibcVersionRuntime } = (process.report.getReport() as { header: Record<string, string> }).header;
    for (const part of [`${here} (glibc ${glibcVersionRuntime})`, ...tried]) expect(message).toContain(part);
    expect(message).toContain(`(${BUILD.join(' ')})`);
    expect(message).toContain("{ backend: 'reference' }");
  });

  // It takes minutes without a compiler cache, so the gate of a release alone does it.
  (process.env.RSKIP_TARBALLS ? it : it.skip)(
    'builds its addon by the command that the message names',
    () => {
      const [npm, ...args] = BUILD;
      const output = withoutAddons(() => {
        const built = spawnSync(npm!, args, { cwd: installed.folder, encoding: 'utf8' });
        expect({ status: built.status, stderr: built.stderr }).toMatchObject({ status: 0 });
        return installed.run('use.cjs', 'native');
      });
      rmSync(join(installed.packageFolder, 'build'), { recursive: true });
      expect(output).toEqual(installed.run('use.cjs', 'native'));
      expect(output.status).toBe(0);
    },
    1_200_000,
  );
});
