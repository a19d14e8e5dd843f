import { appendFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { NativeBackend } from 'lib/backends/native.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { readWithoutWeights } from 'lib/model/read/without-weights.js';
import { InferenceSession } from 'lib/session/session.js';
import { recalled, sourceOf } from 'lib/tensor/recall.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { ELEMENT_TYPE, GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

const WIDTH = 512;
const weights = randomFloats(WIDTH * WIDTH, 1);
const MIB = 1 << 20;

/** A dense layer with a weight of 1 MiB, and a bias and a table of other types beside it. */
function network(...more: Parameters<GraphBuilder['constant']>[0][]): Uint8Array {
  const graph = new GraphBuilder();
  for (const each of more) graph.constant(each);
  const x = graph.input('x', ['batch', WIDTH]);
  const weight = graph.constant(tensor(weights, [WIDTH, WIDTH]));
  const bias = graph.constant(tensor(randomFloats(WIDTH, 2)));
  const sum = graph.node('Add', [graph.node('MatMul', [x, weight]), bias]);
  return modelBytes(graph.output(graph.node('Relu', [sum]), ['batch', WIDTH]));
}

async function readFrom(source: Uint8Array) {
  const bytes = new Uint8Array(source.length);
  let asked = 0;
  const unread = await readWithoutWeights(bytes, async (from, end) => {
    asked += end - from;
    bytes.set(source.subarray(from, end), from);
  });
  return { bytes, asked, unread };
}

const without = { identified: () => false };
/** A description of 16 MiB: smaller files are read as a whole. */
const DESCRIPTION = [Uint8Array.of((6 << 3) | 2, 0x80, 0x80, 0x80, 0x08), new Uint8Array(1 << 24)];
const fileOf = (bytes: Uint8Array) =>
  join(folderOf({ 'model.onnx': Buffer.concat([bytes, ...DESCRIPTION]) }), 'model.onnx');
const feeds = { x: new Tensor('float32', randomFloats(3 * WIDTH, 3), [3, WIDTH]) };

async function outputOf(source: string | Uint8Array, given: Record<string, Tensor> = feeds) {
  const session = await InferenceSession.create(source, { threads: 1 });
  try {
    return Object.values(await session.run(given))[0]!.data;
  } finally {
    await session.release();
  }
}

afterAll(removeFolders);

describe('a file is read but for its large weights', () => {
  const bytesOfOne = new Uint8Array(MIB).fill(7);

  it('whose offsets are known, and all else is there', async () => {
    const source = network(tensor(bytesOfOne));
    const { bytes, asked, unread } = await readFrom(source);
    const raw = (data: Float32Array | Uint8Array) =>
      Buffer.from(source).indexOf(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    const offsets = [raw(weights), raw(bytesOfOne)];
    expect([...unread.keys()].sort((a, b) => a - b)).toEqual(offsets.sort((a, b) => a - b));
    expect(asked).toBeLessThan(0.5 * source.length);
    const rest = (all: Uint8Array) =>
      all.filter((_, i) => !offsets.some((offset) => i >= offset && i < offset + MIB));
    expect(Buffer.from(rest(bytes)).equals(Buffer.from(rest(source)))).toBe(true);
  });

  it('of the types that are used as they are: others are read', async () => {
    const doubles = tensor(new Uint8Array(MIB), [MIB / 8], 'double');
    expect((await readFrom(network(doubles))).unread.size).toBe(1);
  });

  it.each([
    ['ends early', (source: Uint8Array) => source.subarray(0, source.length - 40)],
    ['goes on', (source: Uint8Array) => Uint8Array.from([...source, 255, 255, 255])],
    ['is something else', (source: Uint8Array) => source.map((byte) => byte ^ 0x5a)],
    ['is empty', () => new Uint8Array(0)],
  ])('and as a whole if it %s', async (_, damage) => {
    const source = damage(network());
    const { bytes, unread } = await readFrom(source);
    expect(unread.size).toBe(0);
    expect(Buffer.from(bytes).equals(Buffer.from(source))).toBe(true);
  });
});

describe('weights that were not read', () => {
  it('are in the file until a rule asks for them', async () => {
    const { graph } = await loadModel(fileOf(network()), without);
    const [data] = [...graph.constants.values()].map((constant) => constant.data as Float32Array);
    expect(sourceOf(data!)).toBeDefined();
    expect(recalled(data!)).toEqual(weights);
    expect(sourceOf(data!)).toBeUndefined();
  });

  it('are packed to the same results as those that were', async () => {
    const bytes = network();
    expect(await outputOf(fileOf(bytes))).toEqual(await outputOf(bytes));
  });

  it('are read where they are turned, scaled and shown: a layer on the last axis, a normalization, patches of an image', async () => {
    const [channels, side, patch] = [256, 8, 16];
    const graph = new GraphBuilder();
    const constant = (...shape: number[]) =>
      graph.constant(
        tensor(
          randomFloats(
            shape.reduce((a, b) => a * b),
            shape.length,
          ),
          shape,
        ),
      );
    const image = graph.input('x', ['batch', 3, side * patch, side * patch]);
    const strides = { kernel_shape: [patch, patch], strides: [patch, patch] };
    const bias = constant(channels);
    const patches = graph.node('Conv', [image, constant(channels, 3, patch, patch), bias], strides);
    const last = graph.node('Transpose', [patches], { perm: [0, 2, 3, 1] });
    const scaled = graph.node('Mul', [graph.node('MatMul', [last, constant(channels, channels)]), bias]);
    const first = graph.node('Transpose', [scaled], { perm: [0, 3, 1, 2] });
    const bytes = modelBytes(graph.output(first, ['batch', channels, side, side]));
    const dims = [1, 3, side * patch, side * patch];
    const x = new Tensor('float32', randomFloats(3 * (side * patch) ** 2, 4), dims);
    expect(await outputOf(fileOf(bytes), { x })).toEqual(await outputOf(bytes, { x }));
    const [read, whole] = [await loadModel(fileOf(bytes), without), await loadModel(bytes)];
    expect(read.firstLayer).toEqual(whole.firstLayer);
  });

  it('are read after all if a type that follows them is another', async () => {
    const values = Float64Array.from({ length: MIB / 8 }, (_, i) => Math.sin(i));
    const PLACE = 77;
    const floats = {
      ...tensor(new Uint8Array(values.buffer), [values.length]),
      dataType: ELEMENT_TYPE.float32,
    };
    const builder = new GraphBuilder();
    const table = builder.constant({ ...floats, dataLocation: PLACE });
    const x = builder.input('x', [1]);
    const y = builder.node('Mul', [x, builder.node('Cast', [table], { to: ELEMENT_TYPE.float32 })]);
    const source = Buffer.from(modelBytes(builder.output(y, [values.length])));
    // The field behind the bytes becomes their type: one that comes again replaces the first.
    const [DATA_TYPE, DATA_LOCATION] = [2 << 3, 14 << 3];
    const at = source.indexOf(Buffer.from(values.buffer)) + MIB;
    expect([...source.subarray(at, at + 2)]).toEqual([DATA_LOCATION, PLACE]);
    source.set([DATA_TYPE, ELEMENT_TYPE.double], at);
    expect((await readFrom(source)).unread.size).toBe(1);

    const session = await InferenceSession.create(fileOf(source));
    try {
      const [result] = Object.values(session.runSync({ x: new Tensor('float32', [1], [1]) }));
      expect(result!.data).toEqual(Float32Array.from(values));
    } finally {
      await session.release();
    }
  });

  it('are an error if the file has changed when they are packed', async () => {
    const file = fileOf(network());
    const model = await loadModel(file, without);
    const program = compileModel(model, new Map([['x', { shape: [1, WIDTH] }]]));
    appendFileSync(file, 'more');
    const backend = new NativeBackend({ threads: 1 });
    try {
      const changed = expect.objectContaining({ code: 'READ_FAILED' });
      await expect(backend.compile(program)).rejects.toEqual(changed);
      expect(() => backend.compileSync(program)).toThrow(changed);
    } finally {
      backend.release();
    }
  });
});

describe('a table of embeddings that was not read', () => {
  const ROWS = 1024;
  const table = randomFloats(ROWS * WIDTH, 5);
  const network = () => {
    const graph = new GraphBuilder();
    const rows = graph.constant(tensor(table, [ROWS, WIDTH]));
    const ids = graph.input('ids', ['batch', 'tokens'], 'int64');
    return modelBytes(graph.output(graph.node('Gather', [rows, ids]), ['batch', 'tokens', WIDTH]));
  };
  const picked = (...indices: number[]) => ({
    ids: new Tensor('int64', BigInt64Array.from(indices, BigInt), [1, indices.length]),
  });
  const rowsOf = (...indices: number[]) =>
    Float32Array.from(indices.flatMap((index) => [...table.subarray(index * WIDTH, (index + 1) * WIDTH)]));

  it('has each row read when it is picked, by any run', async () => {
    const session = await InferenceSession.create(fileOf(network()), { threads: 2 });
    try {
      const run = async (...indices: number[]) =>
        Object.values(await session.run(picked(...indices)))[0]!.data;
      const answers = await Promise.all(
        Array.from({ length: 8 }, (_, i) => run(i, 1023 - i, 7, 7, -1, -1024)),
      );
      for (const [i, answer] of answers.entries()) expect(answer).toEqual(rowsOf(i, 1023 - i, 7, 7, 1023, 0));
      expect(await run(500, 3)).toEqual(rowsOf(500, 3));
      const outside = expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: expect.stringContaining('[-n, n)'),
      });
      await expect(run(5, 1024)).rejects.toEqual(outside);
      await expect(run(-1025, 5)).rejects.toEqual(outside);
    } finally {
      await session.release();
    }
  });

  it('answers with the rows that were read when the file has changed, and has no others', async () => {
    const file = fileOf(network());
    const session = await InferenceSession.create(file, { threads: 1 });
    try {
      const run = (...indices: number[]) => Object.values(session.runSync(picked(...indices)))[0]!.data;
      run(1, 2);
      truncateSync(file, 1000);
      expect(run(2, 1)).toEqual(rowsOf(2, 1));
      const changed = expect.objectContaining({
        code: 'READ_FAILED',
        message: expect.stringContaining('create another session'),
      });
      expect(() => run(2, 3)).toThrow(changed);
      expect(run(1, 1)).toEqual(rowsOf(1, 1));
    } finally {
      await session.release();
    }
  });
});
