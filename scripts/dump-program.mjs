// Writes a model's program under the policy of its folder with seeded inputs, for test/native/program_hash.cc:
//   node scripts/dump-program.mjs MODEL OUT [SHAPE [ITEMS]]        (needs `npm run build:ts`)
// SHAPE, such as 1x3x32x32, is the shape of the first input; it may be omitted if only the batch is open, and for texts, which
// then have 16 tokens. ITEMS is the number of items, or a file with the float32 values of the only input.
//
// Format (little-endian): "RSKPROG1", then these lists, each after its 32-bit count: words; constants (id, data type, bytes);
// items; inputs (bytes); modes and thresholds of blocks, then exits. Bytes are padded to multiples of 4.
import { readFileSync, writeFileSync } from 'node:fs';

const { encodeProgram } = await import('../dist/backends/encode.js');
const { findModel } = await import('../dist/data/model-files.js');
const { loadModel } = await import('../dist/model/load.js');
const { compileModel } = await import('../dist/model/compile.js');
const { loadFronts } = await import('../dist/session/fronts.js');
const { joining } = await import('../dist/session/known-fronts.js');
const { attachExits } = await import('../dist/skip/attach.js');
const { resolveExits } = await import('../dist/skip/exits.js');
const { CompiledPolicy, partsOf } = await import('../dist/skip/compiled-policy.js');
const { loadPolicy } = await import('../dist/skip/load-policy.js');
const { atOnce } = await import('../dist/util/slices.js');

const [path, out, shapeText, itemsText = '4'] = process.argv.slice(2);
if (!out) throw new Error('usage: dump-program.mjs MODEL OUT [SHAPE [ITEMS]]');
const files = await findModel(path);
const model = await loadModel(files.model);
const policy = loadPolicy(files.policy ?? 'model');
const TOKENS = 16;
const [input] = model.inputs;
const isText = input.dtype === 'int64';
const shape =
  shapeText?.split('x').map(Number) ??
  input.shape.map((length, axis) => {
    if (typeof length === 'number') return length;
    if (axis === 0) return 1;
    if (isText) return TOKENS;
    throw new Error(`give a SHAPE for [${input.shape.join(', ')}]`);
  });
const shaped = isText ? model.inputs : [input];
const binding = new Map(shaped.map(({ name }) => [name, { shape }]));
const fronts = await loadFronts(policy, model);
const plain = atOnce(joining(compileModel(model, binding), fronts, binding));
const program = attachExits(plain, resolveExits(plain, partsOf(policy).exits));
const { words, constants, ids } = encodeProgram(program);
const given = /^\d+$/.test(itemsText)
  ? undefined
  : new Float32Array(new Uint8Array(readFileSync(itemsText)).buffer);
const elements = shape.reduce((a, b) => a * b, 1);
const items = program.batching === 'whole' ? 1 : given ? given.length / elements : Number(itemsText);

/** Smooth random images (sums of a few waves), so that scores vary. */
function inputData(elements) {
  let state = 12345;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const data = new Float32Array(elements);
  const waves = Array.from({ length: 5 }, () => [next() * 0.3, next() * 6, next()]);
  for (let i = 0; i < elements; i++) {
    let sum = next() - 0.5;
    for (const [frequency, phase, height] of waves) sum += height * Math.sin(i * frequency + phase);
    data[i] = sum;
  }
  return data;
}

/** Ids of common tokens, or marks, all 1. */
const tokenData = (name, elements) =>
  BigInt64Array.from({ length: elements }, (_, i) => (name === 'input_ids' ? BigInt((i * 37) % 100) : 1n));

const chunks = [Buffer.from('RSKPROG1')];
const int = (...values) => chunks.push(Buffer.from(Int32Array.from(values).buffer));
const bytes = (array) => {
  int(array.byteLength);
  chunks.push(Buffer.from(array.buffer, array.byteOffset, array.byteLength));
  chunks.push(Buffer.alloc(-array.byteLength & 3));
};
bytes(words);
int(constants.length);
for (const [i, constant] of constants.entries()) {
  int(ids[2 * i], ids[2 * i + 1]);
  bytes(constant);
}
int(items, program.inputs.length);
for (const { value, batched } of program.inputs) {
  const { dtype, name, shape: dims } = program.values[value];
  const size = dims.reduce((a, b) => a * b, 1) * (batched ? items : 1);
  if (dtype === 'int64') bytes(tokenData(name, size));
  else if (dtype === 'float32') bytes(given ?? inputData(size));
  else throw new Error(`input of type ${dtype}`);
}
const { modes, thresholds } = new CompiledPolicy(policy, program, () => model.sha256);
bytes(modes);
bytes(thresholds);
writeFileSync(out, Buffer.concat(chunks));
