import { join } from 'node:path';
import { openDataset, openImages } from 'lib/data/dataset.js';
import { folderOf, removeFolders } from '../../helpers/files.js';

afterEach(removeFolders);

const LABELS = ['airplane', 'automobile', 'bird'];

/** Records whose red samples count up, green ones are the label, blue ones 255. */
function batch(...labels: number[]): Buffer {
  const plane = (at: (i: number) => number) => Buffer.from(Array.from({ length: 1024 }, (_, i) => at(i)));
  return Buffer.concat(
    labels.map((label) =>
      Buffer.concat([Buffer.from([label]), plane((i) => i % 256), plane(() => label), plane(() => 255)]),
    ),
  );
}

describe("CIFAR-10's binary batches", () => {
  test('labels, names, and pixels from planes', async () => {
    const { samples } = await openDataset(folderOf({ 'test_batch.bin': batch(2, 0) }), LABELS);
    expect(samples.map(({ name, label }) => [name, label])).toEqual([
      ['test_batch.bin[0]', 2],
      ['test_batch.bin[1]', 0],
    ]);
    const image = await samples[0]!.load();
    expect(image).toMatchObject({ width: 32, height: 32, channels: 3 });
    expect([...image.data.subarray(0, 6)]).toEqual([0, 2, 255, 1, 2, 255]);
    expect([...image.data.subarray(-3)]).toEqual([255, 2, 255]);
  });

  test('the test batch is taken of several, all training batches without one, or the file that is named', async () => {
    const files = { 'data_batch_1.bin': batch(0), 'data_batch_2.bin': batch(1) };
    const labelsOf = async (path: string) => (await openDataset(path, LABELS)).samples.map((s) => s.label);
    const both = folderOf({ ...files, 'test_batch.bin': batch(2), 'batches.meta.txt': 'airplane' });
    expect(await labelsOf(both)).toEqual([2]);
    expect(await labelsOf(folderOf(files))).toEqual([0, 1]);
    expect(await labelsOf(join(both, 'data_batch_2.bin'))).toEqual([1]);
    expect(await openImages(both, LABELS)).toHaveLength(1);
  });

  test.each([
    ['holds part of a record', batch(0).subarray(1), /3072 bytes, which is not a multiple of the 3073/],
    ['is empty', Buffer.alloc(0), /has 0 bytes/],
    ['has a label beyond the classes', batch(1, 3), /item 1 has the label 3, but the model has 3 classes/],
  ])('a batch that %s is refused', async (_, bytes, message) => {
    await expect(openDataset(folderOf({ 'test_batch.bin': bytes }), LABELS)).rejects.toThrow(
      expect.objectContaining({ code: 'INVALID_DATA', message: expect.stringMatching(message) }),
    );
  });
});
