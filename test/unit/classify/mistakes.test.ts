/** Mistakes in the first lines of a program get an error of this package, which names the argument. */
import { join } from 'node:path';
import {
  calibrate,
  calibrateRanking,
  Embedder,
  ImageClassifier,
  ObjectDetector,
  Reranker,
  Segmenter,
  speedup,
  TextClassifier,
} from 'lib/index.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { writeSeededModel } from '../../helpers/seeded-network.js';

let folder: string;
beforeAll(() => {
  folder = folderOf({});
  writeSeededModel(folder);
});
afterAll(removeFolders);

const saysOf = (made: Promise<unknown>) =>
  made.then(
    () => 'nothing',
    ({ name, code, message }: Error & { code: string }) => `${name} ${code}: ${message}`,
  );

const OPENERS = { ImageClassifier, ObjectDetector, Segmenter, TextClassifier, Embedder, Reranker };

test.each(Object.entries(OPENERS))('%s without a path, or with null as options', async (_, opener) => {
  expect(await saysOf(opener.from(undefined as never))).toBe(
    'ResidualSkipError INVALID_ARGUMENT: model: expected a string, received nothing',
  );
  expect(await saysOf(opener.from(folder, null as never))).toBe(
    'ResidualSkipError INVALID_ARGUMENT: options: expected an object, received null',
  );
});

test('speedup without a model', async () => {
  expect(await saysOf(speedup(undefined as never, 'data'))).toMatch(/INVALID_ARGUMENT: model: expected a/);
});

test.each([
  [{ preprocesor: 'unit' }, /preprocesor'; did you mean 'preprocessor'/],
  [{ label: ['a'] }, /'label'; did you mean 'labels'/],
  [{ labels: 'abcdefghij' }, /options\.labels: expected an array, received 'abcdefghij'/],
  [{ labels: [1, 2] }, /options\.labels\.0: expected a string, received 1/],
  [{ onNote: 5 }, /options\.onNote: expected a function/],
])('of images, options %j', async (options, message) => {
  for (const opener of [ImageClassifier, ObjectDetector, Segmenter]) {
    expect(await saysOf(opener.from(folder, options as never))).toMatch(message);
  }
});

test.each([
  [{ task: 'multilabel' }, /received 'multilabel'; did you mean 'multi-label'\?/],
  [{ task: 'Regression' }, /did you mean 'regression'\?/],
  [{ metric: 'absolute' }, /metric: expected a number behind it, as in 'absolute@0\.1'; received 'absolute'/],
  [{ metric: 'recall@0' }, /as in 'recall@10'; received 'recall@0'/],
  [{ metric: 'labels@half' }, /expected 'labels', or a number behind it, as in 'labels@0\.5'/],
  [{ metric: 'cosine@0.1' }, /metric: cosine takes no number; received 'cosine@0\.1'/],
  [{ limits: { miss: 0.01 } }, /limits\.miss: .*received 'miss'; did you mean 'missed'/],
  [{ maxDisagreement: 5 }, /maxDisagreement: expected a number between 0 and 1, received 5/],
])('of calibrate, options %j', async (options, message) => {
  expect(await saysOf(calibrate(folder, [], options as never))).toMatch(message);
});

test('a network of classes as a detector', async () => {
  const classes = join(__dirname, '../../../models/mnist-resnet20');
  expect(await saysOf(ObjectDetector.from(classes))).toMatch(
    /its outputs \(logits: float32\[batch, 10\]\) can't be read as boxes; say how/,
  );
});

test("lists of a reranker with a key that it doesn't know", async () => {
  const lists = [{ query: 'a', docs: ['b'] }];
  expect(await saysOf(calibrateRanking({} as never, lists as never, { topK: 1 }))).toMatch(
    /lists\.0: unknown key 'docs'$/,
  );
});

test('addresses and percentages on the command line', async () => {
  const address = await cli('run', folder, 'https://example.com/cat.jpg');
  expect(address.err).toMatch(/download it, or give a URL object/);
  const { code, err } = await cli('calibrate', folder, '--data', folder, '--max-disagreement', '5%');
  expect({ code, err }).toEqual({ code: 2, err: expect.stringMatching(/received '5%'/) });
});
