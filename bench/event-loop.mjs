// Delay of the event loop while a network is loaded and while it runs.
// node bench/event-loop.mjs MODEL [SECONDS]; build first. Makes an input from the model's metadata; symbolic dimensions
// other than the batch count as 224.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout } from 'node:timers/promises';
import { InferenceSession } from '../dist/index.js';
import { feedsOf, timed } from './sessions.mjs';

const [model, seconds = '5'] = process.argv.slice(2);
if (model === undefined) {
  console.error('usage: node bench/event-loop.mjs MODEL [SECONDS]');
  process.exit(2);
}

/** Runs `action` and prints the event loop's delays during it; the timer itself accounts for 1 ms. */
async function watched(what, action) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  // The first tick of the timer only starts the clock.
  await setTimeout(10);
  delay.reset();
  const milliseconds = await timed(action);
  await setTimeout(2);
  delay.disable();
  const [p50, p99, max] = [delay.percentile(50), delay.percentile(99), delay.max].map((ns) =>
    (ns / 1e6).toFixed(2),
  );
  console.log(`${what.padEnd(8)}${milliseconds.toFixed(0)} ms: p50 ${p50} ms, p99 ${p99} ms, max ${max} ms`);
}

const duration = Number(seconds) * 1000;
await watched('idle', () => setTimeout(duration));
let session;
await watched('create', async () => {
  session = await InferenceSession.create(model, { threads: 2 });
});
const feeds = feedsOf(session);
await watched('run', async () => {
  for (const end = performance.now() + duration; performance.now() < end; ) await session.run(feeds);
});
await session.release();
