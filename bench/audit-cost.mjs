// Cost of an audit log at full rate: alternates blocks of consecutive runs without a log, with a log, and with a log without
// input hashes. Prints how much longer a run takes for its caller, and how much more CPU time all threads use.
//   node bench/audit-cost.mjs [MODEL [ROUNDS [THREADS [POLICY]]]]        (needs `npm run compile`)
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const { InferenceSession, Tensor, auditLog } = await import('../dist/index.js');

const [model = 'test/models/cifar10-resnet32/model.onnx', rounds = '5', threads = '1', policy = 'model'] =
  process.argv.slice(2);
/** Runs in a block: enough for the log to write several times. */
const BLOCK = 400;
/** Pause after each block, in which the log writes the rest. Its CPU time counts, and it doesn't disturb the next block. */
const SETTLE_MS = 120;
/** `hash` and `none` are values of the log's option `inputs`. `again` repeats `without`, to show the noise. */
const KINDS = ['without', 'hash', 'none', 'again'];

const images = Array.from({ length: BLOCK }, (_, seed) => {
  const pixels = Float32Array.from({ length: 3 * 32 * 32 }, (_, i) => Math.sin(i * 0.01 * (seed + 1)));
  return { input: new Tensor('float32', pixels, [1, 3, 32, 32]) };
});

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

function quantile(values, q) {
  return values.toSorted((a, b) => a - b)[Math.floor(q * (values.length - 1))];
}

/** All permutations, so that each kind runs before and after each other one equally often. */
function orders(things) {
  if (things.length === 0) return [[]];
  return things.flatMap((first) =>
    orders(things.filter((thing) => thing !== first)).map((rest) => [first, ...rest]),
  );
}

/** Milliseconds per run. Each block ends with a garbage collection, so that no other block pays for its garbage. */
async function time(session) {
  const cpu = process.cpuUsage();
  const runs = [];
  const start = performance.now();
  let before = start;
  for (const feeds of images) {
    await session.run(feeds);
    const now = performance.now();
    runs.push(now - before);
    before = now;
  }
  collectGarbage({ type: 'minor' });
  const mean = (performance.now() - start) / BLOCK;
  await sleep(SETTLE_MS);
  const { user, system } = process.cpuUsage(cpu);
  return { mean, median: quantile(runs, 0.5), cpu: (user + system) / 1000 / BLOCK };
}

const folder = mkdtempSync(join(tmpdir(), 'audit-cost-'));
const times = Object.fromEntries(KINDS.map((kind) => [kind, []]));
let [written, lost] = [0, 0];
for (let round = 0; round < Number(rounds); round++) {
  // Every round has new sessions: the placement of their memory changes times by more than the log does.
  const logs = ['hash', 'none'].map((inputs) => auditLog({ path: join(folder, `${inputs}.ndjson`), inputs }));
  const sessions = {};
  for (const kind of orders(KINDS)[(5 * round) % 24]) {
    const observers = { hash: [logs[0]], none: [logs[1]] }[kind] ?? [];
    sessions[kind] = await InferenceSession.create(model, { threads: Number(threads), policy, observers });
    await time(sessions[kind]);
  }
  for (const order of orders(KINDS)) {
    for (const kind of order) times[kind].push(await time(sessions[kind]));
  }
  await Promise.all(Object.values(sessions).map((session) => session.release()));
  for (const log of logs) {
    const stats = log.stats().auditLog;
    written += stats.written;
    lost += stats.lost;
  }
}
rmSync(folder, { recursive: true });

for (const [name, of] of [
  ['time of a run, mean of a block', 'mean'],
  ['time of a run, median of a block', 'median'],
  ['CPU time of all threads', 'cpu'],
]) {
  const compare = (kind) => {
    const ratios = times[kind].map((timed, i) => timed[of] / times.without[i][of]);
    // 95 % confidence interval of the median of n ratios (order statistics, as in the sign test).
    const margin = Math.min(0.5, 0.98 / Math.sqrt(ratios.length));
    const [low, middle, high] = [0.5 - margin, 0.5, 0.5 + margin].map(
      (q) => `${(100 * (quantile(ratios, q) - 1)).toFixed(2)} %`,
    );
    return `${middle} (95 %: ${low} to ${high})`;
  };
  const ms = (kind) => {
    const values = times[kind].map((timed) => timed[of]);
    return quantile(values, 0.5).toFixed(4);
  };
  console.log(`${name}: ${ms('without')} ms without a log`);
  console.log(`  more with the log: ${compare('hash')}`);
  console.log(`  more with the log, inputs not hashed: ${compare('none')}`);
  console.log(`  by chance, the same again without: ${compare('again')}`);
}
console.log(`${written} items written, ${lost} lost`);
