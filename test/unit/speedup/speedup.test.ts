/** `speedup` on small networks, whose times are far apart. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { contentHash } from 'lib/calibrate/split.js';
import { openDataModel } from 'lib/classify/data-model.js';
import { Work } from 'lib/classify/work.js';
import { ImageClassifier, InferenceSession, type Progress, type Tensor } from 'lib/index.js';
import { decodeModelProto, encodeModelProto } from 'lib/model/read/proto.js';
import { hashPolicy } from 'lib/skip/policy.js';
import { checkFolder, writeLadder } from 'lib/speedup/folder.js';
import { floatNetwork, GivenFront } from 'lib/speedup/networks.js';
import { type Speedup, speedup } from 'lib/speedup/speedup.js';
import '../../helpers/short-training.js';
import { expectSelfContained } from '../../helpers/browser.js';
import { cli } from '../../helpers/cli.js';
import { DIST } from '../../helpers/dist.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign, pictures } from '../../helpers/foreign-network.js';
import { best, colours, hashOf, itemsFrom, rowsOf, run } from '../../helpers/ladders.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { expectSealed } from '../../helpers/policies.js';
import { randomFloats } from '../../helpers/random.js';

const LIMIT = 0.1;
const MODEL = foreign({ channels: 24 });
const FRONT = foreign({ channels: 24, blocks: 1 });
const all = colours(260);
const items: Tensor<'float32'>[] = Array.from({ length: all.dims[0]! }, (_, i) => itemsFrom(all, i, i + 1));
/** With no time left to fit exits, only fronts are tried. */
const AT_ONCE = 1e-6;
const OPTIONS = {
  maxDisagreement: LIMIT,
  threads: 1,
  seed: 2,
  task: 'single-label',
  onNote: () => {},
} as const;
const QUICK = { ...OPTIONS, minutes: AT_ONCE } as const;
const preparing = (mean: number, std: number) =>
  JSON.stringify({ image_mean: [mean, mean, mean], image_std: [std, std, std], do_normalize: true });
const home = folderOf({
  'network/model.onnx': MODEL,
  'network/preprocessor_config.json': preparing(0.5, 0.25),
  'network/LICENSE': 'free',
  'small.onnx': FRONT,
});
const [model, front] = [join(home, 'network'), join(home, 'small.onnx')];
/** With several blocks, and quickly fitted. */
const small = join(folderOf({ 'small.onnx': foreign({ blocks: 4 }) }), 'small.onnx');

beforeAll(() => {
  process.env.XDG_STATE_HOME = folderOf({});
});
afterAll(() => {
  delete process.env.XDG_STATE_HOME;
  removeFolders();
});

/** Of the items that certify, those to which the folder answers otherwise than the network. */
async function changedIn(
  folder: string,
  { certifiedOn }: NonNullable<Speedup['calibration']>,
  network = model,
) {
  const certify = items.filter(({ data }) => certifiedOn.includes(contentHash(data)));
  expect(certify).toHaveLength(certifiedOn.length);
  await using ladder = await InferenceSession.create(folder);
  await using full = await InferenceSession.create(network);
  let changed = 0;
  for (const picture of certify) {
    const [ours, theirs] = await Promise.all([ladder, full].map((session) => session.run({ picture })));
    changed += Number(best(rowsOf(ours!.votes!)[0]!) !== best(rowsOf(theirs!.votes!)[0]!));
  }
  return changed;
}

describe('with a front', () => {
  const folder = join(folderOf({}), 'ladder');
  let result: Speedup;
  let calibration: NonNullable<Speedup['calibration']>;
  const steps: Progress[] = [];
  beforeAll(async () => {
    const onProgress = (step: Progress) => void steps.push(step);
    result = await speedup(model, items, { ...QUICK, int8: false, front: [front], onProgress });
    calibration = result.calibration!;
    await writeLadder(result, model, folder);
  });

  test('the promise is what the folder then does, item by item', async () => {
    const { promise, fronts, reference } = calibration.policy;
    expect(promise).toMatchObject({ metric: 'disagreement', limit: LIMIT, confidence: 0.95 });
    expect(promise!.items).toBe(calibration.certifiedOn.length);
    expect(promise!.data.fit + promise!.data.order + promise!.data.certify).toBe(items.length);
    expect(promise!.events).toBe(await changedIn(folder, calibration));
    expect(promise!.upperBound).toBeLessThanOrEqual(LIMIT);
    expect(fronts!.length).toBeGreaterThan(0);
    expect(reference).toBeUndefined();
    const left = Object.values(calibration.settings[calibration.chosen]!.exits);
    expect(left.reduce((a, b) => a + b, 0)).toBeGreaterThan(0.1);
  });

  test('the folder has the networks of the policy, and what lay beside the network', async () => {
    const { policy } = calibration;
    const files = new Set(policy.fronts!.map(({ file }) => file));
    expect(readdirSync(folder).sort()).toEqual(
      [...new Set(['LICENSE', 'preprocessor_config.json', 'model.onnx', 'policy.json', ...files])].sort(),
    );
    expect(hashOf(readFileSync(join(folder, 'model.onnx')))).toBe(hashOf(MODEL));
    for (const { file, sha256 } of policy.fronts!)
      expect(hashOf(readFileSync(join(folder, file)))).toBe(sha256);
    await using session = await InferenceSession.create(folder);
    expect(session.policy.sha256).toBe(hashPolicy(policy));
    expectSealed(policy);
    expect(session.policy.promise).toMatchObject({ limit: LIMIT });
    expect(session.policy.promise).toEqual(policy.promise);
  });

  test('how pixels are prepared and what classes are called is kept, if the caller said so', async () => {
    const folder = join(folderOf({}), 'ladder');
    const labels = ['a', 'b', 'c', 'd', 'e'];
    const given = { preprocessor: { preset: 'imagenet', image_mean: 0.4 }, labels } as const;
    const named = await speedup(model, items, { ...QUICK, ...given, int8: false, front: [front] });
    await writeLadder(named, model, folder);
    await using own = await ImageClassifier.from(folder);
    await using asked = await ImageClassifier.from(model, given);
    expect(own.preprocessor.id).toBe(asked.preprocessor.id);
    expect(own.labels).toEqual(labels);
  });

  test('its progress says which network is calibrated, and reaches the end of each stage', () => {
    const names = new Set(steps.map(({ network }) => network));
    expect(names).toContain('model');
    expect(steps.every(({ done, total }) => total! > 0 && done <= total!)).toBe(true);
    for (const name of names) {
      const last = steps.filter(({ network }) => network === name).at(-1)!;
      expect(last.done).toBe(last.total);
    }
  });

  test('what was tried is told, the fastest first', () => {
    const { tried } = result;
    const means = tried.map(({ mean }) => mean);
    expect(means).toEqual([...means].sort((a, b) => a - b));
    expect(tried.filter(({ measured }) => measured !== undefined).length).toBeLessThanOrEqual(4);
    for (const { rungs, risk, mean, outcome } of tried) {
      expect(rungs.at(-1)).toBe('model');
      if (outcome === 'chosen' || outcome === 'beaten') expect(risk).toBeLessThanOrEqual(LIMIT);
      if (outcome === 'slow') expect(mean).toBeGreaterThanOrEqual(1);
    }
    expect(tried.filter(({ outcome }) => outcome === 'chosen')).toHaveLength(1);
    expect(tried.some(({ rungs }) => rungs.join() === 'small,model')).toBe(true);
  });

  test('what ladders were made of is told', async () => {
    const { parts } = result;
    expect(parts.map(({ name, network }) => [name, network])).toEqual([['small', 'model']]);
    const { multiplyAdds } = await run(MODEL, items[0]!);
    const alone = await run(FRONT, items[0]!);
    const small = parts.find(({ name }) => name === 'small')!;
    expect(small.work).toBeCloseTo(alone.multiplyAdds / multiplyAdds, 1);
    for (const { risk, answers } of parts) expect(answers).toBeLessThan(risk > LIMIT ? 1 : 1.0001);
  });

  test('rungs answer all items, and their work and losses are those of the promise', () => {
    const { rungs } = result;
    const { promise, expected } = calibration.policy;
    const sum = (of: (rung: Speedup['rungs'][number]) => number) =>
      rungs.reduce((total, rung) => total + of(rung), 0);
    expect(rungs.at(-1)).toMatchObject({ name: 'model', events: 0 });
    expect(sum(({ answered }) => answered)).toBeCloseTo(1, 12);
    expect(sum(({ events }) => events)).toBe(promise!.events);
    expect(1 - sum(({ answered, work }) => answered * work)).toBeCloseTo(expected!.multiplyAddsSkipped, 12);
    const times = rungs.map(({ time }) => time);
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });

  test('examples say which rung answered', () => {
    const { most, least } = calibration.examples;
    expect(most[0]!.exit).toBe(result.rungs[0]!.name);
    expect(least[0]).toMatchObject({ exit: null, fullAnswer: least[0]!.answer });
    expect(least[0]!.multiplyAddsSkipped).toBeLessThan(0);
  });

  test('a folder that holds files is refused', async () => {
    for (const refused of [checkFolder(folder), writeLadder(result, model, folder)]) {
      await expect(refused).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: expect.stringMatching(/holds files already \(LICENSE, model\.onnx, .*give a new folder/),
      });
    }
    await expect(checkFolder(front)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

test('8-bit forms are tried, against the promise of the float network', async () => {
  const notes: string[] = [];
  const result = await speedup(small, items, { ...QUICK, onNote: (note) => void notes.push(note) });
  expect(notes.filter((note) => /8-bit form|can't be a front/.test(note))).toEqual([]);
  const names = new Set(result.tried.flatMap(({ rungs }) => rungs));
  // Where a machine has no fast 8-bit kernels, it may be too slow to be a rung.
  expect([...names].every((name) => ['model', 'model-int8'].includes(name))).toBe(true);
  const { calibration } = result;
  if (!calibration) return;
  const fronts = calibration.policy.fronts ?? [];
  // Its answers change where two classes are near.
  for (const front of fronts)
    expect(front.confidence).toBe(front.name === 'model-int8' ? 'margin' : undefined);
  const folder = join(folderOf({}), 'ladder');
  await writeLadder(result, small, folder);
  expect(await changedIn(folder, calibration, small)).toBe(calibration.policy.promise!.events);
});

test('exits are fitted where there is time; what an earlier run computed is taken from its state', async () => {
  const state = join(folderOf({}), 'state');
  const search = () => speedup(small, items, { ...OPTIONS, int8: false, state });
  const [first, second] = [await search(), await search()];
  expect(first.tried.some(({ exits }) => exits > 0)).toBe(true);
  expect(readdirSync(state).length).toBeGreaterThan(0);
  if (second.calibration) expect(second.calibration.resumed!.taken).toBeGreaterThan(0);
});

test('where nothing pays, there is no ladder and a note says so', async () => {
  const tiny = foreign({ side: 12, channels: 2, blocks: 0 });
  const file = join(folderOf({ 'tiny.onnx': tiny }), 'tiny.onnx');
  const images = colours(200, 12);
  const pictures = Array.from({ length: 200 }, (_, i) => itemsFrom(images, i, i + 1));
  const notes: string[] = [];
  const onNote = (note: string) => void notes.push(note);
  const result = await speedup(file, pictures, { ...QUICK, int8: false, onNote });
  expect(result).toMatchObject({ calibration: null, tried: [] });
  expect(notes).toContainEqual(expect.stringContaining('no ladder is faster than the network'));
  await expect(writeLadder(result, file, join(folderOf({}), 'ladder'))).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('no ladder was chosen'),
  });
});

/** Classes of a convolution, and as many more as do nothing: a network without blocks. */
function plain(more: number, channels = 16): Uint8Array {
  const graph = new GraphBuilder();
  const conv = (x: string, data: Float32Array, from: number) =>
    graph.node('Conv', [x, graph.constant(tensor(data, [channels, from, 3, 3]))], { pads: [1, 1, 1, 1] });
  const same = Float32Array.from({ length: channels * channels * 9 }, (_, i) =>
    Number(Math.floor(i / 9) % (channels + 1) === 0 && i % 9 === 4),
  );
  let map = conv(graph.input('picture', ['n', 3, 16, 16]), randomFloats(channels * 27, 1), 3);
  for (let i = 0; i < more; i++) map = conv(map, same, channels);
  const pooled = graph.node('Flatten', [graph.node('GlobalAveragePool', [map])]);
  const classes = graph.constant(tensor(randomFloats(5 * channels, 2), [5, channels]));
  graph.nodes('Gemm', [pooled, classes], { transB: 1 }, { outputs: ['votes'] });
  return modelBytes(graph.output('votes', ['n', 5]));
}

test('a network without blocks gets a ladder that loads', async () => {
  const files = folderOf({ 'network.onnx': plain(12), 'front.onnx': plain(0) });
  const [network, before] = [join(files, 'network.onnx'), join(files, 'front.onnx')];
  const result = await speedup(network, items, { ...QUICK, int8: false, front: [before] });
  const folder = join(folderOf({}), 'ladder');
  await writeLadder(result, network, folder);
  expect(result.calibration!.policy.expected).toMatchObject({ blocksSkipped: 0 });
  expect(await changedIn(folder, result.calibration!, network)).toBe(
    result.calibration!.policy.promise!.events,
  );
});

test('exits are fitted unless the caller wants none', async () => {
  const names = async (exits: boolean) => {
    const options = { ...OPTIONS, int8: false, bfloat16: false, front: [front], exits };
    return (await speedup(small, items, options)).parts.map(({ name }) => name);
  };
  expect(await names(false)).toEqual(['small']);
  expect(await names(true)).toEqual(['small', 'block0', 'block1', 'block2']);
});

describe('fronts that are refused, or left out with a note', () => {
  const trying = (path: string, onNote: (note: string) => void = () => {}) =>
    speedup(model, items, { ...QUICK, int8: false, front: [path], onNote });

  test('a file that is missing, before an item is read', async () => {
    let read = 0;
    const counted = {
      *[Symbol.iterator]() {
        for (const item of items) {
          read++;
          yield item;
        }
      },
    };
    const front = [join(home, 'none.onnx')];
    await expect(speedup(model, counted, { ...QUICK, front })).rejects.toMatchObject({
      code: 'MODEL_NOT_FOUND',
      message: expect.stringContaining('none.onnx'),
    });
    expect(read).toBe(0);
  });

  test('lower resolutions of a network that has a number for each pixel, which is noted once', async () => {
    const side = 32;
    const graph = new GraphBuilder();
    const picture = graph.input('picture', ['n', 3, side, side]);
    const position = graph.constant(tensor(randomFloats(3 * side * side, 5), [1, 3, side, side]));
    const moved = graph.node('Add', [picture, position]);
    const pooled = graph.node('Flatten', [graph.node('GlobalAveragePool', [moved])]);
    const weight = graph.constant(tensor(randomFloats(12, 6), [3, 4]));
    graph.output(graph.node('Gemm', [pooled, weight]), ['n', 4]);
    const path = join(folderOf({ 'fixed.onnx': modelBytes(graph) }), 'fixed.onnx');
    const notes: string[] = [];
    const pixels = colours(120, side);
    const { tried } = await speedup(
      path,
      Array.from({ length: 120 }, (_, i) => itemsFrom(pixels, i, i + 1)),
      { ...QUICK, maxDisagreement: 0.2, int8: false, onNote: (note) => void notes.push(note) },
    );
    expect(tried).toEqual([]);
    expect(notes.filter((note) => /resolution|can't be a front/.test(note))).toEqual([
      "lower resolutions aren't all tried: the network takes images of its own size alone",
    ]);
  });

  test('the model itself, and a front that is there twice', async () => {
    await expect(trying(model)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: `front ${model}: it is the model itself; give a network that is faster`,
    });
    await expect(
      speedup(model, items, { ...QUICK, int8: false, front: [front, front] }),
    ).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: `front ${front}: it is the same network as another front; give each once`,
    });
  });

  test('classes without names are taken for those of the model, which is noted', async () => {
    const notes: string[] = [];
    await trying(front, (note) => void notes.push(note));
    expect(notes).toContainEqual(
      `front ${front}: its classes are taken for those of the model, in the same order, because config.json doesn't name both (id2label)`,
    );
  });

  test('the policies of folders are left out, which is noted', async () => {
    const notes: string[] = [];
    const policy = JSON.stringify({ heads: { exits: [{ after: 'nowhere', threshold: 0.5 }] } });
    const folders = folderOf({
      'large/model.onnx': MODEL,
      'large/policy.json': policy,
      'small/model.onnx': FRONT,
      'small/policy.json': policy,
    });
    const [large, small] = ['large', 'small'].map((name) => join(folders, name)) as [string, string];
    const { tried } = await speedup(large, items, {
      ...{ ...QUICK, int8: false, front: [small] },
      onNote: (note) => void notes.push(note),
    });
    expect(tried.some(({ rungs }) => rungs.join() === 'small,model')).toBe(true);
    expect(notes).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^model: its own policy isn't used, only its network/),
        `front ${small}: its own policy isn't used, only its network; exits and fronts are chosen again`,
      ]),
    );
  });

  test.each<[string, Uint8Array, RegExp]>([
    ['other classes', foreign({ classes: 4 }), /it has 4 classes, the model 5, and config\.json/],
    ['other channels', foreign({ colours: 1 }), /it reads 1 channels, and the model 3; give another/],
  ])('a network with %s', async (_, bytes, message) => {
    const path = join(folderOf({ 'other.onnx': bytes }), 'other.onnx');
    const error = await trying(path).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(message) });
    expect(error.message).toContain(path);
  });

  test('a network with the name of a block, which is noted', async () => {
    const notes: string[] = [];
    const path = join(folderOf({ 'block0.onnx': FRONT }), 'block0.onnx');
    await trying(path, (note) => void notes.push(note));
    expect(notes).toContainEqual(expect.stringMatching(/^block0 can't be a front: .*the name of a block/));
  });
});

describe('names of fronts', () => {
  test('are told apart, also from that of the network', async () => {
    const other = foreign({ channels: 24, blocks: 2 });
    const folders = folderOf({ 'model/model.onnx': FRONT, 'more/model/model.onnx': other });
    const { tried } = await speedup(model, items, {
      ...{ ...QUICK, int8: false },
      front: [join(folders, 'model'), join(folders, 'more/model')],
    });
    const rungs = new Set(tried.flatMap((one) => one.rungs.slice(0, -1)));
    expect([...rungs]).toEqual(expect.arrayContaining(['model-2', 'model-3']));
  });

  test('are told apart from those of forms that are made of the network and of other fronts', async () => {
    const names = ['small-int8', 'small', 'tiny', 'tiny-int8', 'model-bfloat16', 'model-int8-8x8'];
    const files = Object.fromEntries(
      names.map((name, i) => [`${name}.onnx`, foreign({ channels: 24, seed: 300 + i })]),
    );
    const folder = folderOf(files);
    const opened = await openDataModel(model, { backend: 'reference' });
    try {
      const float = { ...(await floatNetwork(opened.file)), name: 'model' };
      const paths = names.map((name) => join(folder, `${name}.onnx`));
      const given = await GivenFront.all(paths, float, opened, new Work('speedup', { onNote: () => {} }));
      const found = given.map(({ network }) => network.name);
      expect(found.slice(0, 5)).toEqual(['small-int8', 'small-2', 'tiny', 'tiny-int8-2', 'model-bfloat16-2']);
      expect(new Set(found.flatMap((name) => [name, `${name}-int8`])).size).toBe(2 * names.length);
    } finally {
      await opened.session.release();
    }
  });
});

/** The files of a network whose weights lie in another one. */
function apart(bytes: Uint8Array, location: string): Record<string, Uint8Array> {
  const network = decodeModelProto(bytes);
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const constant of network.graph!.initializer!) {
    const { rawData } = constant;
    if (!rawData) continue;
    parts.push(rawData);
    delete constant.rawData;
    const values = { location, offset: `${offset}`, length: `${rawData.length}` };
    constant.dataLocation = 1;
    constant.externalData = Object.entries(values).map(([key, value]) => ({ key, value }));
    offset += rawData.length;
  }
  return { 'model.onnx': encodeModelProto(network), [location]: Buffer.concat(parts) };
}

test('weights that lie beside the network come with the ladder; those of a front would be taken for them', async () => {
  const network = folderOf(apart(MODEL, 'weights/of_the_network.bin'));
  const result = await speedup(network, items, { ...QUICK, int8: false, front: [front] });
  const folder = join(folderOf({}), 'ladder');
  await writeLadder(result, network, folder);
  expect(await changedIn(folder, result.calibration!, network)).toBe(
    result.calibration!.policy.promise!.events,
  );
  const other = folderOf(apart(FRONT, 'weights/of_the_network.bin'));
  await expect(speedup(network, items, { ...QUICK, front: [other] })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(
      /^front .*: its weights lie in other files .*; store them in the ONNX file/,
    ),
  });
});

test('a given front reads what was prepared for the network, and its labels say which classes are meant', async () => {
  const config = (labels: readonly string[]) =>
    JSON.stringify({ id2label: Object.fromEntries(labels.entries()) });
  const folders = folderOf({
    'big/model.onnx': MODEL,
    'big/config.json': config(['crane', 'cat', 'crane', 'dog', 'fox']),
    'big/preprocessor_config.json': preparing(0.5, 0.5),
    'little/model.onnx': foreign({ side: 8 }),
    'little/config.json': config(['cat', 'crane', 'crane', 'owl', 'dog']),
    'little/preprocessor_config.json': preparing(0.25, 0.125),
  });
  const opened = await openDataModel(join(folders, 'big'), { backend: 'reference' });
  try {
    const open = async (name: string) =>
      (await GivenFront.open(join(folders, name), opened, new Set(), new Work('speedup', {}))).candidate()
        .spec;
    const { size, classes, scale, offset } = await open('little');
    expect({ size, classes }).toEqual({ size: [8, 8], classes: [1, 0, 2, null, 3] });
    // (p - 0.25) / 0.125 = 4 (p - 0.5) / 0.5 + 2
    for (const c of [0, 1, 2]) {
      expect(scale![c]).toBeCloseTo(4, 5);
      expect(offset![c]).toBeCloseTo(2, 5);
    }
    expect(Object.keys(await open('big'))).toEqual(['name', 'file', 'sha256']);
  } finally {
    await opened.session.release();
  }
});

test.each<[string, object, RegExp]>([
  [
    'a metric of vectors',
    { metric: 'cosine' },
    /disagreement, accuracy and probability, not 'cosine'; calibrate/,
  ],
  ['what is to be short', { for: 'median' }, /for: expected 'mean', 'p95' or 'energy'/],
  ['no minutes', { minutes: 0 }, /minutes: expected a number above 0/],
  ['a misspelt option', { fronts: [] }, /unknown key 'fronts'/],
])('%s is refused', async (_, options, message) => {
  await expect(speedup(model, items, { ...QUICK, ...options } as never)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(message),
  });
});

test('a network that answers with a map is refused', async () => {
  const graph = new GraphBuilder();
  graph.nodes('Relu', [graph.input('picture', ['n', 3, 16, 16])], {}, { outputs: ['map'] });
  const map = modelBytes(graph.output('map', ['n', 3, 16, 16]));
  const file = join(folderOf({ 'map.onnx': map }), 'map.onnx');
  await expect(speedup(file, items, { ...QUICK, task: undefined })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining(
      "answer with a class, and map.onnx doesn't; calibrate takes other answers",
    ),
  });
});

describe('the command', () => {
  /** So slow that a busy machine can't hide what the small one saves. */
  const networks = folderOf({
    'big.onnx': foreign({ channels: 64 }),
    'small.onnx': foreign({ channels: 64, blocks: 1 }),
    'tiny.onnx': foreign({ channels: 2, blocks: 0 }),
  });
  const [big, quick, tiny] = ['big', 'small', 'tiny'].map((name) => join(networks, `${name}.onnx`)) as [
    string,
    string,
    string,
  ];
  const args = async (file: string, output: string) => [
    ...['speedup', file, '--data', await pictures(200), '-o', output, '--task', 'single-label'],
    ...['--no-int8', '--threads', '1', '--max-disagreement', '0.5', '--minutes', '0.000001'],
  ];

  test('writes the folder, prints what was tried and what is promised, and forgets its state', async () => {
    const output = join(folderOf({}), 'ladder');
    const { code, out } = await cli(...(await args(big, output)), '--front', quick);
    expect(code).toBe(0);
    expect(out).toMatch(/small > model/);
    expect(out).toMatch(/Certified on \d+ items: at most 50\.00 % of the answers change/);
    const shares = [...out.matchAll(/^(small|model) +(\d+\.\d) %/gm)].map(([, name, share]) => [name, share]);
    expect(shares.map(([name]) => name)).toEqual(['small', 'model']);
    expect(Number(shares[0]![1]) + Number(shares[1]![1])).toBeCloseTo(100, 0);
    expect(out).toContain(`folder: ${output}`);
    expect(readdirSync(join(output, '..'))).toEqual(['ladder']);
    await using session = await InferenceSession.create(output);
    expect(session.policy.promise).toMatchObject({ limit: 0.5 });
    // Times are of this instruction set and as many threads as were asked for.
    expect(out).toMatch(new RegExp(`% of the mean saved \\(${session.isa}, 1 thread\\)\\.$`, 'm'));
    const again = await cli(...(await args(big, output)));
    expect(again).toMatchObject({ code: 1, err: expect.stringContaining('holds files already') });
  });

  test('prints JSON', async () => {
    const output = join(folderOf({}), 'ladder');
    const printed = await cli(...(await args(big, output)), '--front', quick, '--json');
    const result = JSON.parse(printed.out);
    expect(result).toMatchObject({ folder: output, promise: { limit: 0.5 }, fronts: [{ name: 'small' }] });
    expect(result.tried[0]).toMatchObject({ rungs: ['small', 'model'], exits: 0 });
  });

  test('writes a page, also where nothing pays', async () => {
    const folder = folderOf({});
    const write = async (file: string, name: string, ...more: string[]) => {
      const [page, output] = [join(folder, `${name}.html`), join(folder, name)];
      const script = [join(DIST, 'cli/main.js'), ...(await args(file, output)), '--report', page, ...more];
      const { status, stderr } = spawnSync(process.execPath, script, { encoding: 'utf8' });
      expect({ status, stderr }).toMatchObject({ status: 0 });
      expectSelfContained(readFileSync(page, 'utf8'));
      const html = readFileSync(page, 'utf8');
      return { html, titles: [...html.matchAll(/<h2>(.*?)<\/h2>/g)].map(([, title]) => title) };
    };
    const { html, titles } = await write(big, 'ladder', '--front', quick);
    expect(titles.slice(0, 4)).toEqual([
      'What each rung answers',
      'Time against promise',
      'Ladders that were tried',
      'What they were made of',
    ]);
    expect(titles).toContain('Examples');
    expect(html).toMatch(/<td>small &gt; model<\/td>.*chosen/);
    expect(html).toContain('aria-label="mean time against risk"');
    expect(html.match(/<img alt="" src="data:image/g)!.length).toBeGreaterThan(8);
    expect(html).toMatch(/by small, \d+ % skipped/);
    expect(html).toMatch(/% more work/);
    const nothing = await write(tiny, 'none', '--front', big);
    expect(nothing.html).toContain('no ladder is faster than the network within the limit');
    expect(nothing.html).toMatch(/<td>big &gt; model<\/td>.*(saves no time|changes too many answers)/);
    expect(nothing.titles).not.toContain('What each rung answers');
  });

  test('says in a sentence that nothing pays, and writes nothing', async () => {
    const output = join(folderOf({}), 'ladder');
    const { code, out } = await cli(...(await args(tiny, output)));
    expect({ code, out }).toMatchObject({
      code: 0,
      out: expect.stringContaining(
        'Nothing to write: no ladder is faster than the network within the limit.',
      ),
    });
    expect(existsSync(output)).toBe(false);
  });
});
