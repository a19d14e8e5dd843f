import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { openDataset } from 'lib/data/dataset.js';
import { readIdx } from 'lib/data/idx.js';
import { folderOf, idx, removeFolders } from '../../helpers/files.js';

afterEach(removeFolders);

const IMAGES = 't10k-images-idx3-ubyte';
const LABELS = 't10k-labels-idx1-ubyte';
const digits = ['0', '1', '2'];
const pixels = Array.from({ length: 3 * 2 * 4 }, (_, i) => i * 7);

describe('readIdx', () => {
  test.each([
    ['plain', (bytes: Buffer) => bytes],
    ['gzipped', (bytes: Buffer) => gzipSync(bytes)],
  ])('reads a %s file', async (_, pack) => {
    const folder = folderOf({ file: pack(idx([3, 2, 4], pixels)) });
    const { shape, data } = await readIdx(join(folder, 'file'));
    expect(shape).toEqual([3, 2, 4]);
    expect([...data]).toEqual(pixels);
  });

  const whole = idx([3, 2, 4], pixels);
  const signed = Buffer.from(whole);
  signed[2] = 0x09;
  const huge = Buffer.from(whole);
  huge.writeUInt32BE(0xffffffff, 4);
  huge.writeUInt32BE(0xffffffff, 8);
  test.each([
    ['an empty file', Buffer.alloc(0), /IDX header/],
    ['other content', Buffer.from('P5 28 28 255'), /IDX header/],
    ['a header cut short', whole.subarray(0, 9), /ends within its header/],
    ['no axes', Buffer.from([0, 0, 8, 0]), /ends within its header/],
    ['elements cut short', whole.subarray(0, -1), /3x2x4 = 24 elements but holds 23/],
    ['bytes too many', Buffer.concat([whole, Buffer.of(0)]), /but holds more/],
    ['signed bytes', signed, /type 0x09/],
    ['lengths that overflow', huge, /more than the limit of 1073741824 bytes/],
    ['a bomb', gzipSync(Buffer.concat([whole, Buffer.alloc(2 ** 26)])), /24 elements but holds more/],
    ['a broken gzip stream', gzipSync(whole).subarray(0, 20), /can't be read/],
  ])('refuses %s', async (_, bytes, message) => {
    const file = join(folderOf({ 'broken.idx': bytes }), 'broken.idx');
    await expect(readIdx(file)).rejects.toMatchObject({
      name: 'ResidualSkipError',
      code: 'INVALID_DATA',
      message: expect.stringMatching(message),
    });
    await expect(readIdx(file)).rejects.toThrow(file);
  });
});

test('the limit of bytes is an option', async () => {
  const file = join(folderOf({ file: idx([3, 2, 4], pixels) }), 'file');
  await expect(readIdx(file, { maxBytes: 23 })).rejects.toThrow(
    /3x2x4 = 24 elements, more than the limit of 23/,
  );
  await expect(readIdx(file, { maxBytes: 24 })).resolves.toMatchObject({ shape: [3, 2, 4] });
});

describe('openDataset on IDX files', () => {
  test('pairs images with labels', async () => {
    const folder = folderOf({
      [IMAGES]: idx([3, 2, 4], pixels),
      [`${LABELS}.gz`]: gzipSync(idx([3], [2, 0, 1])),
    });
    const { samples } = await openDataset(folder, digits);
    expect(samples.map(({ label }) => label)).toEqual([2, 0, 1]);
    expect(samples[1]!.name).toBe(`${IMAGES}[1]`);
    const image = await samples[1]!.load();
    expect(image).toMatchObject({ width: 4, height: 2, channels: 1 });
    expect([...image.data]).toEqual(pixels.slice(8, 16));
  });

  test('takes the test set of several, and the one that is named', async () => {
    const folder = folderOf({
      [IMAGES]: idx([1, 1, 1], [5]),
      [`${IMAGES}.gz`]: gzipSync(idx([1, 1, 1], [5])),
      [LABELS]: idx([1], [1]),
      'train-images-idx3-ubyte': idx([2, 1, 1], [6, 7]),
      'train-labels-idx1-ubyte': idx([2], [0, 0]),
    });
    expect((await openDataset(folder, digits)).samples).toHaveLength(1);
    const train = await openDataset(join(folder, 'train-images-idx3-ubyte'), digits);
    expect(train.samples).toHaveLength(2);
  });

  test.each<[string, Record<string, Buffer>, RegExp]>([
    ['labels are missing', { [IMAGES]: idx([1, 1, 1], [0]) }, /t10k-labels-idx1-ubyte.gz: it can't be read/],
    [
      'counts differ',
      { [IMAGES]: idx([1, 1, 1], [0]), [LABELS]: idx([2], [0, 0]) },
      /shape 2, but there are 1 images/,
    ],
    [
      'a label is too large',
      { [IMAGES]: idx([1, 1, 1], [0]), [LABELS]: idx([1], [3]) },
      /label 3 for item 0, .* 3 classes/,
    ],
    ['there is no item', { [IMAGES]: idx([0, 1, 1], []), [LABELS]: idx([0], []) }, /shape 0x1x1/],
    ['images have no rows', { [IMAGES]: idx([2, 2], [0, 0, 0, 0]), [LABELS]: idx([2], [0, 0]) }, /shape 2x2/],
    [
      'several sets fit',
      { 'a-images-idx3-ubyte': idx([1, 1, 1], [0]), 'b-images-idx3-ubyte': idx([1, 1, 1], [0]) },
      /several IDX sets \(a-images-idx3-ubyte, b-images-idx3-ubyte\)/,
    ],
  ])('says so when %s', async (_, files, message) => {
    await expect(openDataset(folderOf(files), digits)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(message),
    });
  });
});
