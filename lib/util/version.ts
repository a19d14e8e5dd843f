import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** This package's version, which the bundle of a release has as a constant. */
declare const RESIDUAL_SKIP_VERSION: string | undefined;

interface Found {
  /** Undefined inside another program's bundle: then no folder is this package's. */
  readonly root?: string;
  readonly version: string;
}

function find(): Found {
  const start = typeof __dirname === 'string' ? __dirname : '/';
  for (let root = start; root !== dirname(root); root = dirname(root)) {
    const file = join(root, 'package.json');
    if (!existsSync(file)) continue;
    const { name, version } = JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string };
    if (name === 'residual-skip' && version !== undefined) return { root, version };
  }
  return { version: typeof RESIDUAL_SKIP_VERSION === 'string' ? RESIDUAL_SKIP_VERSION : 'unknown' };
}

let found: Found | undefined;

/** This package's version. */
export function packageVersion(): string {
  found ??= find();
  return found.version;
}

/** The folder of this package's package.json; inside another program's bundle, the working directory. */
export function packageRoot(): string {
  found ??= find();
  return found.root ?? process.cwd();
}

/** Whether a bundler put this package into a program, so that it has no folder of its own. */
export function isBundled(): boolean {
  found ??= find();
  return found.root === undefined;
}
