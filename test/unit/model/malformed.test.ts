import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { ResidualSkipError } from 'lib/errors.js';
import { loadModel } from 'lib/model/load.js';
import { cases } from '../../helpers/cases.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { Network } from '../../helpers/networks.js';
import {
  type ElementTypeName,
  float,
  float32s,
  floats,
  GraphBuilder,
  int64s,
  modelBytes,
  tensor,
} from '../../helpers/onnx-builder.js';
import { withSession } from '../../helpers/sessions.js';

afterAll(removeFolders);

const network = new Network('cifar10-resnet32-gates');

/** A graph with a node of each kind that decoding treats in its own way. */
function smallModel(): Uint8Array {
  const graph = new GraphBuilder();
  const x = graph.input('x', ['batch', 2, 4, 4]);
  const weight = graph.constant(tensor(new Float32Array(2 * 2 * 9).fill(0.1), [2, 2, 3, 3]));
  const y = graph.node('Conv', [x, weight], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
  const [mean] = graph.nodes('ReduceMean', [y], { axes: [2, 3], keepdims: 0 });
  const shape = graph.node('Concat', [graph.node('Shape', [x]), graph.constant(int64s(1))], { axis: 0 });
  const target = graph.node('Slice', [shape, graph.constant(int64s(0)), graph.constant(int64s(2))]);
  graph.node('Reshape', [mean!, target]);
  graph.output('Reshape6_y', ['batch', 2]);
  graph.proto.node.at(-1)!.output = ['Reshape6_y'];
  return modelBytes(graph);
}

/** The error of a load, or undefined when it succeeds. Anything but a ResidualSkipError fails the test. */
async function loadError(bytes: Uint8Array): Promise<ResidualSkipError | undefined> {
  try {
    await loadModel(bytes);
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(ResidualSkipError);
    return error as ResidualSkipError;
  }
}

test('the small model itself loads', async () => {
  expect(await loadError(smallModel())).toBeUndefined();
});

test('a file cut off anywhere is MODEL_CORRUPT', async () => {
  const bytes = smallModel();
  for (let length = 0; length < bytes.length; length++) {
    const error = await loadError(bytes.subarray(0, length));
    expect([length, error?.code]).toEqual([length, 'MODEL_CORRUPT']);
  }
});

test.each<[string, string | number[], string]>([
  ['nothing', '', 'an empty file'],
  [
    'a pointer',
    'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n',
    'a Git LFS pointer',
  ],
  ['a page', '\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>', 'an HTML page'],
  ['an answer', '{"error":"Repository not found"}', 'a JSON file'],
  ['an image', [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13], 'a PNG image'],
  ['a checkpoint', [0x50, 0x4b, 3, 4, 0, 0, 8, 8, 0, 0], 'a ZIP archive, such as a checkpoint of PyTorch'],
  [
    'an old checkpoint',
    [0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc],
    'a Python pickle, such as a checkpoint of PyTorch',
  ],
  ['a photo', [0xff, 0xd8, 0xff, 0xe0, 0, 0x10], 'a JPEG image'],
  ['a language model', [0x47, 0x47, 0x55, 0x46, 3, 0, 0, 0], 'a GGUF model'],
  ['a packed file', [0x1f, 0x8b, 8, 0], 'a gzip archive'],
  ['weights', [8, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x22, 0x61, 0x22], 'a file of safetensors'],
  ['another runtime', [0x1c, 0, 0, 0, 0x54, 0x46, 0x4c, 0x33, 0x14, 0], 'a TensorFlow Lite model'],
])('%s instead of a model: the error names the file and what it seems to be', async (_, content, kind) => {
  const folder = folderOf({ 'model.onnx': Uint8Array.from(Buffer.from(content as string)) });
  const path = join(folder, 'model.onnx');
  for (const [source, subject] of [
    [path, `model '${path}'`],
    [folder, `model '${path}'`],
    [readFileSync(path), 'model'],
  ] as const) {
    const error = await loadModel(source).catch((reason) => reason);
    expect(error).toBeInstanceOf(ResidualSkipError);
    expect(error.code).toBe('MODEL_CORRUPT');
    expect(error.message).toContain(`${subject}: the bytes are not an ONNX model (it seems to be ${kind}); `);
  }
});

test('a network cut off is MODEL_CORRUPT', async () => {
  const bytes = readFileSync(network.model);
  for (const share of [0.01, 0.3, 0.5, 0.9, 0.9999]) {
    const error = await loadError(bytes.subarray(0, Math.floor(bytes.length * share)));
    expect(error?.code).toBe('MODEL_CORRUPT');
  }
});

/** The node `build` adds, on an input `x` of a type and shape. */
function oneNode(
  [type, shape]: [ElementTypeName, number[]],
  build: (graph: GraphBuilder) => string,
  opset = 17,
): Uint8Array {
  const graph = new GraphBuilder();
  graph.input('x', shape, type);
  graph.output(build(graph), undefined, type);
  return modelBytes(graph, opset);
}

const int32s = (...values: number[]) => tensor(Int32Array.from(values));
test.each<[string, Uint8Array]>([
  [
    'a convolution with an int32 bias',
    oneNode(['float32', [1, 1, 4, 4]], (graph) => {
      const weight = graph.constant(tensor(new Float32Array(4), [1, 1, 2, 2]));
      return graph.node('Conv', ['x', weight, graph.constant(int32s(1))]);
    }),
  ],
  [
    'a convolution of half a group',
    oneNode(['float32', [1, 1, 4, 4]], (graph) => {
      const weight = graph.constant(tensor(new Float32Array(8), [1, 2, 2, 2]));
      return graph.node('Conv', ['x', weight], { group: float(0.5) });
    }),
  ],
  [
    'a convolution with a stride of one and a half',
    oneNode(['float32', [1, 1, 4, 4]], (graph) => {
      const weight = graph.constant(tensor(new Float32Array(4), [1, 1, 2, 2]));
      return graph.node('Conv', ['x', weight], { strides: floats(1.5, 1.5) });
    }),
  ],
  [
    'a slice with float starts',
    oneNode(['float32', [4]], (graph) =>
      graph.node('Slice', ['x', graph.constant(float32s(0.5)), graph.constant(int64s(2))]),
    ),
  ],
  [
    'a slice with float starts in opset 9',
    oneNode(['float32', [4]], (graph) => graph.node('Slice', ['x'], { starts: floats(0.5), ends: [2] }), 9),
  ],
  [
    'a clip of int32 with int64 bounds',
    oneNode(['int32', [4]], (graph) =>
      graph.node('Clip', ['x', graph.constant(int64s(0)), graph.constant(int64s(2))]),
    ),
  ],
  [
    'a clip of int32 with two bounds',
    oneNode(['int32', [4]], (graph) => graph.node('Clip', ['x', graph.constant(int32s(0, 1))])),
  ],
  [
    'a range from an integer in steps of a half',
    oneNode(['int64', [4]], (graph) => {
      const half = graph.constant(tensor(Float32Array.of(0.5), []));
      const [first, last] = [0n, 2n].map((value) => graph.constant(tensor(BigInt64Array.of(value), [])));
      return graph.node('Add', ['x', graph.node('Range', [first!, last!, half])]);
    }),
  ],
])('%s has an error that blames the model', async (_, bytes) => {
  const create = withSession(bytes, { backend: 'reference' }, async () => {});
  await expect(create).rejects.toMatchObject({ name: 'ResidualSkipError' });
  await create.catch((error) => expect(['MODEL_INVALID', 'UNSUPPORTED_MODEL']).toContain(error.code));
});

test('random bytes are MODEL_CORRUPT', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), async (bytes) => {
      expect((await loadError(bytes))?.code).toBe('MODEL_CORRUPT');
    }),
    { numRuns: cases(2000), seed: 1 },
  );
});

test('a file with changed bytes loads or fails with an error of this package', async () => {
  const bytes = smallModel();
  const change = fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 0, max: 255 }));
  const codes = new Set<string | undefined>();
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 6 }), async (changes) => {
      const changed = new Uint8Array(bytes);
      for (const [at, value] of changes) changed[at] = value;
      codes.add((await loadError(changed))?.code);
    }),
    { numRuns: cases(4000), seed: 2 },
  );
  expect([...codes]).toEqual(expect.arrayContaining(['MODEL_CORRUPT', 'MODEL_INVALID', 'UNSUPPORTED_MODEL']));
});

test('empty and foreign bytes are MODEL_CORRUPT', async () => {
  for (const text of ['', 'GIF89a', '<html></html>', '{"format":"tflite"}', '\0'.repeat(100)]) {
    expect((await loadError(new TextEncoder().encode(text)))?.code).toBe('MODEL_CORRUPT');
  }
});

describe('tensors that contradict themselves', () => {
  const withTensor = (change: (constant: Record<string, unknown>) => void) => {
    const graph = new GraphBuilder();
    const y = graph.node('Add', [graph.input('x', [2]), graph.constant(float32s(1, 2), 'weight')]);
    graph.output(y, [2]);
    change(graph.proto.initializer[0] as unknown as Record<string, unknown>);
    return modelBytes(graph);
  };
  const dims = (...lengths: number[]) => withTensor((constant) => Object.assign(constant, { dims: lengths }));

  test.each([
    ['a shape that overflows', dims(2 ** 40, 2 ** 40), /'weight'.*overflows/],
    ['a shape that overflows beside a length of 0', dims(0, 2 ** 40), /'weight'.*overflows/],
    ['a negative length', dims(-2), /'weight'.*negative length/],
    ['too few bytes', dims(3), /'weight'.*8 bytes.*needs 12/],
    ['too many axes', dims(...new Array<number>(40).fill(1)), /'weight'.*40 axes/],
    [
      'too few elements',
      withTensor((constant) => {
        delete constant.rawData;
        constant.floatData = [1];
      }),
      /'weight'.*1 elements.*needs 2/,
    ],
    ['no data', withTensor((constant) => void delete constant.rawData), /'weight'.*0 elements.*needs 2/],
  ])('%s', async (_, bytes, message) => {
    const error = await loadError(bytes);
    expect(error?.code).toBe('MODEL_INVALID');
    expect(error?.message).toMatch(message);
  });
});

test('a small file can not ask for endless folding', async () => {
  const graph = new GraphBuilder();
  let big = graph.node('ConstantOfShape', [graph.constant(int64s(2 ** 25))]);
  for (let i = 0; i < 200; i++) big = graph.node('Neg', [big]);
  const y = graph.node('Add', [graph.input('x', [1]), big]);
  graph.output(y, [2 ** 25]);
  const before = process.memoryUsage().arrayBuffers;
  expect(await loadError(modelBytes(graph))).toBeUndefined();
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 31);
});

test.each([
  ['an endless range', ['Range', [0, Number.MAX_SAFE_INTEGER, 1]] as const],
  ['a range that never arrives', ['Range', [0, 10, 0]] as const],
  ['a range without a length', ['Range', [0, 0, 0]] as const],
  ['a range of 2^23 integers', ['Range', [0, 2 ** 23, 1]] as const],
])('%s is refused', async (_, [op, values]) => {
  const graph = new GraphBuilder();
  const operands = values.map((value) => graph.constant(tensor(BigInt64Array.of(BigInt(value)), [])));
  const y = graph.node(op, operands);
  graph.output(graph.node('Add', [graph.input('x', [1], 'int64'), y]), [1], 'int64');
  const error = await loadError(modelBytes(graph));
  expect(error?.code).toBe('MODEL_INVALID');
  expect(error?.message).toMatch(/Range.*has too many elements/);
});

test('subgraphs nested without end are MODEL_CORRUPT', async () => {
  /** A field with a message in it; numbers are those of graph, node, attribute and subgraph. */
  const field = (id: number, content: Buffer) => {
    const length: number[] = [];
    let rest = content.length;
    for (; rest > 127; rest >>= 7) length.push((rest & 127) | 128);
    length.push(rest);
    return Buffer.concat([Buffer.from([(id << 3) | 2, ...length]), content]);
  };
  let graph: Buffer = Buffer.alloc(0);
  for (let depth = 0; depth < 5000; depth++) graph = field(1, field(5, field(6, graph)));
  expect((await loadError(field(7, graph)))?.message).toMatch(/not an ONNX model.*depth/);
});
