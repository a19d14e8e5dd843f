// Compiles lib/ into dist/: CommonJS, with index.mjs as the entry point for ES modules. Writes the JSON schemas of policies
// and audit records. Then builds the server, which imports the library as users do. Comments are kept in declarations
// only.
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { z } from 'zod';

const require = createRequire(import.meta.url);
const tsc = require.resolve('typescript/bin/tsc');

rmSync('dist', { recursive: true, force: true });
for (const flags of [['--removeComments', '--declaration', 'false'], ['--emitDeclarationOnly']]) {
  execFileSync(process.execPath, [tsc, '-p', 'tsconfig.build.json', ...flags], { stdio: 'inherit' });
}

const { policySchema } = require('../dist/skip/policy.js');
const { auditLineSchema } = require('../dist/audit/record.js');
for (const [name, schema] of [
  ['policy', policySchema],
  ['audit', auditLineSchema],
]) {
  writeFileSync(
    `dist/${name}.schema.json`,
    `${JSON.stringify(z.toJSONSchema(schema, { io: 'input' }), null, 2)}\n`,
  );
}

rmSync('server/dist', { recursive: true, force: true });
execFileSync(process.execPath, [tsc, '-p', 'server'], { stdio: 'inherit' });
