import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { requirePackage } from './packages.js';
import { isBundled, packageRoot } from './version.js';

/** Either the addon's exports, or the reason why there are none. */
export type Loaded = { readonly exports: unknown } | { readonly problem: string; readonly cause: unknown };

/** Platforms with prebuilt addons: `process.platform`, `process.arch` and, on Linux, the C library. */
const PREBUILT = [
  'linux-x64-glibc',
  'linux-x64-musl',
  'linux-arm64-glibc',
  'linux-arm64-musl',
  'darwin-x64',
  'darwin-arm64',
  'win32-x64',
  'win32-arm64',
];

/** The addon's file where this package is inside a program's bundle, and no node_modules is beside that. */
const BESIDE = 'residual-skip.node';

let loaded: Loaded | undefined;

/**
 * Loads the native addon: a local build (build/Release) before the prebuilt one, which is a separate package for each
 * platform, such as residual-skip-linux-x64-glibc, or in a checkout a folder of prebuilds/. A bundle has no local build.
 */
export function loadBinding(): Loaded {
  loaded ??= tryLoad();
  return loaded;
}

function tryLoad(): Loaded {
  const root = packageRoot();
  const here = `${process.platform}-${process.arch}`;
  const fits = (name: string) => name === here || name.startsWith(`${here}-`);
  const fitting = PREBUILT.filter(fits);
  const prebuilds = join(root, 'prebuilds');
  const own = existsSync(prebuilds) ? readdirSync(prebuilds).filter(fits) : [];
  const built = [
    'build/Release/residual_skip.node',
    ...own.map((name) => `prebuilds/${name}/residual-skip.node`),
  ];
  const candidates = [
    ...(isBundled()
      ? [{ name: BESIDE, path: `./${BESIDE}` }]
      : built.map((name) => ({ name, path: join(root, name) }))),
    ...fitting.map((name) => ({ name: `residual-skip-${name}`, path: `residual-skip-${name}` })),
  ];
  const problems: string[] = [];
  let cause: unknown;
  for (const { name, path } of candidates) {
    try {
      return { exports: requirePackage(path) };
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === 'MODULE_NOT_FOUND') problems.push(`${name} is missing`);
      else {
        cause = error;
        problems.push(`${name}: ${message.split('\n')[0]}`);
      }
    }
  }
  return { problem: explain(root, here, fitting.length > 0, problems), cause };
}

function explain(root: string, here: string, isPrebuilt: boolean, problems: readonly string[]): string {
  const libc = process.platform === 'linux' ? ` (${libcName()})` : '';
  const build = root.includes('node_modules')
    ? 'npm explore residual-skip -- npm run build:native'
    : 'npm run build:native';
  const remedies = [
    `build it with GCC or Clang and Python 3 (${build})`,
    "use the slower { backend: 'reference' }",
  ];
  if (isPrebuilt && isBundled()) {
    remedies.unshift(`copy ${BESIDE} of the package residual-skip-${here}* beside the bundle`);
  } else if (isPrebuilt) {
    remedies.unshift('install the optional dependencies on this platform (npm install --include=optional)');
  }
  return (
    `native addon: can't be loaded on ${here}${libc} with Node.js ${process.versions.node}` +
    `${isPrebuilt ? '' : ', for which there is no prebuilt one'}; tried in ${root}: ${problems.join(', ')}; ` +
    remedies.join(', or ')
  );
}

function libcName(): string {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  const version = report?.header?.glibcVersionRuntime;
  return version === undefined ? 'musl' : `glibc ${version}`;
}
