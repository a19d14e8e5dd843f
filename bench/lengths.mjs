// What a new length of a text costs: the first run of each length minus the fastest of three more.
//   python3 bench/export_models.py minilm_l6 && node bench/lengths.mjs [MODEL] [DIST of another build]
// Lengths come in a shuffled order. CPU time of the process, on one thread.
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { feedsOf, median } from './sessions.mjs';

const [model = 'bench/models/minilm_l6.onnx', dist = 'dist'] = process.argv.slice(2);
const { InferenceSession } = await import(pathToFileURL(resolve(dist, 'index.js')));
const MOST = 128;

function cpu(action) {
  const before = process.cpuUsage();
  action();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

const session = await InferenceSession.create(model, { threads: 1 });
const lengths = Array.from({ length: MOST - 4 }, (_, i) => 5 + ((i * 37) % (MOST - 4)));
const costs = lengths.map((length) => {
  const feeds = feedsOf(session, length);
  const run = () => cpu(() => session.runSync(feeds));
  const first = run();
  return { length, ms: first - Math.min(run(), run(), run()) };
});
const LIMIT = 2;
const slow = costs.filter(({ ms }) => ms > LIMIT);
const of = (list) => `${median(list.map(({ ms }) => ms)).toFixed(2)} ms`;
console.log(
  `${lengths.length} lengths: median ${of(costs)}, of the second half ${of(costs.slice(lengths.length / 2))}`,
);
console.log(
  `above ${LIMIT} ms: ${slow.map(({ length, ms }) => `${length} (${ms.toFixed(1)})`).join(', ') || 'none'}`,
);
await session.release();
