/**
 * Runs one of the exporter's networks with onnxruntime and prints the results as JSON: a list of items, each a list of
 * logits, or (`everything` in the facts) an object of all outputs. This is a separate process, because onnxruntime rejects the typed arrays of Jest's realm.
 *
 *     node test/helpers/onnxruntime.mjs MODULE FOLDER NAME
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [module, folder, name] = process.argv.slice(2);
const ort = createRequire(import.meta.url)(module);
const facts = JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8'));
const { batched, level = 'all', everything } = facts;
const { inputs = [{ name: facts.input ?? 'input', dtype: facts.dtype ?? 'float32', shape: facts.shape }] } =
  facts;
const file = readFileSync(join(folder, `${name}.bin`));
let at = file.byteOffset;
const operands = inputs.map(({ name: input, dtype, shape }) => {
  const Elements = dtype === 'int64' ? BigInt64Array : Float32Array;
  const size = shape.reduce((a, b) => a * b) * Elements.BYTES_PER_ELEMENT;
  const data = new Elements(file.buffer.slice(at, at + size));
  at += size;
  return { input, dtype, shape, data };
});
const session = await ort.InferenceSession.create(join(folder, `${name}.onnx`), {
  logSeverityLevel: 3,
  graphOptimizationLevel: level,
  // int8 stays int8. Without this, it changes some of the tensors to uint8, and computes the layers where both kinds meet in float32.
  extra: { session: { qdqisint8allowed: '1' } },
});

const [items] = inputs[0].shape;
const runs = batched ? 1 : items;
const logits = [];
for (let run = 0; run < runs; run++) {
  const feeds = operands.map(({ input, dtype, shape: [, ...item], data }) => {
    const part = data.subarray((run * data.length) / runs, ((run + 1) * data.length) / runs);
    return [input, new ort.Tensor(dtype, part, [items / runs, ...item])];
  });
  const outputs = await session.run(Object.fromEntries(feeds));
  if (everything) {
    logits.push(
      Object.fromEntries(Object.entries(outputs).map(([key, { data }]) => [key, Array.from(data)])),
    );
    continue;
  }
  const rows = Array.from(outputs.logits.data);
  const length = rows.length / (items / runs);
  for (let row = 0; row < rows.length; row += length) logits.push(rows.slice(row, row + length));
}
console.log(JSON.stringify(logits));
