import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../version.js';

// Has no types of its own.
const nodeGypBuild: (folder: string) => unknown = require('node-gyp-build');

/** Either the addon's exports, or why there are none. */
export type Loaded = { readonly exports: unknown } | { readonly problem: string; readonly cause: unknown };

let loaded: Loaded | undefined;

/** Loads the native addon: a local build (build/Release) before a prebuild (prebuilds/). */
export function loadBinding(): Loaded {
  loaded ??= tryLoad();
  return loaded;
}

function tryLoad(): Loaded {
  const root = packageRoot();
  try {
    return { exports: nodeGypBuild(root) };
  } catch (cause) {
    return { problem: explain(root, cause), cause };
  }
}

function explain(root: string, cause: unknown): string {
  const libc = process.platform === 'linux' ? `, ${libcName()}` : '';
  const platform = `${process.platform}-${process.arch}${libc}, Node.js ${process.versions.node}`;
  const found = binaries(root);
  const tried = found.length > 0 ? `found ${found.join(', ')}` : 'found neither a build nor prebuilds';
  const message = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
  return (
    `The native addon can't be loaded on ${platform}. In ${root}: ${tried}; ${message}. ` +
    "Ways out: install for this platform again (npm install residual-skip); with a C++20 compiler and the package's " +
    "sources, build it (npm run build:native); or use the slower { backend: 'reference' }."
  );
}

function libcName(): string {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  const version = report?.header?.glibcVersionRuntime;
  return version === undefined ? 'musl' : `glibc ${version}`;
}

/** Paths of all binaries of this package, whatever they are for. */
function binaries(root: string): string[] {
  const folders = ['build/Release', 'build/Debug'];
  if (existsSync(join(root, 'prebuilds'))) {
    folders.push(...readdirSync(join(root, 'prebuilds')).map((name) => `prebuilds/${name}`));
  }
  return folders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) => readdirSync(join(root, folder)).map((name) => `${folder}/${name}`))
    .filter((file) => file.endsWith('.node'));
}
