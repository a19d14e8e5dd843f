/**
 * Files of onnxruntime's quantiser against onnxruntime-node. Needs what `test/fixtures/quantize_models.py` writes (in
 * RESIDUAL_SKIP_FIXTURES/quantised, or .cache/quantised) and onnxruntime-node, as architectures.test.ts does.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Tensor } from '../../lib/index.js';
import { withSession } from '../helpers/sessions.js';

const ROOT = resolve(__dirname, '../..');
const { RESIDUAL_SKIP_FIXTURES: FIXTURES, RESIDUAL_SKIP_ONNXRUNTIME } = process.env;
const FOLDER = FIXTURES ? join(FIXTURES, 'quantised') : join(ROOT, '.cache/quantised');
const RUNTIME = RESIDUAL_SKIP_ONNXRUNTIME ?? join(ROOT, 'bench/node_modules/onnxruntime-node');
/** Of the elements, at least so many differ by one step at most. */
const SHARE = 0.999;
/**
 * The same where 0.999 isn't reached: an early byte that rounds the other way moves later ones. That is so for transformers and for logits
 * that aren't quantised, as floats stand between their integer layers, and for int8 activations, which onnxruntime computes in another
 * way than uint8 ones. Transformers are compared with onnxruntime without its optimisations (`level` in the facts), from which its optimised
 * form differs by several steps.
 */
const FLOAT_SHARE = 0.9;
/** Step of logits that are not quantised, as a fraction of the largest. */
const FLOAT_STEP = 0.01;

interface Facts {
  readonly shape: readonly number[];
  readonly dtype: 'float32' | 'int64';
  /** Scale of the logits; null where they are not quantised. */
  readonly step: number | null;
  readonly level: 'all' | 'disabled';
}

const indexOfMax = (row: ArrayLike<number>) => Array.from(row).indexOf(Math.max(...Array.from(row)));

const names = existsSync(FOLDER)
  ? readdirSync(FOLDER).flatMap((file) => (file.endsWith('.onnx') ? file.slice(0, -'.onnx'.length) : []))
  : [];
const missing = [
  ...(names.length === 0 ? [`no networks in ${FOLDER}: run test/fixtures/quantize_models.py`] : []),
  ...(existsSync(RUNTIME) ? [] : [`no onnxruntime-node in ${RUNTIME}: run npm ci --ignore-scripts in bench`]),
];

if (missing.length > 0) test.skip(`skipped: ${missing.join('; ')}`, () => {});
else {
  test.each(names)('%s agrees with onnxruntime', async (name) => {
    const { shape, dtype, step, level } = JSON.parse(
      readFileSync(join(FOLDER, `${name}.json`), 'utf8'),
    ) as Facts;
    const script = join(ROOT, 'test/helpers/onnxruntime.mjs');
    const args = [script, RUNTIME, FOLDER, name];
    const expected: number[][] = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
    const bytes = new Uint8Array(readFileSync(join(FOLDER, `${name}.bin`))).buffer;
    const data = dtype === 'int64' ? new BigInt64Array(bytes) : new Float32Array(bytes);
    const size = data.length / expected.length;
    await withSession(join(FOLDER, `${name}.onnx`), { backend: 'native' }, async (session) => {
      const differences: number[] = [];
      for (const [item, row] of expected.entries()) {
        const part = data.slice(item * size, (item + 1) * size);
        const input = new Tensor(dtype, part as Float32Array, [1, ...shape.slice(1)]) as Tensor;
        const logits = (await session.run({ input })).logits!.data as Float32Array;
        const unit = step ?? FLOAT_STEP * Math.max(...row.map(Math.abs));
        differences.push(...row.map((x, k) => Math.abs(x - logits[k]!) / unit));
        expect(indexOfMax(logits)).toBe(indexOfMax(row));
      }
      const loose =
        step === null || level === 'disabled' || (name.includes('s8s8') && !name.includes('u8s8'));
      const close = differences.filter((difference) => difference <= 1.001).length;
      expect(close / differences.length).toBeGreaterThanOrEqual(loose ? FLOAT_SHARE : SHARE);
    });
  });
}
