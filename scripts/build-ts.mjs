// Compiles lib/ into dist/: CommonJS, with index.mjs as the entry point for ES modules. Writes the JSON schemas of policies,
// audit records and the options of serve. Then builds the server, which imports the library as users do. Comments are kept in declarations
// only. The library's types are checked by `npm run typecheck` alone. Does nothing where nothing changed: npm runs it twice, for the
// checkout and for the server's link to it.
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';

const require = createRequire(import.meta.url);
const tsc = 'node_modules/typescript-7/bin/tsc';

const SETTINGS = ['tsconfig.json', 'tsconfig.build.json', 'server/tsconfig.json', 'package-lock.json'];
/** Written last. */
const BUILT = 'server/dist/index.js';

/** A folder and all in it; its time changes with the names in it. */
const within = (folder) => [
  folder,
  ...readdirSync(folder, { recursive: true }).map((name) => join(folder, name)),
];
const sources = [...['lib', 'server/src'].flatMap(within), ...SETTINGS, import.meta.filename];
const isBuilt = existsSync('dist') && existsSync(BUILT);
if (isBuilt && sources.every((path) => statSync(path).mtimeMs < statSync(BUILT).mtimeMs)) process.exit();

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
const { serveConfigSchema } = require('../dist/cli/serve-options.js');
for (const [name, schema] of [
  ['policy', policySchema()],
  ['audit', auditLineSchema()],
  ['serve', serveConfigSchema],
]) {
  writeFileSync(
    `dist/${name}.schema.json`,
    `${JSON.stringify(z.toJSONSchema(schema, { io: 'input' }), null, 2)}\n`,
  );
}

rmSync('server/dist', { recursive: true, force: true });
execFileSync(process.execPath, [tsc, '-p', 'server'], { stdio: 'inherit' });
