// Is time proportional to work? Runs a network with more and more blocks skipped, alternating, and compares the time with
// the multiply-adds that ran. Then measures the cost of the gates. Build first.
// node bench/skipping.mjs [MODEL] [ROUNDS]
import { InferenceSession, Tensor } from '../dist/index.js';

const [model = 'models/mnist-resnet20-gated', rounds = '30'] = process.argv.slice(2);
const create = (policy) => InferenceSession.create(model, { threads: 1, policy });
const session = await create('full');
const { blocks } = session;
const [{ name, shape }] = session.inputMetadata;
const dims = shape.map((dim, axis) => (typeof dim === 'number' ? dim : axis === 0 ? 1 : 224));
const size = dims.reduce((product, length) => product * length, 1);
const pixels = Float32Array.from({ length: size }, (_, i) => Math.sin(i));
const feeds = { [name]: new Tensor('float32', pixels, dims) };

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
  return { title: `${count} of ${blocks.length} blocks skipped`, share, policy };
});
const gated = blocks.filter(({ gate }) => gate);
if (gated.length > 0) {
  const always = ({ gate: { compare } }) => (compare === 'gt' || compare === 'ge' ? -3e38 : 3e38);
  const asked = Object.fromEntries(gated.map((block) => [block.index, { threshold: always(block) }]));
  variants.push({ title: 'gates asked', share: 0, policy: { default: 'run', blocks: asked } });
}
const runs = [];
for (const variant of variants) {
  runs.push({ ...variant, session: await create(variant.policy), times: [] });
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
for (let round = -3; round < Number(rounds); round++) {
  for (const { session: variant, times } of runs) {
    // Warm up: the weights of the other sessions have evicted this session's from the cache.
    for (let i = -10; i < 40; i++) {
      const start = performance.now();
      variant.runSync(feeds);
      if (round >= 0 && i >= 0) times.push(performance.now() - start);
    }
  }
}

const full = median(runs[0].times);
for (const { title, share, times } of runs.filter(({ title }) => title !== 'gates asked')) {
  const [time, work] = [median(times) / full, 1 - share];
  const off = (100 * (time - work)).toFixed(1);
  console.log(
    `${title}: ${median(times).toFixed(3)} ms; time ${(100 * time).toFixed(1)} %, multiply-adds ${(100 * work).toFixed(1)} %, off by ${off} points`,
  );
}
if (gated.length > 0) {
  const gates = (median(runs.at(-1).times) - full) / gated.length;
  const body = (full * gated.reduce((sum, { share }) => sum + share, 0)) / gated.length;
  console.log(
    `a gate costs ${(1000 * gates).toFixed(2)} µs, ${((100 * gates) / body).toFixed(1)} % of its block`,
  );
}
await Promise.all([session, ...runs.map((run) => run.session)].map((each) => each.release()));
