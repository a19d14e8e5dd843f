import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

interface Found {
  readonly root: string;
  readonly version: string;
}

function find(): Found {
  for (let root = __dirname; root !== dirname(root); root = dirname(root)) {
    const file = join(root, 'package.json');
    if (!existsSync(file)) continue;
    const { name, version } = JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string };
    if (name === 'residual-skip' && version !== undefined) return { root, version };
  }
  return { root: __dirname, version: 'unknown' };
}

let found: Found | undefined;

/** This package's version. */
export function packageVersion(): string {
  found ??= find();
  return found.version;
}

/** The folder of this package's package.json. */
export function packageRoot(): string {
  found ??= find();
  return found.root;
}
