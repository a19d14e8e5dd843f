// Copies a data set's first twin and gated network from the folder of research/protocol.py to models/, the latter with its
// registered policy, and writes their model cards. The figures are from research/measure/protocol.json, so measure first:
// node research/measure/reproduce.mjs DIR
//   node research/measure/ship.mjs DIR DATASET
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SETS } from '../../bench/networks.mjs';
import { wordPromise } from '../../dist/calibrate/report/wording.js';
import { cardName, checkRegistered, isText, LIMITS, policyFile, readRuns } from './runs.mjs';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..');
const FILES = ['model.onnx', 'config.json', 'preprocessor_config.json', 'tokenizer.json', 'reference.json'];
const SOURCES = {
  cifar10: 'Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009',
  'fashion-mnist': 'Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017 (MIT)',
  sst2: 'Socher et al., Recursive Deep Models for Semantic Compositionality, 2013: its 6,920 sentences for training',
  imagenette: 'Howard, Imagenette, 2019 (Apache 2.0)',
};

const [folder, dataset] = process.argv.slice(2);
if (!Object.hasOwn(SOURCES, dataset ?? '')) {
  console.error(`Usage: node research/measure/ship.mjs DIR ${Object.keys(SOURCES).join('|')}`);
  process.exit(2);
}
const { reports } = JSON.parse(readFileSync(join(ROOT, 'research', 'measure', 'protocol.json'), 'utf8'));
const report = reports.find((one) => one.dataset === dataset);
const [limit] = LIMITS[dataset];
const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)} %`;

function find(role) {
  const name = `${dataset}/${role}-seed${report.seed}`;
  const run = readRuns(folder).find((one) => one.name === name);
  return { run, measured: report.networks.find((one) => one.name === name) };
}

const twin = find('twin');
const gated = find('gated');
checkRegistered(gated.run);
const { depths, widths } = twin.run;
const blocks = depths.reduce((sum, depth) => sum + depth, 0);
const layers = 2 * blocks + 2;
const name = isText(dataset) ? `${dataset}-encoder` : `${dataset}-resnet${layers}`;

function copy(run, target, files) {
  mkdirSync(target, { recursive: true });
  for (const file of files.filter((one) => existsSync(join(run.folder, one))))
    copyFileSync(join(run.folder, file), join(target, file));
}

const read = (file) => JSON.parse(readFileSync(join(twin.run.folder, file), 'utf8'));

function description() {
  const { title } = SETS[dataset];
  const million = (twin.measured.multiplyAdds / 1e6).toFixed(1);
  if (isText(dataset)) {
    const tokens = Object.keys(read('tokenizer.json').model.vocab).length;
    return `Transformer encoder for ${title}: ${blocks} layers of width ${widths[0]} with their norms in front, a classifier on the first token, ${tokens} tokens of
WordPiece; ${million} M multiply-adds for 64 tokens. Inputs \`input_ids\` and \`attention_mask\` [batch, tokens]`;
  }
  const stages = depths.map((depth, i) => `${depth} of ${widths[i]} channels`).join(', ');
  const { size, image_mean } = read('preprocessor_config.json');
  const input = ['batch', image_mean.length, size.height, size.width].join(', ');
  const stem = dataset === 'imagenette' ? 'a 7x7 stem and a maximum pool, each of stride 2' : 'a 3x3 stem';
  return `ResNet-${layers} for ${title}: ${stem}, basic blocks in ${depths.length} stages (${stages}), projection shortcuts, global average
pool, one linear layer; ${million} M multiply-adds. Input \`input\` [${input}]`;
}

function card(title, text) {
  const { title: data } = SETS[dataset];
  const classes = Object.keys(read('config.json').id2label).length;
  const [task, kind] = isText(dataset) ? ['text', 'transformer'] : ['image', 'resnet'];
  return `---
license: mit
library_name: onnx
pipeline_tag: ${task}-classification
tags: [${kind}, dynamic-depth, early-exit, conditional-computation]
---
# ${title}

${description()},
output \`logits\` [batch, ${classes}]. Trained by \`research/protocol.py\` (seed ${report.seed}).

${text}

All networks of the protocol, their seeds and the plain networks of the same cost: \`docs/lab/protocol.md\`.

Data: ${data} (${SOURCES[dataset]}).
`;
}

const plainFolder = join(ROOT, 'models', name);
copy(twin.run, plainFolder, FILES);
writeFileSync(
  join(plainFolder, 'README.md'),
  card(
    name,
    `Plain twin of \`${name}-exits\`. Accuracy on the whole test set: ${percent(twin.measured.accuracy)}.`,
  ),
);

const gatedFolder = join(ROOT, 'models', `${name}-exits`);
copy(gated.run, gatedFolder, FILES);
const policy = JSON.parse(readFileSync(policyFile(gated.run, limit), 'utf8'));
copyFileSync(policyFile(gated.run, limit), join(gatedFolder, 'policy.json'));
const { latencyMs } = report;
writeFileSync(
  join(gatedFolder, 'README.md'),
  card(
    `${name}-exits`,
    `An early exit follows each ${isText(dataset) ? 'layer but the last' : 'block from the end of the first stage on'}. \`policy.json\`, which runs wherever this folder is opened, has the exits' thresholds. They were certified on
${policy.promise.items} validation ${isText(dataset) ? 'texts' : 'images'}: ${wordPromise(policy.promise)}. Its SHA-256 was registered in
\`research/cards/${cardName(gated.run)}\` before the test set was read. With \`policy: 'model'\`, the file's own thresholds decide,
which promise nothing.

| on the whole test set | accuracy | multiply-adds saved | p50, ms | mean, ms |
|---|---:|---:|---:|---:|
| plain twin | ${percent(twin.measured.accuracy)} | 0 | ${latencyMs.twin.p50.toFixed(3)} | ${latencyMs.twin.mean.toFixed(3)} |
| this network in full | ${percent(gated.measured.inFull)} | 0 | ${latencyMs['gated in full'].p50.toFixed(3)} | ${latencyMs['gated in full'].mean.toFixed(3)} |
| this network with \`policy.json\` | ${percent(gated.measured.accuracy)} | ${percent(gated.measured.saved, 1)} | ${latencyMs[`limit ${limit}`].p50.toFixed(3)} | ${latencyMs[`limit ${limit}`].mean.toFixed(3)} |

Skipped blocks by stage: ${gated.measured.stages.map((share) => percent(share, 0)).join(', ')}.`,
  ),
);
console.log(`wrote models/${name} and models/${name}-exits`);
