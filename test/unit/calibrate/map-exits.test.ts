import { join } from 'node:path';
import { NativeBackend } from 'lib/backends/native.js';
import { calibrateItems } from 'lib/calibrate/calibrate.js';
import { lossesOf } from 'lib/calibrate/losses.js';
import type { CalibrationItem } from 'lib/calibrate/run/items.js';
import { contentHash } from 'lib/calibrate/split.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { mean } from 'lib/numeric/statistics.js';
import { readerOf } from 'lib/skip/losses.js';
import { partOf } from 'lib/skip/parts.js';
import { parsePolicy } from 'lib/skip/policy.js';
import type { VectorMetric } from 'lib/skip/promise.js';
import { Tensor } from 'lib/tensor/tensor.js';
import '../../helpers/few-timed.js';
import { easyBlocks } from '../../helpers/easy-blocks.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { float32s, GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats, uniform } from '../../helpers/random.js';
import { availableIsas, withSession } from '../../helpers/sessions.js';

afterAll(removeFolders);

const [CHANNELS, HIDDEN, SIDE, BLOCKS, CLASSES] = [6, 150, 6, 5, 4] as const;
const SIZE = CHANNELS * SIDE * SIDE;

const ENDS = ['classes', 'mask', 'indices', 'finer', 'shuffled', 'sum'] as const;
type End = (typeof ENDS)[number];
/** Length of a row of the answer, without the batch. */
const ANSWERS: Record<End, readonly number[]> = {
  classes: [CLASSES, 2 * SIDE, 2 * SIDE],
  mask: [1, SIDE, SIDE],
  indices: [SIDE, SIDE],
  finer: [3, 2 * SIDE, 2 * SIDE],
  shuffled: [1, 2 * SIDE, 2 * SIDE],
  sum: [CHANNELS, SIDE, SIDE],
};

/**
 * Five blocks x + B relu(A x + b) on a map. The last channel of the input says where a map is hard: where it is 0, no unit of any block is
 * above 0, so that the blocks add nothing.
 */
function network(end: End): Uint8Array {
  const graph = new GraphBuilder();
  const input = graph.input('map', ['n', CHANNELS, SIDE, SIDE]);
  const conv = (x: string, to: number, from: number, seed: number) =>
    graph.node('Conv', [x, graph.constant(tensor(randomFloats(to * from, seed), [to, from, 1, 1]))]);
  const stream = easyBlocks(graph, input, { blocks: BLOCKS, channels: CHANNELS, hidden: HIDDEN });
  const twice = graph.constant(float32s(1, 1, 2, 2));
  const finish = (op: string, inputs: readonly string[], attributes = {}) => {
    graph.nodes(op, inputs, attributes, { outputs: ['answer'] });
    return modelBytes(
      graph.output('answer', ['n', ...ANSWERS[end]], end === 'indices' ? 'int64' : 'float32'),
    );
  };
  switch (end) {
    case 'classes':
      return finish('Resize', [conv(stream, CLASSES, CHANNELS, 99), '', twice], { mode: 'linear' });
    case 'mask':
      return finish('Sigmoid', [conv(stream, 1, CHANNELS, 99)]);
    case 'indices':
      return finish('ArgMax', [conv(stream, CLASSES, CHANNELS, 99)], { axis: 1, keepdims: 0 });
    case 'finer': {
      // The last layer is behind the resizing.
      const wide = graph.node('Resize', [stream, '', twice], { mode: 'nearest' });
      return finish('Identity', [conv(wide, 3, CHANNELS, 99)]);
    }
    case 'shuffled':
      return finish('DepthToSpace', [conv(stream, 4, CHANNELS, 99)], { blocksize: 2, mode: 'CRD' });
    case 'sum':
      // The input, scaled behind the blocks, is added.
      return finish('Add', [
        conv(stream, CHANNELS, CHANNELS, 99),
        graph.node('Mul', [input, graph.constant(float32s(3))]),
      ]);
  }
}

/** Every third map is hard in its lower half. */
function maps(count: number, seed: number): Float32Array[] {
  const random = uniform(seed);
  return Array.from({ length: count }, (_, item) =>
    Float32Array.from({ length: SIZE }, (_, i) => {
      const lower = i % SIDE ** 2 >= SIDE ** 2 / 2;
      return i >= SIZE - SIDE ** 2 ? Number(item % 3 === 0 && lower) : 1.6 * random() - 0.8;
    }),
  );
}

const isHard = (map: Float32Array) => map.at(-1) === 1;
const itemOf = (input: Float32Array): CalibrationItem => ({ input, sha256: contentHash(input) });
const batch = (all: readonly Float32Array[]) => {
  const data = new Float32Array(all.length * SIZE);
  for (const [i, one] of all.entries()) data.set(one, i * SIZE);
  return new Tensor('float32', data, [all.length, CHANNELS, SIDE, SIDE]);
};

const readOf = (end: End, metric: VectorMetric) => {
  const empty = end === 'indices' ? new BigInt64Array(0) : new Float32Array(0);
  return readerOf(metric, [partOf(empty, [1, ...ANSWERS[end]])]);
};

async function calibrated(end: End, metric: VectorMetric, limit: number, items = 1200) {
  const backend = new NativeBackend({ threads: 1 });
  try {
    const model = await loadModel(network(end));
    const program = compileModel(model, new Map([['map', { shape: [1, CHANNELS, SIDE, SIDE] }]]));
    const read = readOf(end, metric);
    return await calibrateItems(backend, program, model.sha256, maps(items, 5).map(itemOf), {
      ...{ metric, maxDisagreement: limit },
      vectorOf: ({ outputs }) => read([partOf(outputs[0]!, [1, ...ANSWERS[end]])]),
    });
  } finally {
    backend.release();
  }
}

test.each<[End, VectorMetric, number]>([
  ['classes', 'pixels@0', 0.03],
  ['mask', 'pixels@0.5', 0.02],
  ['indices', 'pixels@0', 0.03],
  ['finer', 'relative', 0.03],
  ['shuffled', 'excess@1', 0.02],
  ['sum', 'relative@0.1', 0.05],
])(
  'each map takes the depth that it needs, and the promise holds for fresh ones: %s, %s',
  async (end, metric, limit) => {
    const result = await calibrated(end, metric, limit);
    const policy = parsePolicy(JSON.parse(JSON.stringify(result.policy)));
    const { heads, promise, expected, blocks } = policy;
    expect(promise).toMatchObject({ metric, limit });
    expect(promise!.risk).toBeLessThanOrEqual(limit);
    expect(blocks).toEqual({});
    expect(heads!.exits.length).toBeGreaterThan(0);
    expect(expected!.multiplyAddsSkipped).toBeGreaterThan(0.2);

    const fresh = maps(400, 77);
    await withSession(network(end), { policy, threads: 1 }, async (session) => {
      const size = ANSWERS[end].reduce((a, b) => a * b, 1);
      const read = readOf(end, metric);
      const run = async (of?: 'full') => {
        const { outputs, trace } = await session.runTraced({ map: batch(fresh) }, { policy: of });
        const all = outputs.answer!.data as Float32Array;
        const vectors = fresh.map((_, i) =>
          read([partOf(all.slice(i * size, (i + 1) * size), [1, ...ANSWERS[end]])]),
        );
        return { vectors, trace };
      };
      const [full, skipping] = [await run('full'), await run()];
      const losses = lossesOf(metric, { full: full.vectors, skipping: skipping.vectors });
      expect(mean(losses)).toBeLessThan(1.5 * limit);
      const left = skipping.trace.items.map(({ exits }) => exits.some(({ taken }) => taken));
      const share = (hard: boolean) =>
        mean(fresh.flatMap((map, i) => (isHard(map) === hard ? [Number(left[i])] : [])));
      expect(share(false)).toBeGreaterThan(share(true) + 0.3);
    });
  },
);

interface Found {
  readonly data: readonly number[];
  readonly exits: readonly (readonly { readonly taken: boolean }[])[];
}

test.each<[End, VectorMetric]>([
  ['classes', 'pixels@0'],
  ['finer', 'relative'],
])(
  'a policy gives maps the same bits on every instruction set and in the reference: %s',
  async (end, metric) => {
    const { policy } = await calibrated(end, metric, 0.1, 600);
    const model = join(folderOf({ 'model.onnx': network(end) }), 'model.onnx');
    const some = batch(maps(9, 3));
    const found: Found[] = [];
    for (const options of [
      ...(await availableIsas(model)).map((isa) => ({ isa, threads: 2 })),
      { backend: 'reference' as const },
    ]) {
      await withSession(network(end), { policy, ...options }, async (session) => {
        const { outputs, trace } = await session.runTraced({ map: some });
        const data = [...(outputs.answer!.data as Float32Array)];
        found.push({ data, exits: trace.items.map(({ exits }) => exits) });
      });
    }
    const reference = found.pop()!;
    const [first, ...others] = found as [Found, ...Found[]];
    expect(new Set(first.exits.flat().map(({ taken }) => taken))).toEqual(new Set([true, false]));
    for (const other of others) expect(other).toEqual(first);
    const taken = ({ exits }: Found) => exits.map((of) => of.map((exit) => exit.taken));
    expect(taken(reference)).toEqual(taken(first));
    for (const [i, value] of reference.data.entries()) expect(value).toBeCloseTo(first.data[i]!, 4);
  },
);
