import fc from 'fast-check';
import type { KernelStep } from 'lib/kernels/index.js';
import { cases } from '../../helpers/cases.js';
import { expectClose, type Tolerance } from '../../helpers/compare.js';
import { compute } from '../../helpers/evaluate.js';
import { evaluate } from '../../helpers/oracle.js';
import { STEP_CASES } from '../../helpers/steps.js';

/** Sums are kept in double precision: what is left is the rounding of results, and of what an activation is given. */
const ROUNDED: Tolerance = { relative: 2 ** -23, absolute: 2 ** -22 };

describe.each(Object.keys(STEP_CASES) as KernelStep['op'][])('%s', (op) => {
  test('computes what a naive loop computes', () => {
    fc.assert(
      fc.property(STEP_CASES[op], ({ step, inputs, outputs }) => {
        const actual = compute(step, inputs, outputs);
        const expected = evaluate(step, inputs, outputs);
        for (const [i, data] of actual.entries()) expectClose(data, expected[i]!, ROUNDED);
      }),
      { seed: 20, numRuns: cases(150) },
    );
  });

  test('leaves its inputs alone', () => {
    fc.assert(
      fc.property(STEP_CASES[op], ({ step, inputs, outputs }) => {
        const before = inputs.map((tensor) => tensor && [...tensor.data]);
        compute(step, inputs, outputs);
        expect(inputs.map((tensor) => tensor && [...tensor.data])).toEqual(before);
      }),
      { seed: 21, numRuns: cases(20) },
    );
  });
});
