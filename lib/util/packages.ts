import { createRequire } from 'node:module';
import { isAbsolute, join } from 'node:path';
import { isBundled } from './version.js';

/**
 * Where this package looks for others: beside itself. Inside a program's bundle it has no folder of its own, so there it looks from
 * the bundle, the started script and the working directory.
 */
function* bases(): Generator<string> {
  if (typeof __filename === 'string' && isAbsolute(__filename)) yield __filename;
  if (!isBundled()) return;
  if (process.argv[1] !== undefined && isAbsolute(process.argv[1])) yield process.argv[1];
  yield join(process.cwd(), 'index.js');
}

/**
 * Loads an installed package that isn't always there: an optional peer, or the addon of this platform. Bundlers don't follow it, so
 * that nothing has to be declared external: natively compiled files can't be bundled. It isn't imported, because Jest refuses
 * dynamic imports.
 * @throws what `require` throws: MODULE_NOT_FOUND when no folder has it
 */
export function requirePackage<T>(name: string): T {
  let missing: unknown;
  for (const base of bases()) {
    const require = createRequire(base);
    try {
      require.resolve(name);
    } catch (error) {
      missing = error;
      continue;
    }
    return require(name);
  }
  throw missing;
}
