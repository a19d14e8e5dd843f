import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import type { ResidualSkipError } from 'lib/errors.js';
import { decodeModelProto, encodeModelProto, type ModelProto, type NodeProto } from 'lib/model/read/proto.js';
import { loadBinding } from 'lib/util/binding.js';
import { cases } from '../../helpers/cases.js';
import { Network } from '../../helpers/networks.js';

type Decode = (bytes: Uint8Array) => unknown;

const native = (loadBinding() as { exports: { decodeFields(...args: unknown[]): number } }).exports;

/** `decodeModelProto` without native code. */
let plain: Decode;
beforeAll(async () => {
  jest.doMock('lib/util/binding.js', () => ({ loadBinding: () => ({ problem: 'none', cause: undefined }) }));
  await jest.isolateModulesAsync(async () => {
    plain = (await import('lib/model/read/proto.js')).decodeModelProto;
  });
});

/** What is decoded, or the message of the error. */
function outcome(decode: Decode, bytes: Uint8Array): unknown {
  try {
    return decode(bytes);
  } catch (error) {
    const { code, message } = error as ResidualSkipError;
    return `${code}: ${message}`;
  }
}

/** JSON with what it lacks: comparing it is faster than comparing arrays. */
const textOf = (decoded: unknown) =>
  JSON.stringify(decoded, (_key, value: unknown) => {
    if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value);
    return ArrayBuffer.isView(value)
      ? `${value.constructor.name} ${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1')}`
      : value;
  });

function expectSame(bytes: Uint8Array): void {
  expect(textOf(outcome(decodeModelProto, bytes))).toBe(textOf(outcome(plain, bytes)));
}

const small = readFileSync(new Network('mnist-resnet20-gates').model);

test.each([
  'models/mnist-resnet20-gates/model.onnx',
  'models/cifar10-resnet14/model.int8.onnx',
  'test/fuzz/corpus/gate-around-a-broadcast-value.onnx',
])('%s is decoded as without native code', (path) => {
  const decodeFields = jest.spyOn(native, 'decodeFields');
  expectSame(readFileSync(path));
  expect(decodeFields).toHaveBeenCalled();
});

test('numbers of all kinds and sizes, texts that are not UTF-8, packed and other lists, and unknown fields', () => {
  const ints = [0, 1, -1, 127, 128, 2 ** 31, -(2 ** 31), Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER];
  const large = [{ low: -1, high: 0x7fffffff }, { low: 0, high: -0x80000000 }, 5] as const;
  const attribute = [
    { name: 'f', type: 1, f: -0 },
    { name: 'ints', type: 7, ints },
    { name: 'large', type: 7, ints: [...large] },
    { name: 'floats', type: 6, floats: [1.5, Number.NaN, Number.NEGATIVE_INFINITY] },
    { name: 't', type: 4, t: { dims: [2], dataType: 11, doubleData: [0.1, -0], int32Data: [-1, 300, 4] } },
    { name: 'text', type: 3, s: Uint8Array.of(0xff, 0xc3, 0x28, 0) },
  ];
  const node: NodeProto[] = [{ input: ['', 'é', '\u{1f600}'], output: ['y'], opType: 'Add', attribute }];
  const model: ModelProto = { irVersion: 8, graph: { name: 'g', node }, opsetImport: [{ version: 17 }] };
  const bytes = encodeModelProto(model);
  expectSame(bytes);
  const field = (...numbers: number[]) => Uint8Array.from(numbers);
  const packed = (number: number, ...values: number[]) => field(number * 8 + 2, values.length, ...values);
  const tensor = Buffer.concat([
    packed(1, 2, 3),
    packed(1, 4),
    packed(5, 1, 2),
    packed(5, 0x80, 1),
    packed(4, 0, 0, 128, 63),
  ]);
  const initializer = Buffer.concat([field(5 * 8 + 2, tensor.length), tensor]);
  const unknown = [
    packed(9, 1),
    field(9 * 8, 0x80, 1),
    field(9 * 8 + 1, 1, 2, 3, 4, 5, 6, 7, 8),
    field(9 * 8 + 5, 1, 2, 3, 4),
  ];
  for (const part of [
    initializer,
    Buffer.concat([initializer, ...unknown]),
    packed(5),
    field(5 * 8, 7),
    field(5 * 8 + 3, 1),
  ])
    expectSame(Buffer.concat([field(7 * 8 + 2, part.length), part]));
});

describe('lists of which a part is packed, and another is not', () => {
  /** A model whose only initialiser has these bytes. */
  function modelOf(tensor: Uint8Array): Uint8Array {
    const delimited = (number: number, bytes: Uint8Array) => {
      const { length } = bytes;
      const size =
        length < 128 ? [length] : [(length & 127) | 128, ((length >> 7) & 127) | 128, length >> 14];
      return Buffer.concat([Uint8Array.of(number * 8 + 2, ...size), bytes]);
    };
    return delimited(7, delimited(5, tensor));
  }
  const first = (bytes: Uint8Array) => decodeModelProto(bytes).graph!.initializer![0]!;

  test.each([
    ['dims', [10, 2, 2, 3, 8, 4], [2, 3, 4]],
    ['int32Data', [42, 2, 1, 2, 40, 3, 40, 4], [1, 2, 3, 4]],
    ['int32Data', [40, 3, 42, 2, 1, 2], [3, 1, 2]],
    ['floatData', [34, 4, 0, 0, 128, 63, 37, 0, 0, 0, 64], [1, 2]],
    ['doubleData', [82, 8, 0, 0, 0, 0, 0, 0, 240, 63, 81, 0, 0, 0, 0, 0, 0, 0, 64], [1, 2]],
    ['uint64Data', [90, 0], []],
    ['doubleData', [82, 0], []],
  ] as const)('%s of %p are %p', (name, bytes, numbers) => {
    const model = modelOf(Uint8Array.from(bytes));
    expect(Array.from(first(model)[name]!, Number)).toEqual(numbers);
    expectSame(model);
  });

  test.each([
    ['a double', [82, 4, 0, 0, 0, 0, 66, 0, 66, 0]],
    ['an integer', [42, 2, 1, 128, 64, 1]],
    ['a float of many', [34, 0x82, 0x80, 4, ...Array<number>(65_538).fill(0), 66, 0, 66, 0]],
    ['the last of all', [34, 0x82, 0x80, 4, ...Array<number>(65_538).fill(0)]],
  ])('%s that is longer than its list is no part of a model', (_, bytes) => {
    const model = modelOf(Uint8Array.from(bytes));
    expect(outcome(decodeModelProto, model)).toMatch(
      /^MODEL_CORRUPT: (a field is longer|the bytes end too early)/,
    );
    expectSame(model);
  });
});

test('a network of large messages and lists, and a message within many others', () => {
  const floatData = Array.from({ length: 40_000 }, (_, i) => i / 7);
  const nodes = Array.from({ length: 3000 }, (_, i) => ({
    input: [`${i}`],
    output: [`${i + 1}`],
    opType: 'Relu',
  }));
  const initializer = [{ dims: [200, 200], dataType: 1, floatData, name: 'w' }];
  expectSame(encodeModelProto({ graph: { node: nodes, initializer } }));
  let graph: ModelProto['graph'] = { name: 'inner' };
  for (let depth = 0; depth < 40; depth++)
    graph = { node: [{ opType: 'If', attribute: [{ name: 'then_branch', type: 5, g: graph }] }] };
  expectSame(encodeModelProto({ graph }));
});

test('damaged files have the errors, or the contents, that they have without native code', () => {
  const graph = small.subarray(0, 6000);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(graph.length - 1), fc.nat(255)), {
        minLength: 1,
        maxLength: 4,
      }),
      (edits) => {
        const bytes = Uint8Array.from(small);
        for (const [at, byte] of edits) bytes[at] = byte;
        expectSame(bytes);
      },
    ),
    { numRuns: cases(300) },
  );
});

test('ends of a file', () => {
  for (let length = 0; length < 3000; length += 7) expectSame(small.subarray(0, length));
});

test('wrong arguments of the addon are errors', () => {
  const table = Int32Array.of(2, 2);
  for (const args of [
    [table, [], 0, new Uint8Array(4), 0, 5, 64, {}],
    [table, [], 0, new Uint8Array(4), 3, 2, 64, {}],
    [[], [], 0, new Uint8Array(4), 0, 4, 64, {}],
    [table, [], 0, new Uint8Array(4), 0, 4, 64, undefined],
  ])
    expect(() => native.decodeFields(...args)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
});

test('a table that names what is not there has no fields', () => {
  const bytes = Uint8Array.of(8, 5, 16, 6);
  const field = (...table: number[]) => {
    const target = {};
    native.decodeFields(Int32Array.from(table), ['a'], 0, bytes, 0, 4, 64, target);
    return target;
  };
  expect(field(2, 10, -1, 0, 0, 0, 0, 2, 0, 0)).toEqual({ a: 5 });
  for (const table of [
    [],
    [2],
    [2, 11, -1, 0, 0, 0, 0, 2, 0, 0],
    [-8, 10, -1, 0, 0, 0, 0, 2, 0, 0],
    [9, 3, 0],
  ])
    expect(field(...table)).toEqual({});
  expect(field(2, 10, -1, 0, 0, 0, 1, 2, 0, 0)).toEqual({});
});
