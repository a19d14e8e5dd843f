/**
 * Operators and detectors against onnxruntime, whose answers `test/fixtures/export_operators.py` and `export_detectors.py` wrote into
 * the folders `operators` and `detectors` of RESIDUAL_SKIP_FIXTURES (or .cache/fixtures).
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type DataType, Tensor } from 'lib/index.js';
import { withSession } from '../helpers/sessions.js';

const ROOT = resolve(__dirname, '../..');
const FOLDER = process.env.RESIDUAL_SKIP_FIXTURES ?? join(ROOT, '.cache/fixtures');

interface Described {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: readonly (number | boolean)[];
}

interface Facts {
  /** Largest difference, as a share of the largest magnitude of an output. */
  readonly tolerance: number;
  readonly inputs: Readonly<Record<string, Described>>;
  readonly outputs: Readonly<Record<string, Described>>;
}

function tensorOf({ type, dims, data }: Described): Tensor {
  const list = type === 'int64' ? data.map(BigInt) : data;
  return new Tensor(type as DataType, list as never, dims) as Tensor;
}

for (const kind of ['operators', 'detectors']) {
  const folder = join(FOLDER, kind);
  const names = existsSync(folder)
    ? readdirSync(folder).flatMap((file) => (file.endsWith('.json') ? [file.slice(0, -5)] : []))
    : [];
  if (names.length === 0) {
    test.skip(`${kind}: scripts/ci/fixtures.sh exports them`, () => {});
    continue;
  }
  for (const backend of ['reference', 'native'] as const) {
    test.each(names)(`${kind} %s on ${backend}`, async (name) => {
      const facts = JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as Facts;
      const feeds = Object.fromEntries(
        Object.entries(facts.inputs).map(([input, one]) => [input, tensorOf(one)]),
      );
      await withSession(join(folder, `${name}.onnx`), { backend, threads: 1 }, async (session) => {
        const answers = await session.run(feeds);
        // On the calling thread, the same.
        expect(session.runSync(feeds)).toEqual(answers);
        for (const [output, { dims, data, type }] of Object.entries(facts.outputs)) {
          const found = answers[output]!;
          expect([output, found.type, found.dims]).toEqual([output, type, dims]);
          const [actual, expected] = [Array.from(found.data as Float32Array, Number), data.map(Number)];
          const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
          const errors = actual.map((value, i) => Math.abs(value - expected[i]!));
          expect(Math.max(0, ...errors)).toBeLessThanOrEqual(facts.tolerance * largest);
        }
      });
    });
  }
}
