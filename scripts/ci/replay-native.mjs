// Records a session's decisions and answers for a folder of images, and runs the same inputs in another build of the
// native core; the hashes must be equal. Of a ladder, each rung must have answered.
//   node scripts/ci/replay-native.mjs MODEL IMAGES COMMAND...        COMMAND: program_hash, perhaps after an emulator
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const { itemsOfPath } = await import('../../dist/classify/images.js');
const { openClassifier } = await import('../../dist/cli/classifier.js');

const [model, images, ...command] = process.argv.slice(2);

/** 64-bit FNV-1a, as in test/native/program_hash.cc. */
let hash = 0xcbf29ce484222325n;
function mix(bytes) {
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
}

const bytesOf = ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength);

const inputs = [];
const runs = [];
const classifier = await openClassifier(model, {}, { out: () => {}, err: console.error, color: false });
const files = await itemsOfPath(images, classifier.model.images, { labelsFrom: 'none' });
for await (const { tensor } of classifier.prepare(files)) {
  inputs.push(Buffer.from(bytesOf(tensor.data)));
  runs.push(await classifier.session.runTraced(classifier.feeds(tensor)));
}
const { isa } = classifier.session;
for (const name of classifier.session.outputNames) {
  for (const { outputs } of runs) mix(bytesOf(outputs[name].data));
}
const items = runs.map(({ trace }) => trace.items[0]);
const exits = Math.max(...items.map((item) => item.exits.length));
for (const item of items) {
  mix(item.blocks.map(({ ran }) => Number(ran)));
  mix(Array.from({ length: exits }, (_, e) => Number(item.exits[e]?.taken ?? false)));
}
for (const item of items) {
  for (const { score } of [...item.blocks, ...item.exits])
    if (score !== null) mix(bytesOf(Float32Array.of(score)));
}
const answered = new Set(items.map((item) => item.exits.find(({ taken }) => taken)?.after ?? 'the network'));
await classifier.release();

const recorded = hash.toString(16).padStart(16, '0');
const folder = mkdtempSync(join(tmpdir(), 'replay-native-'));
writeFileSync(join(folder, 'inputs'), Buffer.concat(inputs));
const program = join(folder, 'program');
const dump = ['scripts/dump-program.mjs', model, program, '1x3x32x32', join(folder, 'inputs')];
execFileSync(process.execPath, dump, { stdio: 'inherit' });
const replayed = execFileSync(command[0], [...command.slice(1), program], { encoding: 'utf8' }).trim();
rmSync(folder, { recursive: true });
console.log(`${files.length} items, ${isa}: ${recorded}; replayed: ${replayed}`);
const complete = answered.size === exits + 1;
if (!complete) console.log(`only ${[...answered].join(' and ')} answered`);
console.log(complete && replayed.startsWith(`${recorded} `) ? '1 passed, 0 failed' : '0 passed, 1 failed');
