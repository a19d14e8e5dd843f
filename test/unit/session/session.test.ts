import {
  auditLog,
  type Feeds,
  InferenceSession,
  type RunEvent,
  readAudit,
  replayAudit,
  type SessionControl,
  type SessionOptions,
  type SkipPolicy,
  Tensor,
  watch,
} from 'lib/index.js';
import type { Model } from 'lib/model/read/model.js';
import * as ort from 'onnxruntime-common';
import { FakeBackend, fakeCompile, fakeInput, fakeModel } from '../../helpers/fake-backend.js';
import { folderOf, removeFolders } from '../../helpers/files.js';

afterAll(removeFolders);

let backend: FakeBackend;
let model: Model;

jest.mock('lib/model/load.js', () => ({ loadModel: async () => model }));
/** What stands in for a model that is lowered for a binding. */
interface FakeIr {
  readonly of: Parameters<typeof fakeCompile>;
}
jest.mock('lib/model/lower/specialize.js', () => ({
  // biome-ignore lint/correctness/useYield: it comes in one slice
  *specializing(...of: FakeIr['of']): Generator<undefined, FakeIr> {
    return { of };
  },
}));
jest.mock('lib/model/length-proof.js', () => ({
  outlineOf: () => undefined,
  isLinear: () => false,
}));
jest.mock('lib/model/compile.js', () => ({
  // biome-ignore lint/correctness/useYield: it comes in one slice
  *building({ of }: FakeIr) {
    return fakeCompile(...of);
  },
}));
jest.mock('lib/backends/reference.js', () => ({ createReference: async () => backend }));

beforeEach(() => {
  backend = new FakeBackend();
  model = fakeModel();
  fakeCompile.mockClear();
});

function create(options: SessionOptions = {}): Promise<InferenceSession> {
  return InferenceSession.create('fake.onnx', { backend: 'reference', ...options });
}

function feeds(...values: number[]): { x: Tensor } {
  return { x: new Tensor('float32', values, [values.length / 2, 2]) };
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
}

describe('InferenceSession', () => {
  it('describes the model', async () => {
    const session = await create();
    expect(session.inputNames).toEqual(['x']);
    expect(session.outputNames).toEqual(['y', 'total']);
    expect(session.inputMetadata).toEqual([
      { name: 'x', isTensor: true, type: 'float32', shape: ['batch', 2] },
    ]);
    expect(session.outputMetadata[1]).toEqual({ name: 'total', isTensor: true, type: 'int64', shape: [] });
    expect(session.backend).toBe('reference');
    expect(session.model).toEqual({
      sha256: 'a'.repeat(64),
      opset: 17,
      metadata: expect.objectContaining({ producer: '', version: 0, custom: {} }),
      parameters: 12,
      multiplyAdds: 100,
      batching: 'item',
      batchingReason: null,
    });
    expect(session.blocks).toEqual([
      {
        index: 0,
        name: 'stem',
        shortcut: 'projection',
        skippable: false,
        gate: null,
        multiplyAdds: 40,
        share: 0.4,
        layers: 2,
      },
      {
        index: 1,
        name: 'gated',
        shortcut: 'identity',
        skippable: true,
        gate: { form: 'multiply', compare: 'gt', threshold: 0 },
        multiplyAdds: 40,
        share: 0.4,
        layers: 2,
      },
    ]);
  });

  it('returns outputs with the batch on axis 0', async () => {
    const session = await create();
    const outputs = await session.run(feeds(1, 2, 3, 4, 5, 6));
    expect(Object.keys(outputs)).toEqual(['y', 'total']);
    expect(outputs.y).toBeInstanceOf(Tensor);
    expect(outputs.y!.dims).toEqual([3, 2]);
    expect([...(outputs.y!.data as Float32Array)]).toEqual([2, 4, 6, 8, 10, 12]);
    expect(outputs.total!.dims).toEqual([]);
    expect(outputs.total!.data).toEqual(new BigInt64Array([3n]));
    expect(session.runSync(feeds(1, 2, 3, 4, 5, 6))).toEqual(outputs);
  });

  it('takes tensors of onnxruntime-common', async () => {
    const session = await create();
    const { y } = await session.run({ x: new ort.Tensor('float32', new Float32Array([1, 2]), [1, 2]) });
    expect([...(y!.data as Float32Array)]).toEqual([2, 4]);
  });

  it('traces every item', async () => {
    const session = await create();
    const { outputs, trace } = await session.runTraced(feeds(1, 2, -3, 4));
    expect(outputs.y!.dims).toEqual([2, 2]);
    expect(
      trace.items.map(({ blocks }) => blocks.map(({ ran, score, reason }) => [ran, score, reason])),
    ).toEqual([
      [
        [true, null, 'fixed'],
        [true, 1, 'gate'],
      ],
      [
        [true, null, 'fixed'],
        [false, -3, 'gate'],
      ],
    ]);
    expect(trace.items[1]).toMatchObject({ multiplyAddsSkipped: 40, layersSkipped: 2 });
    expect(session.runTracedSync(feeds(1, 2, -3, 4), ['y']).trace).toEqual(trace);
  });

  it('applies the policy of the session, or of the run', async () => {
    const session = await create({ policy: { blocks: { gated: 'skip' } } });
    const ran = async (policy?: 'full' | { blocks: Record<string, { threshold: number }> }) =>
      (await session.runTraced(feeds(1, 2), { policy })).trace.items[0]!.blocks[1];
    expect(await ran()).toMatchObject({ ran: false, reason: 'policy' });
    expect(await ran('full')).toMatchObject({ ran: true, reason: 'policy' });
    expect(await ran({ blocks: { 1: { threshold: 1.5 } } })).toMatchObject({
      ran: false,
      score: 1,
      threshold: 1.5,
    });
    expect(await ran()).toMatchObject({ ran: false, reason: 'policy' });
  });

  it('refuses a policy that does not fit the model when it is created', async () => {
    await expect(create({ policy: { blocks: { gatd: 'skip' } } })).rejects.toMatchObject({
      code: 'INVALID_POLICY',
      message: expect.stringContaining("did you mean 'gated'?"),
    });
    expect(backend.log.at(-1)).toBe('release backend');
  });
});

describe('new InferenceSession', () => {
  it.each([[[]], [['model.onnx']]])('says what to use instead: %j', (args) => {
    const Any = InferenceSession as unknown as new (...args: unknown[]) => unknown;
    expect(() => new Any(...args)).toThrow(
      expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: expect.stringContaining('InferenceSession.create'),
      }),
    );
  });
});

describe('fetches', () => {
  it('selects outputs by name', async () => {
    const session = await create();
    expect(Object.keys(await session.run(feeds(1, 2), ['total']))).toEqual(['total']);
    expect(Object.keys(await session.run(feeds(1, 2), { y: null }))).toEqual(['y']);
  });

  it('takes an option of null for an option, but where an output has its name', async () => {
    const session = await create();
    expect(Object.keys(await session.run(feeds(1, 2), { signal: null }))).toEqual(['y', 'total']);
    const { trace } = await session.runTraced(feeds(1, 2), { signal: null });
    expect(trace.items).toHaveLength(1);
    const [y, total] = model.outputs;
    model = { ...model, outputs: [{ ...y!, name: 'signal' }, total!] };
    const other = await create();
    await expect(other.run(feeds(1, 2), { signal: null })).resolves.not.toHaveProperty('total');
  });

  it('fills tensors of the caller', async () => {
    const session = await create();
    const y = new Tensor('float32', new Float32Array(2), [1, 2]);
    const outputs = await session.run(feeds(1, 2), { y });
    expect(outputs).toEqual({ y });
    expect(outputs.y).toBe(y);
    expect([...y.data]).toEqual([2, 4]);
    const other = new ort.Tensor('float32', new Float32Array(2), [1, 2]);
    const filled = session.runSync(feeds(3, 4), { y: other, total: null });
    expect([...other.data]).toEqual([6, 8]);
    expect(filled.y).toBe(other);
  });

  it('leaves tensors of the caller alone when the run fails', async () => {
    const session = await create();
    backend.hold = true;
    const y = new Tensor('float32', new Float32Array(2), [1, 2]);
    const run = session.run(feeds(1, 2), { y });
    backend.waiting[0]!.request.outputs[0]!.fill(9 as never);
    backend.waiting[0]!.fail(new Error('broken'));
    await expect(run).rejects.toThrow('broken');
    expect([...y.data]).toEqual([0, 0]);
  });

  const Any = Object as unknown as (value: unknown) => never;
  it.each<[string, unknown, string]>([
    ['INVALID_ARGUMENT', ['z'], "fetches: the model has no output 'z'; expected one of 'y', 'total'"],
    ['INVALID_ARGUMENT', { totl: null }, "did you mean 'total'?"],
    ['INVALID_ARGUMENT', [], 'fetches: expected at least one output'],
    ['INVALID_ARGUMENT', [Object.create(null)], 'fetches: the model has no output'],
    ['INVALID_ARGUMENT', { y: { type: 'float32', data: [true, false], dims: [1, 2] } }, "fetches 'y'"],
    [
      'INVALID_SHAPE',
      { y: new Tensor('float32', [1, 2, 3, 4], [2, 2]) },
      'expected float32[1,2], received float32[2,2]',
    ],
    [
      'INVALID_DTYPE',
      { y: new Tensor('int32', [1, 2], [1, 2]) },
      'expected float32[1,2], received int32[1,2]',
    ],
    ['INVALID_ARGUMENT', 'y', 'options'],
  ])('refuses with %s: %j', async (code, fetches, message) => {
    const session = await create();
    await expect(session.run(feeds(1, 2), Any(fetches))).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
    expect((await session.run(feeds(1, 2))).y!.dims).toEqual([1, 2]);
  });
});

describe('feeds', () => {
  const cases: [string, unknown, string][] = [
    ['INVALID_ARGUMENT', null, 'feeds: expected an object'],
    ['INVALID_ARGUMENT', [], 'feeds: expected an object'],
    ['INVALID_ARGUMENT', {}, "feeds: input 'x' (float32[batch,2]) is missing"],
    ['INVALID_ARGUMENT', { x: undefined }, 'is missing'],
    ['INVALID_ARGUMENT', { x: [1, 2] }, "input 'x': expected a Tensor, received Array"],
    ['INVALID_ARGUMENT', { ...feeds(1, 2), X: null }, "feeds: the model has no input 'X'; did you mean 'x'?"],
    [
      'INVALID_DTYPE',
      { x: new Tensor('int32', [1, 2], [1, 2]) },
      'expected float32[batch,2], received int32[1,2]',
    ],
    ['INVALID_SHAPE', { x: new Tensor('float32', [1, 2]) }, 'expected float32[batch,2], received float32[2]'],
    ['INVALID_SHAPE', { x: new Tensor('float32', [1, 2, 3], [1, 3]) }, 'received float32[1,3]'],
    ['INVALID_SHAPE', { x: new Tensor('float32', [], [0, 2]) }, 'received float32[0,2]; it is empty'],
  ];
  it.each(cases)('are refused with %s (%#)', async (code, bad, message) => {
    const session = await create();
    const expected = { code, message: expect.stringContaining(message) };
    await expect(session.run(bad as Feeds)).rejects.toMatchObject(expected);
    expect(() => session.runSync(bad as Feeds)).toThrow(expect.objectContaining(expected));
    expect((await session.run(feeds(1, 2))).y!.dims).toEqual([1, 2]);
  });

  it('must have one batch size', async () => {
    model = fakeModel({ inputs: [fakeInput('x'), fakeInput('z')] });
    const session = await create();
    await expect(session.run({ ...feeds(1, 2), z: feeds(1, 2, 3, 4).x })).rejects.toMatchObject({
      code: 'INVALID_SHAPE',
      message: "input 'z': its batch is 2, but that of input 'x' is 1; expected the same",
    });
  });

  it('hold 0 and 1 for bool', async () => {
    model = fakeModel({
      inputs: [fakeInput('x'), fakeInput('b', { dtype: 'bool', shape: [1], batched: false })],
    });
    const session = await create();
    const b = new Tensor('bool', new Uint8Array([2]));
    await expect(session.run({ ...feeds(1, 2), b })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('may be changed by the caller while the run is under way', async () => {
    const session = await create();
    backend.hold = true;
    const fed = feeds(1, 2);
    const run = session.run(fed);
    (fed.x.data as Float32Array).fill(100);
    backend.waiting[0]!.resume();
    expect([...((await run).y!.data as Float32Array)]).toEqual([2, 4]);
  });

  it('may have any batch, also where the file was exported with another', async () => {
    model = fakeModel({ inputs: [fakeInput('x', { shape: [1, 2] })] });
    const session = await create();
    expect((await session.run(feeds(1, 2, 3, 4))).y!.dims).toEqual([2, 2]);
  });
});

describe('specialisation', () => {
  it('compiles once for all batches', async () => {
    const session = await create();
    await session.run(feeds(1, 2));
    await session.run(feeds(1, 2, 3, 4));
    expect(backend.log).toEqual(['compile 1x2', 'drop constants']);
  });

  it('compiles for each shape when it is first fed, and keeps 128', async () => {
    model = fakeModel({ inputs: [fakeInput('x', { shape: ['batch', 'width'] })] });
    const session = await create();
    expect(backend.log).toEqual([]);
    expect(() => session.blocks).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(session.model.multiplyAdds).toBeNull();
    const run = (width: number) =>
      session.run({ x: new Tensor('float32', new Float32Array(width), [1, width]) });
    for (const width of [...Array.from({ length: 128 }, (_, i) => i + 1), 1, 129, 1]) await run(width);
    expect(session.blocks).toHaveLength(2);
    expect(backend.log.filter((entry) => entry.startsWith('compile'))).toHaveLength(129);
    expect(backend.log.at(-1)).toBe('release 1x2');
  });

  it('compiles once for runs that begin together, from the feeds as they were', async () => {
    model = fakeModel({ inputs: [fakeInput('x', { shape: ['batch', 'width'] })] });
    const session = await create();
    const fed = new Float32Array([1, 2, 3]);
    const runs = [0, 1].map(() => session.run({ x: new Tensor('float32', fed, [1, 3]) }));
    fed.fill(0);
    for (const run of runs) expect([...(await run).y!.data]).toEqual([2, 4, 6]);
    expect(backend.log).toEqual(['compile 1x3']);
  });

  it('compiles for a runSync while a run waits for the same', async () => {
    model = fakeModel({ inputs: [fakeInput('x', { shape: ['batch', 'width'] })] });
    const session = await create();
    const x = new Tensor('float32', [1, 2, 3], [1, 3]);
    const run = session.run({ x });
    expect([...session.runSync({ x }).y!.data]).toEqual([2, 4, 6]);
    expect([...(await run).y!.data]).toEqual([2, 4, 6]);
    expect(backend.log).toEqual(['compile 1x3', 'compile 1x3', 'release 1x3']);
  });

  it('compiles anew for other values of an input that the shapes depend on', async () => {
    model = fakeModel({
      inputs: [
        fakeInput('x'),
        fakeInput('k', { dtype: 'int64', shape: [1], batched: false, boundByValue: true }),
      ],
    });
    const session = await create();
    const run = (k: bigint) => session.run({ ...feeds(1, 2), k: new Tensor('int64', [k]) });
    await run(1n);
    await run(2n);
    await run(1n);
    expect(fakeCompile.mock.calls.map(([, binding]) => binding.get('k')!.data)).toEqual([
      new BigInt64Array([1n]),
      new BigInt64Array([2n]),
    ]);
  });

  it('binds the whole batch where items are mixed', async () => {
    model = fakeModel({
      batching: 'whole',
      batchingReason: 'r',
      inputs: [fakeInput('x', { batched: false })],
    });
    const session = await create();
    expect((await session.run(feeds(1, 2, 3, 4))).y!.dims).toEqual([2, 2]);
    expect(backend.log).toEqual(['compile 1x2', 'compile 2x2']);
    expect(session.model.batchingReason).toBe('r');
  });

  it('settles symbolic dimensions by freeDimensionOverrides', async () => {
    model = fakeModel({ inputs: [fakeInput('x', { shape: ['batch', 'width'] })] });
    const session = await create({ freeDimensionOverrides: { width: 3 } });
    expect(session.inputMetadata[0]!.shape).toEqual(['batch', 3]);
    expect(session.blocks).toHaveLength(2);
    await expect(session.run(feeds(1, 2))).rejects.toMatchObject({ code: 'INVALID_SHAPE' });
    await expect(create({ freeDimensionOverrides: { widht: 3 } })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining("did you mean 'width'?"),
    });
  });
});

describe('overlapping runs', () => {
  it('have results of their own', async () => {
    const session = await create();
    backend.hold = true;
    const runs = [feeds(1, 2), feeds(3, 4, 5, 6)].map((fed) => session.run(fed));
    backend.waiting[1]!.resume();
    expect((await runs[1]!).y!.dims).toEqual([2, 2]);
    backend.waiting[0]!.resume();
    expect((await runs[0]!).y!.dims).toEqual([1, 2]);
  });

  it('are waited for by release', async () => {
    const session = await create();
    backend.hold = true;
    const run = session.run(feeds(1, 2));
    const failing = session.run(feeds(1, 2));
    const released = session.release();
    expect(session.release()).toBe(released);
    await settled();
    backend.log.length = 0;
    backend.waiting[1]!.fail(new Error('broken'));
    await expect(failing).rejects.toThrow('broken');
    await settled();
    expect(backend.log).toEqual([]);
    backend.waiting[0]!.resume();
    expect((await run).y!.dims).toEqual([1, 2]);
    await released;
    expect(backend.log).toEqual(['release 1x2', 'release backend']);
  });

  it('are refused after release', async () => {
    const session = await create();
    await session[Symbol.asyncDispose]();
    await expect(session.run(feeds(1, 2))).rejects.toMatchObject({ code: 'SESSION_RELEASED' });
    expect(() => session.runSync(feeds(1, 2))).toThrow(expect.objectContaining({ code: 'SESSION_RELEASED' }));
    expect(session.inputNames).toEqual(['x']);
  });

  it('end early when aborted', async () => {
    const session = await create();
    backend.hold = true;
    const controller = new AbortController();
    const run = session.run(feeds(1, 2), { signal: controller.signal });
    controller.abort();
    await expect(run).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(session.run(feeds(1, 2), { signal: controller.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    expect(backend.waiting).toHaveLength(1);
  });
});

describe('observers', () => {
  it('see every run, with all outputs', async () => {
    const events: RunEvent[] = [];
    const session = await create({ observers: [{ onRun: (event) => void events.push(event) }] });
    const fed = feeds(1, 2);
    const { total } = await session.run(fed, ['total']);
    session.runSync(fed);
    expect(events).toHaveLength(2);
    expect(events[0]!.outputs).toEqual({ y: new Tensor('float32', [2, 4], [1, 2]), total });
    expect(events[0]!.inputs.x).toEqual(fed.x);
    expect(events[0]!.context.sha256).toBe('a'.repeat(64));
    expect(events[0]!.milliseconds).toBeGreaterThanOrEqual(0);
    expect(events[0]!.trace.items).toHaveLength(1);
    expect(Object.keys(events[1]!.outputs)).toEqual(['y', 'total']);
  });

  it('see the inputs that were run, whatever the caller does to its arrays meanwhile', async () => {
    const events: RunEvent[] = [];
    const session = await create({ observers: [{ onRun: (event) => void events.push(event) }] });
    const fed = feeds(1, 2);
    const before = Array.from(fed.x!.data as Float32Array);
    const run = session.run(fed);
    (fed.x!.data as Float32Array).fill(99);
    await run;
    expect(Array.from(events[0]!.inputs.x!.data as Float32Array)).toEqual(before);
  });

  it('may keep the inputs for good', async () => {
    const events: RunEvent[] = [];
    const observers = [{ onRun: (event: RunEvent) => void events.push(event) }, { keepsInputs: false }];
    const session = await create({ observers });
    for (const value of [1, 3, 5]) await session.run(feeds(value, value + 1));
    const inputs = events.map((event) => Array.from(event.inputs.x!.data as Float32Array));
    expect(inputs).toEqual([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
  });

  it('keep the inputs until their promise is settled where they do not need them for longer; then other runs use the memory', async () => {
    const events: RunEvent[] = [];
    const dataOf = (run: number) => events[run]!.inputs.x!.data;
    const ends: (() => void)[] = [];
    const session = await create({
      observers: [
        { keepsInputs: false, onRun: () => {} },
        {
          keepsInputs: false,
          onRun: (event) => {
            events.push(event);
            return new Promise((resolve) => ends.push(resolve));
          },
        },
      ],
    });
    await session.run(feeds(1, 2));
    await session.run(feeds(3, 4));
    expect(dataOf(1)).not.toBe(dataOf(0));
    expect(Array.from(dataOf(0) as Float32Array)).toEqual([1, 2]);
    ends[0]!();
    await settled();
    await session.run(feeds(5, 6));
    expect(dataOf(2)).toBe(dataOf(0));
    expect(events.map(({ inputsKept }) => inputsKept)).toEqual([true, true, true]);
    for (const end of ends) end();
  });

  it('give the memory of the inputs back also where their promise is rejected', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const seen: unknown[] = [];
    const onRun = async ({ inputs }: RunEvent) => {
      seen.push(inputs.x!.data);
      throw new Error('broken');
    };
    const session = await create({ observers: [{ keepsInputs: false, onRun }] });
    await session.run(feeds(1, 2));
    await settled();
    await session.run(feeds(1, 2));
    await settled();
    expect(seen[1]).toBe(seen[0]);
    expect(warned).toHaveBeenCalledTimes(2);
    warned.mockRestore();
  });

  it('never break a run', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const session = await create({
      observers: [
        {
          onRun() {
            throw new Error('broken');
          },
        },
      ],
    });
    expect((await session.run(feeds(1, 2))).y!.dims).toEqual([1, 2]);
    expect(warned).toHaveBeenCalledTimes(1);
    warned.mockRestore();
  });

  it('see a guarded run that release has to wait for, before they are released', async () => {
    const seen: string[] = [];
    const session = await create({
      policy: { default: 'skip', blocks: {}, guards: [{ labels: [1] }] },
      observers: [{ onRun: () => void seen.push('run'), onRelease: () => void seen.push('release') }],
    });
    backend.hold = true;
    const run = session.run(feeds(1, 2));
    const released = session.release();
    backend.waiting[0]!.resume();
    await settled();
    expect(backend.waiting).toHaveLength(2);
    expect(seen).toEqual([]);
    backend.waiting[1]!.resume();
    await run;
    await released;
    expect(seen).toEqual(['run', 'release']);
    expect(backend.log.at(-1)).toBe('release backend');
  });

  it('may have every block of every run run, also where the run has a policy of its own', async () => {
    const controls: SessionControl[] = [];
    const observer = { onAttach: (control: SessionControl) => void controls.push(control) };
    const session = await create({
      policy: { blocks: { gated: 'skip' } },
      observers: [observer, { ...observer }],
    });
    const ran = (policy?: SkipPolicy) =>
      session.runTracedSync(feeds(1, 2), { policy }).trace.items[0]!.blocks[1]!.ran;
    expect(ran()).toBe(false);
    for (const { setFullDepth } of controls) setFullDepth(true);
    expect([ran(), ran({ default: 'skip', blocks: {} })]).toEqual([true, true]);
    controls[0]!.setFullDepth(false);
    expect(ran()).toBe(true);
    controls[1]!.setFullDepth(false);
    expect(ran()).toBe(false);
  });

  it('may refuse the session', async () => {
    const monitor = watch({ shadow: 1, maxDisagreement: 0.05 });
    const options = { policy: { default: 'skip', blocks: {} }, observers: [monitor] } as const;
    const first = await create(options);
    const other = { onRelease: jest.fn() };
    await expect(create({ observers: [other, monitor] })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('another session'),
    });
    expect(other.onRelease).toHaveBeenCalledTimes(1);
    // The first session goes on to be watched.
    await first.run(feeds(1, 2));
    await monitor.settled();
    expect(first.stats()).toMatchObject({ watch: { checks: 1, failures: 0 } });
  });

  it('have statistics of their own, also where two are of a kind', async () => {
    const session = await create({ observers: [watch({ shadow: 0 }), watch({ shadow: 1 })] });
    await session.run(feeds(1, 2));
    await settled();
    expect(session.stats()).toMatchObject({ watch: { checks: 0 }, watch2: { items: 1, checks: 1 } });
  });
});

describe('watch', () => {
  it('compares answers, whichever outputs are fetched', async () => {
    const monitor = watch({ shadow: 1 });
    const policy = { default: 'skip', blocks: {} } as const;
    const session = await create({ policy, observers: [monitor] });
    for (let i = 0; i < 30; i++) {
      await session.run(feeds(1, 2), ['total']);
      await monitor.settled();
    }
    expect(session.stats()).toMatchObject({ watch: { checks: 30, disagreements: 0, tripped: false } });
  });

  it("tests what the session's policy promises", async () => {
    const promise = {
      ...{ metric: 'disagreement' as const, limit: 0.04, confidence: 0.95, items: 500, events: 9 },
      ...{ risk: 0.018, pValue: 0.01, upperBound: 0.04 },
      data: { sha256: 'f'.repeat(64), seed: 1, fit: 0, order: 100, certify: 500 },
    };
    const session = await create({ policy: { blocks: {}, promise }, observers: [watch(), watch()] });
    const tested = { metric: 'disagreement', limit: 0.04 };
    expect(session.stats()).toMatchObject({ watch: tested, watch2: tested });
    const without = await create({ observers: [watch()] });
    expect(without.stats()).toMatchObject({ watch: { metric: 'disagreement', limit: 0.01 } });
  });
});

describe('an audit log', () => {
  it('replays to the same outputs, whichever the runs fetched', async () => {
    const path = `${folderOf({})}/trace.ndjson`;
    const session = await create({ observers: [auditLog({ path })] });
    await session.run(feeds(1, 2), ['total']);
    await session.run(feeds(3, 4), ['y']);
    await session.release();
    const { entries } = await readAudit(path);
    expect(entries[0]!.record.top).toHaveLength(2);
    const data = [feeds(1, 2), feeds(3, 4)].map((fed, i) => ({ name: `item ${i}`, feeds: fed }));
    expect(await replayAudit(entries, data, await create())).toMatchObject({ replayed: 2, identical: 2 });
  });
});
