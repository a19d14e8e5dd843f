/** Only answers that are known to be classes are counted as such, by `calibrate` and by `evaluate`. */
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import type { CalibrateOptions } from 'lib/calibrate/options.js';
import { InferenceSession } from 'lib/index.js';
import { evaluate } from 'lib/measure/evaluate.js';
import { Tensor } from 'lib/tensor/tensor.js';
import '../../helpers/few-timed.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign, pictures, SIDE } from '../../helpers/foreign-network.js';
import { randomFloats } from '../../helpers/random.js';
import { textNetwork } from '../../helpers/text-network.js';

afterAll(removeFolders);

function images(count: number) {
  const pixels = (i: number) => randomFloats(3 * SIDE ** 2, i + 1);
  return Array.from({ length: count }, (_, i) => new Tensor('float32', pixels(i), [1, 3, SIDE, SIDE]));
}

/** Too few to certify anything: what isn't refused for its answers is refused for that. */
const IMAGES = images(4);
const LABELLED = IMAGES.map((image, label) => ({ image, label }));
const TOO_FEW = { code: 'INVALID_DATA', message: expect.stringContaining('there is too little') };

type Files = Readonly<Record<string, unknown>>;
function model(network: Uint8Array, config?: Files): string {
  return join(
    folderOf({ 'net.onnx': network, ...(config && { 'config.json': JSON.stringify(config) }) }),
    'net.onnx',
  );
}
const LABELS = { id2label: { 0: 'a', 1: 'b', 2: 'c', 3: 'd', 4: 'e' } };
const calibrated = (path: string, options: CalibrateOptions = {}, data: readonly object[] = IMAGES) =>
  expect(calibrate(path, data as never, { threads: 1, ...options })).rejects;
const refusal = (message: RegExp) => ({
  code: 'INVALID_ARGUMENT',
  message: expect.stringMatching(message),
});

const WAY_OUT =
  "take cosine, relative or recall@10, or, .*say so (--task single-label, task: 'single-label')";
const REMEDY = new RegExp(WAY_OUT.replace(/[()]/g, '\\$&'));

const NOTHING_SAYS =
  /^task: nothing says what output 'votes' of net\.onnx is: .*; say so, --task \(task\) single-label, /;

describe('a limit on changed answers is refused', () => {
  test.each<[string, Uint8Array, Files | undefined, RegExp]>([
    ['whose output has any name', foreign(), undefined, /nothing says that output 'votes' of net\.onnx/],
    [
      'whose output is called logits',
      foreign({ output: 'logits' }),
      undefined,
      /nothing says that output 'logits'/,
    ],
    [
      'that ends in a sigmoid',
      foreign({ end: 'Sigmoid' }),
      undefined,
      /'votes' of net\.onnx ends in a sigmoid/,
    ],
    ['with a sigmoid and labels', foreign({ end: 'Sigmoid' }), LABELS, /ends in a sigmoid/],
    [
      'trained for several labels',
      foreign({ output: 'logits' }),
      { ...LABELS, problem_type: 'multi_label_classification' },
      /config\.json beside net\.onnx says problem_type multi_label_classification/,
    ],
    ['that ends in normalize', foreign({ end: 'normalize' }), undefined, /nothing says/],
  ])('for a network %s', async (_, network, config, reason) => {
    const path = model(network, config);
    for (const metric of ['disagreement', 'probability', 'ordinal'] as const) {
      await calibrated(path, { metric }).toMatchObject(refusal(reason));
      await calibrated(path, { metric }).toMatchObject(refusal(REMEDY));
    }
    // By the user's word, and as a vector, it isn't.
    await calibrated(path, { task: 'single-label' }).toMatchObject(TOO_FEW);
    await calibrated(path, { metric: 'cosine' }).toMatchObject(TOO_FEW);
  });

  test('for one number, whatever the user says; nor is it a vector', async () => {
    const path = model(foreign({ classes: 1, output: 'logits' }));
    const row = refusal(
      /'logits' of net\.onnx isn't a row of two scores or more for each item; take absolute@TOLERANCE or relative$/,
    );
    await calibrated(path, { metric: 'disagreement' }).toMatchObject(row);
    await calibrated(path, { task: 'single-label' }).toMatchObject(row);
    for (const metric of ['cosine', 'recall@3'] as const) {
      await calibrated(path, { metric, maxDisagreement: 0.2 }).toMatchObject(
        refusal(
          /is about angles of vectors, but the output is a single number; take absolute@TOLERANCE or relative$/,
        ),
      );
    }
  });

  test.each([
    ['any', foreign(), undefined],
    ['logits alone', foreign({ output: 'votes', classes: 4 }), undefined],
    ['labels that nothing connects with an end', foreign({ classes: 1 }), undefined],
    ['one sigmoid', foreign({ classes: 1, end: 'Sigmoid' }), undefined],
  ] as const)('without a word on the task, of %s', async (_, network, config) => {
    await calibrated(model(network, config)).toMatchObject(refusal(NOTHING_SAYS));
  });

  test('by the command, which names its option', async () => {
    const { code, err } = await cli(
      ...['calibrate', model(foreign()), '--data', await pictures(4), '-o', join(folderOf({}), 'p.json')],
    );
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringMatching(/--task \(task\) single-label.*INVALID_ARGUMENT/),
    });
  });

  test('before a second item is read', async () => {
    let read = 0;
    function* source() {
      for (const image of [...IMAGES, ...IMAGES, ...IMAGES, ...IMAGES, ...IMAGES]) {
        read++;
        yield image;
      }
    }
    await expect(calibrate(model(foreign()), source(), { threads: 1 })).rejects.toMatchObject(
      refusal(NOTHING_SAYS),
    );
    // A few are read ahead.
    expect(read).toBeLessThan(20);
  });

  test('for texts, too', async () => {
    const path = textNetwork('classes', { files: { 'config.json': { problem_type: 'regression' } } });
    const asked = { metric: 'disagreement' } as const;
    await expect(calibrate(path, ['word1', 'word2'], asked)).rejects.toMatchObject(
      refusal(/problem_type regression/),
    );
    const vectors = textNetwork('vectors');
    await expect(calibrate(vectors, ['word1', 'word2'], asked)).rejects.toMatchObject(refusal(/has none; /));
  });
});

test.each<[string, Uint8Array, Files | undefined, CalibrateOptions, readonly object[]]>([
  ['a softmax', foreign({ end: 'Softmax' }), undefined, {}, IMAGES],
  ['labels in config.json', foreign(), LABELS, {}, IMAGES],
  ['labels of the caller', foreign(), undefined, { labels: ['a', 'b', 'c', 'd', 'e'] }, IMAGES],
  ['labels of the data', foreign(), undefined, { labelsFrom: 'data' }, LABELLED],
  ['an accuracy', foreign(), undefined, { metric: 'accuracy' }, LABELLED],
] as never)('%s says that answers are classes', async (_, network, config, options, data) => {
  await calibrated(model(network, config), options, data).toMatchObject(TOO_FEW);
});

test('an original must end as the network does', async () => {
  const original = model(foreign({ end: 'Sigmoid' }));
  await calibrated(model(foreign({ end: 'Softmax' })), { original }).toMatchObject(
    refusal(
      /^original: it takes .* to probabilities by a sigmoid \[1, 5\], but the model takes .* to probabilities/,
    ),
  );
});

describe('evaluate', () => {
  async function evaluated(path: string, data: readonly object[] = IMAGES, options = {}) {
    const notes: string[] = [];
    const onNote = (note: string) => void notes.push(note);
    const { full, skip } = await evaluate(path, data as never, { threads: 1, onNote, ...options });
    return { accuracy: full.accuracy, agreement: skip.agreement, distance: skip.distance, notes };
  }
  const SAME = { cosine: expect.closeTo(0, 6), relative: 0 };

  test('measures distances where nothing says that answers are classes, and says so', async () => {
    expect(await evaluated(model(foreign({ end: 'Sigmoid' })), LABELLED)).toEqual({
      ...{ accuracy: null, agreement: null, distance: SAME },
      notes: [expect.stringMatching(/aren't compared as classes: .*sigmoid.*; if .*--task single-label/)],
    });
    expect(await evaluated(model(foreign()))).toMatchObject({ agreement: null, distance: SAME });
    expect(await evaluated(model(foreign({ classes: 1 })))).toMatchObject({
      ...{ agreement: null, distance: { cosine: null, relative: 0 } },
      notes: [expect.stringMatching(/isn't a row of two scores or more for each item$/)],
    });
  });

  test('counts answers that are classes by the data or by the user', async () => {
    const counted = { agreement: 1, distance: null, notes: [] };
    expect(await evaluated(model(foreign()), LABELLED)).toEqual({ ...counted, accuracy: expect.any(Number) });
    const told = await evaluated(model(foreign()), IMAGES, { task: 'single-label' });
    expect(told).toEqual({ ...counted, accuracy: null });
  });
});

test('the length of a vector is that of the graph, whatever name the file gives it', async () => {
  await using session = await InferenceSession.create(foreign({ end: 'normalize', output: 'embedding' }));
  expect(session.outputMetadata).toMatchObject([{ name: 'embedding', shape: ['n', 5] }]);
  const { embedding } = await session.run({ picture: IMAGES[0]! });
  expect(embedding!.dims).toEqual([1, 5]);
});
