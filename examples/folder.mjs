// Classifies all images of a folder and prints what skipping saved.   node folder.mjs [MODEL] [FOLDER]
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ImageClassifier } from 'residual-skip';

const DEMO = 'node_modules/residual-skip/demo';
const [model = DEMO, folder = DEMO] = process.argv.slice(2);
/** Images that are in memory at a time. */
const PART = 64;

const names = (await readdir(folder))
  .filter((name) => /\.(avif|gif|jpe?g|png|tiff?|webp)$/i.test(name))
  .sort();
const classifier = await ImageClassifier.from(model);
const { multiplyAdds } = classifier.session.model;

let saved = 0;
for (let first = 0; first < names.length; first += PART) {
  const part = names.slice(first, first + PART);
  const images = part.map((name) => join(folder, name));
  const answers = await classifier.classify(images, { topK: 1, trace: true });
  for (const [i, { label, probability, trace }] of answers.entries()) {
    const pattern = trace.blocks.map(({ ran }) => (ran ? '#' : '.')).join('');
    console.log(`${part[i]}\t${label}\t${probability.toFixed(3)}\t${pattern}`);
    saved += trace.multiplyAddsSkipped;
  }
}
await classifier.release();
const share = saved / (names.length * multiplyAdds);
console.log(`${names.length} images, ${(100 * share).toFixed(1)} % of the multiply-adds skipped`);
