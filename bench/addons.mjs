// Compares two builds of the addon in one process, such as a prebuilt one and the checkout's own.
// node bench/addons.mjs [--isa ISA] [--batch ITEMS] [--length TOKENS] ADDON[@FORM] ADDON[@FORM] MODEL...; build first. FORM
// forces one form of the AVX-512 kernels: `memory` or `register`. Prints a line of JSON for each model and instruction set: the median
// CPU time of one run on one thread with each addon, and the median ratio of the second's time to the first's.
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { nativeInfo } from '../dist/backends/addon.js';
import { compareSessions, feedsOf } from './harness.mjs';

const ROOT = resolve(import.meta.dirname, '..');
const TURNS = 101;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    isa: { type: 'string' },
    batch: { type: 'string', default: '1' },
    length: { type: 'string', default: '224' },
  },
});
const [batch, length] = [Number(values.batch), Number(values.length)];
const [first, second, ...models] = positionals;
if (models.length === 0) {
  console.error(
    'usage: node bench/addons.mjs [--isa ISA] [--batch ITEMS] [--length TOKENS] ADDON[@FORM] ADDON[@FORM] MODEL...',
  );
  process.exit(2);
}

/** Copies the package and gives it another addon; each copy loads the addon beside it, which chooses its form then. */
function packageWith(argument, folder) {
  const [addon, form = ''] = argument.split('@');
  mkdirSync(join(folder, 'build/Release'), { recursive: true });
  for (const part of ['dist', 'package.json'])
    cpSync(join(ROOT, part), join(folder, part), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  cpSync(addon, join(folder, 'build/Release/residual_skip.node'));
  const require = createRequire(join(folder, 'package.json'));
  process.env.RESIDUAL_SKIP_BROADCAST = form;
  require('./dist/backends/addon.js').nativeInfo();
  return require(folder);
}

async function compare(packages, model, isa) {
  const sessions = [];
  for (const { InferenceSession } of packages) {
    sessions.push(await InferenceSession.create(model, { isa, threads: 1, policy: 'full' }));
  }
  const result = compareSessions(sessions, feedsOf(sessions[0], length, batch), TURNS);
  console.log(JSON.stringify({ model, isa, batch, ...result }));
  await Promise.all(sessions.map((session) => session.release()));
}

const folder = mkdtempSync(join(tmpdir(), 'residual-skip-addons-'));
try {
  const packages = [first, second].map((addon, index) => packageWith(addon, join(folder, String(index))));
  const isas = values.isa ? [values.isa] : nativeInfo().isas;
  for (const model of models) {
    for (const isa of isas) await compare(packages, model, isa);
  }
} finally {
  rmSync(folder, { recursive: true });
}
