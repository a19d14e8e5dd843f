// The package in CommonJS, synchronously.   node commonjs.cjs
const { InferenceSession, Tensor } = require('residual-skip');

async function main() {
  const session = await InferenceSession.create(require.resolve('residual-skip/demo/model.onnx'));
  const pixels = Float32Array.from({ length: 784 }, (_, i) => Math.sin(i));
  const input = new Tensor('float32', pixels, [1, 1, 28, 28]);
  // runSync blocks the event loop: it is for scripts.
  const { outputs, trace } = session.runTracedSync({ input });
  console.log(outputs.logits.dims, trace.items[0].blocks.filter(({ ran }) => !ran).length, 'blocks skipped');
  await session.release();
}

main();
