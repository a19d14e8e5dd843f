import { nativeInfo } from 'lib/backends/addon.js';
import { InferenceSession, ResidualSkipError, type SessionOptions } from 'lib/index.js';
import { ISAS } from 'lib/session/options.js';
import { expectClose } from '../helpers/compare.js';
import { withSession } from '../helpers/sessions.js';
import { available, type Case, lightResnet50, readCases, runCase } from './cases.js';
import { LEFT_OUT, OPERATORS, WITHOUT_CASES } from './coverage.js';

const cases = available ? readCases() : [];
const covered = cases.filter(({ operators }) => [...operators].every((op) => OPERATORS.has(op)));
const others = cases.filter((entry) => !covered.includes(entry));
const run = covered.filter(({ name }) => !LEFT_OUT.has(name));
const leftOut = covered.filter(({ name }) => LEFT_OUT.has(name));

/** The reference backend, and native code of each instruction set. */
const targets: readonly SessionOptions[] = [
  { backend: 'reference' },
  ...ISAS.map((isa): SessionOptions => ({ backend: 'native', isa, threads: 1 })),
];

/** What can run here, asked before the tests are listed so that the others are reported as skipped. */
const { isas } = nativeInfo();
if (!available) {
  test.skip('ONNX backend tests: the test data is not installed (Debian: libonnx-testdata)', () => {});
}

(available ? describe : describe.skip)('ONNX backend tests', () => {
  async function failure(entry: Case): Promise<unknown> {
    try {
      await withSession(entry.model, { backend: 'reference' }, (session) => runCase(entry, session));
      return undefined;
    } catch (error) {
      return error;
    }
  }

  test('the data holds cases of every operator but those that it has none of', () => {
    const found = new Set(covered.flatMap(({ operators }) => [...operators]));
    expect([...OPERATORS].filter((op) => !found.has(op))).toEqual(WITHOUT_CASES);
  });

  test('every case that is left out exists', () => {
    expect(leftOut.map(({ name }) => name).sort()).toEqual([...LEFT_OUT.keys()].sort());
  });

  test.each(leftOut.map((entry) => [entry.name, LEFT_OUT.get(entry.name), entry] as const))(
    '%s is left out (%s) and would fail',
    async (_name, _reason, entry) => {
      expect(await failure(entry)).toBeDefined();
    },
  );

  test('every case of another operator is refused by name', async () => {
    for (const { name, model, operators } of others) {
      const error = await InferenceSession.create(model, { backend: 'reference' }).catch((reason) => reason);
      const missing = [...operators].filter((op) => !OPERATORS.has(op));
      expect([name, error]).toEqual([name, expect.any(ResidualSkipError)]);
      expect([name, error.code]).toEqual([name, 'UNSUPPORTED_MODEL']);
      for (const op of missing) expect([name, error.message]).toEqual([name, expect.stringContaining(op)]);
    }
  });

  for (const options of targets) {
    const here = options.isa === undefined || isas.includes(options.isa);
    (here ? describe : describe.skip)(`on ${options.isa ?? options.backend}`, () => {
      test.each(run.map((entry) => [entry.name, entry] as const))('%s', async (_name, entry) => {
        await withSession(entry.model, options, (session) => runCase(entry, session));
      });

      test('light_resnet50', async () => {
        const { model, input, output, tolerance } = lightResnet50;
        await withSession(model, options, async (session) => {
          const results = await session.run({ [session.inputNames[0]!]: input() });
          const { data } = results[session.outputNames[0]!]!;
          expectClose(data, output().data as Float32Array, tolerance);
        });
      });
    });
  }
});
