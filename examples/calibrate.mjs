// Makes a policy that skips, from images without labels, and measures it.   node calibrate.mjs MODEL IMAGES [LIMIT] [POLICY.json]
//
// A certificate for 1 % needs at least 500 images like those to come, which the network wasn't trained on.
import { writeFile } from 'node:fs/promises';
import { calibrate, evaluate, renderCalibration } from 'residual-skip';

const [model, images, limit = '0.01', path = 'policy.json'] = process.argv.slice(2);

// Ctrl-C ends the work; with `state` it goes on where it stopped when it is called again.
const stop = new AbortController();
process.once('SIGINT', () => stop.abort());

const percent = (share) => `${(100 * share).toFixed(1)} %`;
let stage = '';
try {
  const result = await calibrate(model, images, {
    maxDisagreement: Number(limit),
    confidence: 0.95,
    state: `${path}.state`,
    signal: stop.signal,
    onNote: (note) => console.log(note),
    onProgress: (progress) => {
      if (progress.stage !== stage) console.log(`${progress.stage} ...`);
      stage = progress.stage;
    },
  });
  await writeFile(path, JSON.stringify(result.policy));
  await writeFile(`${path}.html`, await renderCalibration(result));

  const { promise } = result.policy;
  console.log(
    `at most ${percent(promise.limit)} of the answers change, with ${percent(promise.confidence)} confidence (${promise.items} images)`,
  );

  // Here on the same images; a fair measurement takes others.
  const { skip } = await evaluate(model, images, { policy: result.policy, limit: 100, signal: stop.signal });
  console.log(
    `${percent(skip.multiplyAddsSkipped)} of the multiply-adds skipped, ${percent(1 - skip.agreement)} of the answers changed`,
  );
} catch (error) {
  if (error.name !== 'AbortError') throw error;
  console.log('stopped; the same command goes on from here');
}
