import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { ResidualSkipError } from '../errors.js';

/** A peer's package: its module and its version, from the first folder that has it. */
export async function importPeer<Module>(
  name: string,
  folders: readonly string[],
): Promise<{ module: Module; version: string; folder: string }> {
  for (const folder of folders) {
    const require = createRequire(resolve(folder, 'package.json'));
    let entry: string;
    try {
      entry = require.resolve(name);
    } catch {
      continue;
    }
    let root = dirname(entry);
    for (;;) {
      try {
        const found = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
        if (found.name === name) return { module: require(name), version: found.version, folder: root };
      } catch {
        // A folder inside the package without a package.json.
      }
      if (dirname(root) === root) break;
      root = dirname(root);
    }
  }
  throw new ResidualSkipError(
    'MISSING_DEPENDENCY',
    `peer '${name}': it is not installed; run 'npm ci --ignore-scripts' in the package's bench folder, ` +
      `or 'npm i --ignore-scripts ${name}' in the folder where you start the benchmark`,
  );
}
