/** `evaluate` from code; the command's tests compare its figures with references. */
import { join } from 'node:path';
import { listImagesBelow } from 'lib/data/files.js';
import { type Evaluation, evaluate } from 'lib/measure/evaluate.js';
import { type Timed, TimedClassifier } from 'lib/measure/timed-classifier.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { folderOf, png, removeFolders } from '../../helpers/files.js';
import { foreign } from '../../helpers/foreign-network.js';
import { best, between, colours, itemsFrom, ladder, run, sureness } from '../../helpers/ladders.js';

const root = join(__dirname, '../../..');
const MODEL = join(root, 'test/models/cifar10-resnet32-gates');
const IMAGES = join(root, 'examples/images');
const LABELS = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'];
let files: string[];
beforeAll(async () => {
  files = (await listImagesBelow(IMAGES)).slice(0, 8);
});
afterAll(removeFolders);

/** What doesn't depend on the clock. */
function untimed({ full, skip, latencyReduction: _, ...rest }: Evaluation) {
  const { latencyMs: __, ...fullRest } = full;
  const { latencyMs: ___, ...skipRest } = skip;
  return { ...rest, full: fullRest, skip: skipRest };
}

test('a folder of images alone has no accuracy, but all else', async () => {
  const report = await evaluate(MODEL, IMAGES, { threads: 1, limit: 4 });
  expect(report).toMatchObject({
    items: 4,
    full: { accuracy: null, latencyMs: { p50: expect.any(Number) } },
    skip: { accuracy: null },
    accuracyChange: null,
    energy: null,
    unusable: [],
  });
  expect(report.skip.blocksSkipped).toBeGreaterThan(0);
  expect(report.skip.agreement).toBeGreaterThan(0.5);
});

test('images with labels have an accuracy, by index or by name', async () => {
  const nameOf = (file: string) => /([a-z]+)-\d+\.jpg$/.exec(file)![1]!;
  const byName = files.map((image) => ({ image, label: nameOf(image) }));
  const byIndex = byName.map(({ image, label }) => ({ image, label: LABELS.indexOf(label) }));
  const report = await evaluate(MODEL, byName);
  expect(report.full.accuracy).toBeGreaterThan(0.5);
  expect(untimed(await evaluate(MODEL, byIndex))).toEqual(untimed(report));
  // One label that is missing leaves nothing to average over.
  const some = [{ image: files[0]! }, ...byName.slice(1)];
  expect((await evaluate(MODEL, some)).accuracyChange).toBeNull();
  expect((await evaluate(MODEL, byName, { labelsFrom: 'none' })).accuracyChange).toBeNull();
});

test('the policy is the one of the options', async () => {
  const { skip } = await evaluate(MODEL, files.slice(0, 2), { policy: 'full', energy: true });
  expect(skip).toMatchObject({ agreement: 1, blocksSkipped: 0, multiplyAddsSkipped: 0 });
});

test('in two items, each mode is timed as often after itself as after the other', async () => {
  const ran: { readonly mode: string; readonly timed: Timed | undefined }[] = [];
  const { classify, time } = TimedClassifier.prototype;
  jest.spyOn(TimedClassifier.prototype, 'classify').mockImplementation(function (
    this: TimedClassifier,
    tensor,
  ) {
    const classified = classify.call(this, tensor);
    ran.push({ mode: 'skip', timed: undefined });
    return classified;
  });
  jest.spyOn(TimedClassifier.prototype, 'time').mockImplementation(function (
    this: TimedClassifier,
    tensor,
    mode,
  ) {
    const timed = time.call(this, tensor, mode);
    ran.push({ mode, timed });
    return timed;
  });
  const counted = new Set<unknown>();
  const timeBoth = TimedClassifier.prototype.timeBoth;
  jest.spyOn(TimedClassifier.prototype, 'timeBoth').mockImplementation(function (
    this: TimedClassifier,
    ...given
  ) {
    const both = timeBoth.apply(this, given);
    for (const timed of Object.values(both)) counted.add(timed);
    return both;
  });
  await evaluate(MODEL, files.slice(0, 4));
  jest.restoreAllMocks();
  const after = { full: 0, skip: 0 };
  for (const [i, { mode, timed }] of ran.entries())
    if (counted.has(timed) && ran[i - 1]!.mode === mode) after[mode as 'full' | 'skip']++;
  expect(after).toEqual({ full: 2, skip: 2 });
});

test('with an original, it is the one that runs in full', async () => {
  const [model, original] = [1, 2].map((seed) =>
    join(folderOf({ 'model.onnx': foreign({ seed }) }), 'model.onnx'),
  ) as [string, string];
  const tensors = Array.from({ length: 12 }, (_, i) => itemsFrom(colours(12), i, i + 1));
  const asked = { policy: 'full', task: 'single-label' } as const;
  const alone = await evaluate(model, tensors, asked);
  expect(alone.skip.agreement).toBe(1);
  const compared = await evaluate(model, tensors, { ...asked, original });
  expect(compared.skip.agreement).toBeLessThan(1);
});

test('a promise about an original is only measured beside it', async () => {
  const folder = join(root, 'models/cifar10-resnet14-exits');
  const [model, original, policy] = ['model.int8.onnx', 'model.onnx', 'policy.int8.json'].map((file) =>
    join(folder, file),
  ) as [string, string, string];
  const notes: string[] = [];
  const onNote = (note: string) => void notes.push(note);
  expect((await evaluate(model, files, { policy, onNote })).skip.loss).toBeNull();
  expect(notes).toContainEqual(
    expect.stringMatching(/^the promise is about .*give it as the option original/),
  );
  const { skip } = await evaluate(model, files, { policy, original });
  expect(skip.loss).toMatchObject({ metric: 'disagreement', mean: expect.any(Number) });
});

test('of an iterable the first are used, and it is closed', async () => {
  let asked = 0;
  let closed = false;
  async function* source() {
    try {
      while (true) {
        asked++;
        yield new Tensor('float32', new Float32Array(3072).fill(asked / 10), [1, 3, 32, 32]);
      }
    } finally {
      closed = true;
    }
  }
  const done: number[] = [];
  const report = await evaluate(MODEL, source(), {
    limit: 3,
    onProgress: ({ done: count, total }) => void done.push(count, total ?? -1),
  });
  expect(report.items).toBe(3);
  expect(done).toEqual([1, -1, 2, -1, 3, -1]);
  expect(asked).toBeLessThan(10);
  expect(closed).toBe(true);
});

test('images that can not be used are named, the others are evaluated', async () => {
  const folder = folderOf({ 'a.png': await png(32, 32, [9, 9, 9]), 'b.png': 'no image' });
  const { items, unusable } = await evaluate(MODEL, folder);
  expect(items).toBe(1);
  expect(unusable).toMatchObject([{ code: 'INVALID_DATA', message: expect.stringContaining('b.png') }]);
  await expect(evaluate(MODEL, [join(folder, 'b.png')])).rejects.toMatchObject({ code: 'INVALID_DATA' });
});

test('a batch and a tensor of another shape are refused with the way out', async () => {
  const batch = new Tensor('float32', new Float32Array(2 * 3072), [2, 3, 32, 32]);
  await expect(evaluate(MODEL, [batch])).rejects.toMatchObject({
    code: 'INVALID_SHAPE',
    message:
      'images[0]: expected float32[1,3,32,32], received float32[2,3,32,32]; give each item of a batch by itself',
  });
  await expect(evaluate(MODEL, [new Tensor('uint8', [1])])).rejects.toMatchObject({ code: 'INVALID_DTYPE' });
});

test('an abort ends it between two images, with timers running', async () => {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 100);
  async function* forever() {
    while (true) yield new Tensor('float32', new Float32Array(3072), [1, 3, 32, 32]);
  }
  const { signal } = controller;
  await expect(evaluate(MODEL, forever(), { signal })).rejects.toMatchObject({
    name: 'AbortError',
    code: 'ABORTED',
    message: 'evaluation: it was aborted',
  });
  await expect(evaluate(MODEL, files, { signal })).rejects.toMatchObject({ code: 'ABORTED' });
});

test('images above maxPixels are refused, from a folder and from code', async () => {
  for (const source of [IMAGES, files]) {
    await expect(evaluate(MODEL, source, { maxPixels: 1000 })).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/\(more than 1000 pixels\)/),
    });
  }
});

test('scores that are NaN agree with nothing, and are never right', async () => {
  const folder = folderOf({ 'model.onnx': foreign() });
  const pictures = [
    colours(2),
    new Tensor('float32', new Float32Array(3 * 256).fill(Number.NaN), [1, 3, 16, 16]),
  ];
  const items = [itemsFrom(pictures[0]!, 0, 1), itemsFrom(pictures[0]!, 1, 2), pictures[1]!];
  const { rows } = await run(foreign(), pictures[0]!);
  const labelled = items.map((image, i) => ({ image, label: rows[i] ? best(rows[i]!) : 0 }));
  const { full, skip, accuracyChange } = await evaluate(folder, labelled, { task: 'single-label' });
  expect({ full: full.accuracy, skip: skip.accuracy, agreement: skip.agreement }).toEqual({
    ...{ full: 2 / 3, skip: 2 / 3, agreement: 2 / 3 },
  });
  expect(accuracyChange).toMatchObject({ points: 0 });
});

test('of a ladder it says what each rung answered', async () => {
  const [network, front] = [foreign(), foreign({ blocks: 1 })];
  const pictures = colours(24);
  const alone = await run(front, pictures);
  const full = await run(network, pictures);
  const sure = sureness(alone.rows);
  const threshold = between(sure);
  const folder = ladder(network, [{ name: 'first', bytes: front, threshold }]);
  const items = sure.map((_, i) => ({ image: itemsFrom(pictures, i, i + 1), label: best(full.rows[i]!) }));
  const { rungs, skip } = await evaluate(folder, items, { task: 'single-label', threads: 1 });
  const answered = [...sure.keys()].filter((i) => sure[i]! >= threshold);
  const agreed = answered.filter((i) => best(alone.rows[i]!) === best(full.rows[i]!));
  const share = agreed.length / answered.length;
  expect(rungs).toMatchObject([
    { name: 'first', answered: answered.length / 24, agreement: share, accuracy: share },
    { name: null, answered: 1 - answered.length / 24, agreement: 1, accuracy: 1 },
  ]);
  const [first, top] = rungs;
  expect(first!.work).toBeCloseTo(alone.multiplyAdds / full.multiplyAdds, 2);
  expect(top!.work! - first!.work!).toBeCloseTo(1, 12);
  const work = rungs.reduce((sum, rung) => sum + rung.answered * rung.work!, 0);
  expect(1 - work).toBeCloseTo(skip.multiplyAddsSkipped, 12);
});

test('a network without exits has no rungs, and a rung that answers nothing no means', async () => {
  expect((await evaluate(MODEL, files.slice(0, 1))).rungs).toEqual([]);
  const folder = ladder(foreign(), [{ name: 'first', bytes: foreign({ blocks: 1 }), threshold: 2 }]);
  const { rungs } = await evaluate(folder, [{ image: colours(1) }], { task: 'single-label' });
  expect(rungs).toMatchObject([
    { name: 'first', answered: 0, agreement: null, work: null, meanMs: null },
    { name: null, answered: 1, agreement: 1, accuracy: null },
  ]);
});
