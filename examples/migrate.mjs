// Code written for onnxruntime-node, with another import, and what it can use besides.   node migrate.mjs [MODEL]
import ort from 'residual-skip'; // import ort from 'onnxruntime-node';

const [model = 'node_modules/residual-skip/demo/model.onnx'] = process.argv.slice(2);

// As before. `executionProviders` may only name 'cpu'. Options without effect here, such as graphOptimizationLevel, are
// accepted with a warning, unless ort.env.logLevel is 'error'.
const session = await ort.InferenceSession.create(model, {
  executionProviders: ['cpu'],
  intraOpNumThreads: 1,
});
const [name] = session.inputNames;
const [{ shape }] = session.inputMetadata;
const dims = shape.map((length) => (typeof length === 'number' ? length : 1));
const size = dims.reduce((product, length) => product * length, 1);
const input = new ort.Tensor(
  'float32',
  Float32Array.from({ length: size }, (_, i) => Math.sin(i)),
  dims,
);
const outputs = await session.run({ [name]: input }, [session.outputNames[0]]);
console.log(outputs[session.outputNames[0]].dims);

// New: `run` doesn't block the event loop, and takes a signal.
const reason = await session
  .run({ [name]: input }, { signal: AbortSignal.abort() })
  .catch((error) => error.name);
console.log(reason);

// New: what ran and what was skipped. `run` already skips: policy 'full' computes everything, as onnxruntime does.
const { trace } = await session.runTraced({ [name]: input });
const full = await session.runTraced({ [name]: input }, { policy: 'full' });
const ran = ({ items }) => items[0].blocks.filter((block) => block.ran).length;
console.log(`${ran(trace)} blocks ran; in full ${ran(full.trace)}`);

await session.release();
