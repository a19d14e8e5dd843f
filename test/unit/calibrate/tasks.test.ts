/** docs/tasks.md as a test: data, refusals, monitors. tasks-simulation.test.ts has the promise of each metric. */
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import type { CalibrateOptions } from 'lib/calibrate/options.js';
import { TASKS } from 'lib/classify/task.js';
import { type Data, type Feeds, InferenceSession, Tensor, type TensorMap, watch } from 'lib/index.js';
import { type EvaluateOptions, evaluate } from 'lib/measure/evaluate.js';
import '../../helpers/few-timed.js';
import '../../helpers/short-training.js';
import { bytesOf, stacked, zip } from '../../helpers/arrays.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { pictures } from '../../helpers/foreign-network.js';
import { tableOf } from '../../helpers/snippets.js';
import { byVectors, pathOf, QUICK, slack } from '../../helpers/task-calibrations.js';
import { type FormName, taskItems } from '../../helpers/task-networks.js';
import { randomTexts, textNetwork } from '../../helpers/text-network.js';
import { wav } from '../../helpers/wav.js';

afterAll(removeFolders);

/** The promise, counted from what a session answers, by code of this test alone. */
test.each<[FormName, CalibrateOptions, number, (full: TensorMap, skipped: TensorMap) => number]>([
  [
    'numbers',
    { metric: 'absolute@0.2' },
    0.05,
    ({ numbers: a }, { numbers: b }) =>
      Number([0, 1, 2, 3].some((i) => Math.abs(Number(a!.data[i]) - Number(b!.data[i])) > 0.2)),
  ],
  [
    'labels',
    {},
    0.05,
    ({ labels: a }, { labels: b }) =>
      Number([0, 1, 2, 3, 4, 5].some((i) => Number(a!.data[i]) > 0.5 !== Number(b!.data[i]) > 0.5)),
  ],
  [
    'number',
    { metric: 'absolute@0.02' },
    0.05,
    ({ number: a }, { number: b }) => Number(Math.abs(Number(a!.data[0]) - Number(b!.data[0])) > 0.02),
  ],
  [
    'label',
    { task: 'multi-label' },
    0.05,
    ({ label: a }, { label: b }) => Number(Number(a!.data[0]) > 0.5 !== Number(b!.data[0]) > 0.5),
  ],
])(
  'what a session with the policy answers keeps the promise: %s, %j',
  async (form, options, limit, lossOf) => {
    const path = pathOf(form);
    const asked = { ...QUICK, ...options, maxDisagreement: limit };
    const { policy } = await calibrate(path, taskItems(form, 500, 3), asked);
    await using session = await InferenceSession.create(path, { policy, threads: 1 });
    let [sum, skipped] = [0, 0];
    const fresh = taskItems(form, 2000, 9);
    for (const feeds of fresh) {
      const { outputs, trace } = await session.runTraced(feeds);
      const full = await session.run(feeds, { policy: 'full' });
      sum += lossOf(full as TensorMap, outputs as TensorMap);
      skipped += trace.items[0]!.multiplyAddsSkipped;
    }
    expect(skipped).toBeGreaterThan(0);
    expect(sum).toBeGreaterThan(0);
    expect(sum / fresh.length).toBeLessThan(limit + slack(fresh.length));
  },
);

describe('what got a wrong promise is refused', () => {
  test.each<[string, FormName, CalibrateOptions, RegExp]>([
    ['four numbers as classes', 'numbers', {}, /^task: nothing says what output 'numbers' .* is/],
    [
      'four numbers as classes, asked for',
      'numbers',
      { metric: 'disagreement' },
      /'disagreement' is about classes/,
    ],
    ['label sets as classes', 'labels', { metric: 'disagreement' }, /ends in a sigmoid/],
    ['one number without a task', 'number', {}, /^task: nothing says what output 'number' .* is/],
    [
      'one number as a direction',
      'number',
      { metric: 'cosine' },
      /the output is a single number; take absolute@TOLERANCE/,
    ],
    ['one sigmoid without a task', 'label', {}, /^task: nothing says what output 'label' .* is/],
    ['one sigmoid as a direction', 'label', { metric: 'cosine' }, /the output is a single number/],
    ['an output called logits', 'logits', {}, /^task: nothing says what output 'logits' .* is/],
  ])('%s', async (_, form, options, message) => {
    const asked = { ...QUICK, ...options, maxDisagreement: 0.05 };
    await expect(calibrate(pathOf(form), taskItems(form, 400), asked)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
  });

  test.each<[string, FormName, CalibrateOptions, RegExp]>([
    [
      'a metric of another task',
      'labels',
      { task: 'multi-label', metric: 'pixels' },
      /isn't about the task multi-label; take labels, missed, added$/,
    ],
    [
      'pixels of numbers',
      'numbers',
      { metric: 'pixels' },
      /reads a map, .* but the network answers floats \[4\]/,
    ],
    [
      'tokens of numbers',
      'numbers',
      { metric: 'tokens' },
      /reads tokens, .* but the network answers floats \[4\]/,
    ],
    [
      'boxes of numbers',
      'numbers',
      { metric: 'boxes' },
      /reads boxes, floats \[boxes, 4\], .* answers floats \[4\]/,
    ],
    ['labels of a map', 'map', { metric: 'labels' }, /reads a row of scores/],
    [
      'a loss that nothing asks for',
      'numbers',
      { metric: 'relative', ...byVectors },
      /^loss: it is for the metric 'custom'/,
    ],
    ['no loss', 'numbers', { task: 'custom' }, /^loss: the metric 'custom' needs it/],
    [
      'a loss that is none',
      'numbers',
      { loss: () => 2 },
      /^loss: it gave 2 for data\[\d+\]; expected a number from 0 to 1/,
    ],
    [
      'an output that there is none of',
      'two outputs',
      { task: 'single-label', outputs: ['logit'] },
      /no output 'logit'; did you mean 'logits'/,
    ],
    [
      'numbers beside classes as classes',
      'two outputs',
      { task: 'single-label', outputs: ['features'] },
      /'disagreement' is about classes, but output 'features' .* isn't a row of two scores/,
    ],
    ['a tolerance of nothing', 'numbers', { metric: 'excess@0' }, /in units of its tolerance/],
    [
      'heads that nothing can have',
      'map',
      { task: 'segmentation', budget: 0.5 },
      /^budget: it doesn't go with the metric 'pixels'/,
    ],
  ])('%s', async (_, form, options, message) => {
    const asked = { ...QUICK, maxDisagreement: options.budget === undefined ? 0.05 : undefined, ...options };
    await expect(calibrate(pathOf(form), taskItems(form, 400), asked)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
  });
});

test('of several outputs, the policy names what it promises and what not', async () => {
  const path = pathOf('two outputs');
  const data = taskItems('two outputs', 500, 3);
  const asked = { ...QUICK, task: 'single-label', maxDisagreement: 0.1 } as const;
  const { policy } = await calibrate(path, data, asked);
  expect(policy.promise).toMatchObject({ outputs: ['logits'], notPromised: ['features'] });
  const numbers = {
    ...QUICK,
    metric: 'relative',
    outputs: ['features', 'logits'],
    maxDisagreement: 0.1,
  } as const;
  const { promise } = (await calibrate(path, data, numbers)).policy;
  expect(promise!.outputs).toEqual(['features', 'logits']);
  expect(promise!.notPromised).toBeUndefined();
});

test('each label has a promise of its own about what is missed', async () => {
  const path = pathOf('labels');
  const asked = { ...QUICK, metric: 'missed', perClass: true, maxDisagreement: 0.1 } as const;
  const labels = ['a', 'b', 'c', 'd', 'e', 'f'];
  const { policy } = await calibrate(path, taskItems('labels', 800, 3), { ...asked, labels });
  const { groups, items } = policy.promise!;
  expect(groups!.map(({ name }) => name)).toEqual(labels);
  // An item with several labels is in several groups.
  expect(groups!.reduce((sum, group) => sum + group.items, 0)).toBeGreaterThan(items);
  for (const { limit, pValue } of groups!.filter(({ promised }) => promised)) {
    expect(limit).toBe(0.1);
    expect(pValue).toBeLessThanOrEqual(0.05);
  }
});

test.each<[FormName, CalibrateOptions]>([
  ['labels', {}],
  ['number', { metric: 'relative@0.03' }],
  ['mask', { task: 'segmentation' }],
  ['boxes', { task: 'detection', boxes: 'centres' }],
  ['kept boxes', { task: 'detection', boxes: 'centres' }],
  ['steps', { metric: 'ctc' }],
  ['two outputs', { task: 'ordinal' }],
  ['numbers', { task: 'custom', ...byVectors }],
])('a monitor measures the promise: %s, %j', async (form, options) => {
  const path = pathOf(form);
  const asked = { ...QUICK, ...options, maxDisagreement: 0.1 };
  const { policy } = await calibrate(path, taskItems(form, 400, 3), asked);
  const { loss } = options;
  const monitor = watch({ shadow: 1, loss });
  const session = await InferenceSession.create(path, { policy, threads: 1, observers: [monitor] });
  const fresh = taskItems(form, 60, 9);
  for (const feeds of fresh) {
    await session.run(feeds);
    await monitor.settled();
  }
  await session.release();
  const stats = monitor.stats().watch;
  const { skip } = await evaluate(path, fresh, { ...QUICK, policy, loss });
  expect(stats).toMatchObject({ metric: policy.promise!.metric, limit: 0.1, checks: 60, failures: 0 });
  expect(stats.disagreements / 60).toBeCloseTo(skip.loss!.mean, 6);
});

test('a monitor without the function of the promise says that it checks nothing', async () => {
  const path = pathOf('numbers');
  const asked = { ...QUICK, ...byVectors, maxDisagreement: 0.1 };
  const { policy } = await calibrate(path, taskItems('numbers', 400, 3), asked);
  const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const monitor = watch({ shadow: 1 });
  await using session = await InferenceSession.create(path, { policy, threads: 1, observers: [monitor] });
  await session.run(taskItems('numbers', 1)[0]!);
  await monitor.settled();
  expect(warned.mock.calls.map(([text]) => String(text))).toEqual([
    expect.stringMatching(/checks no answers: .*'custom' that the policy promises/),
  ]);
  expect(monitor.stats().watch).toMatchObject({ items: 1, checks: 0 });
  warned.mockRestore();
});

test("an evaluation takes the function of a promise, where there is one, and isn't silent without it", async () => {
  const path = pathOf('numbers');
  const asked = { ...QUICK, ...byVectors, maxDisagreement: 0.1 };
  const { policy } = await calibrate(path, taskItems('numbers', 400, 3), asked);
  const items = taskItems('numbers', 3);
  const refused = (options: EvaluateOptions, message: RegExp) =>
    expect(evaluate(path, items, { ...QUICK, ...options })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
  await refused({ policy }, /^loss: the policy promises the metric 'custom', .*; give evaluate\(\) the one/);
  await refused({ task: 'custom' }, /^loss: the task is 'custom', .*; give evaluate\(\) the one/);
  await refused(
    { loss: () => 0 },
    /^loss: it is for the metric 'custom', and the policy promises nothing; omit it/,
  );
});

/** A network and its data in each form; all are maps but texts, whose tokens have classes, and sounds. */
const SOURCES: Readonly<
  Record<string, () => Promise<[model: string, data: Data, options?: CalibrateOptions]>>
> = {
  images: async () => [pathOf('map'), await pictures(400)],
  texts: async () => {
    const files = { 'config.json': { architectures: ['BertForTokenClassification'] } };
    return [textNetwork('tokens', { files, scale: 0.02 }), randomTexts(400, 5), { task: undefined }];
  },
  tensors: async () => [pathOf('map'), taskItems('map', 400, 3).map(({ picture }) => picture!)],
  'tensors by input': async () => {
    async function* source() {
      for (const feeds of taskItems('map', 200, 3)) yield feeds;
      for (const feeds of taskItems('map', 200, 5))
        yield { feeds, groups: ['second'], name: 'of the second' };
    }
    return [pathOf('map'), source()];
  },
  '.npz': async () => [
    pathOf('map'),
    folderOf({ 'a.npz': zip(stacked('map', 300), true), 'b.npz': zip(stacked('map', 100, 8), false) }),
  ],
  '.npy': async () => [
    pathOf('map'),
    join(folderOf({ 'a.npy': stacked('map', 400)['picture.npy']! }), 'a.npy'),
  ],
  '.raw': async () => {
    const items = taskItems('map', 400, 3).map(({ picture }) => bytesOf(picture!.data as Float32Array));
    return [pathOf('map'), folderOf(Object.fromEntries(items.map((bytes, i) => [`${i}.raw`, bytes])))];
  },
  '.wav': async () => {
    const items = taskItems('audio', 400, 3).map(({ samples }) => samples!.data as Float32Array);
    const files = items.map((data, i) => [`${i}.wav`, wav(bytesOf(data), { format: 3, bits: 32 })]);
    return [pathOf('audio'), folderOf(Object.fromEntries(files)), { task: undefined }];
  },
};
const METRICS_OF: Readonly<Record<string, string>> = { texts: 'tokens', '.wav': 'disagreement' };

test.each(Object.keys(SOURCES))('data as %s', async (name) => {
  const [path, data, options] = await SOURCES[name]!();
  const asked = { ...QUICK, task: 'segmentation', maxDisagreement: 0.1, ...options } as const;
  const { policy } = await calibrate(path, data, asked);
  expect(policy.promise!.metric).toBe(METRICS_OF[name] ?? 'pixels');
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);
  const again = name === 'tensors by input' ? (await SOURCES[name]!())[1] : data;
  const { items, skip } = await evaluate(path, again, { ...QUICK, policy });
  expect(items).toBe(400);
  // Tokens that fill a text up can't be told from its own here.
  if (name !== 'texts') expect(skip.loss!.mean).toBeLessThan(0.1 + slack(items));
  else expect(skip.loss).toBeNull();
});

test('items are refused by name', async () => {
  const [item] = taskItems('pair', 1);
  const [picture, depth] = [item!.picture as Tensor<'float32'>, item!.depth!];
  const batch = new Tensor('float32', [...picture.data, ...picture.data], [2, 3, 10, 10]);
  const given: [unknown, string, RegExp][] = [
    [
      { picture },
      'INVALID_DATA',
      /^1 feed can't be used: data\[0\], feeds: input 'depth' \(float32\[n,1,10,10\]\) is missing/,
    ],
    [{ picture, depth, other: depth }, 'INVALID_DATA', /data\[0\], feeds: the model has no input 'other'/],
    [
      { picture: batch, depth },
      'INVALID_SHAPE',
      /input 'picture': it is \[2,3,10,10\]; give each item of a batch by itself, \[1,3,10,10\]/,
    ],
    [{ feeds: item, label: 9 }, 'INVALID_DATA', /data\[0\]: its label 9 is not one of the model's/],
  ];
  for (const [one, code, message] of given) {
    await expect(evaluate(pathOf('pair'), [one as Feeds], QUICK)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  }
});

describe('an item that the network cannot take is named, however little data there is', () => {
  const [item] = taskItems('pair', 1);
  const [picture, depth] = [item!.picture as Tensor<'float32'>, item!.depth as Tensor<'float32'>];
  const as = ({ data }: Tensor<'float32'>, dims: number[]) => new Tensor('float32', data, dims);
  const wide = new Tensor('float32', [...picture.data, ...depth.data], [1, 4, 10, 10]);
  const rounded = new Tensor('int32', Int32Array.from(picture.data), [1, 3, 10, 10]);
  test.each<[string, Feeds, string, RegExp]>([
    ['a missing input', { picture }, 'INVALID_DATA', /feeds: input 'depth' .* is missing/],
    [
      'too many channels',
      { picture: wide, depth },
      'INVALID_SHAPE',
      /input 'picture': expected .*, received float32\[1,4,10,10\]/,
    ],
    [
      'another rank',
      { picture, depth: as(depth, [1, 100]) },
      'INVALID_SHAPE',
      /input 'depth': expected .*, received float32\[1,100\]/,
    ],
    [
      'another size',
      { picture, depth: new Tensor('float32', [...depth.data.subarray(64)], [1, 1, 6, 6]) },
      'INVALID_SHAPE',
      /input 'depth'/,
    ],
    [
      'another type',
      { picture: rounded, depth },
      'INVALID_DATA',
      /input 'picture': expected .*, received int32\[1,3,10,10\]/,
    ],
  ])('%s', async (_, odd, code, message) => {
    for (const at of [0, 2]) {
      const items = taskItems('pair', 3).with(at, odd);
      const named = (before: string) => ({
        code,
        message: expect.stringMatching(new RegExp(`^${before}data\\[${at}\\], ${message.source}`)),
      });
      await expect(calibrate(pathOf('pair'), items, QUICK)).rejects.toMatchObject(
        named("1 feed can't be used: "),
      );
      const { items: used, unusable } = await evaluate(pathOf('pair'), items, QUICK);
      expect([used, unusable]).toEqual([2, [expect.objectContaining(named(''))]]);
    }
  });
});

describe('docs/tasks.md', () => {
  test('names the forms of data, each of which is tested here', () => {
    expect(tableOf('docs/tasks.md', 'data').map(([data]) => data)).toEqual(Object.keys(SOURCES));
  });

  test('names the tasks', () => {
    expect(tableOf('docs/tasks.md', 'task').map(([task]) => task)).toEqual([...TASKS]);
  });
});
