import { join } from 'node:path';
import { auditLog } from 'lib/audit/log.js';
import { readAudit } from 'lib/audit/read.js';
import { replayAudit } from 'lib/audit/replay.js';
import { NativeBackend } from 'lib/backends/native.js';
import { calibrateItems } from 'lib/calibrate/calibrate.js';
import { lossesOf } from 'lib/calibrate/losses.js';
import type { Calibration } from 'lib/calibrate/report/result.js';
import type { CalibrationItem } from 'lib/calibrate/run/items.js';
import { contentHash } from 'lib/calibrate/split.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { mean } from 'lib/numeric/statistics.js';
import { decodeExits, encodeExits } from 'lib/skip/head-codec.js';
import { parsePolicy, type SkipPolicy } from 'lib/skip/policy.js';
import type { VectorMetric } from 'lib/skip/promise.js';
import { Tensor } from 'lib/tensor/tensor.js';
import '../../helpers/few-timed.js';
import { easyBlocks } from '../../helpers/easy-blocks.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats, uniform } from '../../helpers/random.js';
import { availableIsas, withSession } from '../../helpers/sessions.js';

afterAll(removeFolders);

const [CHANNELS, HIDDEN, SIDE, BLOCKS] = [6, 400, 2, 6] as const;
const SIZE = CHANNELS * SIDE * SIDE;

/**
 * Six blocks x + B relu(A x + b), then the mean of the map and a linear layer. The last channel of the input says whether an item is
 * hard: where it is 0, no unit of any block is above 0, so that the blocks add nothing.
 */
function network(outputs: number): Uint8Array {
  const graph = new GraphBuilder();
  const input = graph.input('map', ['n', CHANNELS, SIDE, SIDE]);
  const stream = easyBlocks(graph, input, { blocks: BLOCKS, channels: CHANNELS, hidden: HIDDEN });
  const flat = graph.node('Reshape', [
    graph.node('GlobalAveragePool', [stream]),
    graph.constant(int64s(0, -1)),
  ]);
  const weight = graph.constant(tensor(randomFloats(CHANNELS * outputs, 99), [CHANNELS, outputs]));
  const offset = graph.constant(float32s(...Array.from({ length: outputs }, () => (outputs === 1 ? 5 : 0))));
  graph.nodes('Gemm', [flat, weight, offset], {}, { outputs: ['vector'] });
  return modelBytes(graph.output('vector', ['n', outputs]));
}

/** Every third item is hard. Channels have different means, and a little noise. */
function maps(count: number, seed: number): Float32Array[] {
  const random = uniform(seed);
  return Array.from({ length: count }, (_, item) => {
    const means = Array.from({ length: CHANNELS - 1 }, () => 1.6 * random() - 0.8);
    const map = new Float32Array(SIZE).fill(Number(item % 3 === 0));
    for (let i = 0; i < SIZE - SIDE * SIDE; i++)
      map[i] = means[Math.floor(i / SIDE ** 2)]! + 0.2 * random() - 0.1;
    return map;
  });
}

const isHard = (map: Float32Array) => map.at(-1) === 1;
const itemOf = (input: Float32Array): CalibrationItem => ({ input, sha256: contentHash(input) });
const batch = (all: readonly Float32Array[]) => {
  const data = new Float32Array(all.length * SIZE);
  for (const [i, one] of all.entries()) data.set(one, i * SIZE);
  return new Tensor('float32', data, [all.length, CHANNELS, SIDE, SIDE]);
};

const calibrations = new Map<string, Promise<Calibration>>();

/** Each calibration is done once. */
function calibrated(...args: Parameters<typeof calibrate>): Promise<Calibration> {
  const key = args.join();
  const known = calibrations.get(key) ?? calibrate(...args);
  calibrations.set(key, known);
  return known;
}

async function calibrate(outputs: number, metric: VectorMetric, limit: number): Promise<Calibration> {
  const backend = new NativeBackend({ threads: 1 });
  try {
    const model = await loadModel(network(outputs));
    const program = compileModel(model, new Map([['map', { shape: [1, CHANNELS, SIDE, SIDE] }]]));
    const items = maps(2000, 5).map(itemOf);
    const options = { metric, maxDisagreement: limit, copies: 0 };
    return await calibrateItems(backend, program, model.sha256, items, options);
  } finally {
    backend.release();
  }
}

/** A fiftieth of the range of what the network answers with one number. */
const FIFTIETH = 0.06;

test.each<[string, number, VectorMetric, number, number]>([
  ['a vector, by angles', 8, 'cosine', 0.01, 0.2],
  ['a vector, by relative errors', 8, 'relative', 0.03, 0.2],
  ['a number', 1, 'relative', 0.02, 0.2],
  ['a number, within a fiftieth of its range', 1, `absolute@${FIFTIETH}`, 0.05, 0.35],
  ['neighbours', 8, 'recall@5', 0.1, 0.2],
  ['99 % of the neighbours', 8, 'recall@10', 0.01, 0.25],
])(
  'each item takes the depth that it needs, and the promise holds for fresh ones: %s',
  async (_, outputs, metric, limit, saved) => {
    const result = await calibrated(outputs, metric, limit);
    const policy = parsePolicy(JSON.parse(JSON.stringify(result.policy)));
    const { heads, promise, expected, blocks } = policy;
    expect(promise).toMatchObject({ metric, limit });
    expect(promise!.risk).toBeLessThanOrEqual(limit);
    // Of all items, two thirds need no block behind the first exit; the same blocks can't be left out for all.
    expect(blocks).toEqual({});
    expect(heads!.exits.length).toBeGreaterThan(0);
    expect(expected!.multiplyAddsSkipped).toBeGreaterThan(saved);
    expect(result.contributions.map(({ block }) => block)).toEqual(heads!.exits.map(({ after }) => after));

    const fresh = maps(600, 77);
    await withSession(network(outputs), { policy, threads: 1 }, async (session) => {
      const run = async (of?: 'full') => {
        const { outputs: found, trace } = await session.runTraced({ map: batch(fresh) }, { policy: of });
        const all = found.vector!.data as Float32Array;
        return { vectors: fresh.map((_, i) => all.slice(i * outputs, (i + 1) * outputs)), trace };
      };
      const [full, skipping] = [await run('full'), await run()];
      const losses = lossesOf(metric, { full: full.vectors, skipping: skipping.vectors });
      const numbers = full.vectors.map(([number]) => number!);
      if (metric.startsWith('absolute'))
        expect(Math.max(...numbers) - Math.min(...numbers)).toBeGreaterThan(50 * FIFTIETH);
      // An item's loss spreads by less than 5 times the limit, so that the mean of 600 is within a half of it.
      expect(mean(losses)).toBeLessThan(1.5 * limit);
      const left = skipping.trace.items.map(({ exits }) => exits.some(({ taken }) => taken));
      const share = (hard: boolean) => {
        const some = fresh.flatMap((map, i) => (isHard(map) === hard ? [Number(left[i])] : []));
        return mean(some);
      };
      expect(share(false)).toBeGreaterThan(share(true) + 0.3);
      for (const { exits } of skipping.trace.items) {
        for (const { score, threshold, taken } of exits) expect(taken).toBe(score >= threshold);
      }
    });
  },
);

test('images to fit on are refused where the answer is a map', async () => {
  const graph = new GraphBuilder();
  const stream = graph.input('map', ['n', CHANNELS, SIDE, SIDE]);
  const weight = graph.constant(tensor(randomFloats(CHANNELS ** 2, 1), [CHANNELS, CHANNELS, 1, 1]));
  const body = graph.node('Conv', [graph.node('Relu', [stream]), weight]);
  graph.nodes('Add', [stream, body], {}, { outputs: ['out'] });
  const model = await loadModel(modelBytes(graph.output('out', ['n', CHANNELS, SIDE, SIDE])));
  const program = compileModel(model, new Map([['map', { shape: [1, CHANNELS, SIDE, SIDE] }]]));
  const backend = new NativeBackend({ threads: 1 });
  const items = maps(200, 1).map(itemOf);
  const fit = { count: 200, load: async (i: number) => items[i]!.input };
  await expect(
    calibrateItems(backend, program, model.sha256, items, { metric: 'cosine', fit, maxDisagreement: 0.1 }),
  ).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/^fit: no head can be fitted/),
  });
  backend.release();
});

describe('a policy with exits of vectors', () => {
  let policy: SkipPolicy;
  beforeAll(async () => {
    policy = (await calibrated(8, 'cosine', 0.01)).policy;
  });

  test('gives the same bits on every instruction set, and alike on the reference', async () => {
    const fresh = batch(maps(40, 9));
    const run = (options: object) =>
      withSession(network(8), { policy, ...options }, async (session) => {
        const { outputs, trace } = await session.runTraced({ map: fresh });
        return {
          data: [...(outputs.vector!.data as Float32Array)],
          exits: trace.items.map(({ exits }) => exits),
        };
      });
    const expected = await run({ isa: 'scalar', threads: 1 });
    expect(new Set(expected.exits.flat().map(({ taken }) => taken))).toEqual(new Set([true, false]));
    const model = join(folderOf({ 'model.onnx': network(8) }), 'model.onnx');
    for (const isa of await availableIsas(model)) expect(await run({ isa, threads: 2 })).toEqual(expected);
    const reference = await run({ backend: 'reference' });
    expect(reference.exits.map((exits) => exits.map(({ taken }) => taken))).toEqual(
      expected.exits.map((exits) => exits.map(({ taken }) => taken)),
    );
    for (const [i, value] of reference.data.entries()) expect(value).toBeCloseTo(expected.data[i]!, 4);
  });

  test('is recorded and replayed', async () => {
    const fresh = maps(30, 10);
    const path = join(folderOf({}), 'trace.ndjson');
    await withSession(network(8), { policy, observers: [auditLog({ path })] }, (session) =>
      session.run({ map: batch(fresh) }),
    );
    const entries = [...(await readAudit(path)).entries];
    const items = fresh.map((one, i) => ({ name: String(i), feeds: { map: batch([one]) } }));
    const replayed = await withSession(network(8), { policy }, (session) =>
      replayAudit(entries, items, session),
    );
    expect(replayed).toMatchObject({ identical: 30, differences: [], circumstances: [] });
  });

  test('is stored whole, and refused where its answer has another length', async () => {
    const exits = decodeExits(policy.heads!);
    expect(exits.every(({ head }) => head!.score !== undefined)).toBe(true);
    expect(encodeExits(exits)).toEqual(policy.heads);
    const { model: _, ...others } = policy;
    await expect(
      withSession(network(3), { policy: others }, (session) => session.run({ map: batch(maps(1, 1)) })),
    ).rejects.toMatchObject({
      code: 'INVALID_POLICY',
      message: expect.stringMatching(/needs 3$/),
    });
  });
});
