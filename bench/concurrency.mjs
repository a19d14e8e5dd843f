// Compares the throughput of two overlapping runs with that of consecutive runs, alternating.
// node bench/concurrency.mjs MODEL [ROUNDS]; build first. Prints JSON: the median times of one run on one thread and of two
// concurrent runs on two, and the ratio of the throughputs.
import { InferenceSession } from '../dist/index.js';
import { feedsOf, median, timed } from './sessions.mjs';

const [model, rounds = '15'] = process.argv.slice(2);
if (model === undefined) {
  console.error('usage: node bench/concurrency.mjs MODEL [ROUNDS]');
  process.exit(2);
}

/** Runs of a small network are timed in groups, because of the timer's resolution. */
const SLICE_MS = 40;

const single = await InferenceSession.create(model, { threads: 1 });
const pair = await InferenceSession.create(model, { threads: 2 });
const feeds = feedsOf(single);
await single.run(feeds);
await pair.run(feeds);
const repeats = Math.max(1, Math.round(SLICE_MS / (await timed(() => single.run(feeds)))));

async function series(session) {
  for (let i = 0; i < repeats; i++) await session.run(feeds);
}

const one = [];
const two = [];
for (let round = 0; round < Number(rounds); round++) {
  one.push((await timed(() => series(single))) / repeats);
  two.push((await timed(() => Promise.all([series(pair), series(pair)]))) / repeats);
}
const [oneMs, twoMs] = [median(one), median(two)];
console.log(JSON.stringify({ oneMs, twoMs, throughput: (2 * oneMs) / twoMs }));
await Promise.all([single, pair].map((session) => session.release()));
