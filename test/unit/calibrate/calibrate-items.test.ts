import { createHash } from 'node:crypto';
import { NativeBackend } from 'lib/backends/native.js';
import { calibrateItems } from 'lib/calibrate/calibrate.js';
import { exitPoints, withFeatures } from 'lib/calibrate/fit/exit-points.js';
import { fitExits } from 'lib/calibrate/fit/fit.js';
import { Evaluator, runAll } from 'lib/calibrate/run/evaluator.js';
import type { CalibrationItem } from 'lib/calibrate/run/items.js';
import { partOf } from 'lib/calibrate/split.js';
import { InferenceSession, Tensor } from 'lib/index.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { Growth } from 'lib/model/program/grow.js';
import type { Program } from 'lib/model/program/program.js';
import { attachExits } from 'lib/skip/attach.js';
import { decodeExits, encodeExits } from 'lib/skip/head-codec.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { distributionOf } from 'lib/skip/score-distribution.js';
import '../../helpers/few-timed.js';
import '../../helpers/short-training.js';
import { allowedEvents } from '../../helpers/binomial.js';
import { Network } from '../../helpers/networks.js';
import { expectSealed, untimed } from '../../helpers/policies.js';
import { uniform } from '../../helpers/random.js';

const NETWORK = new Network('cifar10-resnet32');
const PIXELS = 3 * 32 * 32;
const LIMIT = 0.05;
/** The twenty example images, each shifted, mirrored and scaled in brightness in `copies` ways. */
async function variations(copies: number): Promise<CalibrationItem[]> {
  const images = (await NETWORK.images()).data as Float32Array;
  const random = uniform(11);
  return Array.from({ length: 20 * copies }, (_, n) => {
    const image = images.subarray((n % 20) * PIXELS, ((n % 20) + 1) * PIXELS);
    const [dx, dy, mirror, gain] = [random() * 9 - 4, random() * 9 - 4, random() < 0.5, 0.7 + 0.6 * random()];
    const input = new Float32Array(PIXELS);
    for (let i = 0; i < PIXELS; i++) {
      const [x, y, c] = [i % 32, (i >> 5) % 32, i >> 10];
      const sx = Math.min(31, Math.max(0, Math.round((mirror ? 31 - x : x) + dx)));
      const sy = Math.min(31, Math.max(0, Math.round(y + dy)));
      input[i] = gain * image[(c << 10) + (sy << 5) + sx]!;
    }
    return { input, sha256: createHash('sha256').update(input).digest('hex') };
  });
}

async function programOf(): Promise<{ program: Program; sha256: string }> {
  const model = await loadModel(NETWORK.model);
  return {
    program: compileModel(model, new Map([['input', { shape: [1, 3, 32, 32] }]])),
    sha256: model.sha256,
  };
}

describe('calibration of the plain network', () => {
  const backend = new NativeBackend({ threads: 2 });
  let all: readonly CalibrationItem[];
  beforeAll(async () => {
    all = await variations(30);
  });
  afterAll(() => backend.release());

  test('the promise is what a session with the policy then does, item by item', async () => {
    const items = all;
    const { program, sha256 } = await programOf();
    const options = { maxDisagreement: LIMIT, seed: 3, penalties: 5, copies: 0 };
    const result = await calibrateItems(backend, program, sha256, items, options);
    const { promise, expected } = result.policy;
    expect(promise).toMatchObject({ limit: LIMIT, confidence: 0.95 });
    expect(promise!.events).toBeLessThanOrEqual(allowedEvents(promise!.items, LIMIT, 0.05));
    expect(expected!.multiplyAddsSkipped).toBeGreaterThan(0.02);
    expect(result.classes.reduce((sum, { events }) => sum + events, 0)).toBe(promise!.events);

    const certify = items.filter(({ sha256: hash }) => partOf(hash, 3) === 'certify');
    expect(certify).toHaveLength(promise!.items);
    const batch = new Float32Array(certify.length * PIXELS);
    for (const [i, { input }] of certify.entries()) batch.set(input as Float32Array, i * PIXELS);
    const feeds = { input: new Tensor('float32', batch, [certify.length, 3, 32, 32]) };
    const session = await InferenceSession.create(NETWORK.model, { policy: result.policy });
    try {
      const full = await session.run(feeds, { policy: 'full' });
      const { outputs, trace } = await session.runTraced(feeds);
      const answers = (tensor: Tensor) =>
        certify.map((_, i) => argMax((tensor.data as Float32Array).subarray(10 * i, 10 * (i + 1))));
      const [a, b] = [answers(full.logits!), answers(outputs.logits!)];
      expect(a.filter((answer, i) => answer !== b[i])).toHaveLength(promise!.events);
      const skipped = trace.items.reduce((sum, item) => sum + item.multiplyAddsSkipped, 0);
      expect(skipped / certify.length / trace.multiplyAdds).toBeCloseTo(expected!.multiplyAddsSkipped, 9);
      for (const { name, index } of session.blocks) {
        const asked = trace.items.map(({ blocks }) => blocks[index]!).filter(({ score }) => score !== null);
        const skipRate = asked.filter(({ ran }) => !ran).length / asked.length;
        const distribution = distributionOf(
          asked.map(({ score }) => score!),
          skipRate,
        );
        expect(expected!.scores![name]).toEqual(asked.length > 0 ? distribution : undefined);
      }
      const { exits } = result.policy.heads!;
      expect(exits.length).toBeGreaterThan(0);
      for (const { after } of exits) {
        const came = trace.items.flatMap((item) => item.exits.filter((exit) => exit.after === after));
        const leftRate = came.filter(({ taken }) => taken).length / came.length;
        const distribution = distributionOf(
          came.map(({ score }) => score),
          leftRate,
        );
        expect(expected!.exits![after]).toEqual(came.length > 0 ? distribution : undefined);
      }
      for (const item of trace.items) {
        const taken = item.exits.filter((exit) => exit.taken);
        expect(taken.length).toBeLessThanOrEqual(1);
        expect(item.blocks.some(({ reason }) => reason === 'exit')).toBe(taken.length === 1);
      }
    } finally {
      await session.release();
    }
  }, 600_000);

  test('several limits give one policy with a setting for each, careful before bold', async () => {
    const { program, sha256 } = await programOf();
    const options = { limits: [0.2, 0.03, 0.08], seed: 3, penalties: 12, copies: 0 };
    const { policy, settings, chosen, bolder } = await calibrateItems(backend, program, sha256, all, options);
    expectSealed(policy);
    const each = [policy, ...policy.settings!];
    expect(each.length).toBeGreaterThan(1);
    const values = (of: (one: SkipPolicy) => number) => each.map((one) => of(one as SkipPolicy));
    for (const rising of [
      values(({ promise }) => promise!.limit),
      values(({ expected }) => expected!.multiplyAddsSkipped),
    ])
      expect(rising).toEqual([...new Set(rising)].sort((a, b) => a - b));
    for (const { promise } of each) {
      expect(promise!.joint).toEqual({ promises: 3, confidence: 0.95 });
      expect(promise!.pValue).toBeLessThanOrEqual(0.05 / 3);
      expect(promise!.events).toBeLessThanOrEqual(allowedEvents(promise!.items, promise!.limit, 0.05 / 3));
    }
    expect([chosen, ...bolder].map((i) => settings[i]!.events)).toEqual(
      values(({ promise }) => promise!.events),
    );
  }, 600_000);

  test('the same seed gives the same policy, whatever the order of the items', async () => {
    const items = all.slice(0, 200);
    const { program, sha256 } = await programOf();
    const run = (some: readonly CalibrationItem[]) =>
      calibrateItems(backend, program, sha256, some, { maxDisagreement: 0.2, penalties: 8, copies: 0 });
    const [first, second] = [await run(items), await run([...items].reverse())];
    expect(second.policy.promise).toEqual(first.policy.promise);
    expect(first.policy.heads).toBeDefined();
    expect(untimed((await run(items)).policy)).toEqual(untimed(first.policy));
  }, 600_000);

  test('a guarded answer is the full answer', async () => {
    const items = all;
    const { program, sha256 } = await programOf();
    const labels = Array.from({ length: 10 }, (_, i) => `class ${i}`);
    const guards = [{ labels: ['class 3', 5], action: 'verify' as const, margin: 0.2 }];
    const { policy } = await calibrateItems(backend, program, sha256, items, {
      maxDisagreement: LIMIT,
      penalties: 3,
      copies: 0,
      guards,
      labels,
    });
    const chosen = items.slice(0, 60);
    const batch = new Float32Array(chosen.length * PIXELS);
    for (const [i, { input }] of chosen.entries()) batch.set(input as Float32Array, i * PIXELS);
    const feeds = { input: new Tensor('float32', batch, [chosen.length, 3, 32, 32]) };
    const session = await InferenceSession.create(NETWORK.model, { policy });
    try {
      const full = (await session.run(feeds, { policy: 'full' })).logits!.data as Float32Array;
      const { outputs, trace } = await session.runTraced(feeds);
      const logits = outputs.logits!.data as Float32Array;
      let verified = 0;
      for (const [i, { blocks }] of trace.items.entries()) {
        const row = logits.subarray(10 * i, 10 * (i + 1));
        if (blocks.some(({ reason }) => reason === 'guard')) {
          verified++;
          expect(blocks.every(({ ran }) => ran)).toBe(true);
          expect([...row]).toEqual([...full.subarray(10 * i, 10 * (i + 1))]);
        } else if (blocks.some(({ ran }) => !ran)) {
          expect([3, 5]).not.toContain(argMax(row));
        }
      }
      expect(verified).toBeGreaterThan(0);
      const sync = session.runSync(feeds).logits!.data as Float32Array;
      expect([...sync]).toEqual([...logits]);
    } finally {
      await session.release();
    }
  }, 600_000);

  test('exits are denser where there are many images to learn from', async () => {
    const { program } = await programOf();
    const [few, many] = [1000, 16_000].map((images) => exitPoints(program, images));
    for (const [points, spacing] of [
      [few!, 0.09],
      [many!, 0.05],
    ] as const) {
      const savings = points.map(({ saving }) => saving);
      for (const [i, saving] of savings.slice(1, -1).entries())
        expect(savings[i]! - saving).toBeGreaterThanOrEqual(spacing);
    }
    expect(many!.length).toBeGreaterThan(few!.length);
  });

  test('features are averages of windows, maxima and mean squares of the stream, and change nothing', async () => {
    const [item] = all;
    const { program } = await programOf();
    const points = exitPoints(program, 1000);
    const { block, width } = points[0]!;
    expect(points[0]!.features).toBe('pyramid');
    // The stream itself as an output, by a step of its own.
    const { shape } = program.values[block.output]!;
    const growth = new Growth(withFeatures(program, points));
    const shown = growth.value('shown', 'float32', shape);
    const end = growth.program.blocks.find(({ name }) => name === block.name)!.end;
    growth.insert(end, [{ op: 'reshape', inputs: [block.output], outputs: [shown], attrs: {} }]);
    growth.output('shown', shown);
    const run = async (of: Program) => {
      const evaluator = new Evaluator(backend, of);
      const [outcome] = await evaluator.run([item!.input], evaluator.policy(runAll));
      evaluator.release();
      return outcome!.outputs;
    };
    const [outputs, plain] = [await run(growth.build()), await run(program)];
    expect([...outputs[0]!]).toEqual([...plain[0]!]);
    const found = outputs[1]!;
    const [, channels, height, across] = shape as [number, number, number, number];
    expect(found).toHaveLength(width);
    expect(width).toBe(18 * channels);
    for (let c = 0; c < channels; c++) {
      const map = outputs.at(-1)!.subarray(c * height * across, (c + 1) * height * across);
      const sums = Array.from({ length: 16 }, () => 0);
      map.forEach((value, i) => {
        const [y, x] = [Math.floor(i / across), i % across];
        sums[4 * Math.floor((4 * y) / height) + Math.floor((4 * x) / across)]! += value;
      });
      for (const [window, sum] of sums.entries()) {
        expect(found[16 * c + window]).toBeCloseTo((16 * sum) / (height * across), 4);
      }
      expect(found[16 * channels + c]).toBe(map.reduce((a, b) => Math.max(a, b)));
      const squares = map.reduce((sum, value) => sum + value * value, 0);
      expect(found[17 * channels + c]).toBeCloseTo(squares / (height * across), 3);
    }
  });

  test('exits are spread over the network, each head takes less than 1 % of its work', async () => {
    const { program } = await programOf();
    const source = { count: 300, load: async (i: number) => all[i]!.input };
    const [exits] = await fitExits(backend, program, source, {
      ...{ seed: 1, copies: 0, chains: [[0]], foldOf: () => 0, className: String, onItems: () => {} },
    });
    expect(exits!.length).toBeGreaterThan(3);
    const specs = exits!.map((exit) => ({ ...exit, threshold: 0.9 }));
    const { exits: built, cost } = attachExits(program, specs);
    const asked = built.map(({ multiplyAdds }) => multiplyAdds / cost.multiplyAdds);
    expect(asked).toHaveLength(exits!.length);
    expect(Math.max(...asked)).toBeLessThan(0.01);
    expect(exits!.slice(1).map(({ reads }) => reads)).toEqual(exits!.slice(0, -1).map(({ after }) => after));
    const behind = new Set([exits![1]!.after, exits![3]!.after]);
    const [some] = await fitExits(backend, program, source, {
      ...{ seed: 1, copies: 0, chains: [[0]], foldOf: () => 0, className: String, onItems: () => {}, behind },
    });
    expect(some!.map(({ after, reads }) => [after, reads])).toEqual([
      [exits![1]!.after, undefined],
      [exits![3]!.after, exits![1]!.after],
    ]);
    expect(decodeExits(JSON.parse(JSON.stringify(encodeExits(specs))))).toEqual(specs);
  });

  test('further images only fit: those of the data among them are left out', async () => {
    const { program, sha256 } = await programOf();
    const [data, more] = [all.slice(0, 300), all.slice(300)];
    const asked: number[] = [];
    const run = (images: readonly CalibrationItem[]) =>
      calibrateItems(backend, program, sha256, data, {
        ...{ maxDisagreement: 0.2, penalties: 8, copies: 0, seed: 3 },
        fit: {
          count: images.length,
          load: async (i) => {
            asked.push(i);
            return images[i]!.input;
          },
        },
      });
    const { policy } = await run(more);
    expect(new Set(asked).size).toBe(more.length);
    // Exits at which too few items leave are left out, and the others fitted again.
    expect(policy.heads!.exits.length).toBeGreaterThan(0);
    expect(policy.heads!.exits.every(({ threshold }) => threshold <= 1)).toBe(true);
    const certify = data.filter((item) => partOf(item.sha256, 3, 'order') === 'certify');
    expect(policy.promise).toMatchObject({ items: certify.length, data: { fit: 0 } });
    await expect(run(data)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/fit: none of its 300 images can be used.*among the data/),
    });
  });
});

function argMax(row: Float32Array): number {
  return row.reduce((best, value, i) => (value > row[best]! ? i : best), 0);
}
