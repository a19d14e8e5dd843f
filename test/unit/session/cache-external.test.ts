import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { LengthSeries } from 'lib/model/length-series.js';
import type { KeyValueProto } from 'lib/model/read/proto.js';
import type { SessionOptions } from 'lib/session/options.js';
import { InferenceSession } from 'lib/session/session.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

afterAll(removeFolders);

const WIDTH = 256;

interface Weights {
  /** Seeds of the weights that are packed, of a small one, and of a large one that is folded. */
  readonly packed?: number;
  readonly small?: number;
  readonly folded?: number;
  /** Bytes in front of each tensor in the file of its weights. */
  readonly gap?: number;
  /** Weights are spread over so many files. */
  readonly files?: number;
  /** The small weight is the beginning of another one. */
  readonly shared?: boolean;
}

/** A network of texts whose weights lie in other files: by their paths. */
function networkOf(weights: Weights): Record<string, Uint8Array> {
  const { packed = 1, small = 2, folded = 3, gap = 0, files = 1, shared = false } = weights;
  const graph = new GraphBuilder();
  const square = (seed: number) => tensor(randomFloats(WIDTH * WIDTH, seed), [WIDTH, WIDTH]);
  const transposed = graph.node('Transpose', [graph.constant(square(folded), 'folded')], { perm: [1, 0] });
  const product = graph.node('MatMul', [
    graph.input('x', ['n', 't', WIDTH]),
    graph.constant(square(packed), 'packed'),
  ]);
  const sum = graph.node('Add', [product, graph.constant(tensor(randomFloats(WIDTH, small)), 'small')]);
  const last = graph.node('MatMul', [graph.node('Relu', [sum]), transposed]);
  graph.output(last, ['n', 't', WIDTH]);
  const contents = Array.from({ length: files }, () => [] as number[]);
  for (const [i, one] of graph.proto.initializer.entries()) {
    const content = contents[i % files]!;
    for (let at = 0; at < gap; at++) content.push(at);
    const offset = shared && one.name === 'small' ? 0 : content.length;
    for (const byte of one.rawData!) content.push(byte);
    const entries = { location: `w${i % files}.bin`, offset: `${offset}`, length: `${one.rawData!.length}` };
    delete one.rawData;
    one.dataLocation = 1;
    one.externalData = Object.entries(entries).map(([key, value]): KeyValueProto => ({ key, value }));
  }
  const named = contents.map((content, i) => [`w${i}.bin`, Uint8Array.from(content)] as const);
  return { 'model.onnx': modelBytes(graph), ...Object.fromEntries(named) };
}

const cacheOf = () => join(folderOf({}), 'cache');
const feedsOf = (tokens: number) => ({
  x: new Tensor('float32', randomFloats(tokens * WIDTH, 9), [1, tokens, WIDTH]),
});

/** Answers to texts of these lengths, and what names the model; whether a graph was lowered. */
async function allOf(folder: string, options: SessionOptions = {}, lengths: readonly number[] = [3]) {
  const lowering = jest.spyOn(LengthSeries.prototype, 'compiling');
  await using session = await InferenceSession.create(folder, options);
  const answers = [];
  for (const length of lengths) answers.push(await session.run(feedsOf(length)));
  const lowered = lowering.mock.calls.length;
  lowering.mockRestore();
  return { said: { answers, sha256: session.model.sha256 }, lowered };
}

/** Writes other files in the place of a network's, with the same times. */
function change(folder: string, files: Record<string, Uint8Array>): void {
  for (const [name, bytes] of Object.entries(files)) {
    const { atimeMs, mtimeMs, size } = statSync(join(folder, name));
    expect(bytes).toHaveLength(size);
    writeFileSync(join(folder, name), bytes);
    utimesSync(join(folder, name), atimeMs / 1000, mtimeMs / 1000);
  }
}

describe('a cache of a network whose weights lie in other files', () => {
  it.each<[string, Weights]>([
    ['one file', {}],
    ['a file of each', { files: 3 }],
    ['elements that begin anywhere', { gap: 3 }],
  ])('has its programs: %s', async (_, weights) => {
    const folder = folderOf(networkOf(weights));
    const cache = cacheOf();
    const { said } = await allOf(folder, {}, [3, 5]);
    expect(await allOf(folder, { cache }, [3, 5])).toEqual({ said, lowered: 2 });
    const sizes = readdirSync(cache).map((name) => statSync(join(cache, name)).size);
    expect(sizes).toHaveLength(3);
    // What was folded of a large weight.
    expect(Math.max(...sizes)).toBeLessThan(1.1 * 4 * WIDTH * WIDTH);
    expect(await allOf(folder, { cache }, [3, 5])).toEqual({ said, lowered: 0 });
  });

  it('lowers lengths that no entry has, in runSync, too', async () => {
    const folder = folderOf(networkOf({ files: 2, gap: 1 }));
    const cache = cacheOf();
    const { said } = await allOf(folder, {}, [3, 5, 7]);
    await allOf(folder, { cache }, [5]);
    await using session = await InferenceSession.create(folder, { cache });
    for (const [i, length] of [3, 5, 7].entries())
      expect(session.runSync(feedsOf(length))).toEqual(said.answers[i]);
    expect(await allOf(folder, { cache }, [3, 5, 7])).toEqual({ said, lowered: 0 });
  });

  it.each<[string, Weights, number]>([
    ['weights that are packed', { packed: 7 }, 0],
    ['a small weight', { small: 7 }, 1],
    ['a large weight that is folded', { folded: 7 }, 1],
  ])('is that of the bytes there, whatever their time: other %s', async (_, other, lowered) => {
    const folder = folderOf(networkOf({}));
    const cache = cacheOf();
    const before = await allOf(folder, { cache });
    change(folder, networkOf(other));
    const { said } = await allOf(folder);
    expect(said.answers).not.toEqual(before.said.answers);
    expect(await allOf(folder, { cache })).toEqual({ said, lowered });
    expect(await allOf(folder, { cache })).toEqual({ said, lowered: 0 });
  });

  it('is not that of a file of another length', async () => {
    const folder = folderOf(networkOf({}));
    const cache = cacheOf();
    const { said } = await allOf(folder, { cache });
    writeFileSync(
      join(folder, 'w0.bin'),
      Buffer.concat([readFileSync(join(folder, 'w0.bin')), Buffer.alloc(8)]),
    );
    const { said: other, lowered } = await allOf(folder, { cache });
    expect(lowered).toBe(1);
    expect(other.answers).toEqual(said.answers);
  });

  it('fails a run when a file changes after create', async () => {
    const folder = folderOf(networkOf({}));
    const cache = cacheOf();
    await allOf(folder, { cache });
    for (const length of [3, 5]) {
      await using session = await InferenceSession.create(folder, { cache });
      writeFileSync(join(folder, 'w0.bin'), networkOf({ packed: length })['w0.bin']!);
      await expect(session.run(feedsOf(length))).rejects.toMatchObject({ code: 'READ_FAILED' });
    }
  });

  it('reads no file outside of the folder, and none that is gone', async () => {
    const folder = folderOf(networkOf({}));
    const cache = cacheOf();
    await allOf(folder, { cache });
    const outside = join(folderOf({}), 'w0.bin');
    mkdirSync(join(folder, 'empty'));
    writeFileSync(outside, readFileSync(join(folder, 'w0.bin')));
    rmSync(join(folder, 'w0.bin'));
    const refused = { code: 'EXTERNAL_DATA' };
    await expect(allOf(folder, { cache })).rejects.toMatchObject(refused);
    symlinkSync(outside, join(folder, 'w0.bin'));
    await expect(allOf(folder, { cache })).rejects.toMatchObject(refused);
    renameSync(join(folder, 'w0.bin'), join(folder, 'empty', 'w0.bin'));
    renameSync(outside, join(folder, 'w0.bin'));
    expect((await allOf(folder, { cache })).lowered).toBe(0);
  });

  it('keeps nothing of weights that have bytes in common', async () => {
    const folder = folderOf(networkOf({ shared: true }));
    const cache = cacheOf();
    const { said } = await allOf(folder);
    for (let round = 0; round < 2; round++)
      expect(await allOf(folder, { cache })).toEqual({ said, lowered: 1 });
    expect(() => readdirSync(cache)).toThrow();
  });
});
