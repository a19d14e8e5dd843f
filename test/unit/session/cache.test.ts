import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { NativeBackend } from 'lib/backends/native.js';
import { LengthSeries } from 'lib/model/length-series.js';
import type { SessionOptions } from 'lib/session/options.js';
import { InferenceSession } from 'lib/session/session.js';
import { decodeEntry, encodeEntry } from 'lib/session/stored/entry.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign } from '../../helpers/foreign-network.js';
import { between, colours, ladder, ladderPolicy, type Rung, run, sureness } from '../../helpers/ladders.js';
import { GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

const MODELS = resolve(__dirname, '../../../models');
const cacheOf = () => join(folderOf({}), 'cache');
const fileOf = (bytes: Uint8Array) => join(folderOf({ 'model.onnx': bytes }), 'model.onnx');

afterAll(removeFolders);

type Feeds = { readonly [name: string]: Tensor };

/** Two items of random numbers, and of ones for integers, with so many tokens. */
function feedsFor({ inputMetadata }: InferenceSession, tokens: number): Feeds {
  const feeds = inputMetadata.map(({ name, type, shape }, at) => {
    const dims = shape.map((dim, axis) => (axis === 0 ? 2 : typeof dim === 'number' ? dim : tokens));
    const length = dims.reduce((size, dim) => size * dim, 1);
    const data = type === 'float32' ? randomFloats(length, at + 1) : new BigInt64Array(length).fill(1n);
    return [name, new Tensor(type, data, dims)] as const;
  });
  return Object.fromEntries(feeds);
}

/** All that a session says and answers. */
async function allOf(source: string, options: SessionOptions, lengths: readonly number[] = [16]) {
  await using session = await InferenceSession.create(source, options);
  const answers = [];
  for (const length of lengths) {
    const { outputs, trace } = await session.runTraced(feedsFor(session, length));
    answers.push({ outputs, trace: { ...trace } });
  }
  const { inputMetadata, outputMetadata, model, blocks, policy, firstLayer, context } = session;
  const { classScores, layers, multiplyAdds } = context;
  return {
    ...{ inputMetadata, outputMetadata, blocks, firstLayer, classScores, layers, multiplyAdds },
    ...{ model: { ...model }, policy: { ...policy }, answers },
  };
}

/** Renames the first block of every program that a folder has: a session that reads it has the name. */
function markPrograms(cache: string, name: string): void {
  for (const file of readdirSync(cache).filter((entry) => entry.includes('-'))) {
    const { data, arrays } = decodeEntry(new Uint8Array(readFileSync(join(cache, file))))!;
    const { program } = data as { program: { blocks: { name: string }[] } };
    program.blocks[0]!.name = name;
    writeFileSync(join(cache, file), encodeEntry({ data, arrays }), { mode: 0o600 });
  }
}

async function nameOfFirst(source: string, cache: string): Promise<string> {
  await using session = await InferenceSession.create(source, { cache });
  return session.blocks[0]!.name;
}

describe('a session with a cache', () => {
  it.each<[string, SessionOptions, number[]]>([
    ['mnist-resnet20-gates', {}, [16]],
    ['mnist-resnet20-gates', { backend: 'reference' }, [16]],
    ['cifar10-resnet14', { precision: 'bfloat16' }, [16]],
    ['cifar10-resnet14-exits', {}, [16]],
    ['cifar10-resnet14-exits', { policy: 'full' }, [16]],
    ['fashion-mnist-resnet26-exits/model.int8.onnx', {}, [16]],
    ['sst2-encoder', {}, [9, 12, 5, 9]],
    ['sst2-encoder-exits', {}, [9, 12]],
  ])('says and answers the same: %s %j', async (name, options, lengths) => {
    const source = join(MODELS, name);
    const cache = cacheOf();
    const expected = await allOf(source, options, lengths);
    expect(await allOf(source, { ...options, cache }, lengths)).toEqual(expected);
    const files = readdirSync(cache);
    expect(files.length).toBe(1 + new Set(lengths).size);
    expect(await allOf(source, { ...options, cache }, lengths)).toEqual(expected);
    expect(readdirSync(cache)).toEqual(files);
  });

  it('has the programs of the one before', async () => {
    const source = join(MODELS, 'cifar10-resnet14');
    const cache = cacheOf();
    const own = await nameOfFirst(source, cache);
    markPrograms(cache, 'marked');
    expect(await nameOfFirst(source, cache)).toBe('marked');
    expect(await nameOfFirst(source, cacheOf())).toBe(own);
  });

  it('lowers lengths that no entry has, in runSync, too', async () => {
    const source = join(MODELS, 'sst2-encoder');
    const cache = cacheOf();
    const expected = await allOf(source, {}, [5, 9, 12]);
    await allOf(source, { cache }, [5]);
    await using session = await InferenceSession.create(source, { cache });
    for (const [i, length] of [5, 9, 12].entries())
      expect(session.runSync(feedsFor(session, length))).toEqual(expected.answers[i]!.outputs);
    expect(readdirSync(cache)).toHaveLength(4);
  });

  it('has one array for what its programs share, so that weights are packed once', async () => {
    const source = join(MODELS, 'sst2-encoder');
    const cache = cacheOf();
    await allOf(source, { cache }, [5, 9]);
    const compile = jest.spyOn(NativeBackend.prototype, 'compile');
    await allOf(source, { cache }, [5, 9, 12]);
    const constants = compile.mock.calls.map(([{ values }]) => values.flatMap(({ data }) => data ?? []));
    compile.mockRestore();
    expect(constants).toHaveLength(3);
    const [first, ...others] = constants.map((arrays) => new Set(arrays));
    for (const arrays of others) {
      const own = [...arrays].filter((array) => !first!.has(array));
      // What depends on the length, such as a table of positions.
      expect(own.length).toBeLessThan(0.1 * arrays.size);
    }
  });

  it('keeps programs of 32 lengths', async () => {
    const source = join(MODELS, 'sst2-encoder');
    const cache = cacheOf();
    const lengths = Array.from({ length: 34 }, (_, i) => i + 3);
    await allOf(source, { cache }, lengths);
    expect(readdirSync(cache)).toHaveLength(33);
    expect(await allOf(source, { cache }, lengths)).toEqual(await allOf(source, {}, lengths));
  });

  it('has no entries for bytes, and where lengths depend on elements', async () => {
    const cache = cacheOf();
    const bytes = readFileSync(join(MODELS, 'cifar10-resnet14/model.onnx'));
    await (await InferenceSession.create(bytes, { cache })).release();
    const x = new Tensor('float32', Float32Array.of(0, 1, 2, 0), [4]);
    const graph = new GraphBuilder();
    const found = graph.node('NonZero', [graph.input('x', [4])]);
    await using session = await InferenceSession.create(
      fileOf(modelBytes(graph.output(graph.node('Add', [found, graph.constant(int64s(1))]), [1, 'n']))),
      { cache },
    );
    const [answer] = Object.values(await session.run({ x }));
    expect(answer!.data).toEqual(BigInt64Array.of(2n, 3n));
    expect(() => readdirSync(cache)).toThrow('ENOENT');
  });
});

describe('a ladder with a cache', () => {
  const MODEL = foreign({ side: 32, channels: 16 });
  const SMALL = foreign({ side: 32, seed: 50, blocks: 2 });
  const pictures = colours(6, 32);
  const rungs: Rung[] = [
    { name: 'half', size: [16, 16], threshold: 0.6, scale: [0.5, 1, 2], offset: [0.1] },
    { name: 'small', bytes: SMALL, threshold: 0.55 },
  ];
  const answersOf = async (folder: string, options: SessionOptions) => {
    const { rows, trace } = await run(folder, pictures, options);
    return { rows, trace: { ...trace } };
  };
  const programsOf = (cache: string) => readdirSync(cache).filter((entry) => entry.includes('-'));

  it('answers the same, and keeps the programs of its fronts', async () => {
    const [half, small] = rungs as [Rung, Rung];
    const ofHalf = await answersOf(ladder(MODEL, [{ ...half, threshold: 0 }]), {});
    const folder = ladder(MODEL, [{ ...half, threshold: between(sureness(ofHalf.rows)) }, small]);
    const cache = cacheOf();
    const expected = await answersOf(folder, {});
    const taken = expected.trace.items.map(({ exits }) => exits.findIndex((exit) => exit.taken));
    expect(new Set(taken).size).toBeGreaterThan(1);
    expect(await answersOf(folder, { cache })).toEqual(expected);
    const files = readdirSync(cache).sort();
    expect(programsOf(cache)).toHaveLength(3);
    const lower = jest.spyOn(LengthSeries.prototype, 'compiling');
    expect(await answersOf(folder, { cache })).toEqual(expected);
    expect(lower).not.toHaveBeenCalled();
    lower.mockRestore();
    expect(readdirSync(cache).sort()).toEqual(files);
  });

  it('has other programs for another size or normalisation of the same file', async () => {
    const folder = ladder(MODEL, rungs);
    const cache = cacheOf();
    await answersOf(folder, { cache });
    for (const other of [{ size: [24, 24] as [number, number] }, { scale: [1] }, { offset: [0.3] }]) {
      const [half, ...others] = ladderPolicy(MODEL, rungs).fronts!;
      const policy = { ...ladderPolicy(MODEL, rungs), fronts: [{ ...half!, ...other }, ...others] };
      const expected = await answersOf(folder, { policy });
      expect(await answersOf(folder, { policy, cache })).toEqual(expected);
      expect(await answersOf(folder, { policy, cache })).toEqual(expected);
    }
    expect(programsOf(cache)).toHaveLength(6);
  });

  it('refuses a front that was changed, whatever it was before', async () => {
    const folder = ladder(MODEL, rungs);
    const cache = cacheOf();
    await answersOf(folder, { cache });
    for (const other of [
      foreign({ side: 32, seed: 51, blocks: 2 }),
      foreign({ side: 16, seed: 50, blocks: 2 }),
    ]) {
      writeFileSync(join(folder, 'small.onnx'), other);
      for (const options of [{}, { cache }]) {
        const creating = InferenceSession.create(folder, options);
        await expect(creating).rejects.toMatchObject({ code: 'POLICY_MISMATCH' });
        await expect(creating).rejects.toThrow(
          /its front 'small' is a file with SHA-256 \w+, but .*small\.onnx has/,
        );
      }
    }
    writeFileSync(join(folder, 'small.onnx'), 'no network');
    await expect(InferenceSession.create(folder, { cache })).rejects.toThrow(
      /its front 'small' can't be loaded/,
    );
  });
});

const [ROWS, COLUMNS, STEPS] = [1024, 1024, 3] as const;

/** More than 4 MiB: matrices that are only packed and, if there is a factor, a last one and a large table that are folded. */
function largeNetwork(seed: number, scale = 1, factor = 0): Uint8Array {
  const graph = new GraphBuilder();
  let x = graph.input('x', ['batch', ROWS]);
  for (let step = 0; step < STEPS; step++) {
    const weights = randomFloats(ROWS * COLUMNS, seed + step).map((one) => one / 32);
    x = graph.node('MatMul', [x, graph.constant(tensor(weights, [ROWS, COLUMNS]))]);
    const bias = randomFloats(COLUMNS, seed + step).map((one) => one * scale);
    x = graph.node('Add', [x, graph.constant(tensor(bias, [COLUMNS]))]);
  }
  if (factor === 0) return modelBytes(graph.output(x, ['batch', COLUMNS]));
  // Its means are computed when the graph is lowered.
  const table = graph.constant(tensor(new Float32Array(ROWS * COLUMNS).fill(factor), [ROWS, COLUMNS]));
  const means = graph.node('ReduceMean', [table], { axes: [0], keepdims: 0 });
  return modelBytes(graph.output(graph.node('Mul', [x, means]), ['batch', COLUMNS]));
}

describe('entries of a file', () => {
  const write = (
    file: string,
    bytes: Uint8Array,
    { atimeMs, mtimeMs }: { atimeMs: number; mtimeMs: number },
  ) => {
    writeFileSync(file, bytes);
    utimesSync(file, atimeMs / 1000, mtimeMs / 1000);
  };

  it.each([
    ['weights that are packed', largeNetwork(7, 1, 0.5)],
    ['small weights', largeNetwork(1, 2, 0.5)],
    ['a large constant that is folded', largeNetwork(1, 1, 0.25)],
  ])('are those of its bytes, whatever its time: other %s', async (_, other) => {
    const file = fileOf(largeNetwork(1, 1, 0.5));
    const times = statSync(file);
    const cache = cacheOf();
    const first = await allOf(file, { cache });
    expect(await allOf(file, { cache })).toEqual(first);
    write(file, other, times);
    expect(statSync(file).size).toBe(times.size);
    const expected = await allOf(file, {});
    expect(expected.answers).not.toEqual(first.answers);
    for (let round = 0; round < 2; round++) expect(await allOf(file, { cache })).toEqual(expected);
  });

  it('are small: large weights stay in the file', async () => {
    const file = fileOf(largeNetwork(1));
    const cache = cacheOf();
    await allOf(file, { cache });
    const bytes = readdirSync(cache).reduce((sum, name) => sum + statSync(join(cache, name)).size, 0);
    expect(bytes).toBeLessThan(0.01 * statSync(file).size);
  });

  it('fail a run if the file changes in place, as without a cache', async () => {
    const file = fileOf(largeNetwork(1));
    const cache = cacheOf();
    await allOf(file, { cache });
    await using session = await InferenceSession.create(file, { cache });
    writeFileSync(file, 'another');
    expect(() => session.model.sha256).toThrow(expect.objectContaining({ code: 'READ_FAILED' }));
  });
});

describe('a folder', () => {
  const source = join(MODELS, 'cifar10-resnet14');

  it.each<[string, (file: string) => void]>([
    ['cut off', (file) => truncateSync(file, statSync(file).size - 1)],
    ['empty', (file) => truncateSync(file, 0)],
    [
      'changed in one bit',
      (file) => {
        const bytes = readFileSync(file);
        bytes[bytes.length >> 1]! ^= 1;
        writeFileSync(file, bytes);
      },
    ],
    ['of something else', (file) => writeFileSync(file, encodeEntry({ data: { a: 1 }, arrays: [] }))],
    ['writable for others', (file) => chmodSync(file, 0o666)],
  ])('whose entries are %s is written again', async (_, damage) => {
    const cache = cacheOf();
    const expected = await allOf(source, { cache });
    const entries = readdirSync(cache).map((name) => join(cache, name));
    for (const damaged of [entries.slice(0, 1), entries.slice(1), entries]) {
      for (const entry of damaged) damage(entry);
      expect(await allOf(source, { cache })).toEqual(expected);
      markPrograms(cache, 'marked');
      expect(await nameOfFirst(source, cache)).toBe('marked');
    }
  });

  it('that others made for another model of the same path has no part in it', async () => {
    const cache = cacheOf();
    const [a, b] = ['cifar10-resnet14', 'fashion-mnist-resnet26'].map((name) =>
      readFileSync(join(MODELS, name, 'model.onnx')),
    ) as [Buffer, Buffer];
    const file = fileOf(a);
    await allOf(file, { cache });
    writeFileSync(file, b);
    const expected = await allOf(file, {});
    expect(await allOf(file, { cache })).toEqual(expected);
    expect(await allOf(file, { cache })).toEqual(expected);
    expect(readdirSync(cache)).toHaveLength(2);
  });

  it('serves sessions that are created at once', async () => {
    const cache = cacheOf();
    const expected = await allOf(source, {});
    for (let round = 0; round < 2; round++) {
      const all = await Promise.all(Array.from({ length: 4 }, () => allOf(source, { cache })));
      for (const one of all) expect(one).toEqual(expected);
    }
    expect(readdirSync(cache)).toHaveLength(2);
  });

  it("that can't be written is one warning, and no failure", async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const cache = join(folderOf({ file: 'none' }), 'file', 'cache');
    const expected = await allOf(source, {});
    for (let round = 0; round < 2; round++) expect(await allOf(source, { cache })).toEqual(expected);
    expect(warn.mock.calls).toEqual([
      [expect.stringMatching(/^cache .*can't be written \(ENOTDIR/), { code: 'RESIDUAL_SKIP_CACHE' }],
    ]);
    warn.mockRestore();
  });

  it('is for its user alone', async () => {
    const cache = cacheOf();
    await allOf(source, { cache });
    expect(statSync(cache).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(cache)) expect(statSync(join(cache, name)).mode & 0o777).toBe(0o600);
    mkdirSync(join(cache, 'other'));
    await expect(InferenceSession.create(source, { cache: '' })).rejects.toThrow(
      'expected the path of a folder',
    );
  });
});

describe('an entry', () => {
  it('holds numbers that JSON has no form for, and arrays', () => {
    const data = { a: [-0, 1, Number.NaN], b: { c: Number.POSITIVE_INFINITY, d: -Infinity }, e: 'text' };
    const arrays = [Float32Array.of(1, -0), Uint8Array.of(1, 2, 3), new BigInt64Array(2)];
    const read = decodeEntry(encodeEntry({ data, arrays }))!;
    expect(read.data).toEqual(data);
    expect(read.arrays.map(({ length }) => length)).toEqual([8, 3, 16]);
    expect(new Float32Array(Uint8Array.from(read.arrays[0]!).buffer)).toEqual(arrays[0]);
  });
});
