import { BlockMode, type RunRequest } from 'lib/backends/backend.js';
import { place } from 'lib/backends/placement.js';
import { ReferenceBackend } from 'lib/backends/reference.js';
import { type Block, type Gate, NO_ACTIVATION, NONE, type Program } from 'lib/model/program/program.js';
import { ProgramBuilder } from '../../helpers/programs.js';

const RELU = { kind: 'relu', alpha: 0, beta: 0 } as const;
const { run: RUN, skip: SKIP, gate: GATE } = BlockMode;

interface Result {
  outputs: number[];
  ran: number[];
  scores: number[];
}

/** A request with room for the first output, and its results as plain lists. */
function requestFor(
  program: Program,
  x: number[],
  modes: number[],
  thresholds: number[] = modes.map(() => 0),
) {
  const size = (id: number) => program.values[id]!.shape.reduce((a, b) => a * b, 1);
  const items = x.length / size(program.inputs[0]!.value);
  const output = new Float32Array(items * size(program.outputs[0]!.value));
  const request: RunRequest = {
    items,
    inputs: [Float32Array.from(x)],
    outputs: [output],
    policy: { modes: Uint8Array.from(modes), thresholds: Float32Array.from(thresholds) },
    outcomes: new Uint8Array(items * modes.length).fill(9),
    scores: new Float32Array(items * modes.length).fill(9),
  };
  const result = (): Result => ({
    outputs: [...output],
    ran: [...request.outcomes],
    scores: [...request.scores],
  });
  return { request, result };
}

function run(program: Program, ...rest: [number[], number[], number[]?]): Result {
  const { request, result } = requestFor(program, ...rest);
  new ReferenceBackend().compileSync(program).runSync(request);
  return result();
}

/** Two elements; block 0 adds 10 times the stream, block 1 adds 100 times it. Then everything times 2. */
function twoBlocks(change: Partial<Block> = {}, gate?: Omit<Gate, 'score'>): Program {
  const b = new ProgramBuilder();
  let stream = b.input([1, 2]);
  for (const factor of [10, 100]) {
    const gateFirst = b.steps.length;
    // The score is the mean of the stream.
    const score = gate ? b.step('reduceMean', { axes: [1] }, [stream], [1]) : NONE;
    const first = b.steps.length;
    const scaled = b.step(
      'binary',
      { kind: 'mul', act: NO_ACTIVATION },
      [stream, b.constant([], [factor])],
      [1, 2],
    );
    const output = b.step('binary', { kind: 'add', act: NO_ACTIVATION }, [stream, scaled], [1, 2]);
    b.block({
      gateFirst,
      first,
      end: b.steps.length,
      input: stream,
      output,
      gate: gate && { ...gate, score },
      ...change,
    });
    stream = output;
  }
  return b.build([
    b.step('binary', { kind: 'mul', act: NO_ACTIVATION }, [stream, b.constant([], [2])], [1, 2]),
  ]);
}

describe('modes of blocks', () => {
  test.each<[number[], number[]]>([
    [
      [RUN, RUN],
      [2222, 4444],
    ],
    [
      [SKIP, RUN],
      [202, 404],
    ],
    [
      [RUN, SKIP],
      [22, 44],
    ],
    [
      [SKIP, SKIP],
      [2, 4],
    ],
  ])('%j gives %j', (modes, outputs) => {
    const ran = modes.map((mode) => Number(mode === RUN));
    expect(run(twoBlocks(), [1, 2], modes)).toEqual({ outputs, ran, scores: [Number.NaN, Number.NaN] });
  });

  test('a gate that is not asked leaves no score', () => {
    const program = twoBlocks({}, { form: 'multiply', compare: 'gt', threshold: 0 });
    expect(run(program, [1, 3], [RUN, SKIP])).toEqual({
      outputs: [22, 66],
      ran: [1, 0],
      scores: [Number.NaN, Number.NaN],
    });
  });
});

describe('gates', () => {
  // The first score is 2.
  test.each<[Gate['compare'], number, boolean]>([
    ['gt', 2, false],
    ['gt', 1.9, true],
    ['ge', 2, true],
    ['ge', 2.1, false],
    ['lt', 2, false],
    ['lt', 2.1, true],
    ['le', 2, true],
    ['le', 1.9, false],
  ])('a score of 2 %s %d: %s', (compare, threshold, runs) => {
    const program = twoBlocks({}, { form: 'multiply', compare, threshold: 0 });
    const { ran, scores } = run(program, [1, 3], [GATE, SKIP], [threshold, 0]);
    expect({ ran, scores }).toEqual({ ran: [Number(runs), 0], scores: [2, Number.NaN] });
  });

  test('every item takes its own path', () => {
    const program = twoBlocks({}, { form: 'multiply', compare: 'gt', threshold: 0 });
    expect(run(program, [1, 3, -1, -3, 0.1, 0.3], [GATE, GATE], [0, 5])).toEqual({
      outputs: [
        2222,
        6666,
        -2,
        -6,
        Math.fround(2 * Math.fround(Math.fround(0.1) + Math.fround(Math.fround(0.1) * 10))),
        expect.any(Number),
      ],
      ran: [1, 1, 0, 0, 1, 0],
      scores: [2, 22, -2, -2, expect.closeTo(0.2, 6), expect.closeTo(2.2, 5)],
    });
  });

  test('a score that is NaN runs the block', () => {
    const program = twoBlocks({}, { form: 'multiply', compare: 'gt', threshold: 0 });
    const { ran, scores } = run(program, [Number.NaN, 1], [GATE, GATE], [1e9, 1e9]);
    expect({ ran, scores }).toEqual({ ran: [1, 1], scores: [Number.NaN, Number.NaN] });
  });

  test('a score may be computed long before the block', () => {
    const b = new ProgramBuilder();
    const x = b.input([1, 2]);
    const score = b.step('reduceMean', { axes: [1] }, [x], [1]);
    // Work between the score and the block, in memory that the score must not share.
    let stream = x;
    for (let i = 0; i < 3; i++) {
      stream = b.step('binary', { kind: 'add', act: NO_ACTIVATION }, [stream, b.constant([], [1])], [1, 2]);
    }
    const first = b.steps.length;
    const output = b.step(
      'binary',
      { kind: 'mul', act: NO_ACTIVATION },
      [stream, b.constant([], [10])],
      [1, 2],
    );
    const gate: Gate = { form: 'where', score, compare: 'lt', threshold: 0 };
    b.block({ first, end: first + 1, input: stream, output, gate });
    const program = b.build([output]);
    expect(run(program, [-1, -2, 1, 2], [GATE])).toEqual({
      outputs: [20, 10, 4, 5],
      ran: [1, 0],
      scores: [-1.5, 1.5],
    });
  });
});

describe('the residual stream', () => {
  test.each([true, false])('is given the activation that a skipped block owes; in place: %s', (inPlace) => {
    const b = new ProgramBuilder();
    const x = b.input([1, 3]);
    const stream = b.step('reshape', {}, [x], [1, 3]);
    const scaled = b.step(
      'binary',
      { kind: 'mul', act: NO_ACTIVATION },
      [stream, b.constant([], [5])],
      [1, 3],
    );
    const output = b.step('binary', { kind: 'add', act: RELU }, [stream, scaled], [1, 3]);
    b.block({ first: 1, end: 3, input: stream, output, skipActivation: RELU });
    // A later use of the stream before the block keeps the block's output from taking its place.
    const last = inPlace
      ? output
      : b.step('binary', { kind: 'sub', act: NO_ACTIVATION }, [output, stream], [1, 3]);
    const program = b.build([last]);
    const { offsets } = place(program);
    expect(offsets[stream] === offsets[output]).toBe(inPlace);
    const before = inPlace ? [0, 0, 0] : [-1, 2, -3];
    expect(run(program, [-1, 2, -3], [SKIP]).outputs).toEqual([0, 2, 0].map((y, i) => y - before[i]!));
    expect(run(program, [-1, 2, -3], [RUN]).outputs).toEqual([0, 12, 0].map((y, i) => y - before[i]!));
  });

  test('survives a skipped block whose output lies elsewhere', () => {
    const b = new ProgramBuilder();
    const x = b.input([1, 2]);
    const scaled = b.step('binary', { kind: 'mul', act: NO_ACTIVATION }, [x, b.constant([], [5])], [1, 2]);
    const sum = b.step('binary', { kind: 'add', act: NO_ACTIVATION }, [x, scaled], [1, 2]);
    // Not in place: the block's last step is no addition.
    const output = b.step('transpose', { perm: [0, 1] }, [sum], [1, 2]);
    b.block({ first: 0, end: 3, input: x, output });
    expect(run(b.build([output]), [1, 2], [SKIP]).outputs).toEqual([1, 2]);
    expect(run(b.build([output]), [1, 2], [RUN]).outputs).toEqual([6, 12]);
  });

  test('never overwrites what the caller fed', () => {
    const { request, result } = requestFor(twoBlocks(), [1, 2], [RUN, RUN]);
    new ReferenceBackend().compileSync(twoBlocks()).runSync(request);
    expect(result().outputs).toEqual([2222, 4444]);
    expect([...request.inputs[0]!]).toEqual([1, 2]);
  });
});

/** y = condition ? 2x through a block : -x; the condition is x > 0. */
function branching(): Program {
  const b = new ProgramBuilder();
  const x = b.input([1, 1]);
  const condition = b.step('compare', { kind: 'gt' }, [x, b.constant([], [0])], [1, 1], 'bool');
  const y = b.value([1, 1]);
  b.push({ op: 'branch', inputs: [condition], outputs: [], attrs: { target: 5 } });
  const doubled = b.step('binary', { kind: 'add', act: NO_ACTIVATION }, [x, x], [1, 1]);
  b.block({ first: 2, end: 3, input: x, output: doubled });
  b.push({ op: 'reshape', inputs: [doubled], outputs: [y], attrs: {} });
  b.push({ op: 'jump', inputs: [], outputs: [], attrs: { target: 7 } });
  const negated = b.step('binary', { kind: 'mul', act: NO_ACTIVATION }, [x, b.constant([], [-1])], [1, 1]);
  b.push({ op: 'reshape', inputs: [negated], outputs: [y], attrs: {} });
  return b.build([b.step('binary', { kind: 'add', act: NO_ACTIVATION }, [y, b.constant([], [100])], [1, 1])]);
}

describe('branches', () => {
  test('take one of two ways, item by item', () => {
    expect(run(branching(), [3, -3], [RUN])).toEqual({
      outputs: [106, 103],
      // A block that is not come by did not run.
      ran: [1, 0],
      scores: [Number.NaN, Number.NaN],
    });
    expect(run(branching(), [3, -3], [SKIP]).outputs).toEqual([103, 103]);
  });
});

describe('ports', () => {
  test('an input that is not batched serves all items', () => {
    const b = new ProgramBuilder();
    const x = b.input([1, 1]);
    const shared = b.input([1, 1], { batched: false });
    const program = b.build([b.step('binary', { kind: 'sub', act: NO_ACTIVATION }, [shared, x], [1, 1])]);
    const { request, result } = requestFor(program, [1, 2, 3], []);
    new ReferenceBackend()
      .compileSync(program)
      .runSync({ ...request, inputs: [...request.inputs, Float32Array.of(10)] });
    expect(result().outputs).toEqual([9, 8, 7]);
  });

  test('an output may be an input or a constant', () => {
    const b = new ProgramBuilder();
    const x = b.input([1, 2]);
    expect(run(b.build([x]), [1, 2, 3, 4], []).outputs).toEqual([1, 2, 3, 4]);
    const constant = b.constant([1, 2], [7, 8]);
    expect(run(b.build([constant]), [1, 2], []).outputs).toEqual([7, 8]);
  });

  test('a whole batch may be one item', () => {
    const b = new ProgramBuilder();
    const x = b.input([3, 2]);
    const program = b.build([b.step('transpose', { perm: [1, 0] }, [x], [2, 3])], 'whole');
    expect(run(program, [1, 2, 3, 4, 5, 6], []).outputs).toEqual([1, 3, 5, 2, 4, 6]);
  });
});

describe('runs', () => {
  const program = twoBlocks({}, { form: 'multiply', compare: 'gt', threshold: 0 });

  test('may overlap', async () => {
    const compiled = new ReferenceBackend().compileSync(program);
    const calls = Array.from({ length: 8 }, (_, i) =>
      requestFor(
        program,
        Array.from({ length: 8000 }, (_, k) => (k % 7) - 3 + i),
        [GATE, GATE],
      ),
    );
    await Promise.all(calls.map(({ request }) => compiled.run(request)));
    for (const { request, result } of calls) {
      expect(result()).toEqual(run(program, [...(request.inputs[0] as Float32Array)], [GATE, GATE]));
    }
  });

  test('give way to the event loop', async () => {
    const items = 20000;
    const { request } = requestFor(program, new Array<number>(items * 2).fill(1), [RUN, RUN]);
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    await new ReferenceBackend().compileSync(program).run(request);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(0);
  });

  test('end when they are aborted, and leave the program usable', async () => {
    const compiled = new ReferenceBackend().compileSync(program);
    const { request } = requestFor(program, new Array<number>(400000).fill(1), [RUN, RUN]);
    const controller = new AbortController();
    const pending = compiled.run({ ...request, signal: controller.signal });
    setTimeout(() => controller.abort(new Error('enough')), 1);
    await expect(pending).rejects.toMatchObject({ code: 'ABORTED', cause: { message: 'enough' } });
    await expect(compiled.run({ ...request, signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    const next = requestFor(program, [1, 3], [RUN, RUN]);
    await compiled.run(next.request);
    expect(next.result().outputs).toEqual([2222, 6666]);
  });

  test('under way end well after a release; later ones are refused', async () => {
    const compiled = new ReferenceBackend().compileSync(program);
    const { request, result } = requestFor(program, new Array<number>(20000).fill(1), [SKIP, SKIP]);
    const pending = compiled.run(request);
    compiled.release();
    compiled.release();
    await pending;
    expect(new Set(result().outputs)).toEqual(new Set([2]));
    await expect(compiled.run(request)).rejects.toMatchObject({ code: 'SESSION_RELEASED' });
    expect(() => compiled.runSync(request)).toThrow(expect.objectContaining({ code: 'SESSION_RELEASED' }));
  });

  test('report an index out of range and go on', () => {
    const b = new ProgramBuilder();
    const index = b.input([1], { dtype: 'int32' });
    const picked = b.step('gather', { axis: 0 }, [b.constant([3], [5, 6, 7]), index], [1]);
    const compiled = new ReferenceBackend().compileSync(b.build([picked]));
    const output = new Float32Array(1);
    const request = (i: number): RunRequest => ({
      items: 1,
      inputs: [Int32Array.of(i)],
      outputs: [output],
      policy: { modes: new Uint8Array(), thresholds: new Float32Array() },
      outcomes: new Uint8Array(),
      scores: new Float32Array(),
    });
    expect(() => compiled.runSync(request(9))).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    compiled.runSync(request(-1));
    expect(output[0]).toBe(7);
  });
});
