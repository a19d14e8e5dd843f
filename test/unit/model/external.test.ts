import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { ResidualSkipError } from 'lib/errors.js';
import { InferenceSession, Tensor } from 'lib/index.js';
import { loadModel } from 'lib/model/load.js';
import type { KeyValueProto } from 'lib/model/read/proto.js';
import { isUnseen, placeOf, recalled } from 'lib/tensor/recall.js';
import type { TensorData } from 'lib/tensor/tensor.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { float32s, GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

afterAll(removeFolders);

const WEIGHTS = Float32Array.of(9, 9, 1, 2, 3);

/** x + weight, where the three elements of the weight lie in another file. */
function model(entries: Record<string, string>): Uint8Array {
  const graph = new GraphBuilder();
  const y = graph.node('Add', [graph.input('x', ['n', 3]), graph.constant(float32s(0, 0, 0), 'weight')]);
  graph.output(y, ['n', 3]);
  const [weight] = graph.proto.initializer;
  delete weight!.rawData;
  weight!.dataLocation = 1;
  weight!.externalData = Object.entries(entries).map(([key, value]): KeyValueProto => ({ key, value }));
  return modelBytes(graph);
}

function folderWith(entries: Record<string, string>): string {
  return folderOf({ 'model.onnx': model(entries), 'weights/w.bin': new Uint8Array(WEIGHTS.buffer) });
}

async function expectRefused(folder: string, message: RegExp): Promise<void> {
  const error = await loadModel(folder).catch((reason) => reason);
  expect(error).toBeInstanceOf(ResidualSkipError);
  expect([error.code, error.message]).toEqual(['EXTERNAL_DATA', expect.stringMatching(message)]);
}

test('offset and length choose the bytes', async () => {
  const folder = folderWith({ location: 'weights/w.bin', offset: '8', length: '12' });
  const { graph } = await loadModel(folder);
  expect([...graph.constants.get('weight')!.data]).toEqual([1, 2, 3]);
});

test('without a length the tensor says how many bytes; without an offset they are the first', async () => {
  const { graph } = await loadModel(folderWith({ location: 'weights/w.bin' }));
  expect([...graph.constants.get('weight')!.data]).toEqual([9, 9, 1]);
});

/** Tensors of `length` elements in one file of five, by their offsets in bytes. */
function tensorsAt(offsets: readonly number[], length: number): string {
  const graph = new GraphBuilder();
  graph.input('x', ['n', length]);
  for (const [i, offset] of offsets.entries()) {
    graph.constant({ ...float32s(...new Array(length).fill(0)), rawData: undefined } as never, `w${i}`);
    Object.assign(graph.proto.initializer[i]!, {
      dataLocation: 1,
      externalData: [
        { key: 'location', value: 'w.bin' },
        { key: 'offset', value: `${offset}` },
      ],
    });
  }
  graph.output(graph.node('Sum', ['x', ...offsets.map((_, i) => `w${i}`)]), ['n', length]);
  return folderOf({ 'model.onnx': modelBytes(graph), 'w.bin': new Uint8Array(WEIGHTS.buffer) });
}

test('tensors of the same bytes share one array', async () => {
  const { graph } = await loadModel(tensorsAt(new Array(50).fill(4), 4));
  const arrays = new Set([...graph.constants.values()].map(({ data }) => data));
  expect([...arrays].map((data) => [...data])).toEqual([[9, 1, 2, 3]]);
});

test('tensors may overlap, but not so that they take far more memory than the file', async () => {
  const { graph } = await loadModel(tensorsAt([0, 4], 4));
  expect([...graph.constants.values()].map(({ data }) => [...data])).toEqual([
    [9, 9, 1, 2],
    [9, 1, 2, 3],
  ]);
  await expectRefused(tensorsAt([0, 4, 8, 12, 2, 6], 2), /'w\d'.*overlap in 'w\.bin'.*its 20 bytes/);
});

test('a constant of a node may lie outside too', async () => {
  const folder = folderOf({ 'w.bin': new Uint8Array(WEIGHTS.buffer) });
  const graph = new GraphBuilder();
  const value = { ...tensor(WEIGHTS), dataLocation: 1, externalData: [{ key: 'location', value: 'w.bin' }] };
  delete (value as { rawData?: Uint8Array }).rawData;
  const constant = graph.node('Constant', [], { value });
  graph.output(graph.node('Add', [graph.input('x', ['n', 5]), constant]), ['n', 5]);
  writeFileSync(join(folder, 'model.onnx'), modelBytes(graph));
  const loaded = await loadModel(folder);
  expect([...loaded.graph.constants.get(constant)!.data]).toEqual([...WEIGHTS]);
});

test.each([
  ['a missing file', { location: 'no.bin' }, /'weight'.*no\.bin.*ENOENT/],
  ['no location', {}, /'weight'.*names no file/],
  ['an absolute path', { location: '/etc/hostname' }, /'weight'.*outside/],
  ['a way up', { location: '../w.bin' }, /'weight'.*outside/],
  ['a way up and down again', { location: 'weights/../../x/w.bin' }, /'weight'.*outside/],
  ['the folder itself', { location: '.' }, /'weight'.*outside/],
  ['a folder', { location: 'weights' }, /'weight'.*not a regular file/],
  ['a name with a zero byte', { location: 'w\0.bin' }, /'weight'.*outside/],
  ['a range past the end', { location: 'weights/w.bin', offset: '12' }, /'weight'.*20 bytes.*12 to 24/],
  ['a wrong length', { location: 'weights/w.bin', length: '8' }, /'weight'.*8 bytes.*need 12/],
  ['a negative offset', { location: 'weights/w.bin', offset: '-4' }, /'weight'.*offset '-4'/],
  ['an offset that overflows', { location: 'weights/w.bin', offset: '9'.repeat(30) }, /'weight'.*offset/],
  ['a huge offset', { location: 'weights/w.bin', offset: '9007199254740991' }, /'weight'.*needs bytes/],
  ['an offset that is no number', { location: 'weights/w.bin', offset: '0x4' }, /'weight'.*offset '0x4'/],
])('%s', async (_, entries, message) => {
  await expectRefused(folderWith(entries), message);
});

test('symbolic links are followed inside of the folder, not out of it', async () => {
  const inside = folderWith({ location: 'link.bin' });
  symlinkSync(join(inside, 'weights', 'w.bin'), join(inside, 'link.bin'));
  expect([...(await loadModel(inside)).graph.constants.get('weight')!.data]).toEqual([9, 9, 1]);

  const outside = folderWith({ location: 'link.bin' });
  symlinkSync(join(inside, 'weights', 'w.bin'), join(outside, 'link.bin'));
  await expectRefused(outside, /'weight'.*outside/);

  const through = folderWith({ location: 'door/w.bin' });
  symlinkSync(join(inside, 'weights'), join(through, 'door'));
  await expectRefused(through, /'weight'.*outside/);
});

test('a folder whose name begins like the model folder is outside of it', async () => {
  const folder = folderWith({ location: 'x' });
  const twin = `${folder}-twin`;
  mkdirSync(twin);
  writeFileSync(join(twin, 'w.bin'), new Uint8Array(WEIGHTS.buffer));
  writeFileSync(join(folder, 'model.onnx'), model({ location: `../${basename(twin)}/w.bin` }));
  await expectRefused(folder, /'weight'.*outside/);
});

test('a named pipe does not stop the load', async () => {
  const folder = folderWith({ location: 'pipe' });
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  await expectRefused(folder, /'weight'.*not a regular file/);
});

test('bytes lead to no folder', async () => {
  const error = await loadModel(model({ location: 'weights/w.bin' })).catch((reason) => reason);
  expect([error.code, error.message]).toEqual(['EXTERNAL_DATA', expect.stringMatching(/by its path/)]);
});

/** Weights of two networks that were trained apart, whose ONNX files are alike. */
function trainedApart(): [string, string] {
  const entries = { location: 'weights/w.bin' };
  const folder = folderWith(entries);
  const other = folderOf({
    'model.onnx': model(entries),
    'weights/w.bin': new Uint8Array(WEIGHTS.map((weight) => -weight).buffer),
  });
  return [folder, other];
}

test('the hash of a model is that of its file and of those with its weights, one behind the other', async () => {
  const [folder, other] = trainedApart();
  const expected = createHash('sha256');
  for (const name of ['model.onnx', 'weights/w.bin']) expected.update(readFileSync(join(folder, name)));
  const hashes = [await loadModel(folder), await loadModel(folder, { identified: () => false })].map(
    ({ sha256 }) => sha256,
  );
  expect(new Set(hashes)).toEqual(new Set([expected.digest('hex')]));
  expect((await loadModel(other)).sha256).not.toBe(hashes[0]);
});

const openFiles = () => readdirSync('/proc/self/fd').length;

(existsSync('/proc/self/fd') ? test : test.skip)('files of single weights are not kept open', async () => {
  const graph = new GraphBuilder();
  const names = Array.from({ length: 40 }, (_, i) => `w${i}`);
  const inputs = names.map((name) => graph.constant(float32s(0, 0, 0), name));
  graph.output(graph.node('Sum', [graph.input('x', ['n', 3]), ...inputs]), ['n', 3]);
  for (const weight of graph.proto.initializer) {
    delete weight.rawData;
    Object.assign(weight, { dataLocation: 1, externalData: [{ key: 'location', value: weight.name }] });
  }
  const weights = Object.fromEntries(
    names.map((name, i) => [name, new Uint8Array(Float32Array.of(i, i, i).buffer)]),
  );
  const folder = folderOf({ 'model.onnx': modelBytes(graph), ...weights });
  const before = openFiles();
  const [hashed, unhashed] = [await loadModel(folder), await loadModel(folder, { identified: () => false })];
  expect(openFiles() - before).toBeLessThan(10);
  expect(unhashed.sha256).toBe(hashed.sha256);
  expect(openFiles() - before).toBeLessThan(10);
});

test('a policy for other weights is refused', async () => {
  const [folder, other] = trainedApart();
  const policy = { default: 'run' as const, model: { sha256: (await loadModel(folder)).sha256 } };
  await (await InferenceSession.create(folder, { policy })).release();
  await expect(InferenceSession.create(other, { policy })).rejects.toMatchObject({ code: 'POLICY_MISMATCH' });
});

test('weights that change between loading and hashing are an error', async () => {
  const [folder] = trainedApart();
  const loaded = await loadModel(folder, { identified: () => false });
  writeFileSync(join(folder, 'weights/w.bin'), new Uint8Array(24));
  expect(() => loaded.sha256).toThrow(expect.objectContaining({ code: 'READ_FAILED' }));
});

describe('large weights', () => {
  const SIDE = 300;
  const LARGE = randomFloats(SIDE * SIDE, 5);
  const outsideIn = (value: string) => ({ dataLocation: 1, externalData: [{ key: 'location', value }] });

  /** x * weight, in one file or in two. */
  function product(external: boolean): string {
    const graph = new GraphBuilder();
    const weight = graph.constant(tensor(LARGE, [SIDE, SIDE]), 'weight');
    graph.output(graph.node('MatMul', [graph.input('x', ['n', SIDE]), weight]), ['n', SIDE]);
    if (external) {
      delete graph.proto.initializer[0]!.rawData;
      Object.assign(graph.proto.initializer[0]!, outsideIn('w.bin'));
    }
    return folderOf({ 'model.onnx': modelBytes(graph), 'w.bin': new Uint8Array(LARGE.buffer) });
  }

  async function answer(session: InferenceSession) {
    const x = new Tensor('float32', randomFloats(2 * SIDE, 1), [2, SIDE]);
    const [output] = Object.values(await session.run({ x }));
    return output!.data;
  }

  test('are left in the file until they are packed, and the answers are those of one file', async () => {
    const { graph } = await loadModel(product(true));
    const { data } = graph.constants.get('weight')!;
    expect(isUnseen(data)).toBe(true);
    expect(recalled(data)).toEqual(LARGE);
    for (const backend of ['native', 'reference'] as const) {
      await using one = await InferenceSession.create(product(false), { backend });
      await using two = await InferenceSession.create(product(true), { backend });
      expect(await answer(two)).toEqual(await answer(one));
    }
  });

  test('the file may be replaced once the model is loaded, but not changed', async () => {
    const folder = product(true);
    const file = join(folder, 'w.bin');
    const data = async () => (await loadModel(folder)).graph.constants.get('weight')!.data;
    const [replaced, changed] = [await data(), await data()];
    renameSync(file, `${file}.old`);
    writeFileSync(file, new Uint8Array(LARGE.byteLength));
    expect(recalled(replaced)).toEqual(LARGE);
    writeFileSync(`${file}.old`, new Uint8Array(LARGE.byteLength));
    expect(() => recalled(changed)).toThrow(expect.objectContaining({ code: 'READ_FAILED' }));
  });

  test('are read for the branches of an If, and for each type of the same bytes', async () => {
    const stored = (data: TensorData, type?: 'float16', location = 'w.bin') => {
      const { rawData: _, ...rest } = tensor(data, [data.length], type);
      return { ...rest, ...outsideIn(location) };
    };
    const branch = new GraphBuilder('branch', 'branch');
    branch.output(branch.node('Identity', [branch.constant(stored(LARGE, undefined, 'branch.bin'))]), [
      LARGE.length,
    ]);
    const graph = new GraphBuilder();
    const either = { then_branch: branch, else_branch: branch };
    const outputs = [graph.node('If', [graph.input('yes', [], 'bool')], either)];
    const bytes = new Uint8Array(LARGE.buffer);
    const types = [LARGE, new Int8Array(LARGE.buffer), bytes].map((data) => stored(data));
    for (const [i, value] of [...types, stored(new Float32Array(bytes.length / 2), 'float16')].entries())
      outputs.push(graph.node('Identity', [graph.constant(value, `constant${i}`)]));
    for (const output of outputs) graph.output(output);
    const folder = folderOf({ 'model.onnx': modelBytes(graph), 'w.bin': bytes, 'branch.bin': bytes });
    const { constants } = (await loadModel(folder, { allowUnsupported: true })).graph;
    const at = (i: number) => constants.get(`constant${i}`)!.data;
    expect([0, 1, 2, 3].some((i) => isUnseen(at(i)) || placeOf(at(i)))).toBe(false);
    const views = [0, 1, 2].map((i) => recalled(at(i)));
    expect(views).toEqual([LARGE, new Int8Array(LARGE.buffer), bytes]);
    const yes = new Tensor('bool', [true], []);
    await using session = await InferenceSession.create(folder);
    expect((await session.run({ yes }))[outputs[0]!]!.data).toEqual(LARGE);
  });
});
