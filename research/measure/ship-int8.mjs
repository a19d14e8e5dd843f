// Makes the 8-bit form of the networks in models/: model.int8.onnx beside model.onnx, by `quantize` on 1,000 training images. Where
// there is a policy.json, also policy.int8.json, certified against the float network in full on images without labels that the
// network has never seen: the even-numbered test images, as docs/calibration.md does, or those of --certify, of which `quantize` gets
// none. Build first.
//   node research/measure/ship-int8.mjs [DATASET...] [--data DIR] [--certify PATH] [--limits SHARES]
import { createHash } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { open, ROOT, readImages, readImagesOf, SETS } from '../../bench/networks.mjs';
import { calibrate, quantize } from '../../dist/index.js';

/** Data sets whose networks have an 8-bit form. */
const QUANTISED = ['cifar10', 'fashion-mnist', 'imagenette', 'mnist'];
const MODELS = join(ROOT, 'models');
const TRAINING_IMAGES = 1000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string', default: join(ROOT, '.cache', 'data') },
    certify: { type: 'string' },
    limits: { type: 'string', default: '0.0175,0.02,0.0225' },
  },
});
const unknown = positionals.find((name) => !QUANTISED.includes(name));
if (unknown !== undefined) {
  console.error(`Usage: node research/measure/ship-int8.mjs [${QUANTISED.join('|')} ...] [--data DIR]`);
  process.exit(2);
}

const tensorsOf = (images) => images.map(({ tensor }) => tensor);
const keyOf = ({ data }) => createHash('sha256').update(data).digest('hex');

async function unseen(network, dataset) {
  if (values.certify) return tensorsOf(await readImagesOf(network, values.certify));
  return tensorsOf(await readImages(network, values.data, dataset, 'test')).filter((_, i) => i % 2 === 0);
}

/** Times are this machine's at this moment; `npm run reproduce` measures them. */
function untimed(policy) {
  const { latency: _, ...expected } = policy.expected;
  return { ...policy, expected: { ...expected, latencyReduction: 0 } };
}

async function ship(folder, dataset) {
  const network = await open(folder, 'full');
  const certifying = existsSync(join(folder, 'policy.json')) ? await unseen(network, dataset) : [];
  const taken = new Set(certifying.map(keyOf));
  const some = tensorsOf(await readImages(network, values.data, dataset, 'train', TRAINING_IMAGES));
  const training = some.filter((tensor) => !taken.has(keyOf(tensor)));
  const { model, ...made } = await quantize(folder, training, { threads: 1 });
  const file = join(folder, 'model.int8.onnx');
  writeFileSync(file, model);
  const { bytes, layers, answers, decisions, loss } = made;
  console.log(folder, JSON.stringify({ images: training.length, bytes, layers, answers, decisions, loss }));
  if (certifying.length > 0) {
    const policyFile = join(folder, 'policy.int8.json');
    const { policy } = await calibrate(file, certifying, {
      original: folder,
      limits: values.limits.split(',').map(Number),
    });
    const { settings, ...own } = policy;
    const shipped = { ...untimed(own), ...(settings && { settings: settings.map(untimed) }) };
    writeFileSync(policyFile, `${JSON.stringify(shipped)}\n`);
    const { limit, events, items } = policy.promise;
    console.log(
      policyFile,
      JSON.stringify({ limit, events, items, saved: policy.expected.multiplyAddsSkipped }),
    );
  }
  await network.release();
}

for (const dataset of positionals.length > 0 ? positionals : QUANTISED) {
  for (const name of SETS[dataset].networks) await ship(join(MODELS, name), dataset);
}
