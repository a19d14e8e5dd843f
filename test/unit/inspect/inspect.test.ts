import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { inspect } from 'lib/inspect/inspect.js';
import { InferenceSession } from 'lib/session/session.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { GraphBuilder, modelBytes } from '../../helpers/onnx-builder.js';
import { textNetwork, WIDTH } from '../../helpers/text-network.js';

const MODEL = join(__dirname, '../../../demo');
const FILE = join(MODEL, 'model.onnx');
afterAll(removeFolders);

/** A network that leaves height and width open. */
function open(op: string): Uint8Array {
  const graph = new GraphBuilder();
  const x = graph.input('pixels', ['n', 3, 'height', 'width']);
  const body = graph.node(op, [x]);
  return modelBytes(graph.output(graph.node('Add', [body, x]), ['n', 3, 'height', 'width']));
}

test('a folder, a file, a URL and bytes are the same model', async () => {
  const report = await inspect(MODEL);
  expect(report).toMatchObject({
    model: FILE,
    unsupported: [],
    inputs: [{ name: 'input', dtype: 'float32' }],
  });
  expect(report.blocks.length).toBeGreaterThan(0);
  expect(report.multiplyAdds).toBeGreaterThan(0);
  expect(await inspect(FILE)).toEqual(report);
  expect(await inspect(pathToFileURL(FILE))).toEqual(report);
  const bytes = new Uint8Array(readFileSync(FILE));
  expect(await inspect(bytes)).toEqual({ ...report, model: null });
  expect(await inspect(new Blob([bytes]))).toEqual({ ...report, model: null });
});

test('shapes settle what the model leaves open', async () => {
  const bytes = open('Relu');
  const small = await inspect(bytes, { shapes: [1, 3, 8, 8] });
  expect(await inspect(bytes, { shapes: { pixels: [1, 3, 8, 8] } })).toEqual(small);
  await expect(inspect(bytes)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/leaves \[n, 3, height, width\] open; give its shape/),
  });
  await expect(inspect(bytes, { shapes: { pixel: [1, 3, 8, 8] } })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: "shape pixel=1x3x8x8: it fits no input; did you mean 'pixels'?",
  });
  await expect(inspect(bytes, { shapes: [1, 4, 8, 8] })).rejects.toMatchObject({ code: 'INVALID_SHAPE' });
  await expect(inspect(bytes, { shapes: [0] })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await expect(inspect(bytes, { shape: [1] } as object)).rejects.toMatchObject({
    message: expect.stringContaining("did you mean 'shapes'?"),
  });
});

test('the files beside a network of texts say how many tokens it takes', async () => {
  const texts = (files: Record<string, unknown>) => textNetwork('classes', { files });
  const folder = texts({
    'tokenizer_config.json': { model_max_length: 48 },
    'config.json': { max_position_embeddings: 64 },
  });
  const report = await inspect(folder);
  expect(report.shapes).toEqual({ input_ids: [1, 48], attention_mask: [1, 48] });
  const { multiplyAdds } = await inspect(folder, { shapes: { input_ids: [1, 24], attention_mask: [1, 24] } });
  // The classifier reads one row, whatever the length.
  expect(report.multiplyAdds! - WIDTH * 3).toBe(2 * (multiplyAdds! - WIDTH * 3));
  await expect(inspect(texts({}))).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('--shape input_ids=1x128'),
  });
});

test('operators that can not be run are listed and no error', async () => {
  const report = await inspect(open('Cosh'));
  expect(report).toMatchObject({ unsupported: ['Cosh'], blocks: [], multiplyAdds: null });
});

test("what the file's writer says is passed on, by a session too", async () => {
  const graph = new GraphBuilder();
  const bytes = modelBytes(graph.output(graph.node('Relu', [graph.input('x', [1, 2])]), [1, 2]), 17, {
    producerName: 'trainer',
    producerVersion: '1.2',
    domain: 'org.example',
    modelVersion: 7,
    docString: 'about the model',
    metadataProps: [
      { key: 'classes', value: 'cat,dog' },
      { key: '__proto__', value: 'odd' },
    ],
  });
  const { metadata } = await inspect(bytes);
  expect(metadata).toMatchObject({
    ...{ producer: 'trainer', producerVersion: '1.2', domain: 'org.example', version: 7 },
    description: 'about the model',
  });
  expect(Object.entries(metadata.custom)).toEqual([
    ['classes', 'cat,dog'],
    ['__proto__', 'odd'],
  ]);
  await using session = await InferenceSession.create(bytes, { backend: 'reference' });
  expect(session.model.metadata).toEqual(metadata);
  const { out } = await cli('inspect', join(folderOf({ 'model.onnx': bytes }), 'model.onnx'));
  for (const line of [
    /written by +trainer 1\.2/,
    /version +7/,
    /description +about the model/,
    /classes +cat,dog/,
  ]) {
    expect(out).toMatch(line);
  }
});

test('what is no model is refused', async () => {
  await expect(inspect(join(folderOf({}), 'none'))).rejects.toMatchObject({ code: 'MODEL_NOT_FOUND' });
  await expect(inspect(Uint8Array.of(1, 2, 3))).rejects.toMatchObject({ code: 'MODEL_CORRUPT' });
});
