import { join } from 'node:path';
import { InferenceSession, type Progress } from 'lib/index.js';
import { PackingReport } from 'lib/session/progress.js';

const MODEL = join(__dirname, '../../models/cifar10-resnet32/model.onnx');

test('create reports loading and packing, up to the last weight', async () => {
  const seen: Progress[] = [];
  const session = await InferenceSession.create(MODEL, { onProgress: (progress) => seen.push(progress) });
  await session.release();
  const [loading, ...packing] = seen;
  expect(loading).toEqual({ stage: 'loading', done: 1, total: 1 });
  const last = packing.at(-1)!;
  expect(last).toEqual({ stage: 'packing', done: last.total, total: last.total });
  // Every convolution and the fully connected layer.
  expect(last.total).toBeGreaterThan(30);
  const done = packing.map((each) => each.done);
  expect(done).toEqual([...new Set(done)].sort((a, b) => a - b));
});

test.each(['loading', 'packing'])('what is thrown while %s is thrown by create', async (stage) => {
  const onProgress = (progress: Progress) => {
    if (progress.stage === stage) throw new Error('enough');
  };
  await expect(InferenceSession.create(MODEL, { onProgress })).rejects.toThrow('enough');
});

test('what is no function is refused', async () => {
  await expect(InferenceSession.create(MODEL, { onProgress: true } as object)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: 'options.onProgress: expected a function',
  });
});

test('the reference backend packs nothing', async () => {
  const stages: string[] = [];
  const onProgress = ({ stage }: Progress) => void stages.push(stage);
  await (await InferenceSession.create(MODEL, { backend: 'reference', onProgress })).release();
  expect(stages).toEqual(['loading']);
});

test('each state is reported once, and none before the number of weights is known', () => {
  const seen: number[] = [];
  const report = new PackingReport(({ done }) => void seen.push(done));
  for (const [done, total] of [
    [0, 0],
    [0, 5],
    [0, 5],
    [3, 5],
    [3, 5],
    [5, 5],
    [5, 5],
  ] as const) {
    report.onPacked(done, total);
  }
  expect(seen).toEqual([0, 3, 5]);
});
