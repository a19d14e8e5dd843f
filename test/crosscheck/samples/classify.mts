// Classifies a picture: prepares pixels, runs the network, and sorts probabilities.
import * as ort from 'onnxruntime-node';

const [folder] = process.argv.slice(2);
const SIDE = 28;

/** A ring, which a network for digits takes for a zero. */
function drawRing(): Uint8Array {
  const pixels = new Uint8Array(SIDE * SIDE);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const distance = Math.hypot(x - 13.5, (y - 13.5) * 0.8);
      pixels[y * SIDE + x] = Math.max(0, 255 - 130 * Math.abs(distance - 7));
    }
  }
  return pixels;
}

function softmax(scores: Float32Array): number[] {
  const most = Math.max(...scores);
  const exponentials = Array.from(scores, (score) => Math.exp(score - most));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / sum);
}

const session = await ort.InferenceSession.create(`${folder}/demo.onnx`, { executionProviders: ['cpu'] });
const pixels = Float32Array.from(drawRing(), (value) => (value / 255 - 0.1307) / 0.3081);
const feeds: ort.InferenceSession.FeedsType = {
  [session.inputNames[0]!]: new ort.Tensor('float32', pixels, [1, 1, SIDE, SIDE]),
};
const outputs = await session.run(feeds);
const scores = outputs[session.outputNames[0]!]!.data as Float32Array;
const best = softmax(scores)
  .map((probability, index) => ({ index, probability }))
  .sort((a, b) => b.probability - a.probability)
  .slice(0, 3);
console.log(JSON.stringify(best));
await session.release();
