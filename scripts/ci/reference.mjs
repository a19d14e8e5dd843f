// Runs the images of a network's reference.json and compares logits and decisions with PyTorch's.
// node scripts/ci/reference.mjs MODEL_FOLDER DATA   (DATA: what `eval --data` takes)
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { itemsOfPath } from '../../dist/classify/images.js';
import { openClassifier } from '../../dist/cli/classifier.js';

/** Rounding may change logits and scores by this much, and flip decisions whose score is this close to the threshold 0. */
const TOLERANCE = 1e-4;

const [folder, data] = process.argv.slice(2);
const { items } = JSON.parse(readFileSync(join(folder, 'reference.json'), 'utf8'));
const classifier = await openClassifier(folder, { policy: 'model' }, { err: () => {} });
const samples = await itemsOfPath(data, classifier.model.images, { labelsFrom: 'data' });
const chosen = items.map(({ file }) => {
  // The recipe names an image of an IDX file FILE#NUMBER.
  const wanted = file.replace(/#(\d+)$/, '[$1]');
  const sample = samples.find(({ name }) => wanted.endsWith(name));
  if (!sample) throw new Error(`${data} has no image ${file}`);
  return sample;
});

const tally = { passed: 0, failed: 0 };
let index = 0;
for await (const { tensor } of classifier.prepare(chosen)) {
  const { file, full, gated = full, decisions, scores } = items[index++];
  const { scores: logits, trace } = classifier.classify(tensor);
  const close = (scores ?? []).some((score) => score !== null && Math.abs(score) < TOLERANCE);
  const decided = trace.blocks.every(
    ({ ran }, block) => !decisions || decisions[block] === null || decisions[block] === Number(ran),
  );
  const error = Math.max(...gated.map((value, k) => Math.abs(value - logits[k])));
  const agrees = close || (decided && error < TOLERANCE);
  tally[agrees ? 'passed' : 'failed']++;
  if (!agrees)
    console.log(`FAIL ${file}: decisions ${decided ? 'agree' : 'differ'}, logits differ by ${error}`);
}
await classifier.release();
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exitCode = tally.failed === 0 && tally.passed > 0 ? 0 : 1;
