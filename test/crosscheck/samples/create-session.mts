// A session from a path, from bytes, and from a part of a buffer.
import { readFile } from 'node:fs/promises';
import { InferenceSession, Tensor } from 'onnxruntime-node';

const [folder] = process.argv.slice(2);
const path = `${folder}/matmul.onnx`;
const bytes = await readFile(path);
const buffer = new ArrayBuffer(bytes.length + 32);
new Uint8Array(buffer, 16, bytes.length).set(bytes);

const sessions: InferenceSession[] = [
  await InferenceSession.create(path),
  await InferenceSession.create(path, {}),
  await InferenceSession.create(new Uint8Array(bytes)),
  await InferenceSession.create(buffer, 16, bytes.length),
  await InferenceSession.create(buffer, 16, bytes.length, { executionProviders: ['cpu'] }),
];
const a = new Tensor(new Float32Array(12).fill(1), [3, 4]);
const b = new Tensor(new Float32Array(12).fill(2), [4, 3]);
const answers: unknown[] = [];
for (const session of sessions) {
  const { c } = await session.run({ a, b });
  answers.push([session.inputNames, session.outputNames, c!.data[8]]);
  await session.release();
}
console.log(JSON.stringify(answers));
