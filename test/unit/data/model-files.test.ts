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
