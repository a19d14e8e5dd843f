import { join } from 'node:path';
import { findModel } from 'lib/data/model-files.js';
import { folderOf, removeFolders } from '../../helpers/files.js';

afterEach(removeFolders);

const shipped = join(__dirname, '../../../test/models/cifar10-resnet32-gates');

test.each([shipped, join(shipped, 'model.onnx')])('finds a shipped network by %s', async (path) => {
  const found = await findModel(path);
  expect(found.model).toBe(join(shipped, 'model.onnx'));
  expect(found.name).toBe('cifar10-resnet32-gates');
  expect(found.labels).toHaveLength(10);
  expect(found.labels![3]).toBe('cat');
  expect(found.preprocessor!.config).toMatchObject({ size: { height: 32, width: 32 } });
});

test('finds onnx/model.onnx with the configuration beside the folder', async () => {
  const root = folderOf({ 'onnx/model.onnx': '', 'config.json': '{"id2label": {"1": "b", "0": "a"}}' });
  for (const path of [root, join(root, 'onnx', 'model.onnx')]) {
    expect(await findModel(path)).toMatchObject({
      model: join(root, 'onnx', 'model.onnx'),
      labels: ['a', 'b'],
    });
  }
});

test('labels may be numbers, in any order', async () => {
  const root = folderOf({ 'model.onnx': '', 'config.json': '{"id2label": {"2": 7, "0": 5, "1": "b"}}' });
  expect((await findModel(root)).labels).toEqual(['5', 'b', '7']);
});

describe("timm's config.json", () => {
  const cfg = {
    input_size: [3, 224, 224],
    mean: [0.5, 0.4, 0.3],
    std: [0.2, 0.3, 0.4],
    ...{ crop_pct: 0.95, crop_mode: 'center', interpolation: 'bicubic', num_classes: 1000 },
  };
  const means = { image_mean: cfg.mean, image_std: cfg.std };
  const found = async (pretrained_cfg: object, more: Record<string, string> = {}) => {
    const root = folderOf({ 'model.onnx': '', 'config.json': JSON.stringify({ pretrained_cfg }), ...more });
    return (await findModel(root)).preprocessor?.config;
  };

  test.each<[string, object, object | undefined]>([
    // floor(224 / 0.95)
    ['a crop', {}, { size: { shortest_edge: 235 }, crop_size: { height: 224, width: 224 }, resample: 3 }],
    [
      'what it leaves out',
      { crop_pct: undefined, crop_mode: undefined, interpolation: undefined },
      { size: { shortest_edge: 256 }, crop_size: { height: 224, width: 224 }, resample: 3 },
    ],
    [
      'an oblong that is squashed',
      { input_size: [3, 100, 200], crop_mode: 'squash', crop_pct: 1, interpolation: 'bilinear' },
      { size: { height: 100, width: 200 }, crop_size: { height: 100, width: 200 }, resample: 2 },
    ],
    ['an oblong', { input_size: [3, 100, 200] }, undefined],
    ['a border', { crop_mode: 'border' }, undefined],
    ['no means', { mean: undefined }, undefined],
  ])('says how pixels are prepared: %s', async (_, changed, expected) => {
    expect(await found({ ...cfg, ...changed })).toEqual(expected && { ...expected, ...means });
  });

  test('stands behind preprocessor_config.json', async () => {
    expect(await found(cfg, { 'preprocessor_config.json': '{"size": 7}' })).toEqual({ size: 7 });
  });

  test('names itself where it is wrong', async () => {
    await expect(found({ ...cfg, std: 'x' })).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/config\.json.*pretrained_cfg\.std/),
    });
  });
});

test('finds the only model of a folder, and does without configuration', async () => {
  const root = folderOf({ 'net.onnx': '', 'weights.bin': '' });
  expect(await findModel(root)).toEqual({ model: join(root, 'net.onnx'), name: 'net.onnx', folder: root });
});

test.each<[string, Record<string, string>, string, RegExp]>([
  ['nothing there', {}, 'MODEL_NOT_FOUND', /holds no .onnx file/],
  ['several models', { 'a.onnx': '', 'b.onnx': '' }, 'MODEL_NOT_FOUND', /several models \(a.onnx, b.onnx\)/],
  [
    'JSON that is none',
    { 'model.onnx': '', 'config.json': '{' },
    'INVALID_DATA',
    /config.json: it is not valid JSON/,
  ],
  [
    'a field of the wrong type',
    { 'model.onnx': '', 'preprocessor_config.json': '{"do_resize": 1}' },
    'INVALID_DATA',
    /preprocessor_config.json.*do_resize/,
  ],
  [
    'labels with a gap',
    { 'model.onnx': '', 'config.json': '{"id2label": {"0": "a", "2": "c"}}' },
    'INVALID_DATA',
    /none for 1/,
  ],
])('says so: %s', async (_, files, code, message) => {
  await expect(findModel(folderOf(files))).rejects.toMatchObject({
    code,
    message: expect.stringMatching(message),
  });
});

test('says so when the path leads nowhere', async () => {
  await expect(findModel('/nowhere/net')).rejects.toMatchObject({
    code: 'MODEL_NOT_FOUND',
    message: expect.stringContaining('/nowhere/net'),
  });
});
