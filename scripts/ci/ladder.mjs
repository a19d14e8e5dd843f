// Writes the folder of a ladder of networks of this checkout: node scripts/ci/ladder.mjs FOLDER
// ResNet-32 for CIFAR-10 behind ResNet-14 and itself at three quarters of its resolution; each rung answers some of examples/images.
import { createHash } from 'node:crypto';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [folder] = process.argv.slice(2);
const sha256 = (name) =>
  createHash('sha256')
    .update(readFileSync(join(folder, name)))
    .digest('hex');

cpSync('test/models/cifar10-resnet32', folder, { recursive: true });
cpSync('models/cifar10-resnet14/model.onnx', join(folder, 'small.onnx'));
const fronts = [
  { name: 'small', file: 'small.onnx', sha256: sha256('small.onnx') },
  { name: 'shrunk', file: 'model.onnx', sha256: sha256('model.onnx'), size: [24, 24] },
];
const exits = [
  { after: 'small', threshold: 0.9 },
  { after: 'shrunk', threshold: 0.8 },
];
const policy = { version: 1, model: { sha256: sha256('model.onnx') }, fronts, heads: { exits } };
writeFileSync(join(folder, 'policy.json'), JSON.stringify(policy, null, 2));
