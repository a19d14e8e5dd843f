// Compares the speed of this checkout, as built, with that of another commit, which is built in a temporary worktree and kept in
// .cache/. Both run in one process and take turns; each uses its own TypeScript and its own addon.
//   npm run bench -- --against COMMIT           twelve networks; export those in bench/models first
//   npm run bench -- --against COMMIT --short   five networks of the repository, in three rounds: fails if one of them takes over
//                                               8 % more time in two rounds. .ci/run does this with the commit in bench/baseline.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { compareSessions, feedsOf, table } from './harness.mjs';

const ROOT = resolve(import.meta.dirname, '..');
const PARTS = ['dist', 'package.json', 'build/Release/residual_skip.node'];
/** The time of a run, relative to the commit's, beyond which a network counts as slower. */
const LIMIT = 1.08;

/** Files by title; `tokens` is the length of a text. */
const SHIPPED = {
  'ResNet-20 (MNIST)': { file: 'models/mnist-resnet20/model.onnx' },
  'ResNet-14 (CIFAR-10)': { file: 'models/cifar10-resnet14/model.onnx' },
  'ResNet-18 (Imagenette)': { file: 'models/imagenette-resnet18/model.onnx' },
  'ResNet-26 (Fashion-MNIST), 8 bits': { file: 'models/fashion-mnist-resnet26/model.int8.onnx' },
  'encoder (SST-2)': { file: 'models/sst2-encoder/model.onnx', tokens: 32 },
};
const exported = (name, tokens) => ({ file: `bench/models/${name}.onnx`, tokens });
const ALL = {
  'ResNet-20 (CIFAR)': exported('resnet20'),
  'ResNet-56 (CIFAR)': exported('resnet56'),
  'ResNet-18 (224)': exported('resnet18'),
  'ResNet-50 (224)': exported('resnet50'),
  'ResNeXt-50 32x4d (224)': exported('resnext50'),
  'MobileNetV2 (224)': exported('mobilenetv2'),
  'ConvNeXt-T (224)': exported('convnext_tiny'),
  'DeiT-Ti (224)': exported('deit_tiny'),
  'MiniLM-L6 (128 tokens)': exported('minilm_l6', 128),
  'MiniLM-L6 (16 tokens)': exported('minilm_l6', 16),
  'ResNet-14 (CIFAR-10), 8 bits': { file: 'models/cifar10-resnet14/model.int8.onnx' },
  'ResNet-26 (Fashion-MNIST), 8 bits': SHIPPED['ResNet-26 (Fashion-MNIST), 8 bits'],
};

const git = (...args) => execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim();

/** The folder of the package as of a commit. */
function packageOf(commit) {
  const folder = join(ROOT, '.cache/packages', commit);
  if (existsSync(join(folder, PARTS.at(-1)))) return folder;
  const tree = mkdtempSync(join(tmpdir(), 'residual-skip-against-'));
  try {
    git('worktree', 'add', '--quiet', '--force', '--detach', tree, commit);
    symlinkSync(join(ROOT, 'node_modules'), join(tree, 'node_modules'));
    const run = (...args) =>
      execFileSync(process.execPath, args, { cwd: tree, stdio: ['ignore', 'ignore', 'inherit'] });
    console.log(`building ${commit}, which takes a minute or two`);
    run(
      'node_modules/typescript-7/bin/tsc',
      '-p',
      'tsconfig.build.json',
      '--noCheck',
      '--declaration',
      'false',
    );
    run('native/build.cjs');
    for (const part of PARTS) cpSync(join(tree, part), join(folder, part), { recursive: true });
  } finally {
    rmSync(tree, { recursive: true, force: true });
    git('worktree', 'prune');
  }
  return folder;
}

/** Times and ratio of each network. */
async function compare(packages, networks, turns) {
  const results = [];
  for (const [title, { file, tokens }] of Object.entries(networks)) {
    const sessions = [];
    for (const { InferenceSession } of packages) {
      sessions.push(await InferenceSession.create(join(ROOT, file), { threads: 1, policy: 'full' }));
    }
    results.push({ title, ...compareSessions(sessions, feedsOf(sessions[0], tokens), turns) });
    await Promise.all(sessions.map((session) => session.release()));
  }
  return results;
}

function print(results, commit) {
  const rows = results.map(({ title, ...figures }) => [
    title,
    ...[figures.firstMs, figures.secondMs, figures.ratio].map((figure) => figure.toFixed(3)),
  ]);
  console.log(`${table(['network', `${commit}, ms`, 'this checkout, ms', 'ratio'], rows)}\n`);
}

/** The titles of networks that are slower in two rounds or more. */
export function slowerIn(rounds) {
  const slow = ({ ratio }) => ratio > LIMIT;
  return rounds[0]
    .map(({ title }) => title)
    .filter((_, i) => rounds.filter((round) => slow(round[i])).length >= 2);
}

/** @returns whether the checkout is fast enough; without `short` it is only looked at */
export async function against(commit, short) {
  const sha = git('rev-parse', '--verify', `${commit}^{commit}`);
  const networks = short ? SHIPPED : ALL;
  for (const { file } of Object.values(networks)) {
    if (!existsSync(join(ROOT, file)))
      throw new Error(`${file} is missing: run python3 bench/export_models.py`);
  }
  const folders = [packageOf(sha), ROOT];
  const packages = folders.map((folder) => createRequire(join(folder, 'package.json'))(folder));
  const rounds = [];
  for (let round = 0; round < (short ? 3 : 1); round++) {
    rounds.push(await compare(packages, networks, short ? 25 : 101));
    print(rounds.at(-1), sha.slice(0, 7));
  }
  if (!short) return true;
  const slower = slowerIn(rounds);
  for (const title of slower)
    console.log(`${title}: over ${(100 * (LIMIT - 1)).toFixed(0)} % slower in two rounds`);
  console.log(`${rounds[0].length - slower.length} passed, ${slower.length} failed`);
  return slower.length === 0;
}
