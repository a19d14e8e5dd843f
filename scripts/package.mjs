// Packs everything that is published into build-package/: the package, its server, and the addon of each platform in prebuilds/.
//
//   node scripts/package.mjs            release check: fails unless every platform has an addon built from the current sources,
//                                       and the tests of the package pass on these tarballs
//   node scripts/package.mjs --local DIR    packs what exists into DIR for tests; this machine's addon may be the checkout's
//   node scripts/package.mjs --refuse   makes `npm publish` in the checkout fail
//
// The published manifest has the platforms' packages as optional dependencies. The checkout's manifest can't: they don't exist
// before they are published, and `npm ci` requires them in the lock file.
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { BUNDLED, bundle } from './bundle.mjs';
import { writeDeclarations } from './declarations.mjs';
import { machine, manifestOf, ONE_MACHINE, origin, sourcesHash, TARGETS } from './prebuild.mjs';

const ROOT = resolve(import.meta.dirname, '..');
const BUILT = join(ROOT, 'build/Release/residual_skip.node');

const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));
const writeJson = (path, value) => writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);
const npm = (...args) => execFileSync('npm', args, { cwd: ROOT, encoding: 'utf8' });

/** The reason why the addon of a platform can't be published. */
function problemOf(name) {
  const folder = join(ROOT, 'prebuilds', name);
  if (!existsSync(join(folder, 'residual-skip.node'))) return `${name} is missing`;
  const { version, sources } = readJson(join(folder, 'package.json'));
  if (version !== readJson(join(ROOT, 'package.json')).version) return `${name} has version ${version}`;
  if (sources === ONE_MACHINE) return `${name} was made for one machine`;
  return sources === sourcesHash() ? undefined : `${name} was made from other sources`;
}

/**
 * Stages a package for publication: the manifest with `more`, without the fields that only a checkout needs. The library's code and
 * declarations are added later.
 */
function stage(source, folder, more) {
  const {
    devDependencies: _,
    workspaces: __,
    scripts: ___,
    gypfile: ____,
    binary: _____,
    ...manifest
  } = readJson(join(source, 'package.json'));
  const packed = npm('pack', source, '--dry-run', '--ignore-scripts', '--json');
  for (const { path } of JSON.parse(packed)[0].files) {
    if (path.startsWith('dist/') && source === ROOT && /\.(js|d\.m?ts)$/.test(path)) continue;
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    copyFileSync(join(source, path), join(folder, path));
  }
  copyFileSync(join(ROOT, 'LICENSE'), join(folder, 'LICENSE'));
  writeJson(join(folder, 'package.json'), { ...manifest, ...origin(), ...more });
}

/** Stages this checkout's own addon as the package of its platform. @returns its name */
function stageBuilt(folder) {
  const name = machine();
  mkdirSync(join(folder, name), { recursive: true });
  copyFileSync(BUILT, join(folder, name, 'residual-skip.node'));
  writeJson(join(folder, name, 'package.json'), manifestOf(name));
  return name;
}

async function pack(output, prebuilt, built) {
  const staged = join(output, 'staged');
  const platforms = Object.fromEntries(prebuilt.map((name) => [name, join(ROOT, 'prebuilds', name)]));
  if (built) {
    const name = stageBuilt(staged);
    platforms[name] ??= join(staged, name);
  }
  const { version, scripts, dependencies } = readJson(join(ROOT, 'package.json'));
  stage(ROOT, join(staged, 'residual-skip'), {
    scripts: { 'build:native': scripts['build:native'] },
    dependencies: Object.fromEntries(
      Object.entries(dependencies).filter(([name]) => !BUNDLED.includes(name)),
    ),
    optionalDependencies: Object.fromEntries(
      Object.keys(platforms).map((name) => [`residual-skip-${name}`, version]),
    ),
  });
  await bundle(join(staged, 'residual-skip/dist'));
  writeDeclarations(join(ROOT, 'dist'), join(staged, 'residual-skip/dist'));
  // npm would run node-gyp for it at the top of an installed package; native/build.cjs looks for it there, too.
  copyFileSync(join(ROOT, 'binding.gyp'), join(staged, 'residual-skip/native/binding.gyp'));
  stage(join(ROOT, 'server'), join(staged, 'residual-skip-server'));
  const packages = ['residual-skip', 'residual-skip-server'].map((name) => join(staged, name));
  for (const folder of [...packages, ...Object.values(platforms)]) {
    const packed = npm('pack', folder, '--ignore-scripts', '--json', '--pack-destination', output);
    const [{ filename, size, unpackedSize }] = JSON.parse(packed);
    const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;
    console.error(`${filename}: ${megabytes(size)}, unpacked ${megabytes(unpackedSize)}`);
  }
  rmSync(staged, { recursive: true });
}

const [mode, folder] = process.argv.slice(2);
const names = Object.keys(TARGETS);
if (mode === '--refuse') {
  throw new Error('publish the tarballs that `npm run package` makes in build-package/, not the checkout');
} else if (mode === '--local') {
  mkdirSync(folder, { recursive: true });
  await pack(
    resolve(folder),
    names.filter((name) => problemOf(name) === undefined),
    existsSync(BUILT),
  );
} else {
  const problems = names.flatMap((name) => problemOf(name) ?? []);
  if (!process.env.GITHUB_REPOSITORY) {
    throw new Error('GITHUB_REPOSITORY is not set; the manifests name the repository by it, as OWNER/NAME');
  }
  if (problems.length > 0) {
    throw new Error(`${problems.join('; ')}; make all of them with: npm run prebuild -- --all`);
  }
  const output = join(ROOT, 'build-package');
  rmSync(output, { recursive: true, force: true });
  mkdirSync(output);
  try {
    await pack(output, names, false);
    const env = { ...process.env, RSKIP_TARBALLS: output };
    execFileSync('npx', ['jest', 'test/package'], { cwd: ROOT, stdio: 'inherit', env });
  } catch (error) {
    rmSync(output, { recursive: true });
    throw error;
  }
}
