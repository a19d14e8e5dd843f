import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadModel } from 'lib/model/load.js';
import { files } from 'lib/model/read/file.js';
import { loadPolicy } from 'lib/skip/load-policy.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { Network } from '../../helpers/networks.js';
import { float32s, GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

const network = new Network('cifar10-resnet32-gates');

let mockDefect: Error | undefined;
jest.mock('lib/model/read/functions.js', () => {
  const real = jest.requireActual('lib/model/read/functions.js');
  return {
    ...real,
    inlineFunctions: (...args: unknown[]) => {
      if (mockDefect) throw mockDefect;
      return real.inlineFunctions(...args);
    },
  };
});

afterEach(() => {
  jest.restoreAllMocks();
  mockDefect = undefined;
});
afterAll(removeFolders);

function reluGraph(): GraphBuilder {
  const graph = new GraphBuilder();
  graph.node('Add', [graph.input('x', ['batch', 3]), graph.constant(float32s(1, 2, 3))]);
  return graph.output('Add1_y', ['batch', 3]);
}

test('a path names the file or its folder; bytes are taken as they are', async () => {
  const bytes = readFileSync(network.model);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const copy = new ArrayBuffer(bytes.length);
  new Uint8Array(copy).set(bytes);
  for (const source of [network.model, network.folder, bytes, copy]) {
    const model = await loadModel(source);
    expect(model.sha256).toBe(sha256);
    expect(model.opset).toBe(17);
    expect(model.graph.nodes.length).toBeGreaterThan(100);
  }
});

test('inputs, outputs and parameters are described', async () => {
  const model = await loadModel(modelBytes(reluGraph()));
  expect(model.inputs).toEqual([
    { name: 'x', dtype: 'float32', shape: ['batch', 3], batched: true, boundByValue: false },
  ]);
  expect(model.outputs).toEqual([{ name: 'Add1_y', dtype: 'float32', shape: ['batch', 3], batched: true }]);
  expect(model.parameters).toBe(3);
  expect(model.batching).toBe('item');
});

test('the bytes of a caller are not kept', async () => {
  const bytes = modelBytes(reluGraph());
  const model = await loadModel(bytes);
  bytes.fill(0);
  expect([...model.graph.constants.values()].map(({ data }) => [...data])).toEqual([[1, 2, 3]]);
});

test('weights are the same from a path as from bytes, however they lie in the file', async () => {
  const weights = randomFloats(3000, 5);
  for (let shift = 0; shift < 4; shift++) {
    const graph = new GraphBuilder();
    graph.proto.name = 'g'.repeat(shift);
    const large = graph.constant(tensor(weights, [1000, 3]));
    const small = graph.constant(float32s(1, 2, 3));
    graph.node('Add', [graph.node('Add', [graph.input('x', [1000, 3]), large]), small]);
    const bytes = modelBytes(graph.output('Add3_y', [1000, 3]));
    const path = folderOf({ 'model.onnx': bytes });
    const constants = [...(await loadModel(path)).graph.constants.values()];
    expect(constants).toEqual([...(await loadModel(bytes)).graph.constants.values()]);
    expect(constants[0]!.data).toEqual(weights);
  }
});

test('a file of many chunks is read and hashed as a whole', async () => {
  const graph = reluGraph();
  graph.constant(tensor(randomFloats(3 << 20, 6)));
  const bytes = modelBytes(graph);
  const model = await loadModel(folderOf({ 'model.onnx': bytes }));
  expect(model.sha256).toBe(createHash('sha256').update(bytes).digest('hex'));
});

test('a path that does not exist is answered with the nearest name', async () => {
  const folder = folderOf({ 'resnet14-exits.onnx': new Uint8Array(1), 'mobilenet.onnx': new Uint8Array(1) });
  await expect(loadModel(join(folder, 'resnet14-gated.onnx'))).rejects.toMatchObject({
    code: 'MODEL_NOT_FOUND',
    message: expect.stringContaining(`did you mean '${join(folder, 'resnet14-exits.onnx')}'?`),
  });
});

test('what can not be read is MODEL_NOT_FOUND with the way out', async () => {
  const folder = folderOf({ file: '' });
  mkdirSync(join(folder, 'empty'));
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  for (const path of ['missing.onnx', 'empty', 'pipe', 'file/model.onnx']) {
    await expect(loadModel(join(folder, path))).rejects.toMatchObject({
      code: 'MODEL_NOT_FOUND',
      message: expect.stringMatching(/empty|missing|pipe|file.*folder with one/),
    });
  }
});

test.each(['EMFILE', 'EACCES', 'EIO'])(
  'a file that the machine does not read (%s) is READ_FAILED',
  async (code) => {
    const refusal = Object.assign(new Error(`${code}: refused`), { code, syscall: 'open' });
    const folder = folderOf({ 'model.onnx': modelBytes(reluGraph()) });
    for (const call of ['stat', 'open'] as const) {
      jest.spyOn(files, call).mockRejectedValueOnce(refusal);
      await expect(loadModel(folder)).rejects.toMatchObject({
        code: 'READ_FAILED',
        message: expect.stringMatching(new RegExp(`${folder}.*${code}: refused.*permissions`)),
      });
    }
    await expect(loadModel(folder)).resolves.toMatchObject({ parameters: 3 });
    const graph = reluGraph();
    graph.proto.initializer![0] = {
      ...{ name: 'constant0', dims: [3], dataType: 1, dataLocation: 1 },
      externalData: [{ key: 'location', value: 'weights' }],
    };
    const external = folderOf({ 'model.onnx': modelBytes(graph), weights: new Uint8Array(12) });
    jest.spyOn(jest.requireActual('node:fs/promises'), 'realpath').mockRejectedValueOnce(refusal);
    await expect(loadModel(external)).rejects.toMatchObject({
      code: 'READ_FAILED',
      message: expect.stringMatching(/^tensor 'constant0': 'weights' can't be read/),
    });
    jest.spyOn(jest.requireActual('node:fs'), 'readFileSync').mockImplementationOnce(() => {
      throw refusal;
    });
    expect(() => loadPolicy('p.json')).toThrow(expect.objectContaining({ code: 'READ_FAILED' }));
  },
);

test('a file that memory does not hold is OUT_OF_MEMORY', async () => {
  jest.spyOn(Buffer, 'allocUnsafeSlow').mockImplementationOnce(() => {
    throw new RangeError('Array buffer allocation failed');
  });
  await expect(loadModel(network.model)).rejects.toMatchObject({ code: 'OUT_OF_MEMORY' });
});

test('a defect in reading is INTERNAL and asks for a report, not for another file', async () => {
  for (const defect of [new TypeError('x is undefined'), new RangeError('Invalid array length')]) {
    mockDefect = defect;
    for (const source of [network.model, readFileSync(network.model)]) {
      await expect(loadModel(source)).rejects.toMatchObject({
        code: 'INTERNAL',
        message: expect.stringMatching(`${defect}.*please report it`),
        cause: defect,
      });
    }
  }
});

test('shapes of outputs that the file leaves out are inferred', async () => {
  const graph = new GraphBuilder();
  const flat = graph.node('Flatten', [graph.input('x', ['n', 3, 4])]);
  graph.node('Relu', [flat]);
  graph.output('Relu1_y');
  const model = await loadModel(modelBytes(graph));
  expect(model.outputs).toEqual([{ name: 'Relu1_y', dtype: 'float32', shape: ['n', 12], batched: true }]);
});

test('axes without a name are of any length', async () => {
  const graph = new GraphBuilder();
  graph.input('x');
  graph.proto.input[0]!.type!.tensorType!.shape = { dim: [{}, { dimValue: 3 }, {}, { dimValue: -1 }] };
  graph.node('Relu', ['x']);
  graph.output('Relu0_y');
  const model = await loadModel(modelBytes(graph));
  expect(model.inputs[0]!.shape).toEqual(['batch', 3, 'x.2', 'x.3']);
  expect(model.inputs[0]!.batched).toBe(true);
});
