// What an audit log costs at full rate: runs of a network one after the other, with and without it in turn. Prints the
// ratio of the medians of the blocks' times, and the CPU time that a run takes more.
//   node bench/audit-cost.mjs [MODEL [PAIRS]]        (needs `npm run compile`)
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const { InferenceSession, Tensor, auditLog } = await import('../dist/esm/index.js');

const [model = 'models/cifar10-resnet32/model.onnx', pairs = '200'] = process.argv.slice(2);
/** Runs timed together: enough for the log to write in between. */
const BLOCK = 50;
const folder = mkdtempSync(join(tmpdir(), 'audit-cost-'));
const log = auditLog({ path: join(folder, 'trace.ndjson') });
const sessions = {
  without: await InferenceSession.create(model, { threads: 1 }),
  with: await InferenceSession.create(model, { threads: 1, observers: [log] }),
};
const images = Array.from({ length: BLOCK }, (_, seed) => {
  const pixels = Float32Array.from({ length: 3 * 32 * 32 }, (_, i) => Math.sin(i * 0.01 * (seed + 1)));
  return { input: new Tensor('float32', pixels, [1, 3, 32, 32]) };
});

async function time(kind) {
  const cpu = process.cpuUsage();
  const start = performance.now();
  for (const feeds of images) await sessions[kind].run(feeds);
  const milliseconds = (performance.now() - start) / BLOCK;
  const { user, system } = process.cpuUsage(cpu);
  return { milliseconds, cpu: (user + system) / 1000 / BLOCK };
}

const times = { without: [], with: [] };
for (let pair = -5; pair < Number(pairs); pair++) {
  for (const kind of pair % 2 === 0 ? ['without', 'with'] : ['with', 'without']) {
    const timed = await time(kind);
    if (pair >= 0) times[kind].push(timed);
  }
}
await Promise.all(Object.values(sessions).map((session) => session.release()));
rmSync(folder, { recursive: true });

const quantile = (values, q) => values.sort((a, b) => a - b)[Math.floor(q * (values.length - 1))];
const ratio = (of) => times.with.map((timed, i) => of(timed) / of(times.without[i]));
const { written, lost } = log.stats().auditLog;
for (const [name, of] of [
  ['wall-clock time', ({ milliseconds }) => milliseconds],
  ['CPU time', ({ cpu }) => cpu],
]) {
  const ms = (kind) => quantile(times[kind].map(of), 0.5).toFixed(4);
  const percent = (value) => `${(100 * (value - 1)).toFixed(2)} %`;
  const [low, middle, high] = [0.25, 0.5, 0.75].map((q) => quantile(ratio(of), q));
  console.log(
    `${name} of a run: ${ms('without')} ms without, ${ms('with')} ms with the log: ` +
      `${percent(middle)} more (quartiles ${percent(low)} to ${percent(high)})`,
  );
}
console.log(`${written} items written, ${lost} lost`);
