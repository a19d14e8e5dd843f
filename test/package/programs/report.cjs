const { join } = require('node:path');

const MODEL = join(process.cwd(), 'node_modules/residual-skip/demo/model.onnx');

/** Runs the shipped network and prints what came out. */
async function report({ InferenceSession, Tensor }, backend) {
  const session = await InferenceSession.create(MODEL, { backend });
  const pixels = Float32Array.from({ length: 28 * 28 }, (_, i) => Math.sin(i));
  const feeds = { input: new Tensor('float32', pixels, [1, 1, 28, 28]) };
  const { outputs, trace } = await session.runTraced(feeds);
  await session.release();
  console.log(
    JSON.stringify({
      backend: session.backend,
      logits: [...outputs.logits.data],
      pattern: trace.items[0].blocks.map(({ ran }) => Number(ran)).join(''),
    }),
  );
}

module.exports = { MODEL, report };
