import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeImage } from 'lib/data/image.js';
import { decodeJpeg } from 'lib/data/jpeg.js';
import { windowsOfMeans } from 'lib/data/means.js';
import { Preprocessor } from 'lib/data/preprocess.js';
import { tapsOf } from 'lib/data/resample.js';
import { atOnce } from 'lib/util/slices.js';
import sharp, { type JpegOptions, type Sharp } from 'sharp';

const folder = join(__dirname, 'pil');
const photo = readFileSync(join(folder, 'photo.jpg'));

/** What sharp decodes a file to, upright. */
async function bySharp(file: Uint8Array) {
  const pipeline = sharp(file, { failOn: 'warning' }).rotate().toColourspace('srgb').removeAlpha();
  const { data, info } = await pipeline.raw().toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, channels: info.channels, data };
}

async function expectSame(file: Buffer): Promise<void> {
  const [image, wanted] = [await decodeJpeg(file, {}), await bySharp(file)];
  expect(image).toMatchObject({ width: wanted.width, height: wanted.height, channels: wanted.channels });
  expect(Buffer.compare(image!.data, wanted.data)).toBe(0);
}

const part = (width: number, height: number) => sharp(photo).extract({ left: 31, top: 17, width, height });

/** A JPEG with EXIF data that say how it is turned. */
function turned(file: Buffer, orientation: number): Buffer {
  const exif = Buffer.from(
    'ffe1002245786966000049492a00080000000100120103000100000000000000' + '00000000',
    'hex',
  );
  exif[28] = orientation;
  return Buffer.concat([file.subarray(0, 2), exif, file.subarray(2)]);
}

const SRGB = [0.43607, 0.22249, 0.01392, 0.38515, 0.71687, 0.09708, 0.14307, 0.06061, 0.7141];
const fixed = (value: number) => Math.round(value * 65536);
const int = (value: number) => [24, 16, 8, 0].map((shift) => (value >> shift) & 255);
/** A curve of `count` numbers. */
const curveOf = (curve: (x: number) => number, count: number) =>
  Buffer.concat([
    Buffer.from([...Buffer.from('curv\0\0\0\0'), ...int(count)]),
    ...Array.from({ length: count }, (_, i) => int(Math.round(65535 * curve(i / (count - 1)))).slice(2)).map(
      (bytes) => Buffer.from(bytes),
    ),
  ]);
const linear = (x: number) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
const PARAMETRIC = Buffer.from([
  ...Buffer.from('para\0\0\0\0\0\x03\0\0'),
  ...[2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045].flatMap((value) => int(fixed(value))),
]);

/** A colour profile of primaries, one curve, and any other tag. */
function profileOf(primaries: readonly number[], curve: Buffer, other = 'desc'): Buffer {
  const xyz = [0, 3, 6].map((at) =>
    Buffer.from([
      ...Buffer.from('XYZ \0\0\0\0'),
      ...primaries.slice(at, at + 3).flatMap((value) => int(fixed(value))),
    ]),
  );
  const parts = [...xyz, curve];
  const tags = ['rXYZ', 'gXYZ', 'bXYZ', 'rTRC', 'gTRC', 'bTRC', other];
  const offsets = parts.map(
    (_, i) => 132 + 12 * tags.length + parts.slice(0, i).reduce((sum, { length }) => sum + length, 0),
  );
  const table = tags.flatMap((tag, i) => {
    const part = Math.min(i, 3);
    return [...Buffer.from(tag), ...int(offsets[part]!), ...int(parts[part]!.length)];
  });
  const header = Buffer.alloc(128);
  header.writeUInt32BE(offsets[3]! + curve.length, 0);
  header.writeUInt32BE(0x0420_0000, 8);
  header.write('mntrRGB XYZ ', 12, 'latin1');
  header.write('acsp', 36, 'latin1');
  Buffer.from([0, 0, 0xf6, 0xd6, 0, 1, 0, 0, 0, 0, 0xd3, 0x2d]).copy(header, 68);
  return Buffer.concat([header, Buffer.from(int(tags.length)), Buffer.from(table), ...parts]);
}

function withProfile(file: Buffer, profile: Buffer): Buffer {
  const segment = Buffer.concat([Buffer.from('ICC_PROFILE\0\x01\x01', 'latin1'), profile]);
  const length = segment.length + 2;
  const head = Buffer.from([0xff, 0xe2, length >> 8, length & 255]);
  return Buffer.concat([file.subarray(0, 2), head, segment, file.subarray(2)]);
}

describe('native code decodes the pixels that sharp decodes', () => {
  test.each<JpegOptions>([
    { chromaSubsampling: '4:2:0', quality: 75 },
    { chromaSubsampling: '4:4:4', quality: 98 },
    { chromaSubsampling: '4:2:0', quality: 30, optimiseCoding: false },
    { chromaSubsampling: '4:2:0', quality: 100 },
  ])('%j', async (options) => {
    for (const [width, height] of [
      [7, 1],
      [33, 65],
      [280, 16],
      [257, 243],
    ] as const) {
      await expectSame(await part(width, height).jpeg(options).toBuffer());
    }
  });

  test.each([1, 2, 3, 4, 5, 6, 7, 8])('orientation %i', async (orientation) => {
    const file = turned(await part(53, 38).jpeg().toBuffer(), orientation);
    expect((await sharp(file).metadata()).orientation).toBe(orientation);
    await expectSame(file);
  });

  test('a profile of sRGB leaves pixels as they are', async () => {
    for (const curve of [curveOf(linear, 1024), PARAMETRIC]) {
      await expectSame(withProfile(await part(83, 60).jpeg().toBuffer(), profileOf(SRGB, curve)));
    }
    await expectSame(await part(83, 60).withIccProfile('srgb').jpeg().toBuffer());
  });

  test('grey, and with restarts', async () => {
    const grey = await part(61, 47).toColourspace('b-w').jpeg().toBuffer();
    const [image, wanted] = [await decodeJpeg(grey, {}), await bySharp(grey)];
    expect(image).toMatchObject({ width: 61, height: 47, channels: 1 });
    expect([...image!.data]).toEqual([...wanted.data].filter((_, i) => i % wanted.channels === 0));
    await expectSame(readFileSync(join(folder, 'restarts.jpg')));
  });
});

test.each<[string, (image: Sharp) => Sharp]>([
  ['a progressive file', (image) => image.jpeg({ progressive: true })],
  ['CMYK', (image) => image.toColourspace('cmyk').jpeg()],
  ['another profile', (image) => image.withIccProfile('p3').jpeg()],
])('%s is left to sharp', async (_, make) => {
  const file = await make(part(40, 30)).toBuffer();
  expect(await decodeJpeg(file, {})).toBeUndefined();
  expect(await decodeImage(file)).toMatchObject({ width: 40, height: 30 });
});

test('a profile of other colours, or a damaged one, is left to sharp', async () => {
  const file = await part(16, 16).jpeg().toBuffer();
  const isLeft = async (profile: Buffer) => (await decodeJpeg(withProfile(file, profile), {})) === undefined;
  const own = profileOf(SRGB, PARAMETRIC);
  expect(await isLeft(own)).toBe(false);
  const wide = profileOf(SRGB.with(3, 0.292), PARAMETRIC);
  expect(await isLeft(wide)).toBe(true);
  const [plain, converted] = [await decodeImage(file), await decodeImage(withProfile(file, wide))];
  expect(Buffer.compare(converted.data, plain.data)).not.toBe(0);
  expect(
    await isLeft(
      profileOf(
        SRGB,
        curveOf((x) => x ** 2.2, 256),
      ),
    ),
  ).toBe(true);
  expect(
    await isLeft(
      profileOf(
        SRGB,
        curveOf((x) => x, 1),
      ),
    ),
  ).toBe(true);
  expect(await isLeft(profileOf(SRGB, PARAMETRIC, 'A2B0'))).toBe(true);
  for (let end = 0; end < own.length; end++) expect(await isLeft(own.subarray(0, end))).toBe(true);
  const grey = await part(16, 16).toColourspace('b-w').jpeg().toBuffer();
  expect(await decodeJpeg(withProfile(grey, own), {})).toBeUndefined();
});

test('what is damaged, torn or too large is left to sharp', async () => {
  const file = await part(64, 64).jpeg().toBuffer();
  for (const end of [3, 100, file.length - 40, file.length - 1]) {
    expect(await decodeJpeg(file.subarray(0, end), {})).toBeUndefined();
  }
  expect(
    await decodeJpeg(Buffer.concat([file.subarray(0, -2), Buffer.from('extra'), file.subarray(-2)]), {}),
  ).toBeUndefined();
  expect(await decodeJpeg(file, { maxPixels: 4095 })).toBeUndefined();
});

test('a file with changed bytes gets the pixels that sharp gives it, or is left to sharp', async () => {
  let [state, decoded, others] = [1, 0, 0];
  const next = (below: number) => {
    state = (state * 48271) % 0x7fffffff;
    return state % below;
  };
  const files = await Promise.all([
    part(97, 40).jpeg({ quality: 60 }).toBuffer(),
    part(30, 51).jpeg({ chromaSubsampling: '4:4:4' }).toBuffer(),
    Promise.resolve(readFileSync(join(folder, 'restarts.jpg'))),
  ]);
  for (let round = 0; round < 400; round++) {
    const file = Buffer.from(files[round % files.length]!);
    for (let i = next(3); i >= 0; i--) file[next(file.length)] = next(256);
    const image = await decodeJpeg(file, {});
    // At a part of its size, the same is read.
    const resize = () => ({ width: 3, height: 2, kernel: 'linear' as const });
    const small = await decodeJpeg(file, { resize });
    if (!image) continue;
    expect(small).toBeDefined();
    decoded++;
    if (Buffer.compare(image.data, (await bySharp(file)).data) !== 0) others++;
  }
  expect(decoded).toBeGreaterThan(100);
  // Changed tables of quantisation lead to sums that libjpeg's 16 bits don't hold.
  expect(others).toBeLessThanOrEqual(2);
});

describe('at a part of its size', () => {
  const RAW = { do_rescale: false, do_normalize: false };
  test.each([
    [4.1, 2],
    [5.7, 4],
    [11.8, 8],
  ])('an image %f times as long as its target is decoded at 1/%i, near to PIL', async (times, by) => {
    const [width, height] = [Math.round(420 / times), Math.round(320 / times)];
    const preprocessor = new Preprocessor({ ...RAW, size: { width, height } }, { channels: 3 }, 'c');
    const image = await decodeImage(photo, { resize: preprocessor.resizing });
    expect(image).toMatchObject({ width: Math.ceil(420 / by), shrunk: { width: 420, height: 320, by } });
    const [{ data }, { data: wanted }] = [
      await preprocessor.apply(image, 'part'),
      await preprocessor.apply(await decodeImage(photo), 'whole'),
    ];
    expect(data).toHaveLength(wanted.length);
    const apart = data.reduce((sum, value, i) => sum + Math.abs(value - wanted[i]!), 0) / data.length;
    expect(apart).toBeGreaterThan(0);
    expect(apart).toBeLessThan(1.5);
  });

  test('filters that skip pixels, and turned images that cells do not divide, take the whole', async () => {
    const resize = () => ({ width: 35, height: 27, kernel: 'nearest' as const });
    expect(await decodeJpeg(photo, { resize })).toMatchObject({ width: 420, height: 320 });
    const odd = turned(await part(257, 250).jpeg().toBuffer(), 6);
    const small = () => ({ width: 20, height: 20, kernel: 'linear' as const });
    expect(await decodeJpeg(odd, { resize: small })).toBeUndefined();
  });

  test('weights of means add up to 1, and follow a slope', () => {
    const windows = [
      { first: 0, weights: [0.75, 0.25] },
      { first: 13, weights: [0.1, 0.2, 0.4, 0.2, 0.1] },
      { first: 27, weights: [0.5, 0.25, 0.25] },
    ];
    for (const [i, { first, weights }] of windowsOfMeans(windows, 30, 4).entries()) {
      expect(weights.reduce((sum, weight) => sum + weight)).toBeCloseTo(1, 9);
      const slope = weights.reduce((sum, weight, x) => sum + weight * (4 * (first + x) + 1.5), 0);
      const { first: from, weights: own } = windows[i]!;
      const wanted = own.reduce((sum, weight, x) => sum + weight * (from + x), 0);
      expect(Math.abs(slope - wanted)).toBeLessThan(i === 1 ? 0.5 : 1.6);
    }
    const { each, firsts } = atOnce(tapsOf({ from: 30, to: 5, kernel: 'linear', shrunkBy: 4 }));
    expect(firsts.every((first) => first >= 0 && first + each <= 8)).toBe(true);
  });
});
