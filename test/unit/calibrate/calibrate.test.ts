/** `calibrate` from code: the same images as a folder, as tensors and as pixels. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import type { CalibrateOptions } from 'lib/calibrate/options.js';
import type { Calibration } from 'lib/calibrate/report/result.js';
import { contentHash } from 'lib/calibrate/split.js';
import { ImageClassifier } from 'lib/classify/image-classifier.js';
import { listImagesBelow } from 'lib/data/files.js';
import { decodeImage } from 'lib/data/image.js';
import type { PreprocessorConfig } from 'lib/data/preprocessor-config.js';
import { evaluate } from 'lib/measure/evaluate.js';
import type { Progress } from 'lib/session/progress.js';
import { InferenceSession } from 'lib/session/session.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import type { Tensor } from 'lib/tensor/tensor.js';
import '../../helpers/few-timed.js';
import '../../helpers/short-training.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign, pictures } from '../../helpers/foreign-network.js';
import { expectSealed, untimed } from '../../helpers/policies.js';
import { taskItems, taskNetwork } from '../../helpers/task-networks.js';

const IMAGES = 160;
const QUICK = {
  ...{ task: 'single-label', maxDisagreement: 0.2, penalties: 6, copies: 0, threads: 1 },
} as const satisfies CalibrateOptions;
const folder = folderOf({ 'foreign.onnx': foreign() });
const model = join(folder, 'foreign.onnx');
const notes: string[] = [];
const onNote = (note: string) => void notes.push(note);

let images: string;
let files: string[];
let byFolder: Calibration;
const progress: Progress[] = [];
beforeAll(async () => {
  // Where uses are counted; the user's own is none of this test's business.
  process.env.XDG_STATE_HOME = folderOf({});
  images = await pictures(IMAGES);
  files = await listImagesBelow(images);
  const onProgress = (each: Progress) => void progress.push(each);
  byFolder = await calibrate(model, images, { ...QUICK, onProgress, onNote });
});
afterAll(() => {
  delete process.env.XDG_STATE_HOME;
  removeFolders();
});

/** As tensors, in memory that is used again for each. */
async function* tensors(): AsyncGenerator<Tensor<'float32'>> {
  const classifier = await ImageClassifier.from(model);
  let shared: Tensor<'float32'> | undefined;
  for (const file of files) {
    const tensor = await classifier.prepare(file);
    shared ??= tensor;
    shared.data.set(tensor.data);
    yield shared;
  }
  await classifier.release();
}

test('a folder makes a policy that skips and runs', async () => {
  const { policy, settings, chosen } = byFolder;
  expect(chosen).toBeGreaterThanOrEqual(0);
  expect(settings[chosen]!.multiplyAddsSkipped).toBeGreaterThan(0);
  expect(policy.promise).toMatchObject({ limit: 0.2, data: { uses: 1, seed: 1 } });
  const session = await InferenceSession.create(model, { policy });
  expect(session.model.sha256).toBe(policy.model!.sha256);
  await session.release();
  expect(notes).toEqual([expect.stringContaining('no preprocessor_config.json')]);
});

test('progress goes from the first image to the last pass', () => {
  const reading = progress.filter(({ stage }) => stage === 'reading');
  expect(reading.map(({ done }) => done)).toEqual(Array.from({ length: IMAGES }, (_, i) => i + 1));
  expect(reading.every(({ total }) => total === IMAGES)).toBe(true);
  const calibrating = progress.slice(IMAGES);
  const done = calibrating.map((each) => each.done);
  expect(calibrating.every(({ stage }) => stage === 'calibrating')).toBe(true);
  expect(done).toEqual([...done].sort((a, b) => a - b));
  expect(calibrating.at(-1)).toMatchObject({ done: calibrating[0]!.total, total: calibrating[0]!.total });
});

test('tensors and pixels one after another give what the folder gives', async () => {
  const pixels = await Promise.all(files.map((file) => decodeImage(file)));
  const byTensors = await calibrate(model, tensors(), QUICK);
  const byPixels = await calibrate(model, pixels, { ...QUICK, onNote });
  // How tensors were prepared isn't known, so that their promise is about something else.
  const { preprocessing } = byFolder.policy;
  const bare = ({ preprocessing: _, promise, ...rest }: SkipPolicy) =>
    untimed({ ...rest, promise: { ...promise!, settings: undefined } });
  expect(byTensors.policy).not.toHaveProperty('preprocessing');
  expect(byPixels.policy).toHaveProperty('preprocessing', preprocessing);
  for (const { policy, chosen, certifiedOn } of [byTensors, byPixels]) {
    expect(bare(policy)).toEqual(bare(byFolder.policy));
    expectSealed(policy);
    expect({ chosen, certifiedOn }).toEqual({ chosen: byFolder.chosen, certifiedOn: byFolder.certifiedOn });
  }
  // Pixels can be drawn; a tensor is no picture.
  const drawn = (result: Calibration) => result.examples.most.map(({ thumbnail }) => thumbnail !== undefined);
  expect(new Set([...drawn(byFolder), ...drawn(byPixels)])).toEqual(new Set([true]));
  expect(new Set(drawn(byTensors))).toEqual(new Set([false]));
});

test('who prepares images otherwise than those that certified is told so, and nobody else', async () => {
  const { preprocessing: made, ...old } = byFolder.policy;
  expect(made).toMatch(/^[0-9a-f]{16}$/);
  const told = async (policy: SkipPolicy | undefined, preprocessor?: PreprocessorConfig) => {
    const heard: string[] = [];
    const own = { policy, preprocessor, onNote: (note: string) => void heard.push(note) };
    await using _ = await ImageClassifier.from(model, own);
    const limit = { limit: 2, labelsFrom: 'none' } as const;
    if (!preprocessor) await evaluate(model, images, { policy, ...limit, onNote: own.onNote });
    return heard.filter((note) => /prepared otherwise/.test(note)).length;
  };
  expect(await told(byFolder.policy)).toBe(0);
  expect(await told(byFolder.policy, { do_rescale: false })).toBe(1);
  expect(await told(old, { do_rescale: false })).toBe(0);
  expect(await told(undefined)).toBe(0);
  // Of another version of this package: a classifier says so, and eval.
  expect(await told({ ...old, preprocessing: '0123456789abcdef' })).toBe(2);
});

test('labels of images are those of an accuracy', async () => {
  const labelled = files.map((image, i) => ({ image, label: i % 5, groups: [`part ${i % 2}`] }));
  const options = { ...QUICK, metric: 'accuracy', maxGroupDisagreement: 0.5, onNote } as const;
  const { policy, classes, certifiedOn } = await calibrate(model, labelled, options);
  expectSealed(policy);
  expect(policy.promise!.metric).toBe('accuracy');
  const promised = new Set(certifiedOn);
  await using classifier = await ImageClassifier.from(model, { policy });
  const changes = { lost: 0, gained: 0 };
  for (const { image, label } of labelled) {
    const tensor = await classifier.prepare(image);
    if (!promised.has(contentHash(tensor.data))) continue;
    const [skipping, full] = await Promise.all(
      [policy, 'full' as const].map((each) => classifier.classify(image, { policy: each })),
    );
    if (full!.index === label && skipping!.index !== label) changes.lost++;
    if (full!.index !== label && skipping!.index === label) changes.gained++;
  }
  const { events, gained, items, risk } = policy.promise!;
  expect(changes.lost + changes.gained).toBeGreaterThan(0);
  expect({ lost: events, gained }).toEqual(changes);
  expect(risk).toBeCloseTo((changes.lost - changes.gained) / items, 12);
  expect(policy.promise!.groups!.map(({ name }) => name).sort()).toEqual(['part 0', 'part 1']);
  expect(classes.map(({ label }) => label)).toEqual(['class 0', 'class 1', 'class 2', 'class 3', 'class 4']);
  await expect(calibrate(model, files, { ...QUICK, metric: 'accuracy', onNote })).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringContaining('needs a label for every item'),
  });
});

test('a calibration that fails has used the images that it read', async () => {
  process.env.XDG_STATE_HOME = folderOf({});
  const original = join(folderOf({ 'other.onnx': foreign({ seed: 33 }) }), 'other.onnx');
  const failing = () => calibrate(model, images, { ...QUICK, original, onNote });
  await expect(failing()).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringMatching(
      /^original: without any exit.* certify on fresh images: those .* have been read$/,
    ),
  });
  await expect(failing()).rejects.toMatchObject({ code: 'INVALID_DATA' });
  const usesOf = async (data: string) =>
    (await calibrate(model, data, { ...QUICK, onNote })).policy.promise!.data.uses;
  expect(await usesOf(images)).toBe(2);
  expect(await usesOf(images)).toBe(2);
});

test('a calibration that is stopped before it reads the images that certify has not used them', async () => {
  process.env.XDG_STATE_HOME = folderOf({});
  const controller = new AbortController();
  const onProgress = ({ stage }: Progress) => stage === 'reading' && controller.abort();
  const stopped = calibrate(model, images, {
    ...QUICK,
    penalties: 5,
    signal: controller.signal,
    onProgress,
    onNote,
  });
  await expect(stopped).rejects.toMatchObject({ code: 'ABORTED' });
  expect((await calibrate(model, images, { ...QUICK, onNote })).policy.promise!.data.uses).toBe(1);
});

test('what was computed is taken from the folder `state`', async () => {
  const state = join(folderOf({}), 'state');
  const first = await calibrate(model, images, { ...QUICK, state, onNote });
  expect(first.resumed!.taken).toBe(0);
  expect(existsSync(state) && readdirSync(state).length).toBeGreaterThan(0);
  const second = await calibrate(model, images, { ...QUICK, state, onNote });
  expect(second.resumed).toEqual({ taken: first.resumed!.computed, computed: 0 });
  expect(untimed(second.policy)).toEqual(untimed(first.policy));
});

describe('an abort', () => {
  test.each(['reading', 'calibrating'])('while %s ends with an AbortError', async (stage) => {
    const controller = new AbortController();
    const onProgress = (each: Progress) => {
      if (each.stage === stage && each.done > 1) controller.abort(new Error('enough'));
    };
    const options = { ...QUICK, onNote, onProgress, signal: controller.signal };
    await expect(calibrate(model, images, options)).rejects.toMatchObject({
      name: 'AbortError',
      code: 'ABORTED',
      message: 'calibration: it was aborted',
      cause: expect.objectContaining({ message: 'enough' }),
    });
  });

  test('ends the wait for a source that gives nothing', async () => {
    async function* never(): AsyncGenerator<string> {
      await new Promise(() => {});
    }
    const signal = AbortSignal.timeout(50);
    await expect(calibrate(model, never(), { ...QUICK, signal })).rejects.toMatchObject({ code: 'ABORTED' });
  });
});

test.each<[string, unknown, object, string, RegExp]>([
  ['no source', 7, {}, 'INVALID_ARGUMENT', /images: expected the path of a folder, or an iterable/],
  ['no images', [], {}, 'INVALID_DATA', /there is none/],
  ['what is no image', [true], {}, 'INVALID_ARGUMENT', /images\[0\]: expected a path/],
  [
    'a misspelt option',
    [],
    { confidnce: 0.9 },
    'INVALID_ARGUMENT',
    /'confidnce'; did you mean 'confidence'\?/,
  ],
  [
    'another',
    [],
    { maxDisagrement: 0.1 },
    'INVALID_ARGUMENT',
    /unknown key 'maxDisagrement'; did you mean 'maxDisagreement'\?/,
  ],
  ['too few penalties', [], { penalties: 1 }, 'INVALID_ARGUMENT', /options\.penalties: .*at least 2/],
  [
    'an option that was removed',
    [],
    { budgetMs: 2 },
    'INVALID_ARGUMENT',
    /'budgetMs'; did you mean 'budget'\?/,
  ],
  [
    'an old name',
    [],
    { reference: 'm.onnx' },
    'INVALID_ARGUMENT',
    /'reference'; it is called 'original' now/,
  ],
  ['two limits', [], { limits: [0.1], maxDisagreement: 0.1 }, 'INVALID_ARGUMENT', /limits: .*one of the two/],
  ['a callback that is none', [], { onProgress: 1 }, 'INVALID_ARGUMENT', /onProgress: expected a function/],
  ['groups by folder of an iterable', [], { groupsFrom: 'folder' }, 'INVALID_ARGUMENT', /is for folders/],
])('%s is refused', async (_, source, options, code, message) => {
  await expect(calibrate(model, source as string, { ...options, onNote })).rejects.toMatchObject({
    code,
    message: expect.stringMatching(message),
  });
});

test('items to fit on that are also in the data are left out, whatever input tells them apart, and counted', async () => {
  const items = taskItems('pair', 300);
  const pair = folderOf({ 'model.onnx': taskNetwork('pair') });
  const options = {
    penalties: 4,
    copies: 0,
    threads: 1,
    maxDisagreement: 0.3,
    task: 'single-label',
  } as const;
  const heard: string[] = [];
  const own = { ...options, onNote: (note: string) => void heard.push(note) };
  const more = taskItems('pair', 200, 2);
  await calibrate(pair, items, { ...own, fit: [...items.slice(0, 7), ...more] });
  expect(heard).toContain('of the feeds to fit on, 7 are also in the data; they are left out');
  await expect(calibrate(pair, items, { ...own, fit: items })).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringMatching(/fit: none of its 300 .*among the data/),
  });
});
