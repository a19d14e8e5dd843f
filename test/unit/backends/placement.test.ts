/** Sharing memory between values must not be seen in results. */

import fc from 'fast-check';
import { BlockMode, type RunRequest } from 'lib/backends/backend.js';
import { place } from 'lib/backends/placement.js';
import { ReferenceBackend } from 'lib/backends/reference.js';
import { activate, type KernelTensor } from 'lib/kernels/index.js';
import { NONE, type Program } from 'lib/model/program/program.js';
import { sizeOf } from 'lib/numeric/shapes.js';
import type { TensorData } from 'lib/tensor/tensor.js';
import { compute } from '../../helpers/evaluate.js';
import { randomFloats } from '../../helpers/random.js';
import { randomProgram } from '../../helpers/random-programs.js';
import { makeRequest, randomModes } from '../../helpers/requests.js';

/** Runs one item with memory of its own for every value: the same kernels, but nothing is shared. */
function runApart(
  program: Program,
  { inputs, policy }: RunRequest,
): { outputs: TensorData[]; ran: number[] } {
  const { values, steps, blocks } = program;
  const tensors = values.map(
    ({ dtype, shape, data }): KernelTensor | undefined => data && { dtype, shape, data },
  );
  const get = (id: number) => (id === NONE ? undefined : tensors[id]);
  program.inputs.forEach(({ value }, i) => {
    const { dtype, shape } = values[value]!;
    tensors[value] = { dtype, shape, data: inputs[i]! };
  });
  const ran = blocks.map(() => 0);
  for (let at = 0; at < steps.length; ) {
    const gated = blocks.findIndex((block) => block.first === at);
    if (gated >= 0) {
      const { gate, input, output, end, skipActivation } = blocks[gated]!;
      let runs = policy.modes[gated] === BlockMode.run;
      if (policy.modes[gated] === BlockMode.gate) {
        const score = Number(tensors[gate!.score]!.data[0]);
        const threshold = policy.thresholds[gated]!;
        runs = {
          gt: score > threshold,
          ge: score >= threshold,
          lt: score < threshold,
          le: score <= threshold,
        }[gate!.compare];
      }
      ran[gated] = Number(runs);
      if (!runs) {
        const data = (tensors[input]!.data as Float32Array).slice();
        activate(data, data, data.length, skipActivation);
        tensors[output] = { ...tensors[input]!, data };
        at = end;
        continue;
      }
    }
    const step = steps[at++]!;
    if (step.op === 'jump') at = step.attrs.target;
    else if (step.op === 'branch') at = tensors[step.inputs[0]!]!.data[0] ? at : step.attrs.target;
    else {
      const results = compute(
        step,
        step.inputs.map(get),
        step.outputs.map((id) => values[id]!),
      );
      step.outputs.forEach((id, i) => {
        tensors[id] = { ...values[id]!, data: results[i]! };
      });
    }
  }
  return { outputs: program.outputs.map(({ value }) => tensors[value]!.data), ran };
}

function randomCase(seed: number): { program: Program; request: RunRequest } {
  const program = randomProgram(seed);
  const size = sizeOf(program.values[program.inputs[0]!.value]!.shape);
  return {
    program,
    request: makeRequest(program, [randomFloats(size, seed + 1)], 1, randomModes(program, seed + 2)),
  };
}

test('random networks give the same bits with and without sharing of memory', () => {
  const decisions = new Set<string>();
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      const { program, request } = randomCase(seed);
      new ReferenceBackend().compileSync(program).runSync(request);
      const expected = runApart(program, request);
      expect(request.outputs).toEqual(expected.outputs);
      expect([...request.outcomes]).toEqual(expected.ran);
      request.outcomes.forEach((ran, i) => void decisions.add(`${request.policy.modes[i]} ${ran}`));
    }),
    { seed: 5, numRuns: 150 },
  );
  // Every mode and both ways of gates have been seen, and blocks that no branch came by.
  expect([...decisions].sort()).toEqual(['0 0', '0 1', '1 0', '2 0', '2 1']);
});

test('memory is shared', () => {
  let [shared, apart] = [0, 0];
  for (let seed = 0; seed < 20; seed++) {
    const program = randomProgram(seed);
    shared += place(program).bytes;
    for (const { shape, data } of program.values) apart += data ? 0 : 4 * sizeOf(shape);
  }
  expect(shared).toBeLessThan(apart / 2);
});

test('runs of one program have memory of their own', () => {
  const { program, request } = randomCase(3);
  const compiled = new ReferenceBackend().compileSync(program);
  compiled.runSync(request);
  const first = request.outputs.map((data) => [...data]);
  const other = makeRequest(program, [randomFloats(request.inputs[0]!.length, 99)]);
  compiled.runSync(other);
  expect(request.outputs.map((data) => [...data])).toEqual(first);
});
