// Delay of the event loop while a network runs, and two overlapping runs against one.
// node bench/event-loop.mjs MODEL [SECONDS]; build first. The input is made up from the model's metadata;
// symbolic dimensions but the batch count as 224.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout } from 'node:timers/promises';
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

/** Delays of the event loop while `action` runs; the timer itself takes 1 ms. */
async function delaysDuring(action) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const runs = await action();
  delay.disable();
  const [p50, p99, max] = [delay.percentile(50), delay.percentile(99), delay.max].map((ns) =>
    (ns / 1e6).toFixed(2),
  );
  return { runs, text: `p50 ${p50} ms, p99 ${p99} ms, max ${max} ms` };
}

const idle = await delaysDuring(() => setTimeout(Number(seconds) * 1000));
const busy = await delaysDuring(async () => {
  const end = performance.now() + Number(seconds) * 1000;
  let runs = 0;
  for (; performance.now() < end; runs++) await session.run(feeds);
  return runs;
});

const one = [];
const two = [];
const pair = await InferenceSession.create(model, { threads: 2 });
await pair.run(feeds);
for (let i = 0; i < 15; i++) {
  one.push(await timed(() => single.run(feeds)));
  two.push(await timed(() => Promise.all([pair.run(feeds), pair.run(feeds)])));
}
const ratio = median(two) / median(one);

console.log(`event loop delay when idle:     ${idle.text}`);
console.log(`event loop delay in ${`${busy.runs} runs:`.padEnd(12)}${busy.text}`);
console.log(`one run on one thread:          ${median(one).toFixed(2)} ms`);
console.log(`two overlapping runs on two:    ${median(two).toFixed(2)} ms (${ratio.toFixed(2)} times one)`);
await Promise.all([session, single, pair].map((each) => each.release()));
