import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { decodeImage, type RawImage, toGrey } from 'lib/data/image.js';
import { decodingBytes, pixelsOf } from 'lib/data/image-header.js';
import { frameOf } from 'lib/data/jpeg.js';
import { Preprocessor } from 'lib/data/preprocess.js';
import type { ResizeKernel } from 'lib/data/resize-rule.js';
import { atOnce } from 'lib/util/slices.js';
import sharp, { type Sharp } from 'sharp';
import { folderOf, png, removeFolders } from '../../helpers/files.js';

afterEach(removeFolders);

const example = join(__dirname, '../../../examples/images/cat-0000.jpg');

async function decode(bytes: Uint8Array) {
  return decodeImage(join(folderOf({ image: bytes }), 'image'));
}

describe('decodeImage', () => {
  test('gives interleaved RGB', async () => {
    const image = await decode(await png(2, 3, [10, 20, 30]));
    expect(image).toMatchObject({ width: 2, height: 3, channels: 3 });
    expect([...image.data]).toEqual(Array.from({ length: 6 }, () => [10, 20, 30]).flat());
  });

  test('drops transparency and turns upright', async () => {
    const raw = { width: 2, height: 1, channels: 4 } as const;
    const pixels = Uint8Array.of(255, 0, 0, 128, 0, 0, 255, 128);
    const turned = sharp(pixels, { raw }).withMetadata({ orientation: 8 }).png();
    const image = await decode(await turned.toBuffer());
    expect(image).toMatchObject({ width: 1, height: 2, channels: 3 });
    expect([...image.data]).toEqual([0, 0, 255, 255, 0, 0]);
  });

  // The files are Pillow 11.1's, and the PNG files what it makes of them: Image.open(name).convert('RGB').
  test.each(['cmyk.jpg', 'clear.gif'])("has the pixels of PIL's convert('RGB'): %s", async (name) => {
    const file = join(__dirname, 'pil', name);
    const expected = await sharp(join(__dirname, 'pil', `${name}.png`))
      .removeAlpha()
      .raw()
      .toBuffer();
    for (const given of [file, readFileSync(file)]) {
      const image = await decodeImage(given);
      expect(image).toMatchObject({ width: 24, height: 16, channels: 3 });
      expect(Buffer.compare(Buffer.from(image.data), expected)).toBe(0);
    }
  });

  test('a JPEG of CMYK is turned upright', async () => {
    const cmyk = await sharp(join(__dirname, 'pil/cmyk.jpg')).metadata();
    expect(cmyk.space).toBe('cmyk');
    const file = readFileSync(join(__dirname, 'pil/cmyk.jpg'));
    // EXIF with the orientation 3 behind the first marker.
    const exif = Buffer.from(
      '457869660000' + '49492a0008000000' + '0100' + '120103000100000003000000' + '00000000',
      'hex',
    );
    const segment = Buffer.concat([Buffer.from([0xff, 0xe1, 0, exif.length + 2]), exif]);
    const turned = await decodeImage(Buffer.concat([file.subarray(0, 2), segment, file.subarray(2)]));
    const { data } = await decodeImage(file);
    const pixel = (all: Uint8Array, i: number) => [...all.subarray(3 * i, 3 * i + 3)];
    for (const i of [0, 5, 100, 383]) expect(pixel(turned.data, i)).toEqual(pixel(data, 383 - i));
  });

  test('takes a 16-bit grey image', async () => {
    const raw = { width: 1, height: 1, channels: 1 } as const;
    const grey = await sharp(Uint8Array.of(77), { raw }).toColourspace('grey16').png().toBuffer();
    const image = await decode(grey);
    expect([...atOnce(toGrey(image)).data]).toEqual([77]);
  });

  test.each([
    ['a torn JPEG', readFileSync(example).subarray(0, 700)],
    ['noise', Buffer.from('this is no image at all, only some text')],
    ['an empty file', Buffer.alloc(0)],
  ])('refuses %s by its name', async (_, bytes) => {
    const file = join(folderOf({ 'bad.jpg': bytes }), 'bad.jpg');
    await expect(decodeImage(file)).rejects.toMatchObject({
      name: 'ResidualSkipError',
      code: 'INVALID_DATA',
    });
    await expect(decodeImage(file)).rejects.toThrow(file);
  });

  test('says why an image without pixels is refused, and nothing behind it', async () => {
    const none = Buffer.from(await png(3, 2, [1, 2, 3]));
    none.writeUInt32BE(0, 16);
    await expect(decodeImage(none)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: "image bytes: it can't be decoded (Input buffer has corrupt header)",
    });
  });

  test('refuses a file that is not there', async () => {
    await expect(decodeImage('/nowhere/cat.jpg')).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringContaining('/nowhere/cat.jpg'),
    });
  });
});

/** Mean and largest distance of 8-bit samples. */
function distance(a: Uint8Array, b: Uint8Array): { mean: number; largest: number } {
  expect(a).toHaveLength(b.length);
  const apart = Array.from(a, (value, i) => Math.abs(value - b[i]!));
  return { mean: apart.reduce((sum, value) => sum + value, 0) / a.length, largest: Math.max(...apart) };
}

/** As toEqual, which takes seconds for so many samples. */
function expectSame({ data, ...shape }: RawImage, { data: wanted, ...wantedShape }: RawImage): void {
  expect(shape).toEqual(wantedShape);
  expect(Buffer.compare(data, wanted)).toBe(0);
}

describe('an image that is to be resized', () => {
  // photo.jpg is 420x320.
  const folder = join(__dirname, 'pil');
  const photo = readFileSync(join(folder, 'photo.jpg'));
  const to = (width: number, height: number, kernel: ResizeKernel = 'linear') => ({
    resize: () => ({ width, height, kernel }),
  });

  const progressive = (width = 416, height = 320) =>
    sharp(photo)
      .extract({ left: 0, top: 0, width, height })
      .jpeg({ progressive: true, quality: 95 })
      .toBuffer();

  test.each(['linear', 'cubic'] as const)(
    'a much larger JPEG that only sharp decodes gets its size there, as near to PIL as docs/cli.md says: %s',
    async (kernel) => {
      const size = { height: 64, width: 84 };
      const resample = kernel === 'linear' ? 2 : 3;
      const bytes = { size, resample, do_rescale: false };
      const { data } = await new Preprocessor(bytes, { channels: 3 }, 'bytes').apply(
        await decodeImage(await progressive()),
        'photo',
      );
      const expected = Uint8Array.from(data, (_, i) => data[(i % 3) * 84 * 64 + Math.floor(i / 3)]!);
      for (const file of [await progressive(), join(folderOf({ file: await progressive() }), 'file')]) {
        const image = await decodeImage(file, to(84, 64, kernel));
        expect(image).toMatchObject({ width: 84, height: 64, channels: 3 });
        const { mean, largest } = distance(image.data, expected);
        expect(mean).toBeLessThan(4);
        expect(largest).toBeLessThan(32);
      }
    },
  );

  test.each([
    [420, 320],
    [416, 317],
  ])(
    'sharp: a JPEG whose sides 8 does not divide is decoded whole, since a part would be moved: %d x %d',
    async (width, height) => {
      const file = await progressive(width, height);
      for (const [wide, high] of [
        [84, 64],
        [37, 28],
      ] as const)
        expectSame(await decodeImage(file, to(wide, high)), await decodeImage(file));
    },
  );

  test('sharp: the less a JPEG is decoded at, the more is left to the filter: half of it at 5.5 times, a quarter at 5.6 times', async () => {
    const resize = jest.spyOn(sharp.prototype, 'resize');
    const file = await progressive();
    for (const [times, fast] of [
      [4, true],
      [5, false],
      [5.59, false],
      [5.61, true],
      [8.9, true],
      [9, false],
      [11.19, false],
      [11.21, true],
      [20, true],
    ] as const) {
      resize.mockClear();
      const shape = { width: 416, height: 320 };
      await decodeImage(file, to(shape.width / times, shape.height / times)).catch(() => {});
      expect(resize.mock.calls[0]![2]).toMatchObject({ fastShrinkOnLoad: fast });
    }
    resize.mockRestore();
  });

  test.each([
    ['a photograph', (image: Sharp) => image],
    ['a turned one', (image: Sharp) => image.withMetadata({ orientation: 6 })],
    ['one with EXIF data alone', (image: Sharp) => image.withExif({ IFD0: { Copyright: 'nobody' } })],
    ['one with another profile', (image: Sharp) => image.withIccProfile('p3')],
    ['grey', (image: Sharp) => image.toColourspace('b-w')],
    ['of CMYK', (image: Sharp) => image.toColourspace('cmyk')],
  ])('%s that is not much larger is decoded whole', async (_, make) => {
    const file = await make(sharp(photo)).jpeg().toBuffer();
    const whole = await decodeImage(file);
    for (const kernel of ['linear', 'cubic', 'lanczos3'] as const) {
      for (const [width, height] of [
        [341, 256],
        [110, 112],
        [500, 333],
        [whole.width, 100],
      ] as const) {
        expectSame(await decodeImage(file, to(width, height, kernel)), whole);
      }
    }
  });

  test('any other is decoded at its own size, to the same pixels', async () => {
    const whole = await decodeImage(photo);
    expect(whole).toMatchObject({ width: 420, height: 320 });
    expectSame(await decodeImage(photo, to(420, 320)), whole);
    for (const kernel of ['nearest', 'box', 'hamming'] as const) {
      expectSame(await decodeImage(photo, to(50, 50, kernel)), whole);
    }
    expectSame(await decodeImage(photo, { resize: () => undefined }), whole);
    const lossless = await sharp(photo).png().toBuffer();
    expectSame(await decodeImage(lossless, to(84, 64)), whole);
  });

  test('the rule is asked about the upright image', async () => {
    const turned = sharp(photo).withMetadata({ orientation: 6 });
    const asked: number[][] = [];
    const resize = ({ width, height }: { width: number; height: number }) => {
      asked.push([width, height]);
      return { width: 64, height: 84, kernel: 'linear' as const };
    };
    const native = await decodeImage(await turned.toBuffer(), { resize });
    expect(native).toMatchObject({ width: 160, height: 210, shrunk: { by: 2 } });
    const cut = sharp(await progressive()).withMetadata({ orientation: 6 });
    const bySharp = await decodeImage(await cut.jpeg({ progressive: true }).toBuffer(), { resize });
    expect(bySharp).toMatchObject({ width: 64, height: 84 });
    expect(asked.at(-1)).toEqual([320, 416]);
  });

  test('a frame header far behind in the file is found as well', async () => {
    // Comments of 64 KiB before everything else.
    const comment = Buffer.alloc(2 + 65535);
    comment.writeUInt32BE(0xfffeffff);
    const late = Buffer.concat([photo.subarray(0, 2), comment, comment, photo.subarray(2)]);
    expect(await decodeImage(late, to(84, 64))).toEqual(await decodeImage(photo, to(84, 64)));
  });

  test('more segments than files have are left to sharp, which does not take the event loop', async () => {
    const comments = Buffer.from('fffe0002'.repeat(5000), 'hex');
    const late = Buffer.concat([photo.subarray(0, 2), comments, photo.subarray(2)]);
    expect(frameOf(late)).toBeUndefined();
    expectSame(await decodeImage(late), await decodeImage(photo));
  });

  test('a torn file is refused', async () => {
    await expect(decodeImage(photo.subarray(0, 9000), to(84, 64))).rejects.toMatchObject({
      code: 'INVALID_DATA',
    });
    await expect(decodeImage(photo.subarray(0, 300), to(84, 64))).rejects.toMatchObject({
      code: 'INVALID_DATA',
    });
  });
});

const SVG =
  '<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><rect width="9" height="9"/></svg>';

describe('formats', () => {
  const pixels = sharp(new Uint8Array(20 * 30 * 3).fill(90), { raw: { width: 30, height: 20, channels: 3 } });
  test.each<[string, () => Promise<Buffer>]>([
    ['JPEG', () => pixels.clone().jpeg().toBuffer()],
    ['PNG', () => pixels.clone().png().toBuffer()],
    ['WebP', () => pixels.clone().webp().toBuffer()],
    ['lossless WebP', () => pixels.clone().webp({ lossless: true }).toBuffer()],
    ['AVIF', () => pixels.clone().avif().toBuffer()],
    ['GIF', () => pixels.clone().gif().toBuffer()],
    ['TIFF', () => pixels.clone().tiff().toBuffer()],
    ['BigTIFF', () => pixels.clone().tiff({ bigtiff: true }).toBuffer()],
  ])('%s is read, from bytes and from a file', async (_format, encode) => {
    const bytes = await encode();
    expect(await pixelsOf(bytes)).toBe(600);
    expect(await decodeImage(bytes)).toMatchObject({ width: 30, height: 20 });
    expect(await decode(bytes)).toMatchObject({ width: 30, height: 20 });
  });

  test.each<[string, Uint8Array]>([
    ['SVG', Buffer.from(SVG)],
    ['SVG behind a comment', Buffer.from(`<!-- \x89PNG GIF89a -->${SVG}`)],
    ['compressed SVG', gzipSync(SVG)],
    ['PPM', Buffer.from('P3 1 1 255 9 9 9\n')],
    ['SVG that begins as GIF does', Buffer.from(`GIF89a${SVG}`)],
    ['SVG that begins as WebP does', Buffer.from(`RIFF0000WEBP${SVG}`)],
    ['SVG that begins as TIFF does', Buffer.from(`II*\0${SVG}`)],
    ['SVG with a comment that looks like AVIF', Buffer.from(`<!--ftypavif-->${SVG}`)],
  ])('%s is refused, from bytes and from a file', async (_what, bytes) => {
    await expect(decodeImage(bytes)).rejects.toMatchObject({ code: 'INVALID_DATA' });
    await expect(pixelsOf(bytes)).rejects.toMatchObject({ code: 'INVALID_DATA' });
    await expect(decode(bytes)).rejects.toMatchObject({ code: 'INVALID_DATA' });
  });

  test('the number of pixels is known from the header alone', async () => {
    const whole = readFileSync(example);
    const torn = whole.subarray(0, 700);
    expect(await pixelsOf(torn)).toBe(1024);
    await expect(decodeImage(torn)).rejects.toMatchObject({ code: 'INVALID_DATA' });
    await expect(pixelsOf(whole, { maxPixels: 1023 })).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringContaining('more than 1023 pixels'),
    });
    await expect(decodeImage(whole, { maxPixels: 1023 })).rejects.toThrow('more than 1023 pixels');
  });
});

describe('without sharp', () => {
  afterEach(() => jest.dontMock('sharp'));

  test('JPEG files of the usual kind are decoded, and others say how to install it', async () => {
    const bytes = await png(2, 3, [1, 2, 3]);
    jest.doMock('sharp', () => {
      throw new Error("Cannot find package 'sharp'");
    });
    await jest.isolateModulesAsync(async () => {
      const image = await import('lib/data/image.js');
      expect(await image.decodeImage(example)).toMatchObject({ width: 32, height: 32 });
      await expect(image.decodeImage(bytes)).rejects.toMatchObject({
        name: 'ResidualSkipError',
        code: 'MISSING_DEPENDENCY',
        message: expect.stringContaining('npm install sharp'),
      });
    });
  });
});

test('a very long image becomes grey and is resized in turns with the event loop', async () => {
  const length = 2 ** 20;
  const config = { size: { height: 28, width: 28 }, resample: 1 };
  const preprocessor = new Preprocessor(config, { channels: 1, height: 28, width: 28 }, 'test');
  let [longest, last] = [0, performance.now()];
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 1);
  const image = { width: 1, height: length, channels: 3, data: new Uint8Array(3 * length) } as const;
  const began = performance.now();
  await preprocessor.apply(image, 'long');
  const took = performance.now() - began;
  clearInterval(timer);
  expect(longest).toBeLessThan(took / 2);
  expect([...toGrey(image)].length).toBeGreaterThan(30);
});

test('toGrey weighs red, green and blue as BT.601 does', () => {
  const data = Uint8Array.of(255, 0, 0, 0, 255, 0, 0, 0, 255, 90, 90, 90);
  const grey = atOnce(toGrey({ width: 4, height: 1, channels: 3, data }));
  expect(grey.channels).toBe(1);
  expect([...grey.data]).toEqual([76, 150, 29, 90]);
});

test('formats that are decoded whole take more memory for each pixel than those that are decoded row by row', async () => {
  const image = () => sharp({ create: { width: 20, height: 10, channels: 3, background: 'red' } });
  const each = async (encoded: sharp.Sharp) => (await decodingBytes(await encoded.toBuffer())) / 200;
  const rows = await each(image().png());
  expect(rows).toBeGreaterThanOrEqual(3);
  expect(await each(image().jpeg())).toBe(rows);
  expect(await each(image().png({ progressive: true }))).toBe(rows + 3);
  expect(await each(image().jpeg({ progressive: true }))).toBe(rows + 6);
  expect(await each(image().webp())).toBeGreaterThan(rows + 6);
  expect(await each(image().avif())).toBeGreaterThan(await each(image().webp()));
});
