// Compiles lib/ into dist/: CommonJS, with index.mjs as the entry point for ES modules. Writes the JSON schemas of policies
// and audit records. Then builds the server, which imports the library as users do. Comments are kept in declarations
// only. The library's types are checked by `npm run typecheck` alone, which takes most of a compiler's time.
import { execFile, execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { z } from 'zod';

const require = createRequire(import.meta.url);
const tsc = require.resolve('typescript/bin/tsc');

rmSync('dist', { recursive: true, force: true });
await Promise.all(
  [['--removeComments', '--declaration', 'false'], ['--emitDeclarationOnly']].map((flags) =>
    promisify(execFile)(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--noCheck', ...flags]).catch(
      (error) => {
        throw new Error(error.stdout || error.message);
      },
    ),
  ),
);

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
