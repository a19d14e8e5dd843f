// check-addon.mjs runs this script with the Node of a platform, in a folder with the package and one prebuilt addon. It runs
// networks on every instruction set with one and two threads, and prints a hash of all logits and traces.
const { createHash } = require('node:crypto');
const { isMainThread, Worker } = require('node:worker_threads');
const { InferenceSession, Tensor } = require('./dist/index.js');

/** Numbers in [-2, 2) with few bits, so that every platform computes the same ones. */
function pixels(length) {
  let state = 1;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 24) / 64 - 2;
  });
}

async function hashOf(model, options) {
  const session = await InferenceSession.create(model, { policy: 'model', ...options });
  const [, ...shape] = session.inputMetadata[0].shape;
  const size = shape.reduce((product, length) => product * length, 1);
  const input = new Tensor('float32', pixels(5 * size), [5, ...shape]);
  const hash = createHash('sha256');
  for (const run of [await session.runTraced({ input }), session.runTracedSync({ input })]) {
    hash.update(new Uint8Array(run.outputs.logits.data.buffer)).update(JSON.stringify(run.trace.items));
  }
  hash.update(JSON.stringify(session.blocks));
  await session.release();
  return hash.digest('hex');
}

async function main() {
  const isas = [];
  const hashes = new Set();
  for (const isa of ['scalar', 'avx2', 'avxvnni', 'avx512', 'avx512vnni', 'amx', 'neon', 'neondot']) {
    for (const threads of [1, 2]) {
      try {
        const parts = [];
        for (const model of ['demo', 'cifar10']) parts.push(await hashOf(model, { isa, threads }));
        hashes.add(parts.join(' '));
        if (threads === 1) isas.push(isa);
      } catch (error) {
        if (error.code !== 'ISA_UNAVAILABLE') throw error;
      }
    }
  }
  const platform = `${process.platform}-${process.arch}, Node.js ${process.versions.node}`;
  console.log(JSON.stringify({ platform, isas, hashes: [...hashes] }));
}

// When a worker ends, Node unloads the addon; the process must survive that.
if (isMainThread) new Worker(__filename);
else main();
