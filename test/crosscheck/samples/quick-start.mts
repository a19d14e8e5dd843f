// The product of two matrices, from a file: the first program that one writes.
import * as ort from 'onnxruntime-node';

const [folder] = process.argv.slice(2);
const session = await ort.InferenceSession.create(`${folder}/matmul.onnx`);
const dataA = Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
const dataB = Float32Array.from([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120]);
const tensorA = new ort.Tensor('float32', dataA, [3, 4]);
const tensorB = new ort.Tensor('float32', dataB, [4, 3]);
const results = await session.run({ a: tensorA, b: tensorB });
const c: ort.Tensor = results.c!;
console.log(JSON.stringify({ dims: c.dims, data: [...(c.data as Float32Array)] }));
await session.release();
