import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../util/version.js';

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
];

let loaded: Loaded | undefined;

/**
 * Loads the native addon: a local build (build/Release) before the prebuilt one, which is a separate package for each
 * platform, such as residual-skip-linux-x64-glibc, or in a checkout a folder of prebuilds/.
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
    ...built.map((name) => ({ name, path: join(root, name) })),
    ...fitting.map((name) => ({ name: `residual-skip-${name}`, path: `residual-skip-${name}` })),
  ];
  const problems: string[] = [];
  let cause: unknown;
  for (const { name, path } of candidates) {
    const isMissing = path === name ? !isInstalled(path) : !existsSync(path);
    if (isMissing) {
      problems.push(`${name} is missing`);
      continue;
    }
    try {
      return { exports: require(path) };
    } catch (error) {
      cause = error;
      problems.push(`${name}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
    }
  }
  return { problem: explain(root, here, fitting.length > 0, problems), cause };
}

function isInstalled(name: string): boolean {
  try {
    require.resolve(name);
    return true;
  } catch {
    return false;
  }
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
  if (isPrebuilt) {
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
