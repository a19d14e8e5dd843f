// What a model takes and gives, and feeds that are made of it.
import { InferenceSession, Tensor } from 'onnxruntime-node';

const [folder] = process.argv.slice(2);
const answers: unknown[] = [];
for (const name of ['matmul', 'demo']) {
  const session = await InferenceSession.create(`${folder}/${name}.onnx`);
  const feeds: Record<string, Tensor> = {};
  const inputs: readonly InferenceSession.ValueMetadata[] = session.inputMetadata;
  for (const input of inputs) {
    if (!input.isTensor) throw new Error(`${input.name} is no tensor`);
    const dims = input.shape.map((length) => (typeof length === 'number' ? length : 2));
    const size = dims.reduce((a, b) => a * b, 1);
    feeds[input.name] = new Tensor(input.type, new Float32Array(size).fill(0.5), dims);
  }
  const results = await session.run(feeds);
  const [output] = session.outputMetadata;
  answers.push({
    inputs: inputs.map((input) => [input.name, input.isTensor && input.type, input.isTensor && input.shape]),
    output: [output!.name, output!.isTensor && output!.type],
    sizes: Object.entries(results).map(([key, value]) => [key, value.dims, value.size]),
  });
  await session.release();
}
console.log(JSON.stringify(answers));
