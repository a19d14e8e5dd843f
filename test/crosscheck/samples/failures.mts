// What goes wrong is an Error, and the session goes on.
import * as ort from 'onnxruntime-node';

const [folder] = process.argv.slice(2);
async function fails(work: () => unknown): Promise<boolean> {
  try {
    await work();
    return false;
  } catch (error) {
    return error instanceof Error && error.message.length > 0;
  }
}

const session = await ort.InferenceSession.create(`${folder}/matmul.onnx`);
const a = new ort.Tensor('float32', new Float32Array(12).fill(1), [3, 4]);
const b = new ort.Tensor('float32', new Float32Array(12).fill(1), [4, 3]);
const wrongType = new ort.Tensor('int32', new Int32Array(12), [3, 4]);
const failed = {
  'a model that is not there': await fails(() => ort.InferenceSession.create(`${folder}/none.onnx`)),
  'bytes that are no model': await fails(() => ort.InferenceSession.create(Uint8Array.of(1, 2, 3))),
  'a missing input': await fails(() => session.run({ a })),
  'another type': await fails(() => session.run({ a: wrongType, b })),
  'another shape': await fails(() => session.run({ a: b, b: a.reshape([2, 6]) })),
  'an output that is not there': await fails(() => session.run({ a, b }, ['d'])),
  'too few elements': await fails(() => new ort.Tensor('float32', new Float32Array(3), [2, 2])),
};
const { c } = await session.run({ a, b });
console.log(JSON.stringify({ failed, afterwards: [...(c!.data as Float32Array)] }));
await session.release();
