// Delay of the event loop while a network runs, and two overlapping runs against one.
// node bench/event-loop.mjs MODEL [SECONDS]; build first. The input is made up from the model's metadata;
// symbolic dimensions but the batch count as 224.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { InferenceSession, Tensor } from '../dist/esm/index.js';

const [model, seconds = '5'] = process.argv.slice(2);
if (model === undefined) {
  console.error('usage: node bench/event-loop.mjs MODEL [SECONDS]');
  process.exit(2);
}

function makeFeeds({ inputMetadata }) {
  return Object.fromEntries(
    inputMetadata.map(({ name, type, shape }) => {
      const dims = shape.map((dim, axis) => (typeof dim === 'number' ? dim : axis === 0 ? 1 : 224));
      const size = dims.reduce((product, length) => product * length, 1);
      return [name, new Tensor(type, Array(size).fill(type === 'bool' ? false : 0), dims)];
    }),
  );
}

async function timed(action) {
  const start = performance.now();
  await action();
  return performance.now() - start;
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

const session = await InferenceSession.create(model, { threads: 2 });
const single = await InferenceSession.create(model, { threads: 1 });
const feeds = makeFeeds(session);
await session.run(feeds);
await single.run(feeds);

const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();
const end = performance.now() + Number(seconds) * 1000;
let runs = 0;
for (; performance.now() < end; runs++) await session.run(feeds);
delay.disable();

const one = [];
const two = [];
const pair = await InferenceSession.create(model, { threads: 2 });
await pair.run(feeds);
for (let i = 0; i < 15; i++) {
  one.push(await timed(() => single.run(feeds)));
  two.push(await timed(() => Promise.all([pair.run(feeds), pair.run(feeds)])));
}
const ratio = median(two) / median(one);

console.log(`runs:                           ${runs}`);
// The histogram counts from the timer's own resolution of 1 ms.
console.log(
  `event loop delay p50/p99/max:   ${[delay.percentile(50), delay.percentile(99), delay.max].map((ns) => `${(ns / 1e6).toFixed(2)} ms`).join(' / ')}`,
);
console.log(`one run on one thread:          ${median(one).toFixed(2)} ms`);
console.log(`two overlapping runs on two:    ${median(two).toFixed(2)} ms (${ratio.toFixed(2)} times one)`);
await Promise.all([session, single, pair].map((each) => each.release()));
