// Compares two builds of the addon in one process, such as a prebuilt one and the checkout's own.
// node bench/addons.mjs ADDON ADDON MODEL...; build first. Prints a line of JSON for each model and instruction set: the
// median CPU time of one run on one thread with each addon, and the median ratio of the second's time to the first's. CPU
// time is least affected by other processes.
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { nativeInfo } from '../dist/backends/native.js';
import { feedsOf, median } from './sessions.mjs';

const ROOT = resolve(import.meta.dirname, '..');
/** Runs of a small network are timed in groups, because of the timer's resolution. */
const SLICE_MS = 20;
const ROUNDS = 101;

const [first, second, ...models] = process.argv.slice(2);
if (models.length === 0) {
  console.error('usage: node bench/addons.mjs ADDON ADDON MODEL...');
  process.exit(2);
}

/** Copies the package and gives it another addon; each copy loads the addon beside it. */
function packageWith(addon, folder) {
  mkdirSync(join(folder, 'build/Release'), { recursive: true });
  for (const part of ['dist', 'package.json'])
    cpSync(join(ROOT, part), join(folder, part), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  cpSync(addon, join(folder, 'build/Release/residual_skip.node'));
  return createRequire(join(folder, 'package.json'))(folder);
}

async function compare(packages, model, isa) {
  const sessions = [];
  for (const { InferenceSession } of packages) {
    sessions.push(await InferenceSession.create(model, { isa, threads: 1, policy: 'full' }));
  }
  const feeds = feedsOf(sessions[0]);
  for (const session of sessions) session.runSync(feeds);
  const slice = (session, runs) => {
    const { user } = process.cpuUsage();
    for (let i = 0; i < runs; i++) session.runSync(feeds);
    return (process.cpuUsage().user - user) / 1000 / runs;
  };
  const runs = Math.max(1, Math.round(SLICE_MS / Math.max(0.01, slice(sessions[0], 3))));
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) {
    const times = [];
    for (const index of round % 2 === 0 ? [0, 1] : [1, 0]) times[index] = slice(sessions[index], runs);
    rounds.push(times);
  }
  const [firstMs, secondMs] = [0, 1].map((index) => median(rounds.map((times) => times[index])));
  const ratio = median(rounds.map(([a, b]) => b / a));
  console.log(JSON.stringify({ model, isa, firstMs, secondMs, ratio }));
  await Promise.all(sessions.map((session) => session.release()));
}

const folder = mkdtempSync(join(tmpdir(), 'residual-skip-addons-'));
try {
  const packages = [first, second].map((addon, index) => packageWith(addon, join(folder, String(index))));
  for (const model of models) {
    for (const isa of nativeInfo().isas) await compare(packages, model, isa);
  }
} finally {
  rmSync(folder, { recursive: true });
}
