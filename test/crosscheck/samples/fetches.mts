// Outputs by name: all, some, and one that is written into the caller's memory.
import { InferenceSession, Tensor } from 'onnxruntime-node';

const [folder] = process.argv.slice(2);
const session = await InferenceSession.create(`${folder}/matmul.onnx`);
const feeds: Record<string, Tensor> = {};
feeds.a = new Tensor(
  'float32',
  Float32Array.from({ length: 12 }, (_, i) => i % 5),
  [3, 4],
);
feeds.b = new Tensor(
  'float32',
  Float32Array.from({ length: 12 }, (_, i) => (i % 3) - 1),
  [4, 3],
);

const everything = await session.run(feeds);
const names: InferenceSession.FetchesType = ['c'];
const some = await session.run(feeds, names);
const nulls = await session.run(feeds, { c: null }, {});
const memory = new Float32Array(9);
const filled = await session.run(feeds, { c: new Tensor('float32', memory, [3, 3]) });
const listOf = (tensor: Tensor | undefined) => [...(tensor!.data as Float32Array)];
console.log(
  JSON.stringify({
    keys: [everything, some, nulls, filled].map((results) => Object.keys(results)),
    values: [everything.c, some.c, nulls.c, filled.c].map((tensor) => listOf(tensor as Tensor)),
    memory: [...memory],
  }),
);
await session.release();
