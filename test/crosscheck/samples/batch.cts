// A batch in one run, from a CommonJS module.
import ort = require('onnxruntime-node');

const [folder] = process.argv.slice(2);
const [ITEMS, PIXELS] = [6, 784];

async function main(): Promise<void> {
  const session = await ort.InferenceSession.create(`${folder}/demo.onnx`);
  const pixels = Float32Array.from({ length: ITEMS * PIXELS }, (_, i) =>
    Math.sin(i * 0.37 + Math.floor(i / PIXELS)),
  );
  const together = await session.run({ input: new ort.Tensor('float32', pixels, [ITEMS, 1, 28, 28]) });
  const logits = together.logits!;
  const classes = logits.dims[1]!;
  const answers: number[] = [];
  for (let item = 0; item < ITEMS; item++) {
    const scores = (logits.data as Float32Array).subarray(item * classes, (item + 1) * classes);
    answers.push(scores.indexOf(Math.max(...scores)));
  }
  console.log(
    JSON.stringify({ dims: logits.dims, answers, logits: Array.from(logits.data as Float32Array) }),
  );
  await session.release();
}

void main();
