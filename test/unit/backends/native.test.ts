import { nativeInfo } from 'lib/backends/addon.js';
import { BlockMode } from 'lib/backends/backend.js';
import { NativeBackend } from 'lib/backends/native.js';
import { ReferenceBackend } from 'lib/backends/reference.js';
import type { ErrorCode } from 'lib/errors.js';
import { NO_ACTIVATION, NONE, type Program, type ValueId } from 'lib/model/program/program.js';
import { sizeOf } from 'lib/numeric/shapes.js';
import { expectClose } from '../../helpers/compare.js';
import { ProgramBuilder } from '../../helpers/programs.js';
import { randomFloats } from '../../helpers/random.js';
import { randomProgram } from '../../helpers/random-programs.js';
import { makeRequest, randomModes } from '../../helpers/requests.js';

/** Networks of a few layers with weights that keep the scale; sums of up to some hundred terms. */
const TOLERANCE = { relative: 2e-5, absolute: 2e-5 };

const coded = (code: ErrorCode) =>
  expect.objectContaining({ name: code === 'ABORTED' ? 'AbortError' : 'ResidualSkipError', code });

function inputsOf(program: Program, items: number, seed = 1): Float32Array[] {
  return program.inputs.map(({ value }, i) =>
    randomFloats(items * sizeOf(program.values[value]!.shape), seed + i),
  );
}

function withBackend<T>(
  options: ConstructorParameters<typeof NativeBackend>[0],
  body: (b: NativeBackend) => T,
): T {
  const backend = new NativeBackend(options);
  let result: T;
  try {
    result = body(backend);
  } catch (error) {
    backend.release();
    throw error;
  }
  if (result instanceof Promise) return result.finally(() => backend.release()) as T;
  backend.release();
  return result;
}

/** Adds `layers` convolutions of x, [1, 128, 64, 64]: some milliseconds each. */
function slowSteps(b: ProgramBuilder, input: ValueId, layers: number): ValueId {
  const channels = 128;
  let x = input;
  const weight = b.constant([channels, channels, 3, 3], new Array(channels * channels * 9).fill(1e-3));
  const attrs = {
    strides: [1, 1],
    pads: [1, 1, 1, 1],
    dilations: [1, 1],
    group: 1,
    act: { kind: 'tanh', alpha: 0, beta: 0 },
  } as const;
  for (let i = 0; i < layers; i++) x = b.step('conv', attrs, [x, weight, NONE, NONE], [1, channels, 64, 64]);
  return x;
}

function slowProgram(layers: number): Program {
  const b = new ProgramBuilder();
  return b.build([slowSteps(b, b.input([1, 128, 64, 64]), layers)]);
}

/** A block of slow convolutions, which runs where the second input is above 0. */
function gatedProgram(): Program {
  const b = new ProgramBuilder();
  const input = b.input([1, 128, 64, 64]);
  const score = b.step('unary', { act: NO_ACTIVATION }, [b.input([1, 1])], [1, 1]);
  const first = b.steps.length;
  const body = slowSteps(b, input, 3);
  const output = b.step('binary', { kind: 'add', act: NO_ACTIVATION }, [body, input], [1, 128, 64, 64]);
  const gate = { form: 'where', score, compare: 'gt', threshold: 0 } as const;
  b.block({ first, end: b.steps.length, input, output, gate });
  return b.build([b.step('globalPool', { kind: 'max' }, [output], [1, 128, 1, 1])]);
}

describe('random networks', () => {
  const ITEMS = 3;
  const seeds = Array.from({ length: 150 }, (_, seed) => seed);

  it('give what the reference backend gives', () => {
    withBackend({ threads: 1 }, (native) => {
      let skipped = 0;
      for (const seed of seeds) {
        const program = randomProgram(seed);
        const inputs = inputsOf(program, ITEMS, seed);
        const modes = randomModes(program, seed);
        const expected = makeRequest(program, inputs, ITEMS, modes);
        const actual = makeRequest(program, inputs, ITEMS, modes);
        new ReferenceBackend().compileSync(program).runSync(expected);
        const compiled = native.compileSync(program);
        compiled.runSync(actual);
        compiled.release();
        expect({ seed, ran: actual.outcomes }).toEqual({ seed, ran: expected.outcomes });
        expectClose(actual.scores, expected.scores, TOLERANCE);
        for (const [i, output] of actual.outputs.entries())
          expectClose(output, expected.outputs[i]!, TOLERANCE);
        skipped += [...actual.outcomes].filter((ran) => ran === 0).length;
      }
      expect(skipped).toBeGreaterThan(seeds.length);
    });
  });

  it('give the same bits on every instruction set and any number of threads, together or alone', async () => {
    const run = (seed: number) => async (native: NativeBackend) => {
      const program = randomProgram(seed);
      const request = makeRequest(program, inputsOf(program, ITEMS, seed), ITEMS, randomModes(program, seed));
      await native.compileSync(program).run(request);
      return [...request.outputs, request.scores, request.outcomes].map((data) => Buffer.from(data.buffer));
    };
    for (const seed of seeds.slice(0, 30)) {
      const expected = await withBackend({ threads: 1, isa: 'scalar' }, run(seed));
      for (const isa of nativeInfo().isas) {
        for (const threads of [1, 3]) {
          const actual = await withBackend({ threads, isa: isa as 'scalar' }, run(seed));
          expect({ seed, isa, threads, actual }).toEqual({ seed, isa, threads, actual: expected });
        }
      }
    }
  });
});

describe('a batch as one item', () => {
  it('goes through convolutions, pools, factors per channel and concatenations', () => {
    const b = new ProgramBuilder();
    const [n, c, h, w] = [3, 17, 6, 5];
    const x = b.input([n, c, h, w], { batched: false });
    const same = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], group: 1, act: NO_ACTIVATION };
    const weight = b.constant([32, c, 3, 3], [...randomFloats(32 * c * 9, 5)]);
    const y = b.step('conv', same, [x, weight, NONE, NONE], [n, 32, h, w]);
    const mean = b.step('globalPool', { kind: 'avg' }, [y], [n, 32, 1, 1]);
    const pointwise = b.constant([32, 32, 1, 1], [...randomFloats(32 * 32, 6)]);
    const factor = b.step(
      'conv',
      { ...same, pads: [0, 0, 0, 0] },
      [mean, pointwise, NONE, NONE],
      [n, 32, 1, 1],
    );
    const scaled = b.step('binary', { kind: 'mul', act: NO_ACTIVATION }, [factor, y], [n, 32, h, w]);
    const one = b.constant([32, 1, 1], [...randomFloats(32, 7)]);
    const shifted = b.step('binary', { kind: 'sub', act: NO_ACTIVATION }, [one, scaled], [n, 32, h, w]);
    const both = b.step('concat', { axis: 1 }, [shifted, y], [n, 64, h, w]);
    const pool = {
      kind: 'max',
      kernel: [2, 2],
      strides: [2, 2],
      pads: [0, 0, 0, 1],
      dilations: [1, 1],
      countIncludePad: false,
      columnMajorIndices: false,
    } as const;
    const pooled = b.step('pool', pool, [both], [n, 64, 3, 3]);
    const flat = b.step('reshape', {}, [pooled], [n, 64 * 9]);
    const batchMean = b.step('reduceMean', { axes: [0] }, [flat], [64 * 9]);
    const program = b.build([batchMean, pooled], 'whole');
    const inputs = inputsOf(program, 1);
    const expected = makeRequest(program, inputs);
    const actual = makeRequest(program, inputs);
    new ReferenceBackend().compileSync(program).runSync(expected);
    withBackend({ threads: 2 }, (native) => native.compileSync(program).runSync(actual));
    for (const [i, output] of actual.outputs.entries()) {
      const scale = Math.max(...(expected.outputs[i] as Float32Array).map(Math.abs));
      expectClose(output, expected.outputs[i]!, { relative: 0, absolute: 1e-5 * scale });
    }
  });
});

describe('errors', () => {
  const program = randomProgram(1);

  it('name an instruction set that this machine does not have', () => {
    const missing = (['avx512', 'neon', 'avx2'] as const).find((isa) => !nativeInfo().isas.includes(isa))!;
    expect(() => new NativeBackend({ isa: missing })).toThrow(coded('ISA_UNAVAILABLE'));
    expect(() => new NativeBackend({ isa: missing })).toThrow(/scalar/);
  });

  it('come before a run when buffers or modes do not fit', async () => {
    const native = new NativeBackend({ threads: 1 });
    const compiled = native.compileSync(program);
    const good = makeRequest(program, inputsOf(program, 2), 2);
    const detached = new Float32Array(good.inputs[0]!.length);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    const bad = [
      { ...good, items: 3 },
      { ...good, items: 0 },
      { ...good, items: Number.NaN },
      { ...good, inputs: [] },
      { ...good, inputs: [good.inputs[0]!.subarray(1)] },
      { ...good, inputs: [detached] },
      { ...good, outputs: good.outputs.map((output) => output.subarray(1)) },
      { ...good, outcomes: good.outcomes.subarray(1) },
      { ...good, scores: new Float32Array(0) },
      { ...good, policy: { ...good.policy, modes: good.policy.modes.map(() => 7) } },
      { ...good, policy: { ...good.policy, thresholds: new Float32Array(1000) } },
    ];
    for (const request of bad) {
      expect(() => compiled.runSync(request as typeof good)).toThrow(coded('INVALID_ARGUMENT'));
      await expect(compiled.run(request as typeof good)).rejects.toEqual(coded('INVALID_ARGUMENT'));
    }
    await compiled.run(good);
    native.release();
  });

  it('in the middle of a run leave the program usable', async () => {
    const b = new ProgramBuilder();
    const index = b.input([1], { dtype: 'int64' });
    const gathered = b.step('gather', { axis: 0 }, [b.constant([3], [5, 6, 7]), index], [1]);
    const compiled = new NativeBackend({ threads: 2 }).compileSync(b.build([gathered]));
    const request = (...at: bigint[]) => {
      const output = new Float32Array(at.length);
      const policy = { modes: new Uint8Array(0), thresholds: new Float32Array(0) };
      const trace = { outcomes: new Uint8Array(0), scores: new Float32Array(0) };
      return { items: at.length, inputs: [BigInt64Array.from(at)], outputs: [output], policy, ...trace };
    };
    await expect(compiled.run(request(0n, 3n, 1n))).rejects.toEqual(coded('INVALID_ARGUMENT'));
    expect(() => compiled.runSync(request(-4n))).toThrow(coded('INVALID_ARGUMENT'));
    const good = request(0n, -1n, 1n);
    await compiled.run(good);
    expect([...good.outputs[0]!]).toEqual([5, 7, 6]);
  });

  it('follow a release, after the runs under way have ended', async () => {
    const native = new NativeBackend({ threads: 1 });
    const compiled = native.compileSync(program);
    const requests = Array.from({ length: 4 }, () => makeRequest(program, inputsOf(program, 8), 8));
    const runs = requests.map((request) => compiled.run(request));
    compiled.release();
    native.release();
    native.release();
    await Promise.all(runs);
    await expect(compiled.run(requests[0]!)).rejects.toEqual(coded('SESSION_RELEASED'));
    expect(() => compiled.runSync(requests[0]!)).toThrow(coded('SESSION_RELEASED'));
    expect(() => native.compileSync(program)).toThrow(coded('SESSION_RELEASED'));
  });
});

describe('AbortSignal', () => {
  const program = slowProgram(40);

  it('ends a run early with ABORTED', async () => {
    await withBackend({ threads: 2 }, async (native) => {
      const compiled = native.compileSync(program);
      const request = makeRequest(program, inputsOf(program, 4), 4);
      const controller = new AbortController();
      const run = compiled.run({ ...request, signal: controller.signal });
      setTimeout(() => controller.abort(new Error('enough')), 5);
      await expect(run).rejects.toEqual(coded('ABORTED'));
      await expect(run).rejects.toHaveProperty('cause.message', 'enough');
      await expect(compiled.run({ ...request, signal: controller.signal })).rejects.toEqual(coded('ABORTED'));
    });
  });

  it('hears its signal in the middle of a layer of seconds', async () => {
    const b = new ProgramBuilder();
    const shape = [1, 128, 160, 160];
    const attrs = { strides: [1, 1], pads: [5, 5, 5, 5], dilations: [1, 1], group: 1, act: NO_ACTIVATION };
    const weight = b.constant([128, 128, 11, 11], new Array(128 * 128 * 121).fill(1e-3));
    const program = b.build([b.step('conv', attrs, [b.input(shape), weight, NONE, NONE], shape)]);
    await withBackend({ threads: 1, isa: 'scalar' }, async (native) => {
      const compiled = await native.compile(program);
      const controller = new AbortController();
      const run = compiled.run({ ...makeRequest(program, inputsOf(program, 1)), signal: controller.signal });
      setTimeout(() => controller.abort(), 20);
      await expect(run).rejects.toEqual(coded('ABORTED'));
    });
  });
});

describe('short runs', () => {
  /** No core is left to the calling thread, so that it may execute runs itself. */
  const ALL = nativeInfo().threads;

  /** A program of some microseconds, and one run of it, so that it is known to be short. */
  async function warm(native: NativeBackend) {
    const b = new ProgramBuilder();
    const program = b.build([
      b.step('unary', { act: { kind: 'tanh', alpha: 0, beta: 0 } }, [b.input([1, 64])], [1, 64]),
    ]);
    const compiled = native.compileSync(program);
    const request = (seed = 1) => makeRequest(program, inputsOf(program, 1, seed));
    const expected = request();
    compiled.runSync(expected);
    return { compiled, request, expected };
  }

  it('on all cores execute in the turn of the event loop that follows, and give what others give', async () => {
    await withBackend({ threads: ALL }, async (native) => {
      const { compiled, request, expected } = await warm(native);
      const order: string[] = [];
      const requests = [request(), request()];
      const first = compiled.run(requests[0]!).then(() => order.push('first run'));
      setImmediate(() => order.push('turn'));
      await first;
      await compiled.run(requests[1]!).then(() => order.push('second run'));
      expect(order).toEqual(['first run', 'turn', 'second run']);
      for (const { outputs } of requests) expect(outputs).toEqual(expected.outputs);
    });
  });

  it('that are followed by a long one leave the event loop free during it', async () => {
    const program = gatedProgram();
    const input = randomFloats(128 * 64 * 64, 1);
    const request = (score: number) => makeRequest(program, [input, Float32Array.of(score)]);
    for (const threads of [1, ALL]) {
      await withBackend({ threads }, async (native) => {
        const compiled = native.compileSync(program);
        for (let i = 0; i < 5; i++) await compiled.run(request(-1));
        const long = request(1);
        let turns = 0;
        let turn = setImmediate(function again() {
          turns++;
          turn = setImmediate(again);
        });
        await compiled.run(long);
        clearImmediate(turn);
        expect([...long.outcomes]).toEqual([1]);
        // On the calling thread the run is over in the first turn.
        expect(turns).toBeGreaterThan(3);
      });
    }
  });

  it('at the same time all end well, on any number of threads', async () => {
    for (const threads of [1, ALL, ALL + 1]) {
      await withBackend({ threads }, async (native) => {
        const { compiled, request, expected } = await warm(native);
        const requests = Array.from({ length: 20 }, () => request());
        await Promise.all(requests.map((each) => compiled.run(each)));
        for (const { outputs } of requests) expect(outputs).toEqual(expected.outputs);
      });
    }
  });

  it('that wait for their turn end before a release', async () => {
    for (const released of ['program', 'backend']) {
      const native = new NativeBackend({ threads: ALL });
      const { compiled, request, expected } = await warm(native);
      const last = request();
      const run = compiled.run(last);
      if (released === 'program') compiled.release();
      else native.release();
      await run;
      expect(last.outputs).toEqual(expected.outputs);
      await expect(compiled.run(request())).rejects.toEqual(coded('SESSION_RELEASED'));
      native.release();
    }
  });

  it('tell what is wrong with a request', async () => {
    await withBackend({ threads: ALL }, async (native) => {
      const { compiled, request } = await warm(native);
      const wrong = { ...request(), inputs: [new Float32Array(3)] };
      await expect(compiled.run(wrong)).rejects.toEqual(coded('INVALID_ARGUMENT'));
    });
  });
});

describe('compile', () => {
  it('leaves the event loop free, and the program runs as one compiled at once', async () => {
    await withBackend({ threads: 1 }, async (native) => {
      const program = slowProgram(2);
      let compiled = false;
      const compile = async () => {
        compiled = false;
        const ended = await native.compile(program);
        compiled = true;
        return ended;
      };
      // On a busy machine a compilation may end first now and then; one on this thread always would.
      let compiling = compile();
      let turnedFirst = false;
      for (let attempt = 0; attempt < 10 && !turnedFirst; attempt++) {
        if (attempt > 0) compiling = compile();
        await new Promise(setImmediate);
        turnedFirst = !compiled;
        await compiling;
      }
      expect(turnedFirst).toBe(true);
      const requests = [0, 1].map(() => makeRequest(program, inputsOf(program, 1)));
      await (await compiling).run(requests[0]!);
      native.compileSync(program).runSync(requests[1]!);
      expect(requests[0]!.outputs).toEqual(requests[1]!.outputs);
    });
  });

  it('under way is awaited by a release', async () => {
    const native = new NativeBackend({ threads: 1 });
    const program = slowProgram(1);
    const compiling = native.compile(program);
    native.release();
    const compiled = await compiling;
    const request = makeRequest(program, inputsOf(program, 1));
    await expect(compiled.run(request)).rejects.toEqual(coded('SESSION_RELEASED'));
    await expect(native.compile(program)).rejects.toEqual(coded('SESSION_RELEASED'));
  });
});

describe('packed weights', () => {
  it('are enough to compile a program again once its constants are dropped', () => {
    withBackend({ threads: 1 }, (native) => {
      const b = new ProgramBuilder();
      const weight = b.value([64, 64], 'float32', randomFloats(64 * 64, 3));
      const gemm = { transB: false, act: NO_ACTIVATION };
      const program = b.build([b.step('gemm', gemm, [b.input([1, 64]), weight, NONE, NONE], [1, 64])]);
      const results = [0, 1].map(() => {
        const request = makeRequest(program, inputsOf(program, 1));
        native.compileSync(program).runSync(request);
        native.dropConstants(program);
        return request.outputs[0];
      });
      expect(program.values.map(({ data }) => data?.length)).toContain(0);
      expect(results[0]).toEqual(results[1]);
      withBackend({ threads: 1 }, (other) => {
        expect(() => other.compileSync(program)).toThrow(/it has no data/);
      });
    });
  });

  it('are those of the array objects that a program names', () => {
    withBackend({ threads: 1 }, (native) => {
      const build = (data: Float32Array) => {
        const b = new ProgramBuilder();
        const weight = b.value([2, 2], 'float32', data);
        const gemm = { transB: false, act: NO_ACTIVATION };
        return b.build([b.step('gemm', gemm, [b.input([1, 2]), weight, NONE, NONE], [1, 2])]);
      };
      const weights = [Float32Array.of(1, 2, 3, 4), Float32Array.of(5, 6, 7, 8)];
      const results = [...weights, weights[0]!].map((data) => {
        const program = build(data);
        const request = makeRequest(program, [Float32Array.of(1, 10)]);
        native.compileSync(program).runSync(request);
        return [...request.outputs[0]!];
      });
      expect(results).toEqual([
        [31, 42],
        [75, 86],
        [31, 42],
      ]);
    });
  });
});

it('modes are those of the native ABI', () => {
  expect(BlockMode).toEqual({ run: 0, skip: 1, gate: 2 });
});

it.each([
  ['F(4x4)', 16, 4],
  ['F(2x2)', 6, 2],
])('an infinity reaches the tiles of Winograd that read it, and no further: %s', (_, size, reach) => {
  const channels = 16;
  const shape = [1, channels, size, size];
  const b = new ProgramBuilder();
  const weight = b.value([channels, channels, 3, 3], 'float32', randomFloats(channels * channels * 9, 1));
  const attrs = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], group: 1, act: NO_ACTIVATION };
  const program = b.build([b.step('conv', attrs, [b.input(shape), weight, NONE, NONE], shape)]);
  const x = randomFloats(channels * size * size, 2);
  const [row, column] = [2, 3];
  const broken = x.with((5 * size + row) * size + column, Number.POSITIVE_INFINITY);
  withBackend({ threads: 1 }, (native) => {
    const compiled = native.compileSync(program);
    const [plain, spoilt] = [x, broken].map((input) => {
      const request = makeRequest(program, [input]);
      compiled.runSync(request);
      return request.outputs[0] as Float32Array;
    });
    for (const [at, value] of spoilt!.entries()) {
      const distance = Math.max(
        Math.abs((Math.floor(at / size) % size) - row),
        Math.abs((at % size) - column),
      );
      if (distance <= 1) expect(Number.isFinite(value)).toBe(false);
      if (distance > reach) expect(value).toBe(plain![at]);
    }
  });
});
