/**
 * transformers.js with `onnxruntime-node` replaced by this package through npm's `overrides`. Nothing but packages is downloaded:
 * the network is made here. Skipped where transformers.js can't be installed.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Embedder, Reranker } from 'lib/index.js';
import { expectClose } from '../helpers/compare.js';
import { removeFolders } from '../helpers/files.js';
import { LABELS, writeSeededModel } from '../helpers/seeded-network.js';
import { randomTexts, textNetwork } from '../helpers/text-network.js';

const ROOT = resolve(__dirname, '../..');
const RUNTIME =
  process.env.RESIDUAL_SKIP_ONNXRUNTIME ??
  [join(ROOT, 'bench/node_modules/onnxruntime-node'), join(ROOT, 'node_modules/onnxruntime-node')].find(
    existsSync,
  ) ??
  '';
const IMAGES = ['cat-0000.jpg', 'ship-0001.jpg', 'frog-0000.jpg'].map((name) =>
  join(ROOT, 'examples/images', name),
);
const TEXTS = randomTexts(5, 2);

const folder = mkdtempSync(join(tmpdir(), 'residual-skip-clients-'));
const problem = install();
if (problem) console.warn(`transformers.js can't be installed, so its tests are skipped: ${problem}`);
const test = problem ? it.skip : it;
const compared = problem || !existsSync(RUNTIME) ? it.skip : it;
afterAll(() => {
  removeFolders();
  rmSync(folder, { recursive: true, force: true });
});

/** @returns what kept transformers.js from being installed */
function install(): string | undefined {
  const packed = join(folder, 'packed');
  execFileSync(process.execPath, [join(ROOT, 'scripts/package.mjs'), '--local', packed], { stdio: 'pipe' });
  const tarballs = readdirSync(packed);
  const overrides = tarballs.map((file) => {
    const name = file.replace(/-\d+\.\d+\.\d+.*/, '');
    return [name === 'residual-skip' ? 'onnxruntime-node' : name, `file:${join(packed, file)}`];
  });
  const manifest = {
    private: true,
    dependencies: { '@huggingface/transformers': '4.3.1' },
    overrides: Object.fromEntries(overrides),
  };
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest));
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', '--fetch-retries=0'];
  const { status, stderr } = spawnSync('npm', ['install', ...options], { cwd: folder, encoding: 'utf8' });
  if (status !== 0) return stderr.split('\n').find((line) => line.includes('npm error')) ?? stderr;
  cpSync(join(__dirname, 'programs'), folder, { recursive: true });
  writeSeededModel(join(folder, 'models/seeded'));
  const labels = { id2label: { 0: 'bad', 1: 'fair', 2: 'good' } };
  writeTextModel('classes', { architectures: ['BertForSequenceClassification'], ...labels });
  writeTextModel('tokens', { architectures: ['BertModel'] });
  writeTextModel('score', { architectures: ['BertForSequenceClassification'], num_labels: 1 });
  return undefined;
}

/** A network of texts in the layout that transformers.js reads. */
function writeTextModel(kind: 'classes' | 'tokens' | 'score', config: object): void {
  const target = join(folder, 'models', kind);
  const files = {
    'config.json': { model_type: 'bert', ...config },
    'tokenizer_config.json': {
      ...{ tokenizer_class: 'BertTokenizer', model_max_length: 64, do_lower_case: true },
      ...{ unk_token: '[UNK]', sep_token: '[SEP]', pad_token: '[PAD]', cls_token: '[CLS]' },
    },
  };
  cpSync(textNetwork(kind, { files }), target, { recursive: true });
  mkdirSync(join(target, 'onnx'));
  renameSync(join(target, 'model.onnx'), join(target, 'onnx/model.onnx'));
}

interface Answer {
  readonly label: string;
  readonly score: number;
}

interface Ran<T> {
  readonly isResidualSkip: boolean;
  readonly answers: readonly T[];
  readonly stderr: string;
}

function run<T>(task: string, model: string, inputs: readonly string[]): Ran<T> {
  const args = ['transformers.mjs', task, join(folder, 'models'), model, ...inputs];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return { ...JSON.parse(stdout), stderr };
}

/** The same with onnxruntime-node in place of this package. */
function runOnOnnxruntime<T>(...args: Parameters<typeof run>): Ran<T> {
  const replaced = join(folder, 'node_modules/onnxruntime-node');
  renameSync(replaced, `${replaced}.away`);
  symlinkSync(RUNTIME, replaced);
  try {
    return run<T>(...args);
  } finally {
    rmSync(replaced);
    renameSync(`${replaced}.away`, replaced);
  }
}

describe.each([
  ['image-classification', 'seeded', IMAGES, [...LABELS]],
  ['text-classification', 'classes', TEXTS, ['bad', 'fair', 'good']],
] as const)('the pipeline %s of transformers.js', (task, model, inputs, labels) => {
  test('runs on this package', () => {
    const { isResidualSkip, answers, stderr } = run<Answer[]>(task, model, inputs);
    expect({ isResidualSkip, stderr }).toEqual({ isResidualSkip: true, stderr: '' });
    expect(answers).toHaveLength(inputs.length);
    for (const answer of answers) {
      expect(answer.map(({ label }) => label).sort()).toEqual([...labels].sort());
      expect(answer.reduce((sum, { score }) => sum + score, 0)).toBeCloseTo(1, 5);
    }
  });

  compared('gives the answers that it gives on onnxruntime-node', () => {
    const own = run<Answer[]>(task, model, inputs).answers;
    const { isResidualSkip, answers } = runOnOnnxruntime<Answer[]>(task, model, inputs);
    expect(isResidualSkip).toBe(false);
    expect(own.map(labelsOf)).toEqual(answers.map(labelsOf));
    for (const [i, answer] of answers.entries()) {
      for (const [k, { score }] of answer.entries()) expect(own[i]![k]!.score).toBeCloseTo(score, 5);
    }
    // A network that gives everything one answer would prove little.
    expect(new Set(answers.map(([first]) => first!.score)).size).toBe(inputs.length);
  });
});

describe('the pipeline feature-extraction of transformers.js', () => {
  test('runs on this package, and gives what Embedder gives for each text alone', async () => {
    const { isResidualSkip, answers } = run<number[]>('feature-extraction', 'tokens', TEXTS);
    expect(isResidualSkip).toBe(true);
    await using embedder = await Embedder.from(join(folder, 'models/tokens'), { normalize: true });
    const embedded = await embedder.embed(TEXTS);
    for (const [i, { vector }] of embedded.entries()) {
      expectClose(Float32Array.from(answers[i]!), vector, { relative: 1e-4, absolute: 1e-6 });
    }
  });

  compared('gives the vectors that it gives on onnxruntime-node', () => {
    const own = run<number[]>('feature-extraction', 'tokens', TEXTS).answers;
    const { isResidualSkip, answers } = runOnOnnxruntime<number[]>('feature-extraction', 'tokens', TEXTS);
    expect(isResidualSkip).toBe(false);
    for (const [i, vector] of answers.entries()) {
      expectClose(Float32Array.from(own[i]!), Float32Array.from(vector), { relative: 1e-4, absolute: 1e-6 });
    }
  });
});

describe('a cross-encoder in transformers.js', () => {
  const [query, ...documents] = TEXTS as [string, ...string[]];

  test('runs on this package, and gives the scores that Reranker gives', async () => {
    const { isResidualSkip, answers } = run<number>('reranking', 'score', TEXTS);
    expect(isResidualSkip).toBe(true);
    await using reranker = await Reranker.from(join(folder, 'models/score'));
    const ranked = await reranker.rank(query, documents);
    expect(ranked).toHaveLength(answers.length);
    for (const { index, score } of ranked) expect(answers[index]).toBeCloseTo(score, 4);
    expect(new Set(answers).size).toBe(documents.length);
  });

  compared('gives the scores that it gives on onnxruntime-node', () => {
    const own = run<number>('reranking', 'score', TEXTS).answers;
    const { isResidualSkip, answers } = runOnOnnxruntime<number>('reranking', 'score', TEXTS);
    expect(isResidualSkip).toBe(false);
    for (const [i, score] of answers.entries()) expect(own[i]).toBeCloseTo(score, 4);
  });
});

const labelsOf = (answer: readonly Answer[]) => answer.map(({ label }) => label);
