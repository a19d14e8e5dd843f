// Delay of the event loop while a network is loaded and while it runs, on two threads.
// node bench/event-loop.mjs MODEL [SECONDS] [DIST of another build]; build first. Makes an input from the model's metadata;
// symbolic dimensions other than the batch count as 224. A classifier of images also runs a mix: nine items of ten leave at an
// exit behind its first block, which a policy adds.
import { resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { feedsOf, median, timed } from './harness.mjs';

const [model, seconds = '5', dist = 'dist'] = process.argv.slice(2);
if (model === undefined) {
  console.error('usage: node bench/event-loop.mjs MODEL [SECONDS] [DIST]');
  process.exit(2);
}
const { InferenceSession, Tensor } = await import(pathToFileURL(resolve(dist, 'index.js')));
const duration = Number(seconds) * 1000;
const options = { threads: 2 };

/** Runs `action` and prints how late timers of 1 ms are meanwhile. They have whole milliseconds: half of one is none. */
async function watched(what, action) {
  const delays = [];
  let timer;
  let last = performance.now();
  const fired = () => {
    const now = performance.now();
    delays.push(now - last - 1);
    last = now;
    timer = setTimeout(fired, 1);
  };
  fired();
  delays.length = 0;
  const milliseconds = await timed(action);
  await pause(2);
  clearTimeout(timer);
  delays.sort((a, b) => a - b);
  const at = (quantile) => `${delays[Math.floor(quantile * (delays.length - 1))].toFixed(2)} ms`;
  console.log(
    `${what.padEnd(17)}${milliseconds.toFixed(0)} ms: p50 ${at(0.5)}, p99 ${at(0.99)}, p99.9 ${at(0.999)}, max ${at(1)}`,
  );
}

/** Calls `run` again and again for the time of a measurement. */
async function again(run) {
  for (const end = performance.now() + duration; performance.now() < end; ) await run();
}

/** A policy with one exit, which reads the means of the first block with random weights. */
function exitPolicy({ after, channels, classes }, threshold) {
  const base64 = (length, numberAt) =>
    Buffer.from(Float32Array.from({ length }, numberAt).buffer).toString('base64');
  const layer = {
    weight: base64(classes * channels, (_, i) => Math.sin(12.9898 * i)),
    bias: base64(classes, () => 0),
  };
  return { heads: { exits: [{ after, features: 'mean', layers: [layer], threshold }], gates: [] } };
}

/** A session with an exit, and an item on each side of it; undefined for a network that takes no such exit. */
async function withExit(full, feeds) {
  const [output] = full.outputMetadata;
  const place = { after: full.blocks[0]?.name, classes: output.shape.at(-1) };
  for (place.channels of [8, 16, 24, 32, 64, 128, 256, 512]) {
    try {
      const asked = await InferenceSession.create(model, { ...options, policy: exitPolicy(place, 1.5) });
      const scoreOf = async (item) => (await asked.runTraced(item)).trace.items[0].exits[0].score;
      const [[name, { type, data, dims }]] = Object.entries(feeds);
      const noise = {
        [name]: new Tensor(
          type,
          data.map((_, i) => 9 * Math.sin(78.233 * i)),
          dims,
        ),
      };
      const items = [];
      for (const item of [feeds, noise]) items.push({ item, score: await scoreOf(item) });
      await asked.release();
      const [long, short] = items.sort((a, b) => a.score - b.score);
      const policy = exitPolicy(place, (long.score + short.score) / 2);
      const session = await InferenceSession.create(model, { ...options, policy });
      return { session, short: short.item, long: long.item };
    } catch (error) {
      if (error.code !== 'INVALID_POLICY') throw error;
    }
  }
  return undefined;
}

await watched('idle', () => pause(duration));
let session;
await watched('create', async () => {
  session = await InferenceSession.create(model, options);
});
const feeds = feedsOf(session);
await watched('run', () => again(() => session.run(feeds)));
const mixed = await withExit(session, feeds);
await session.release();
if (mixed) {
  const times = { short: [], long: [] };
  const mix = async () => {
    for (let i = 0; i < 10; i++) {
      const kind = i === 9 ? 'long' : 'short';
      times[kind].push(await timed(() => mixed.session.run(mixed[kind])));
    }
  };
  await watched('mix', () => again(mix));
  const [short, long] = [times.short, times.long].map((list) => `${median(list).toFixed(2)} ms`);
  await watched('mix, two at once', () => Promise.all([again(mix), again(mix)]));
  console.log(`an item that leaves takes ${short}, one that doesn't ${long}`);
  await mixed.session.release();
}
