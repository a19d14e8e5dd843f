// Builds lib/ with tsc: ES modules into dist/esm and, for what index.ts exports, CommonJS into dist/cjs. Writes the
// JSON schemas of policies and of audit records. Comments go into the declarations alone.
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { z } from 'zod';

const require = createRequire(import.meta.url);
const tsc = require.resolve('typescript/bin/tsc');

rmSync('dist', { recursive: true, force: true });
for (const [format, type] of [
  ['esm', 'module'],
  ['cjs', 'commonjs'],
]) {
  for (const flags of [['--removeComments', '--declaration', 'false'], ['--emitDeclarationOnly']]) {
    execFileSync(process.execPath, [tsc, '-p', `tsconfig.${format}.json`, ...flags], { stdio: 'inherit' });
  }
  writeFileSync(`dist/${format}/package.json`, `${JSON.stringify({ type })}\n`);
}

const { policySchema } = await import('../dist/esm/skip/policy.js');
const { auditLineSchema } = await import('../dist/esm/audit/record.js');
for (const [name, schema] of [
  ['policy', policySchema],
  ['audit', auditLineSchema],
]) {
  writeFileSync(`dist/${name}.schema.json`, `${JSON.stringify(z.toJSONSchema(schema), null, 2)}\n`);
}
