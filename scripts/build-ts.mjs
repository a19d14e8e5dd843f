// Builds lib/ twice with tsc: ES modules into dist/esm, CommonJS into dist/cjs.
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const tsc = require.resolve('typescript/bin/tsc');

for (const [format, type] of [
  ['esm', 'module'],
  ['cjs', 'commonjs'],
]) {
  const out = `dist/${format}`;
  rmSync(out, { recursive: true, force: true });
  execFileSync(process.execPath, [tsc, '-p', `tsconfig.${format}.json`], { stdio: 'inherit' });
  writeFileSync(`${out}/package.json`, `${JSON.stringify({ type })}\n`);
}
