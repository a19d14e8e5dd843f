// Memory of a process: what remains after create and release, and what overlapping runs need in addition to the weights.
// node --expose-gc bench/memory.mjs MODEL [--cycles N] [--keep]; build first.
//   --cycles N   sessions to create and release (default 100), after as many for warm-up
//   --keep       don't release them, to see what a leak looks like
// Prints JSON in MiB: `cycles` is the growth of the resident size over all cycles, `session` the memory of one session, and
// `overlapping` the additional memory of 16 concurrent runs compared with consecutive ones.
import { parseArgs } from 'node:util';
import { InferenceSession } from '../dist/index.js';
import { feedsOf } from './harness.mjs';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { cycles: { type: 'string', default: '100' }, keep: { type: 'boolean', default: false } },
});
const [model] = positionals;
if (model === undefined || globalThis.gc === undefined) {
  console.error('usage: node --expose-gc bench/memory.mjs MODEL [--cycles N] [--keep]');
  process.exit(2);
}

/** Resident size in MiB after garbage collection. */
async function resident() {
  for (let i = 0; i < 3; i++) {
    globalThis.gc();
    await new Promise(setImmediate);
  }
  return process.memoryUsage.rss() / 2 ** 20;
}

const kept = [];
async function cycle() {
  const session = await InferenceSession.create(model, { threads: 2 });
  await session.run(feedsOf(session));
  if (values.keep) kept.push(session);
  else await session.release();
}

const cycles = Number(values.cycles);
for (let i = 0; i < cycles; i++) await cycle();
const before = await resident();
for (let i = 0; i < cycles; i++) await cycle();
const after = await resident();

const session = await InferenceSession.create(model, { threads: 2 });
const feeds = feedsOf(session);
for (let i = 0; i < 4; i++) await session.run(feeds);
const single = await resident();
for (let i = 0; i < 4; i++) await Promise.all(Array.from({ length: 16 }, () => session.run(feeds)));
const overlapping = await resident();
const rounded = (value) => Number(value.toFixed(1));
console.log(
  JSON.stringify({
    cycles: rounded(after - before),
    session: rounded(single - after),
    overlapping: rounded(overlapping - single),
  }),
);
