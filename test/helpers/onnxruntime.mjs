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
const { shape, batched, input = 'input', dtype = 'float32', level = 'all', everything } = facts;
const file = readFileSync(join(folder, `${name}.bin`));
const Elements = dtype === 'int64' ? BigInt64Array : Float32Array;
const pixels = new Elements(file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength));
const session = await ort.InferenceSession.create(join(folder, `${name}.onnx`), {
  logSeverityLevel: 3,
  graphOptimizationLevel: level,
  // int8 stays int8. Without this, it changes some of the tensors to uint8, and computes the layers where both kinds meet in float32.
  extra: { session: { qdqisint8allowed: '1' } },
});

const [items, ...image] = shape;
const runs = batched ? 1 : items;
const logits = [];
for (let run = 0; run < runs; run++) {
  const data = pixels.subarray((run * pixels.length) / runs, ((run + 1) * pixels.length) / runs);
  const outputs = await session.run({ [input]: new ort.Tensor(dtype, data, [items / runs, ...image]) });
  if (everything) {
    logits.push(
      Object.fromEntries(Object.entries(outputs).map(([key, { data }]) => [key, Array.from(data)])),
    );
    continue;
  }
  const rows = Array.from(outputs.logits.data);
  const length = rows.length / (items / runs);
  for (let at = 0; at < rows.length; at += length) logits.push(rows.slice(at, at + length));
}
console.log(JSON.stringify(logits));
