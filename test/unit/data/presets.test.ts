/** Preprocessing by name, and the keys of a configuration that are almost right. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ImageClassifier } from 'lib/classify/image-classifier.js';
import type { RawImage } from 'lib/data/image.js';
import { findModel } from 'lib/data/model-files.js';
import { Preprocessor } from 'lib/data/preprocess.js';
import type { ImageInput, PreprocessorConfig } from 'lib/data/preprocessor-config.js';
import { PRESETS, type PreprocessorPreset } from 'lib/data/presets.js';
import { cli, cliJson } from '../../helpers/cli.js';
import { folderOf, png, removeFolders } from '../../helpers/files.js';
import { writeSeededModel } from '../../helpers/seeded-network.js';

afterAll(removeFolders);

/** Columns of one colour each: red grows from left to right, the others are 0 and 255. */
function columns(width: number, height: number): RawImage {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) data.set([i % width, 0, 255], 3 * i);
  return { width, height, channels: 3, data };
}

const SQUARE: ImageInput = { channels: 3, height: 224, width: 224 };
const prepare = (config: PreprocessorConfig, image: RawImage, input: ImageInput = SQUARE) =>
  new Preprocessor(config, input, 'config').apply(image, 'image');

describe('a preset', () => {
  // Green is 0 and blue 255 everywhere, so that no filter changes them: (0 - mean) / std and (1 - mean) / std, by the papers' figures.
  test.each<[PreprocessorPreset, number, number]>([
    ['imagenet', -0.456 / 0.224, (1 - 0.406) / 0.225],
    ['clip', -0.4578275 / 0.26130258, (1 - 0.40821073) / 0.27577711],
    ['symmetric', -1, 1],
    ['unit', 0, 1],
    ['bytes', 0, 255],
  ])('%s normalises as its networks expect', async (preset, green, blue) => {
    const { data, shape } = await prepare({ preset }, columns(256, 256));
    expect(shape).toEqual([1, 3, 224, 224]);
    const plane = 224 * 224;
    for (const i of [0, plane / 2, plane - 1]) {
      expect(data[plane + i]).toBeCloseTo(green, 5);
      expect(data[2 * plane + i]).toBeCloseTo(blue, 5);
    }
  });

  test('imagenet takes the middle of 256 pixels, clip the whole shorter side', async () => {
    const image = columns(256, 256);
    const reds = async (preset: PreprocessorPreset, mean: number, std: number) => {
      const { data } = await prepare({ preset }, image);
      return [data[0]!, data[223]!].map((value) => Math.round((value * std + mean) * 255));
    };
    expect(await reds('imagenet', 0.485, 0.229)).toEqual([16, 239]);
    const [left, right] = await reds('clip', 0.48145466, 0.26862954);
    expect(left).toBeLessThan(3);
    expect(right).toBeGreaterThan(252);
  });

  test('follows the size of the model, an oblong one too, or the size that is asked for', async () => {
    const shapeOf = async (config: PreprocessorConfig, input: ImageInput) =>
      (await prepare(config, columns(40, 30), input)).shape.slice(2);
    for (const preset of PRESETS) {
      expect(await shapeOf({ preset }, { channels: 3, height: 32, width: 32 })).toEqual([32, 32]);
      expect(await shapeOf({ preset }, { channels: 3, height: 16, width: 24 })).toEqual([16, 24]);
      expect(await shapeOf({ preset, size: 20 }, { channels: 3 })).toEqual([20, 20]);
    }
    expect(await shapeOf({ preset: 'imagenet' }, { channels: 3 })).toEqual([224, 224]);
    expect(await shapeOf({ preset: 'unit' }, { channels: 3 })).toEqual([30, 40]);
  });

  test('has fields that the caller changes', async () => {
    const { data } = await prepare({ preset: 'imagenet', image_mean: 0, image_std: 0.5 }, columns(256, 256));
    expect(data.at(-1)).toBeCloseTo(2, 5);
  });

  test('is an option of a classifier, and a flag of the commands with those that change it', async () => {
    const folder = folderOf({ 'blue.png': await png(40, 30, [0, 0, 255]) });
    writeSeededModel(folder);
    const image = join(folder, 'blue.png');
    const probability = async (preprocessor?: PreprocessorConfig | PreprocessorPreset) => {
      await using classifier = await ImageClassifier.from(folder, { preprocessor, threads: 1 });
      return (await classifier.classify(image)).probability;
    };
    const run = async (...flags: string[]) => {
      const [{ top }] = (await cliJson('run', folder, image, ...flags)) as [
        { top: [{ probability: number }] },
      ];
      return top[0].probability;
    };
    const imagenet = await probability('imagenet');
    expect(imagenet).not.toBe(await probability('unit'));
    expect(await run('--preprocessor', 'imagenet')).toBe(imagenet);
    const { mean, std } = { mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6] };
    const own = await probability({ preset: 'unit', image_mean: mean, image_std: std });
    expect(await run('--mean', mean.join(','), '--std', std.join(','))).toBe(own);
    const both = await probability({ preset: 'imagenet', image_std: 0.5 });
    expect(await run('--std', '0.5', '--preprocessor', 'imagenet')).toBe(both);
  });

  test.each<[string[], RegExp]>([
    [['--preprocessor', 'imagnet'], /imagenet, clip, symmetric, unit, bytes/],
    [['--mean', '0.5,'], /one for each channel/],
    [['--std', 'half'], /one for each channel/],
    [['--size', '0'], /above 0/],
  ])('is refused with %j', async (flags, message) => {
    const { code, err } = await cli('run', 'model', 'image.png', ...flags);
    expect({ code, err }).toEqual({ code: 2, err: expect.stringMatching(message) });
  });

  test('of another name is refused, with the names that there are', async () => {
    const folder = folderOf({});
    writeSeededModel(folder);
    await expect(
      ImageClassifier.from(folder, { preprocessor: 'imagnet' as 'imagenet' }),
    ).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(/options\.preprocessor\.preset: .*'imagenet'.*received 'imagnet'/),
    });
  });
});

describe('a guess', () => {
  test('names what it may cost and the ways out', async () => {
    const folder = folderOf({ 'blue.png': await png(40, 30, [0, 0, 255]) });
    writeSeededModel(folder);
    rmSync(join(folder, 'preprocessor_config.json'));
    const args = ['run', folder, join(folder, 'blue.png')];
    const { err } = await cli(...args);
    for (const part of [
      'half of its right answers',
      'preprocessor_config.json',
      '--preprocessor',
      '--mean',
    ]) {
      expect(err).toContain(part);
    }
    expect((await cli(...args, '--preprocessor', 'unit')).err).toBe('');
  });
});

describe('a misspelt key', () => {
  test.each([
    ['preprocessor_config.json', { image_means: [0.5] }, 'image_mean'],
    ['preprocessor_config.json', { mean: [0.5] }, 'image_mean'],
    ['preprocessor_config.json', { do_normalise: true }, 'do_normalize'],
    ['config.json', { id2lable: { 0: 'cat' } }, 'id2label'],
  ])('of %s, %j, is refused with the right one', async (file, json, meant) => {
    const folder = folderOf({});
    writeSeededModel(folder);
    writeFileSync(join(folder, file), JSON.stringify(json));
    const [key] = Object.keys(json);
    await expect(findModel(folder)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: `${join(folder, file)}: unknown key '${key}'; did you mean '${meant}'?`,
    });
  });

  test('of the option is refused, by the types too', async () => {
    const folder = folderOf({});
    writeSeededModel(folder);
    await expect(
      // @ts-expect-error the key is image_mean
      ImageClassifier.from(folder, { preprocessor: { image_means: [0.5] } }),
    ).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: "options.preprocessor: unknown key 'image_means'; did you mean 'image_mean'?",
    });
  });

  test("isn't another key of Hugging Face's files", async () => {
    // Keys of published preprocessor_config.json files of ViT, DETR, SegFormer, Donut, CLIP, Swin2SR, VideoMAE, LayoutLM and LLaVA.
    const preprocessor = [
      ...['do_convert_rgb', 'do_reduce_labels', 'do_thumbnail', 'do_align_long_axis', 'do_random_crop'],
      ...[
        'size_divisor',
        'pad_size',
        'max_size',
        'format',
        'processor_class',
        'data_format',
        'input_data_format',
      ],
      ...[
        'crop_margin',
        'do_crop_margin',
        'image_size',
        'patch_size',
        'num_frames',
        'do_pad_image',
        'apply_ocr',
      ],
      ...['reduce_labels', 'ignore_index', 'num_labels', 'min_pixels', 'max_pixels', 'image_grid_pinpoints'],
      ...[
        'image_token',
        'image_seq_length',
        'segmentation_maps',
        'size_factor',
        'disable_grouping',
        'device',
      ],
    ];
    const config = ['label2id', 'num_labels', 'architectures', 'model_type', 'image_size', 'id2color'];
    const json = (keys: readonly string[]) =>
      JSON.stringify(Object.fromEntries(keys.map((key) => [key, null])));
    const folder = folderOf({});
    writeSeededModel(folder);
    writeFileSync(join(folder, 'preprocessor_config.json'), json(preprocessor));
    writeFileSync(join(folder, 'config.json'), json(config));
    expect((await findModel(folder)).preprocessor).toBeDefined();
  });
});
