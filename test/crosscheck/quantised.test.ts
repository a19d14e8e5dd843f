/**
 * Files of onnxruntime's quantiser against onnxruntime-node. Needs what `test/fixtures/quantize_models.py` writes (in
 * RESIDUAL_SKIP_FIXTURES/quantised, or .cache/quantised) and onnxruntime-node, as architectures.test.ts does.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Tensor } from 'lib/index.js';
import { allocate } from 'lib/tensor/tensor.js';
import { withSession } from '../helpers/sessions.js';

const ROOT = resolve(__dirname, '../..');
const { RESIDUAL_SKIP_FIXTURES: FIXTURES, RESIDUAL_SKIP_ONNXRUNTIME } = process.env;
const FOLDER = FIXTURES ? join(FIXTURES, 'quantised') : join(ROOT, '.cache/quantised');
const LAYERS = join(FOLDER, 'layers');
const RUNTIME = RESIDUAL_SKIP_ONNXRUNTIME ?? join(ROOT, 'bench/node_modules/onnxruntime-node');
const AGAIN = join(FOLDER, 'again');
/**
 * Of the elements, at least so many differ by one step at most. In some networks, with random weights, this asks too much: one byte of
 * ten thousand that is rounded the other way moves many later ones. There, onnxruntime doesn't agree with itself either, at another level
 * of optimisation and with inputs moved by one unit in the last place; this package must agree with it as well as it does.
 */
const SHARE = 0.999;
/** Step of logits that are not quantised, as a fraction of the largest. */
const FLOAT_STEP = 0.01;

interface Facts {
  readonly shape: readonly number[];
  readonly dtype: 'float32' | 'int64';
  /** Scale of the logits; null where they are not quantised. */
  readonly step: number | null;
}

const factsOf = (folder: string, name: string): Facts =>
  JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8'));

function inputOf(folder: string, name: string, dtype: Facts['dtype']): Float32Array | BigInt64Array {
  const bytes = new Uint8Array(readFileSync(join(folder, `${name}.bin`))).buffer;
  return dtype === 'int64' ? new BigInt64Array(bytes) : new Float32Array(bytes);
}

/** What onnxruntime computes, for each item. */
function expectedOf<T>(folder: string, name: string): T[] {
  const script = join(ROOT, 'test/helpers/onnxruntime.mjs');
  const options = { encoding: 'utf8', maxBuffer: 2 ** 28 } as const;
  return JSON.parse(execFileSync(process.execPath, [script, RUNTIME, folder, name], options));
}

/** Of the elements of all items, the share that is one step at most from the expected one. */
function agreement(
  actual: readonly ArrayLike<number>[],
  expected: readonly number[][],
  step: number | null,
): number {
  const differences = expected.flatMap((row, item) => {
    const unit = step ?? FLOAT_STEP * Math.max(...row.map(Math.abs));
    return row.map((x, k) => Math.abs(x - actual[item]![k]!) / unit);
  });
  return differences.filter((difference) => difference <= 1.001).length / differences.length;
}

const indexOfMax = (row: ArrayLike<number>) => Array.from(row).indexOf(Math.max(...Array.from(row)));

const namesIn = (folder: string): string[] =>
  existsSync(folder)
    ? readdirSync(folder).flatMap((file) => (file.endsWith('.json') ? file.slice(0, -'.json'.length) : []))
    : [];
const names = namesIn(FOLDER);
const layerNames = namesIn(LAYERS);
const missing = [
  ...(names.length === 0 ? [`no networks in ${FOLDER}: run test/fixtures/quantize_models.py`] : []),
  ...(existsSync(RUNTIME) ? [] : [`no onnxruntime-node in ${RUNTIME}: run npm ci --ignore-scripts in bench`]),
];

if (missing.length > 0) test.skip(`skipped: ${missing.join('; ')}`, () => {});
else {
  test.each(names)('%s agrees with onnxruntime', async (name) => {
    const { shape, dtype, step } = factsOf(FOLDER, name);
    const expected = expectedOf<number[]>(FOLDER, name);
    const data = inputOf(FOLDER, name, dtype);
    const size = data.length / expected.length;
    await withSession(join(FOLDER, `${name}.onnx`), { backend: 'native' }, async (session) => {
      const actual: Float32Array[] = [];
      for (const [item, row] of expected.entries()) {
        const part = data.slice(item * size, (item + 1) * size);
        const input = new Tensor(dtype, part as Float32Array, [1, ...shape.slice(1)]) as Tensor;
        const logits = (await session.run({ input })).logits!.data as Float32Array;
        expect(indexOfMax(logits)).toBe(indexOfMax(row));
        actual.push(logits);
      }
      const share = agreement(actual, expected, step);
      if (share >= SHARE) return;
      const own = agreement(expectedOf<number[]>(AGAIN, name), expected, step);
      console.log(`${name}: ${share} of the logits are within a step of onnxruntime's; of its own, ${own}`);
      expect(share).toBeGreaterThanOrEqual(own);
    });
  });

  test.each(layerNames)('every layer of %s makes the bytes of onnxruntime from its bytes', async (name) => {
    const [given] = expectedOf<Record<string, number[]>>(LAYERS, name);
    await withSession(join(LAYERS, `${name}.cut.onnx`), { backend: 'native' }, async (session) => {
      const { dtype, shape } = factsOf(LAYERS, name);
      const feeds = Object.fromEntries(
        session.inputMetadata.map(({ name: input, type, shape: own }) => {
          const key = input.slice(0, -'.given'.length);
          const data = input === 'input' ? inputOf(LAYERS, name, dtype) : allocate(type, given![key]!.length);
          if (input !== 'input') (data as Uint8Array).set(given![key]!);
          return [input, new Tensor(type, data as Uint8Array, input === 'input' ? shape : (own as number[]))];
        }),
      );
      const outputs = await session.run(feeds as Record<string, Tensor>);
      let [equal, all] = [0, 0];
      for (const [key, values] of Object.entries(given!)) {
        if (key === 'logits') continue;
        const actual = outputs[key]!.data as Uint8Array;
        expect(actual).toHaveLength(values.length);
        for (const [i, value] of values.entries()) {
          const difference = Math.abs(value - actual[i]!);
          if (difference > 1) throw new Error(`${key} ${i}: ${actual[i]}, expected ${value}`);
          if (difference === 0) equal++;
        }
        all += values.length;
      }
      expect(all).toBeGreaterThan(100_000);
      expect(equal / all).toBeGreaterThanOrEqual(SHARE);
    });
  });
}
