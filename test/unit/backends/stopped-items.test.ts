/** Items that an exit stopped, and that go on from there. */
import fc from 'fast-check';
import { nativeInfo } from 'lib/backends/addon.js';
import type { CompiledProgram, RunRequest } from 'lib/backends/backend.js';
import { NativeBackend } from 'lib/backends/native.js';
import { Growth } from 'lib/model/program/grow.js';
import { NO_ACTIVATION, NONE, type Program, type Step } from 'lib/model/program/program.js';
import { sizeOf } from 'lib/numeric/shapes.js';
import { StateMemory, StoppedItems } from 'lib/session/stopped-items.js';
import { randomFloats, uniform } from '../../helpers/random.js';
import { randomProgram } from '../../helpers/random-programs.js';
import { makeRequest, randomModes } from '../../helpers/requests.js';

const backend = new NativeBackend({ threads: 2, isa: nativeInfo().best as 'scalar' });
afterAll(() => backend.release());

/** A random network with an exit behind each block, whose score and answers are products of what the block gives. */
function withExits(seed: number): Program {
  const program = randomProgram(seed);
  const growth = new Growth(program);
  let weights = seed;
  for (const [index, { name, output, end }] of program.blocks.entries()) {
    const width = sizeOf(program.values[output]!.shape);
    const flat = growth.value(`${name} flat`, 'float32', [1, width]);
    const steps: Step[] = [{ op: 'reshape', inputs: [output], outputs: [flat], attrs: {} }];
    const product = (what: string, shape: readonly number[]) => {
      const size = sizeOf(shape);
      const by = growth.constant(`${name} ${what} by`, randomFloats(width * size, weights++), [size, width]);
      const row = growth.value(`${name} ${what} row`, 'float32', [1, size]);
      const value = growth.value(`${name} ${what}`, 'float32', shape);
      const attrs = { transB: true, act: NO_ACTIVATION } as const;
      steps.push({ op: 'gemm', inputs: [flat, by, NONE, NONE], outputs: [row], attrs });
      steps.push({ op: 'reshape', inputs: [row], outputs: [value], attrs: {} });
      return value;
    };
    const score = product('score', [1, 1]);
    const answers = program.outputs.map(({ value }, i) =>
      product(`answer ${i}`, program.values[value]!.shape),
    );
    const exit = { after: name, blocks: index + 1, threshold: 0, multiplyAdds: 0, beyond: 0 };
    growth.insertExit(end, steps, { ...exit, score, answers });
  }
  return growth.build();
}

/** Thresholds at which every item leaves by the exit `at`, or by none for -1. */
function leavingBy(request: RunRequest, { blocks, exits }: Program, at: number): RunRequest {
  const thresholds = request.policy.thresholds.slice();
  for (const e of exits.keys()) thresholds[blocks.length + e] = e === at ? -3e38 : 3e38;
  return { ...request, policy: { ...request.policy, thresholds } };
}

const bits = ({ outputs, outcomes, scores }: RunRequest) =>
  [...outputs, outcomes, scores].map(({ buffer, byteOffset, byteLength }) =>
    Buffer.from(buffer, byteOffset, byteLength).toString('hex'),
  );

/** Pieces of work that a run did. */
function workOf(compiled: CompiledProgram, request: RunRequest): number {
  const times = new Float64Array(request.items * compiled.profiled!.length * 2);
  compiled.runSync({ ...request, times });
  return times.filter((time) => time > 0).length;
}

const ITEMS = 3;

function cases(seed: number) {
  const program = withExits(seed);
  const size = sizeOf(program.values[program.inputs[0]!.value]!.shape);
  const input = randomFloats(ITEMS * size, seed + 1);
  const modes = randomModes(program, seed);
  const fresh = (at: number) => leavingBy(makeRequest(program, [input], ITEMS, modes), program, at);
  return { program, fresh };
}

const fits = ({ program }: ReturnType<typeof cases>) =>
  program.exits.length > 1 &&
  program.outputs.every(({ value, batched }) => batched && program.values[value]!.dtype === 'float32') &&
  program.outputs.every(({ value }) => sizeOf(program.values[value]!.shape) < 5000);

test('an item that goes on has the bits and the record of a run from the beginning, and does less', () => {
  let tried = 0;
  fc.assert(
    fc.property(fc.nat(10_000), (seed) => {
      const network = cases(seed);
      if (!fits(network)) return;
      const { program, fresh } = network;
      tried++;
      const compiled = backend.compileSync(program);
      const random = uniform(seed);
      const states = Array.from({ length: ITEMS }, () => new Uint8Array(compiled.stateBytes!));
      // Some stops on the way, at last to the end.
      const stops = [...program.exits.keys()].filter(() => random() < 0.6);
      // A score that is no number stops nobody.
      let stopped = false;
      for (const at of [...stops, -1]) {
        const [straight, resumed] = [fresh(at), fresh(at)];
        const all = workOf(compiled, straight);
        const done = workOf(compiled, { ...resumed, states });
        expect(bits(resumed)).toEqual(bits(straight));
        if (stopped) expect(done).toBeLessThan(all);
        else expect(done).toBe(all);
        const decisions = program.blocks.length + program.exits.length;
        stopped ||= resumed.outcomes.some(
          (taken, i) => taken === 1 && i % decisions >= program.blocks.length,
        );
        // Something else runs in the same memory in between.
        compiled.runSync(
          leavingBy(
            { ...fresh(-1), inputs: [randomFloats(resumed.inputs[0]!.length, seed + 9)] },
            program,
            -1,
          ),
        );
      }
      compiled.release();
    }),
    { numRuns: 40, seed: 1 },
  );
  expect(tried).toBeGreaterThan(12);
});

describe('an item begins again', () => {
  const seed = [...Array(100).keys()].find((one) => {
    const { program, ...rest } = cases(one);
    return fits({ program, ...rest }) && program.exits.length > 2 && program.blocks[0]!.skippable;
  })!;
  const { program, fresh } = cases(seed);
  const compiled = backend.compileSync(program);
  afterAll(() => compiled.release());
  const stopped = () => {
    const states = Array.from({ length: ITEMS }, () => new Uint8Array(compiled.stateBytes!));
    compiled.runSync({ ...fresh(1), states });
    return states;
  };
  const agrees = (request: () => RunRequest, states: readonly (Uint8Array | undefined)[]) => {
    const [straight, again] = [request(), request()];
    const all = workOf(compiled, straight);
    const done = workOf(compiled, { ...again, states });
    expect(bits(again)).toEqual(bits(straight));
    return all - done;
  };
  const withMode = (at: number, mode: number): RunRequest => {
    const request = fresh(at);
    const modes = request.policy.modes.slice();
    modes[0] = mode;
    return { ...request, policy: { ...request.policy, modes } };
  };

  test('where the policy leads to an earlier exit, or to the same one', () => {
    expect(agrees(() => fresh(2), stopped())).toBeGreaterThan(0);
    expect(agrees(() => fresh(0), stopped())).toBe(0);
    expect(agrees(() => fresh(1), stopped())).toBe(0);
  });

  test('where the policy does something else with a block on the way', () => {
    const was = fresh(0).policy.modes[0]!;
    expect(agrees(() => withMode(-1, was), stopped())).toBeGreaterThan(0);
    expect(agrees(() => withMode(-1, was === 1 ? 0 : 1), stopped())).toBe(0);
  });

  test('where nothing was kept of it, or something that no run left', () => {
    const some = agrees(() => fresh(-1), [undefined, stopped()[1], undefined]);
    expect(some).toBeGreaterThan(0);
    expect(some).toBeLessThan(agrees(() => fresh(-1), stopped()));
    const bad = stopped().map((state) => state.fill(255, 0, 4));
    expect(agrees(() => fresh(-1), bad)).toBe(0);
  });

  test('and states of a wrong number or length are refused', () => {
    const states = stopped();
    expect(() => compiled.runSync({ ...fresh(-1), states: states.slice(1) })).toThrow(
      /states: there must be/,
    );
    const short = states.map((state) => state.slice(1));
    expect(() => compiled.runSync({ ...fresh(-1), states: short })).toThrow(/states: a length is wrong/);
  });

  test('after an aborted run as well', async () => {
    const states = stopped();
    const controller = new AbortController();
    const running = compiled.run({ ...fresh(-1), states, signal: controller.signal });
    controller.abort();
    await running.catch((error) => expect(error).toMatchObject({ code: 'ABORTED' }));
    expect(agrees(() => fresh(-1), states)).toBeGreaterThan(0);
  });

  test('where there is no room for more', () => {
    const items = new StoppedItems(2 * compiled.stateBytes!);
    const states = items.statesOf([4, 5, 6], compiled)!;
    expect(states.map((state) => state?.length)).toEqual([
      compiled.stateBytes,
      compiled.stateBytes,
      undefined,
    ]);
    expect(items.statesOf([5, 4], compiled)).toEqual([states[1], states[0]]);
    // Those of another program make room.
    const other = backend.compileSync(program);
    expect(items.statesOf([4], other)![0]).not.toBe(states[0]);
    other.release();
    expect(items.statesOf([0], { ...compiled, stateBytes: 0 } as CompiledProgram)).toBeUndefined();
  });

  test('in memory that other items had before: they begin anew', () => {
    const memory = new StateMemory();
    const numbers = Array.from({ length: ITEMS }, (_, item) => item);
    const before = new StoppedItems(undefined, memory);
    const states = before.statesOf(numbers, compiled)!;
    compiled.runSync({ ...fresh(1), states });
    expect(agrees(() => fresh(-1), states)).toBeGreaterThan(0);
    compiled.runSync({ ...fresh(1), states });
    // What is under way has memory of its own.
    const beside = new StoppedItems(undefined, memory).statesOf(numbers, compiled)!;
    expect(beside[0]!.buffer).not.toBe(states[0]!.buffer);
    before.release();
    const after = new StoppedItems(undefined, memory).statesOf(numbers, compiled)!;
    expect(after[0]!.buffer).toBe(states[0]!.buffer);
    expect(agrees(() => fresh(-1), after)).toBe(0);
  });

  test('of states that are larger than the arrays that are shared', () => {
    const large = { ...compiled, stateBytes: 2 ** 20 + 1 } as CompiledProgram;
    const items = new StoppedItems();
    const [a, b] = items.statesOf([0, 1], large)!;
    expect([a!.length, b!.length]).toEqual([2 ** 20 + 1, 2 ** 20 + 1]);
    items.release();
    expect(items.statesOf([0], large)![0]!.buffer).not.toBe(a!.buffer);
  });
});
