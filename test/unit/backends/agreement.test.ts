/** The native backend against the reference, and against itself: instruction sets, threads, batches. */

import fc from 'fast-check';
import { nativeInfo } from 'lib/backends/addon.js';
import type { Backend, RunRequest } from 'lib/backends/backend.js';
import { NativeBackend, type NativeOptions } from 'lib/backends/native.js';
import { ReferenceBackend } from 'lib/backends/reference.js';
import type { KernelStep } from 'lib/kernels/index.js';
import { NONE, type Program, type Step } from 'lib/model/program/program.js';
import { sizeOf } from 'lib/numeric/shapes.js';
import type { TensorData } from 'lib/tensor/tensor.js';
import { cases } from '../../helpers/cases.js';
import { expectClose, type Tolerance } from '../../helpers/compare.js';
import { ProgramBuilder } from '../../helpers/programs.js';
import { randomFloats, uniform } from '../../helpers/random.js';
import { randomProgram } from '../../helpers/random-programs.js';
import { makeRequest, randomModes } from '../../helpers/requests.js';
import { STEP_CASES, type StepCase } from '../../helpers/steps.js';

/** Sums of up to about 1300 products of numbers below 1, kept in single precision. */
const SUMMED: Tolerance = { relative: 2 ** -20, absolute: 2 ** -15 };

const reference = new ReferenceBackend();
const { isas } = nativeInfo();
/** Every instruction set alone, and the best with company. */
const natives: readonly [label: string, backend: Backend][] = [
  ...isas.map((isa) => ({ isa: isa as NativeOptions['isa'], threads: 1 })),
  { isa: isas[isas.length - 1] as NativeOptions['isa'], threads: 2 },
].map((options) => [`${options.isa}, ${options.threads} threads`, new NativeBackend(options)]);

afterAll(() => {
  for (const [, backend] of natives) backend.release();
});

function run(backend: Backend, program: Program, request: RunRequest): RunRequest {
  const fresh = makeRequest(program, request.inputs, request.items, request.policy.modes);
  const compiled = backend.compileSync(program);
  compiled.runSync(fresh);
  compiled.release();
  return fresh;
}

/** Bits of outputs and trace, those of NaN too. */
function bits({ outputs, outcomes, scores }: RunRequest): string[] {
  return [...outputs, outcomes, scores].map(({ buffer, byteOffset, byteLength }) =>
    Buffer.from(buffer, byteOffset, byteLength).toString('hex'),
  );
}

/** Runs on every native backend, expects one result, and returns that. */
function runNatives(program: Program, request: RunRequest): RunRequest {
  const results = natives.map(([label, backend]) => ({ label, result: run(backend, program, request) }));
  const first = results[0]!;
  for (const { label, result } of results) {
    expect({ label, bits: bits(result) }).toEqual({ label, bits: bits(first.result) });
  }
  return first.result;
}

/** A program of one step; `constants` picks which of its inputs are constants. */
function programOf({ step, inputs, outputs }: StepCase, constants: number): [Program, TensorData[]] {
  const b = new ProgramBuilder();
  const fed: TensorData[] = [];
  const operands = inputs.map((tensor, i) => {
    if (!tensor) return NONE;
    if ((constants >> i) & 1) return b.value(tensor.shape, tensor.dtype, tensor.data);
    fed.push(tensor.data);
    return b.input(tensor.shape, { dtype: tensor.dtype });
  });
  const results = outputs.map(({ dtype, shape }) => b.value(shape, dtype));
  b.push({ ...step, inputs: operands, outputs: results } as Step);
  return [b.build(results, 'whole'), fed];
}

describe.each(Object.keys(STEP_CASES) as KernelStep['op'][])('%s', (op) => {
  test('agrees with the reference on every instruction set', () => {
    fc.assert(
      fc.property(STEP_CASES[op], fc.nat(15), (sample, constants) => {
        const [program, inputs] = programOf(sample, constants);
        const request = makeRequest(program, inputs);
        const expected = run(reference, program, request);
        const actual = runNatives(program, request);
        actual.outputs.forEach((data, i) => {
          expectClose(data, expected.outputs[i]!, SUMMED);
        });
      }),
      { seed: 30, numRuns: cases(60) },
    );
  });
});

test.each([4, -5])(
  'an index of %d is outside an axis of 4 for every backend, which works on after that',
  (index) => {
    const b = new ProgramBuilder();
    const at = b.input([1], { dtype: 'int32' });
    const program = b.build([b.step('gather', { axis: 0 }, [b.constant([4], [5, 6, 7, 8]), at], [1])]);
    for (const backend of [reference, ...natives.map(([, native]) => native)]) {
      const fails = () => run(backend, program, makeRequest(program, [Int32Array.of(index)]));
      expect(fails).toThrow(expect.objectContaining({ name: 'ResidualSkipError', code: 'INVALID_ARGUMENT' }));
      expect([...run(backend, program, makeRequest(program, [Int32Array.of(-1)])).outputs[0]!]).toEqual([8]);
    }
  },
);

interface NetworkCase {
  readonly program: Program;
  /** One input per item. */
  readonly items: readonly Float32Array[];
  readonly modes: Uint8Array;
}

function networkCase(seed: number, { edges = false, count = 3 } = {}): NetworkCase {
  const program = randomProgram(seed, { edges });
  const size = sizeOf(program.values[program.inputs[0]!.value]!.shape);
  const items = Array.from({ length: count }, (_, i) => randomFloats(size, seed + i + 1));
  return { program, items, modes: randomModes(program, seed) };
}

function batched({ program, items, modes }: NetworkCase, order: readonly number[]): RunRequest {
  const input = Float32Array.from(order.flatMap((i) => [...items[i]!]));
  return makeRequest(program, [input], order.length, modes);
}

/** The request that has only item `at` of a result. */
function itemOf(
  { program }: NetworkCase,
  { items, outputs, outcomes, scores, ...rest }: RunRequest,
  at: number,
): RunRequest {
  const cut = <A extends TensorData>(data: A): A => {
    const length = data.length / items;
    return data.slice(at * length, (at + 1) * length) as A;
  };
  const blocks = program.blocks.length;
  return {
    ...rest,
    items: 1,
    outputs: outputs.map(cut),
    outcomes: outcomes.slice(at * blocks, (at + 1) * blocks),
    scores: scores.slice(at * blocks, (at + 1) * blocks),
  };
}

/** Runs on the reference and on every native backend; returns how many gates were asked. */
function expectAgreement(network: NetworkCase): number {
  const request = batched(
    network,
    network.items.map((_, i) => i),
  );
  const expected = run(reference, network.program, request);
  // A score so near to its threshold may fall on either side of it.
  const { thresholds } = expected.policy;
  expected.scores.forEach((score, i) => {
    fc.pre(!(Math.abs(score - thresholds[i % thresholds.length]!) < 1e-4));
  });
  const actual = runNatives(network.program, request);
  expect([...actual.outcomes]).toEqual([...expected.outcomes]);
  for (const [i, data] of [...actual.outputs, actual.scores].entries()) {
    const truth = [...expected.outputs, expected.scores][i]! as Float32Array;
    const largest = truth.reduce((max, v) => Math.max(max, Math.abs(v) || 0), 1);
    expectClose(data, truth, { relative: 0, absolute: 2 ** -16 * largest });
  }
  return actual.scores.filter((score) => !Number.isNaN(score)).length;
}

describe('random networks', () => {
  test('agree with the reference in outputs, scores and decisions', () => {
    let asked = 0;
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        asked += expectAgreement(networkCase(seed));
      }),
      { seed: 31, numRuns: cases(100) },
    );
    expect(asked).toBeGreaterThan(cases(50));
  });

  test('agree with the reference where extents are powers of two or their neighbours', () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        expectAgreement(networkCase(seed, { edges: true, count: 1 }));
      }),
      { seed: 34, numRuns: cases(40) },
    );
  });

  test('give an item the same bits alone and in any batch', () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const network = networkCase(seed);
        for (const [label, backend] of natives) {
          const alone = [0, 1, 2].map((i) => run(backend, network.program, batched(network, [i])));
          for (const order of [
            [0, 1, 2],
            [2, 0],
            [1, 1, 0, 2],
          ]) {
            const together = run(backend, network.program, batched(network, order));
            order.forEach((i, at) => {
              const own = bits(itemOf(network, together, at));
              expect({ label, order, at, bits: own }).toEqual({ label, order, at, bits: bits(alone[i]!) });
            });
          }
        }
      }),
      { seed: 32, numRuns: cases(25) },
    );
  });

  test('give the same bits when runs overlap', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), async (seed) => {
        const network = networkCase(seed);
        const next = uniform(seed);
        for (const [label, backend] of natives) {
          const compiled = backend.compileSync(network.program);
          const requests = Array.from({ length: 6 }, () => {
            const order = Array.from({ length: 1 + Math.floor(next() * 4) }, () => Math.floor(next() * 3));
            return batched(network, order);
          });
          await Promise.all(requests.map((request) => compiled.run(request)));
          for (const request of requests) {
            const expected = run(backend, network.program, request);
            expect({ label, bits: bits(request) }).toEqual({ label, bits: bits(expected) });
          }
          compiled.release();
        }
      }),
      { seed: 33, numRuns: cases(15) },
    );
  });
});
