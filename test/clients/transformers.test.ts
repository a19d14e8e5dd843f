/**
 * transformers.js with `onnxruntime-node` replaced by this package through npm's `overrides`. Nothing but packages is downloaded:
 * the network is made here. Skipped where transformers.js can't be installed.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { LABELS, writeSeededModel } from '../helpers/seeded-network.js';

const ROOT = resolve(__dirname, '../..');
const RUNTIME = process.env.RESIDUAL_SKIP_ONNXRUNTIME ?? join(ROOT, 'bench/node_modules/onnxruntime-node');
const IMAGES = ['cat-0000.jpg', 'ship-0001.jpg', 'frog-0000.jpg'].map((name) =>
  join(ROOT, 'examples/images', name),
);

const folder = mkdtempSync(join(tmpdir(), 'residual-skip-clients-'));
const problem = install();
if (problem) console.warn(`transformers.js can't be installed, so its tests are skipped: ${problem}`);
const test = problem ? it.skip : it;
const compared = problem || !existsSync(RUNTIME) ? it.skip : it;
afterAll(() => rmSync(folder, { recursive: true, force: true }));

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
  return undefined;
}

interface Answer {
  readonly label: string;
  readonly score: number;
}

function classify(): { isResidualSkip: boolean; answers: Answer[][]; stderr: string } {
  const args = ['transformers.mjs', join(folder, 'models'), 'seeded', ...IMAGES];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return { ...JSON.parse(stdout), stderr };
}

describe('the pipeline of transformers.js', () => {
  test('runs on this package', () => {
    const { isResidualSkip, answers, stderr } = classify();
    expect({ isResidualSkip, stderr }).toEqual({ isResidualSkip: true, stderr: '' });
    expect(answers).toHaveLength(IMAGES.length);
    for (const answer of answers) {
      expect(answer.map(({ label }) => label).sort()).toEqual([...LABELS].sort());
      expect(answer.reduce((sum, { score }) => sum + score, 0)).toBeCloseTo(1, 5);
    }
  });

  compared('gives the answers that it gives on onnxruntime-node', () => {
    const own = classify().answers;
    const replaced = join(folder, 'node_modules/onnxruntime-node');
    renameSync(replaced, `${replaced}.away`);
    symlinkSync(RUNTIME, replaced);
    const { isResidualSkip, answers } = classify();
    expect(isResidualSkip).toBe(false);
    expect(own.map(labelsOf)).toEqual(answers.map(labelsOf));
    for (const [i, answer] of answers.entries()) {
      for (const [k, { score }] of answer.entries()) expect(own[i]![k]!.score).toBeCloseTo(score, 5);
    }
    // A network that gives everything one answer would prove little.
    expect(new Set(answers.map(([first]) => first!.score)).size).toBe(IMAGES.length);
  });
});

const labelsOf = (answer: readonly Answer[]) => answer.map(({ label }) => label);
