import type { TensorProto } from 'lib/model/read/proto.js';
import { bfloat16ToNumber, decodeTensor } from 'lib/model/read/tensor-proto.js';
import { float16ToNumber } from 'lib/numeric/float16.js';
import { ELEMENT_TYPE, type ElementTypeName } from '../../helpers/onnx-builder.js';

function raw(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

const HALVES = Uint16Array.of(0x3c00, 0xc000, 0x7c00, 0x0001, 0x0400, 0x7bff);
const HALF_VALUES = [1, -2, Number.POSITIVE_INFINITY, 2 ** -24, 2 ** -14, 65504];
const BFLOATS = Uint16Array.of(0x3f80, 0xc000, 0xff80, 0x3dcd);
const BFLOAT_VALUES = [1, -2, Number.NEGATIVE_INFINITY, 0.10009765625];
const LARGE = 2n ** 62n + 1n;

test.each<[ElementTypeName, string, Partial<TensorProto>, string, readonly (number | bigint)[]]>([
  ['float32', 'raw', { rawData: raw(Float32Array.of(1.5, -2)) }, 'float32', [1.5, -2]],
  ['float32', 'floats', { floatData: [1.5, -2] }, 'float32', [1.5, -2]],
  ['float16', 'raw', { rawData: raw(HALVES) }, 'float32', HALF_VALUES],
  ['float16', 'int32s', { int32Data: [...HALVES] }, 'float32', HALF_VALUES],
  ['bfloat16', 'raw', { rawData: raw(BFLOATS) }, 'float32', BFLOAT_VALUES],
  ['bfloat16', 'int32s', { int32Data: [...BFLOATS] }, 'float32', BFLOAT_VALUES],
  ['double', 'raw', { rawData: raw(Float64Array.of(0.1, 2)) }, 'float32', [Math.fround(0.1), 2]],
  ['double', 'doubles', { doubleData: [0.1, 2] }, 'float32', [Math.fround(0.1), 2]],
  ['uint8', 'raw', { rawData: Uint8Array.of(0, 255) }, 'uint8', [0, 255]],
  ['uint8', 'int32s', { int32Data: [0, 255] }, 'uint8', [0, 255]],
  ['int32', 'raw', { rawData: raw(Int32Array.of(-1, 2 ** 31 - 1)) }, 'int32', [-1, 2 ** 31 - 1]],
  ['int32', 'int32s', { int32Data: [-1, 2 ** 31 - 1] }, 'int32', [-1, 2 ** 31 - 1]],
  ['int64', 'raw', { rawData: raw(BigInt64Array.of(-1n, LARGE)) }, 'int64', [-1n, LARGE]],
  [
    'int64',
    'int64s',
    {
      int64Data: [
        { low: -1, high: -1 },
        { low: 1, high: 2 ** 30 },
      ],
    },
    'int64',
    [-1n, LARGE],
  ],
  ['bool', 'raw', { rawData: Uint8Array.of(0, 1, 7) }, 'bool', [0, 1, 1]],
  ['bool', 'int32s', { int32Data: [0, 1, 7] }, 'bool', [0, 1, 1]],
])('%s from %s', (type, _, data, dtype, expected) => {
  const constant = decodeTensor({ dataType: ELEMENT_TYPE[type], dims: [expected.length], ...data });
  expect(constant.dtype).toBe(dtype);
  expect([...constant.data]).toEqual(expected);
});

test('half types: NaN, signed zero and every finite value keep their meaning', () => {
  expect(float16ToNumber(0x7e00)).toBeNaN();
  expect(bfloat16ToNumber(0x7fc0)).toBeNaN();
  expect(Object.is(float16ToNumber(0x8000), -0)).toBe(true);
  expect(Object.is(bfloat16ToNumber(0x8000), -0)).toBe(true);
  const values = Array.from({ length: 0x7c00 }, (_, bits) => float16ToNumber(bits));
  expect(values.filter((value, bits) => bits > 0 && !(value > values[bits - 1]!))).toEqual([]);
  expect(values.map((_, bits) => float16ToNumber(bits | 0x8000))).toEqual(values.map((value) => -value));
});

test('elements at an odd offset of the file are read', () => {
  const file = new Uint8Array(13);
  file.set(raw(Float32Array.of(1, 2, 3)), 1);
  const { data } = decodeTensor({ dataType: 1, dims: [3], rawData: file.subarray(1) });
  expect([...data]).toEqual([1, 2, 3]);
});

test('a scalar has no axes and one element; an axis may be empty', () => {
  expect(decodeTensor({ dataType: 1, floatData: [4] })).toEqual({
    dtype: 'float32',
    shape: [],
    data: Float32Array.of(4),
  });
  expect(decodeTensor({ dataType: 7, dims: [0] }).data).toHaveLength(0);
});
