import {
  bytesOf,
  datatypeOf,
  jsonOf,
  tensorFromBytes,
  tensorFromJson,
} from '../../server/src/inference/datatypes.js';

/** Bytes of one element, and numbers that a type just holds; of floats those that a narrower one would round. */
const CASES = [
  ['FP16', 2, [65504, 2 ** -24]],
  ['FP32', 4, [2 ** 127, 2 ** -149]],
  ['FP64', 8, [1e300, 1 + 2 ** -52]],
  ['INT8', 1, [-128, 127]],
  ['INT16', 2, [-(2 ** 15), 2 ** 15 - 1]],
  ['INT32', 4, [-(2 ** 31), 2 ** 31 - 1]],
  ['INT64', 8, [-(2 ** 53) + 1, 2 ** 53 - 1]],
  ['UINT8', 1, [0, 255]],
  ['UINT16', 2, [0, 2 ** 16 - 1]],
  ['UINT32', 4, [0, 2 ** 32 - 1]],
  ['UINT64', 8, [0, 2 ** 53 - 1]],
  ['BOOL', 1, [true, false]],
] as const;

test.each(CASES)(
  '%s takes %i bytes for each number, and arrives as it was sent',
  (datatype, width, values) => {
    const tensor = tensorFromJson('x', datatype, [1, 2], values);
    expect(datatypeOf(tensor.type)).toBe(datatype);
    expect(jsonOf(tensor)).toEqual(values);
    const bytes = bytesOf(tensor);
    expect(bytes).toHaveLength(2 * width);
    // Behind a header of any length.
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    const again = tensorFromBytes('x', datatype, [1, 2], shifted.subarray(1));
    expect([again.type, jsonOf(again)]).toEqual([tensor.type, values]);
  },
);

test.each([
  ['UINT16', [65536]],
  ['INT16', [1.5]],
  ['UINT64', [-1]],
  ['FP16', ['1']],
])('%s: numbers that it does not hold are refused', (datatype, values) => {
  expect(() => tensorFromJson('x', datatype, [1], values)).toThrow(/input 'x': data\[0\]: expected/);
});

test('other datatypes are refused with the list of those that are known', () => {
  expect(() => tensorFromJson('x', 'BF16', [1], [1])).toThrow(
    /BF16 is not supported; send FP16, FP32, FP64, INT8/,
  );
});

test('lists in lists have the shape that is sent with them', () => {
  const nested = [
    [1, 2],
    [3, 4],
    [5, 6],
  ];
  expect(jsonOf(tensorFromJson('x', 'FP32', [3, 2], nested))).toEqual([1, 2, 3, 4, 5, 6]);
  for (const [shape, data] of [
    [[2, 3], nested],
    [[3, 2, 1], nested],
    [[6], nested],
    [
      [2, 2],
      [[1, 2, 3], [4]],
    ],
    [[3], [[1], 2, 3]],
  ] as const) {
    expect(() => tensorFromJson('x', 'FP32', shape, data)).toThrow(
      /input 'x': .*; nest lists as the shape says|data\[0\]/,
    );
  }
});
