// Is time proportional to work? Runs a network with more and more blocks skipped, alternating, and compares the time with
// the multiply-adds that ran. Then measures the cost of the gates. Build first.
// node bench/skipping.mjs [MODEL] [--rounds N] [--tokens N]
import { parseArgs } from 'node:util';
import { InferenceSession, loadPolicy } from '../dist/index.js';
import { feedsOf, median } from './sessions.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: 'string', default: '30' }, tokens: { type: 'string', default: '128' } },
});
const [model = 'models/mnist-resnet20-gated'] = positionals;
/** Milliseconds of one turn of a variant, before which as long warms up: code and branches are those of another. */
const [TURN_MS, WARM_MS] = [60, 10];

const session = await InferenceSession.create(model, { threads: 1, policy: 'full' });
const texts = session.inputNames.includes('input_ids');
const feeds = feedsOf(session, texts ? Number(values.tokens) : undefined);
for (const { type, data } of Object.values(feeds)) {
  if (type === 'float32') for (const i of data.keys()) data[i] = Math.sin(i);
}
session.runSync(feeds);

// A network of texts has blocks, and their shares, once it knows a length.
const blocks = session.blocks;
const skippable = blocks.filter((block) => block.skippable).map(({ index }) => index);
const step = Math.max(1, Math.floor(skippable.length / 6));
const counts = [];
for (let count = 0; count <= skippable.length; count += step) counts.push(count);
if (counts.at(-1) !== skippable.length) counts.push(skippable.length);

/** `count` blocks spread over the network, so that every stage loses some. */
const spread = (count) =>
  Array.from({ length: count }, (_, i) => skippable[Math.floor((i * skippable.length) / count)]);
const variants = counts.map((count) => {
  const skipped = spread(count);
  const share = skipped.reduce((sum, index) => sum + blocks[index].share, 0);
  const policy = { default: 'run', blocks: Object.fromEntries(skipped.map((index) => [index, 'skip'])) };
  return { title: `${count} of ${blocks.length} blocks skipped`, share, policy, times: [] };
});
const gated = blocks.filter(({ gate }) => gate);
if (gated.length > 0) {
  const always = ({ gate: { compare } }) => (compare === 'gt' || compare === 'ge' ? -3e38 : 3e38);
  const asked = Object.fromEntries(gated.map((block) => [block.index, { threshold: always(block) }]));
  variants.push({ title: 'gates asked', share: 0, policy: { default: 'run', blocks: asked }, times: [] });
}

function turn({ policy: source }, milliseconds, times) {
  const policy = loadPolicy(source);
  const end = performance.now() + milliseconds;
  for (let now = performance.now(); now < end; ) {
    session.runSync(feeds, { policy });
    const after = performance.now();
    times?.push(after - now);
    now = after;
  }
}

for (let round = -1; round < Number(values.rounds); round++) {
  for (const variant of variants) {
    turn(variant, WARM_MS);
    turn(variant, TURN_MS, round < 0 ? undefined : variant.times);
  }
}

const full = median(variants[0].times);
for (const { title, share, times } of variants.filter(({ title }) => title !== 'gates asked')) {
  const [time, work] = [median(times) / full, 1 - share];
  const off = (100 * (time - work)).toFixed(1);
  console.log(
    `${title}: ${median(times).toFixed(3)} ms; time ${(100 * time).toFixed(1)} %, multiply-adds ${(100 * work).toFixed(1)} %, off by ${off} points`,
  );
}
if (gated.length > 0) {
  const gates = (median(variants.at(-1).times) - full) / gated.length;
  const body = (full * gated.reduce((sum, { share }) => sum + share, 0)) / gated.length;
  console.log(
    `a gate costs ${(1000 * gates).toFixed(2)} µs, ${((100 * gates) / body).toFixed(1)} % of its block`,
  );
}
await session.release();
