import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import type { RawImage } from 'lib/data/image.js';
import { Preprocessor } from 'lib/data/preprocess.js';
import {
  type PreprocessorConfig,
  parsePreprocessor,
  preprocessorConfigSchema,
} from 'lib/data/preprocessor-config.js';

const RGB = { channels: 3 };

/** An image whose pixels tell where they stand: channel c of pixel i is i * channels + c. */
function ramp(width: number, height: number, channels: 1 | 3 = 3): RawImage {
  const data = Uint8Array.from({ length: width * height * channels }, (_, i) => i);
  return { width, height, channels, data };
}

async function prepare(config: PreprocessorConfig, image: RawImage, input: { channels: number } = RGB) {
  const { data, shape } = await new Preprocessor(config, input, 'config').apply(image, 'image');
  return { values: [...data], shape };
}

const RAW = { do_rescale: false, do_normalize: false };
const CLIP = { image_processor_type: 'CLIPImageProcessor' };

describe('pixels', () => {
  test('are rescaled and normalised channel by channel, in NCHW', async () => {
    const file = join(__dirname, '../../../test/models/cifar10-resnet32/preprocessor_config.json');
    const config = preprocessorConfigSchema().parse(JSON.parse(readFileSync(file, 'utf8')));
    const image = {
      width: 32,
      height: 32,
      channels: 3,
      data: new Uint8Array(3072).map((_, i) => i % 251),
    } as const;
    const { data, shape } = await new Preprocessor(
      config,
      { channels: 3, height: 32, width: 32 },
      file,
    ).apply(image, 'i');
    expect(shape).toEqual([1, 3, 32, 32]);
    const mean = [0.4914, 0.4822, 0.4465];
    const std = [0.247, 0.2435, 0.2616];
    for (let c = 0; c < 3; c++) {
      for (let i = 0; i < 1024; i++) {
        expect(data[c * 1024 + i]).toBeCloseTo((image.data[i * 3 + c]! / 255 - mean[c]!) / std[c]!, 6);
      }
    }
  });

  test('are scaled to 0..1 by default, and left alone when told so', async () => {
    const image = { width: 1, height: 1, channels: 3, data: Uint8Array.of(0, 51, 255) } as const;
    expect((await prepare({}, image)).values).toEqual([0, 51 / 255, 1].map(Math.fround));
    expect((await prepare({ do_rescale: false }, image)).values).toEqual([0, 51, 255]);
    expect((await prepare({ rescale_factor: 1 / 127.5, image_mean: 1, image_std: 1 }, image)).values[2]).toBe(
      1,
    );
  });

  test('of a grey image fill every channel; those of a coloured one become grey for a grey model', async () => {
    expect((await prepare(RAW, ramp(2, 1, 1))).values).toEqual([0, 1, 0, 1, 0, 1]);
    const white = { width: 1, height: 1, channels: 3, data: Uint8Array.of(255, 255, 255) } as const;
    const grey = await prepare({ image_mean: [0.5], image_std: [0.25] }, white, { channels: 1 });
    expect(grey).toEqual({ values: [2], shape: [1, 1, 1, 1] });
  });

  test("are divided twice by EfficientNet's processor, unless its file says otherwise", async () => {
    const config = { do_normalize: true, image_mean: 0.5, image_std: [0.25, 0.5, 1] };
    const values = async (own: PreprocessorConfig) =>
      (await prepare({ ...config, ...own }, { width: 1, height: 1, channels: 1, data: Uint8Array.of(255) }))
        .values;
    const efficient = { image_processor_type: 'EfficientNetImageProcessor' };
    expect(await values({})).toEqual([2, 1, 0.5]);
    expect(await values(efficient)).toEqual([8, 2, 0.5]);
    expect(await values({ ...efficient, include_top: false })).toEqual([2, 1, 0.5]);
    expect(await values({ include_top: true })).toEqual([8, 2, 0.5]);
    const { scale, offset } = new Preprocessor({ ...config, ...efficient }, RGB, 'config').normalisation;
    expect(scale.map((each, c) => 255 * each + offset[c]!)).toEqual([8, 2, 0.5]);
  });

  test('are prepared the same if a file writes null where others leave a field out', async () => {
    const fields = [
      'do_resize',
      'size',
      'do_rescale',
      'rescale_factor',
      'do_normalize',
      'image_mean',
      'do_pad',
      'max_size',
    ];
    const nulls = Object.fromEntries(fields.map((field) => [field, null]));
    const config = parsePreprocessor({ ...nulls, do_flip_channel_order: null }, 'p.json', 'INVALID_DATA');
    expect(await prepare(config, ramp(2, 2))).toEqual(await prepare({}, ramp(2, 2)));
  });

  test('are BGR with do_flip_channel_order', async () => {
    expect((await prepare({ ...RAW, do_flip_channel_order: true }, ramp(1, 1))).values).toEqual([2, 1, 0]);
  });
});

describe('geometry', () => {
  test.each<[string, PreprocessorConfig, [number, number], [number, number]]>([
    ['a height and width', { size: { height: 4, width: 6 } }, [10, 10], [4, 6]],
    ['one number without crop: square', { size: 8 }, [10, 20], [8, 8]],
    [
      'one number with crop: shortest edge',
      { size: 8, crop_size: 4, do_center_crop: true },
      [10, 20],
      [4, 4],
    ],
    ['a shortest edge', { size: { shortest_edge: 8 } }, [10, 21], [8, 16]],
    [
      "LeViT's shortest edge is larger",
      { size: { shortest_edge: 7 }, image_processor_type: 'LevitImageProcessor' },
      [10, 20],
      [8, 16],
    ],
    ['a shortest edge, upright', { size: { shortest_edge: 8 } }, [21, 10], [16, 8]],
    [
      'a crop pads what is missing',
      { do_resize: false, crop_size: { height: 12, width: 5 } },
      [10, 20],
      [12, 5],
    ],
    ['crop_pct', { size: 14, crop_pct: 0.875 }, [20, 30], [14, 14]],
    [
      'the ConvNeXt type implies crop_pct',
      { size: { shortest_edge: 7 }, image_processor_type: 'ConvNextImageProcessor' },
      [20, 30],
      [7, 7],
    ],
    ['crop_pct from 384 on only resizes', { size: 384, crop_pct: 0.9 }, [20, 30], [384, 384]],
    ['do_resize off', { size: 8, do_resize: false }, [10, 20], [10, 20]],
  ])('%s', async (_, config, [height, width], [outHeight, outWidth]) => {
    expect((await prepare(config, ramp(width, height, 1))).shape).toEqual([1, 3, outHeight, outWidth]);
  });

  test('outputSize tells the size where it does not depend on the image', () => {
    const sizeOf = (config: PreprocessorConfig) => new Preprocessor(config, RGB, 'config').outputSize;
    expect(sizeOf({ size: { height: 4, width: 6 } })).toEqual({ height: 4, width: 6 });
    expect(sizeOf({ size: { shortest_edge: 9 }, crop_size: 5 })).toEqual({ height: 5, width: 5 });
    expect(sizeOf({ size: { shortest_edge: 9 } })).toBeUndefined();
    expect(sizeOf({})).toBeUndefined();
  });

  test.each([
    ['DeiTFeatureExtractor', 4],
    ['BeitImageProcessor', 4],
    ['CLIPImageProcessor', 8],
    ['ViTHybridImageProcessor', 8],
  ])('before a crop, a number is a square or a shortest edge by the processor: %s', (type, height) => {
    const config = { size: 4, crop_size: 4, do_center_crop: true, image_processor_type: type };
    const preprocessor = new Preprocessor(config, RGB, 'config');
    expect(preprocessor.resizing({ height: 20, width: 10 })).toMatchObject({ height, width: 4 });
  });

  // What torchvision 0.21 leaves of rows of so many pixels: CenterCrop(2), CenterCrop(3) and CenterCrop(4).
  test.each([
    [3, 2, [0, 1]],
    [5, 2, [2, 3]],
    [7, 2, [2, 3]],
    [9, 2, [4, 5]],
    [6, 3, [2, 3, 4]],
    [2, 3, [0, 1, null]],
    [1, 4, [null, 0, null, null]],
  ])(
    'without the name of a processor, an odd margin is rounded as in torchvision: %d to %d',
    async (from, to, at) => {
      const image = { ...ramp(from, 1, 1), data: ramp(from, 1, 1).data.map((value) => value + 1) };
      const config = { ...RAW, crop_size: { height: 1, width: to } };
      const { values } = await prepare(config, image, { channels: 1 });
      expect(values).toEqual(at.map((one) => (one === null ? 0 : one + 1)));
    },
  );

  test.each<[string, PreprocessorConfig, [number, number], [number, number]]>([
    [
      "a detector's number is a shortest edge with a limit",
      { size: 800, max_size: 1333, feature_extractor_type: 'DetrFeatureExtractor' },
      [480, 640],
      [800, 1066],
    ],
    [
      'which is 1333 where nothing is said',
      { size: 800, image_processor_type: 'YolosImageProcessor' },
      [100, 1000],
      [133, 1333],
    ],
    ['a limit by itself makes one of it', { size: 8, max_size: 12 }, [10, 20], [6, 12]],
    [
      'half a pixel is rounded to the even one, as in Python',
      { size: { shortest_edge: 800, longest_edge: 1333 } },
      [1000, 2000],
      [666, 1333],
    ],
  ])('%s', (_, config, [height, width], [outHeight, outWidth]) => {
    const { resizing } = new Preprocessor(config, RGB, 'config');
    expect(resizing({ height, width })).toMatchObject({ height: outHeight, width: outWidth });
  });

  test('a crop without a size takes what the network takes', () => {
    const levit = { size: 224, do_center_crop: true, image_processor_type: 'LevitFeatureExtractor' };
    const preprocessor = new Preprocessor(levit, { ...RGB, height: 224, width: 224 }, 'config');
    expect(preprocessor.outputSize).toEqual({ height: 224, width: 224 });
    expect(preprocessor.resizing({ height: 512, width: 300 })).toMatchObject({ height: 436, width: 256 });
  });

  test.each(['ImageGPTImageProcessor', 'PerceiverFeatureExtractor'])('%s is refused', (type) => {
    const config = { size: 4, image_processor_type: type };
    expect(() => new Preprocessor(config, RGB, 'p.json')).toThrow(
      /^p\.json: .*isn't supported; give tensors/,
    );
  });

  test('the middle of the image is cut out; black surrounds one that is too small', async () => {
    const crop = (height: number, width: number) => ({ ...RAW, ...CLIP, crop_size: { height, width } });
    expect((await prepare(crop(2, 2), ramp(4, 4, 1))).values.slice(0, 4)).toEqual([5, 6, 9, 10]);
    expect((await prepare(crop(1, 4), ramp(2, 3, 1))).values.slice(0, 4)).toEqual([0, 2, 3, 0]);
  });

  test('cropping equals padding with black and cutting, whatever the sizes', async () => {
    const length = fc.integer({ min: 1, max: 6 });
    await fc.assert(
      fc.asyncProperty(length, length, length, length, async (width, height, cropWidth, cropHeight) => {
        const image = { ...ramp(width, height, 1), data: ramp(width, height, 1).data.map((v) => v + 1) };
        const config = { ...RAW, ...CLIP, crop_size: { height: cropHeight, width: cropWidth } };
        const { values } = await prepare(config, image, { channels: 1 });
        // Every pixel that both share keeps its distance from the centre; offsets round up.
        const expected = Array.from({ length: cropHeight * cropWidth }, (_, i) => {
          const y = Math.floor(i / cropWidth) + Math.floor((height - cropHeight) / 2);
          const x = (i % cropWidth) + Math.floor((width - cropWidth) / 2);
          const inside = y >= 0 && y < height && x >= 0 && x < width;
          return inside ? image.data[y * width + x]! : 0;
        });
        expect(values).toEqual(expected);
      }),
    );
  });
});

describe('what does not fit', () => {
  test.each<[string, PreprocessorConfig, { channels: number }, RegExp]>([
    ['four channels', {}, { channels: 4 }, /the model's input has 4 channels/],
    ['a resize without size', { do_resize: true }, RGB, /do_resize is set without a size/],
    ['a crop without size', { do_center_crop: true }, RGB, /do_center_crop is set without a crop_size/],
    ['normalising without mean', { do_normalize: true, image_std: 1 }, RGB, /without image_mean/],
    [
      'three means for a grey model',
      { image_mean: [1, 2, 3], image_std: 1 },
      { channels: 1 },
      /image_mean has 3 values/,
    ],
    ['a deviation of zero', { image_mean: 0, image_std: [1, 0, 1] }, RGB, /image_std has a zero/],
    ['an unknown filter', { size: 8, resample: 6 }, RGB, /resample 6 is not one of/],
    [
      'sides that are multiples, of any number',
      { size: { shortest_edge: 8, longest_edge: 12 }, size_divisor: 32 },
      RGB,
      /multiples of 32 aren't supported/,
    ],
    ['crop_pct with a height', { size: { height: 8, width: 8 }, crop_pct: 0.9 }, RGB, /crop_pct needs/],
  ])('%s is INVALID_DATA', (_, config, input, message) => {
    expect(() => new Preprocessor(config, input, 'p.json')).toThrow(message);
    expect(() => new Preprocessor(config, input, 'p.json')).toThrow(
      expect.objectContaining({ code: 'INVALID_DATA', message: expect.stringMatching(/^p\.json: /) }),
    );
  });

  test('a result of another size than the model takes is INVALID_SHAPE, naming the image', async () => {
    const preprocessor = new Preprocessor({ size: 8 }, { channels: 3, height: 9, width: 9 }, 'p.json');
    await expect(preprocessor.apply(ramp(2, 2), 'cat.jpg')).rejects.toMatchObject({
      code: 'INVALID_SHAPE',
      message: expect.stringMatching(/cat\.jpg: it becomes 8x8 .* p\.json, but the model takes 9x9/),
    });
  });

  test('a strip that would be resized beyond all bounds is refused', async () => {
    const preprocessor = new Preprocessor({ size: { shortest_edge: 4000 } }, RGB, 'p.json');
    await expect(preprocessor.apply(ramp(200, 1, 1), 'strip.png')).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringContaining('strip.png'),
    });
  });

  test.each([
    { size: -1 },
    { size: { longest_edge: 8 } },
    { pad_size: 8 },
    { image_mean: 'x' },
    { crop_pct: 2 },
    { keep_aspect_ratio: true },
  ])('the schema refuses %j', (config) => {
    expect(preprocessorConfigSchema().safeParse(config).success).toBe(false);
  });
});
