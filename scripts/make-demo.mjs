// Makes demo/model.onnx, the network in the package, from a network of models/. Weights are in half precision, each followed by
// a Cast, which halves the file.
//
//   node scripts/make-demo.mjs models/mnist-resnet20-gates
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(import.meta.url);
const { decodeModelProto, encodeModelProto } = require('../dist/model/read/proto.js');

const FLOAT = 1;
const FLOAT16 = 10;
/** Smaller tensors, such as thresholds, keep full precision. */
const MIN_BYTES = 256;

/** Bits of the nearest float16, ties to even. */
function toHalf(value) {
  const magnitude = Math.abs(value);
  const sign = value < 0 ? 0x8000 : 0;
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -14);
  const steps = magnitude / 2 ** (exponent - 10);
  const below = Math.floor(steps);
  const rest = steps - below;
  const rounded = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  if (magnitude === 0 || rounded === 0) return sign;
  // If the mantissa was rounded up to 2048, the addition carries into the exponent.
  const bits = exponent === -14 && rounded < 1024 ? rounded : ((exponent + 15) << 10) + rounded - 1024;
  if (bits >= 0x7c00) throw new RangeError(`${value} is beyond float16`);
  return sign | bits;
}

function halve({ rawData, ...tensor }) {
  const floats = new Float32Array(new Uint8Array(rawData).buffer);
  const halves = Uint16Array.from(floats, toHalf);
  return { ...tensor, dataType: FLOAT16, rawData: new Uint8Array(halves.buffer) };
}

const folder = process.argv[2];
const model = decodeModelProto(readFileSync(join(folder, 'model.onnx')));
const casts = [];
model.graph.initializer = model.graph.initializer.map((tensor) => {
  if (tensor.dataType !== FLOAT || !(tensor.rawData?.length >= MIN_BYTES)) return tensor;
  const name = `${tensor.name}.half`;
  const attribute = [{ name: 'to', type: 2, i: FLOAT }];
  casts.push({ opType: 'Cast', name: `${name}.cast`, input: [name], output: [tensor.name], attribute });
  return { ...halve(tensor), name };
});
model.graph.node.unshift(...casts);
mkdirSync('demo', { recursive: true });
writeFileSync('demo/model.onnx', encodeModelProto(model));
for (const name of ['config.json', 'preprocessor_config.json']) {
  writeFileSync(join('demo', name), readFileSync(join(folder, name)));
}
