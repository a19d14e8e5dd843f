import { existsSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunRequest } from 'lib/backends/backend.js';
import { forgetState, ResumableBackend } from 'lib/calibrate/run/resume.js';
import type { Program } from 'lib/model/program/program.js';
import { rereadable, WeightFile } from 'lib/tensor/recall.js';
import { FakeBackend, fakeCompile, fakeModel } from '../../helpers/fake-backend.js';
import { folderOf, removeFolders } from '../../helpers/files.js';

afterAll(removeFolders);

const program = fakeCompile(fakeModel(), new Map([['x', { shape: [1, 2] }]]));
const state = () => join(folderOf({}), 'state');

/** A run of two items; its results are empty until it is done. */
function request(x: readonly number[] = [3, 4, -5, 6], threshold = 0): RunRequest {
  return {
    items: 2,
    inputs: [Float32Array.from(x)],
    outputs: [new Float32Array(4), new BigInt64Array(1)],
    policy: { modes: Uint8Array.of(0, 2), thresholds: Float32Array.of(0, threshold) },
    outcomes: new Uint8Array(4),
    scores: new Float32Array(4).fill(Number.NaN),
  };
}

async function run(folder: string, asked: RunRequest, of: Program = program) {
  const backend = await ResumableBackend.open(new FakeBackend(), folder);
  await backend.compileSync(of).run(asked);
  return { ...backend.counts, asked, backend };
}

test('a run that was done is taken from the folder, bit for bit', async () => {
  const folder = state();
  const first = await run(folder, request());
  expect(first).toMatchObject({ taken: 0, computed: 2 });
  expect([...(first.asked.outputs[0] as Float32Array)]).toEqual([6, 8, -10, 12]);
  const second = await run(folder, request());
  expect(second).toMatchObject({ taken: 2, computed: 0 });
  expect(second.asked).toEqual(first.asked);
});

test('weights that are still in their file tell networks apart', async () => {
  const folder = state();
  const ofFile = (weight: number): Program => {
    const path = join(
      folderOf({ 'model.onnx': new Uint8Array(Float32Array.of(weight).buffer) }),
      'model.onnx',
    );
    const { data } = constant(0) as { data: Float32Array };
    rereadable(data, { file: new WeightFile(path, statSync(path, { bigint: true })), offset: 0 }, true);
    return { ...program, values: [...program.values, { ...constant(0), data }] };
  };
  await run(folder, request(), ofFile(1));
  expect(await run(folder, request(), ofFile(2))).toMatchObject({ taken: 0, computed: 2 });
  expect(await run(folder, request(), ofFile(1))).toMatchObject({ taken: 2, computed: 0 });
});

test('runs of another backend are done anew, as their bits may differ', async () => {
  const folder = state();
  await run(folder, request());
  const other = Object.assign(new FakeBackend(), { name: 'native' as const });
  const backend = await ResumableBackend.open(other, folder);
  await backend.compileSync(program).run(request());
  expect(backend.counts).toEqual({ taken: 0, computed: 2 });
});

test('what a run of the same backend has done is no earlier work', async () => {
  const backend = await ResumableBackend.open(new FakeBackend(), state());
  const compiled = backend.compileSync(program);
  await compiled.run(request());
  await compiled.run(request());
  expect(backend.counts).toEqual({ taken: 0, computed: 2 });
});

const bytesOf = (factor: number): Program => ({
  ...program,
  values: [...program.values, { name: 'b', dtype: 'int8', shape: [1], term: { zero: 0, factor } }],
});
const weighted = (value: number): Program => ({ ...program, values: [...program.values, constant(value)] });

test.each<[string, Program, RunRequest, Program]>([
  ['inputs', program, request([3, 4, -5, 7]), program],
  ['threshold', program, request(undefined, 3.5), program],
  ['weights', weighted(1), request(), weighted(2)],
  ['numbers that bytes stand for', bytesOf(1), request(), bytesOf(2)],
  ['blocks', program, request(), { ...program, blocks: [...program.blocks].reverse() }],
])('a run with other %s is done anew', async (_, before, other, after) => {
  const folder = state();
  await run(folder, request(), before);
  expect(await run(folder, other, after)).toMatchObject({ taken: 0, computed: 2 });
});

function constant(value: number) {
  return { name: 'w', dtype: 'float32' as const, shape: [1], data: Float32Array.of(value) };
}

test('a file that was cut off or changed is not believed', async () => {
  const folder = state();
  const { asked } = await run(folder, request());
  const file = join(folder, readdirSync(folder)[0]!);
  const bytes = readFileSync(file);
  truncateSync(file, bytes.length - 1);
  expect(await run(folder, request())).toMatchObject({ taken: 0, computed: 2, asked });
  bytes[0]! ^= 1;
  writeFileSync(file, bytes);
  expect(await run(folder, request())).toMatchObject({ taken: 0, computed: 2, asked });
  expect(await run(folder, request())).toMatchObject({ taken: 2, computed: 0, asked });
});

test('forgetting deletes what was kept, and leaves what else is in the folder', async () => {
  const folder = folderOf({ 'notes.txt': 'mine' });
  await run(folder, request());
  expect(readdirSync(folder)).toHaveLength(2);
  await forgetState(folder);
  expect(readdirSync(folder)).toEqual(['notes.txt']);
  const own = state();
  await run(own, request());
  await forgetState(own);
  expect(existsSync(own)).toBe(false);
});

test('a folder that can not be made is refused with the way out', async () => {
  const folder = folderOf({ file: '' });
  await expect(ResumableBackend.open(new FakeBackend(), join(folder, 'file', 'state'))).rejects.toMatchObject(
    {
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('--state'),
    },
  );
});

test('what times are measured with is never taken from the folder', async () => {
  const folder = state();
  await run(folder, request());
  const backend = await ResumableBackend.open(new FakeBackend(), folder);
  const asked = request();
  backend.compileSync(program).runSync(asked);
  expect(asked.outputs[0]![0]).toBe(6);
  expect(backend.counts).toEqual({ taken: 0, computed: 0 });
});
