// Options of a session and of a run.
import * as ort from 'onnxruntime-node';

const [folder] = process.argv.slice(2);
ort.env.logLevel = 'error';
const options: ort.InferenceSession.SessionOptions = {
  executionProviders: [{ name: 'cpu' }],
  intraOpNumThreads: 2,
  interOpNumThreads: 1,
  graphOptimizationLevel: 'all',
  enableCpuMemArena: true,
  enableMemPattern: true,
  executionMode: 'sequential',
  logId: 'sample',
  logSeverityLevel: 3,
  logVerbosityLevel: 0,
  freeDimensionOverrides: { batch: 1 },
  preferredOutputLocation: 'cpu',
  extra: { session: { set_denormal_as_zero: '0' } },
};
const session = await ort.InferenceSession.create(`${folder}/demo.onnx`, options);
const input = new ort.Tensor('float32', new Float32Array(784).fill(0.25), [1, 1, 28, 28]);
const runOptions: ort.InferenceSession.RunOptions = {
  tag: 'first',
  logSeverityLevel: 3,
  logVerbosityLevel: 0,
};
const results: ort.InferenceSession.ReturnType = await session.run({ input }, runOptions);
const logits = results.logits as ort.TypedTensor<'float32'>;
console.log(JSON.stringify({ dims: logits.dims, data: [...logits.data] }));
await session.release();
