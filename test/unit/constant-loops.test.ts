import fc from 'fast-check';
import * as loops from 'lib/tensor/constant-loops.js';
import { extremesOf, uniformElement } from 'lib/tensor/extremes.js';
import type { TensorData } from 'lib/tensor/tensor.js';
import { loadBinding } from 'lib/util/binding.js';
import { cases } from '../helpers/cases.js';

/** The same without native code. */
let plain: typeof loops;

beforeAll(async () => {
  jest.doMock('lib/util/binding.js', () => ({ loadBinding: () => ({ problem: 'none', cause: undefined }) }));
  await jest.isolateModulesAsync(async () => {
    plain = await import('lib/tensor/constant-loops.js');
  });
});

const bits = (array: ArrayBufferView) =>
  Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString('hex');
const special = [-0, 0, 0.5, 1.5, 2.5, -0.5, -1.5, 1e-45, 3e38, Number.NaN, Number.POSITIVE_INFINITY];
const floats = fc.oneof(
  fc.float32Array({ maxLength: 40 }),
  fc.array(fc.constantFrom(...special), { maxLength: 12 }).map((list) => Float32Array.from(list)),
);
const factor = fc.float({ min: Math.fround(1e-6), max: 1000, noNaN: true });

test('native code scales numbers to the same bits', () => {
  fc.assert(
    fc.property(floats, factor, fc.boolean(), (numbers, by, divided) => {
      expect(bits(loops.scaled(numbers, by, divided))).toBe(bits(plain.scaled(numbers, by, divided)));
    }),
    { numRuns: cases(500) },
  );
});

test('native code makes the same bytes of numbers, and numbers of bytes', () => {
  fc.assert(
    fc.property(floats, factor, fc.boolean(), fc.nat(255), (numbers, step, signed, offset) => {
      const least = signed ? -128 : 0;
      const [found, expected] = [loops, plain].map(({ toBytes, fromBytes }) => {
        const bytes = signed ? new Int8Array(numbers.length) : new Uint8Array(numbers.length);
        toBytes(numbers, step, least + offset, least + 3, least + 250, bytes);
        return `${bits(bytes)} ${bits(fromBytes(bytes, least + offset, step / 3))}`;
      });
      expect(found).toBe(expected);
    }),
    { numRuns: cases(500) },
  );
});

test('native code makes the same integers of numbers in other units', () => {
  const halves = [-2.5, -0.5, -0, 0.49999999999999994, 0.5, 1.5, 1e300, Number.NaN, Number.NEGATIVE_INFINITY];
  const number = fc.oneof(fc.double(), fc.constantFrom(...halves));
  const given = fc.tuple(fc.array(number, { minLength: 1, maxLength: 20 }), factor, factor, fc.nat(2));
  fc.assert(
    fc.property(given, fc.boolean(), ([list, own, unit, form], each) => {
      const lists = [undefined, Float32Array.of(own), Float32Array.of(unit * (1 + 1e-7))];
      const units = each ? new Float32Array(list.length).fill(unit) : Float32Array.of(unit);
      const numbers = Float64Array.from(list);
      const [found, expected] = [loops, plain].map(({ inUnits }) =>
        inUnits(numbers, lists[form], units, 2 ** 30),
      );
      expect(found).toEqual(expected);
    }),
    { numRuns: cases(500) },
  );
});

test('native code finds the same extremes', () => {
  const arrays = [
    floats,
    fc.int8Array(),
    fc.uint8Array(),
    fc.int32Array(),
    fc.uint16Array(),
    fc.bigInt64Array(),
  ];
  fc.assert(
    fc.property(fc.oneof(...(arrays as fc.Arbitrary<TensorData>[])), (data) => {
      const [found, expected] = [loops.extremesAmong(data), plain.extremesAmong(data)];
      expect([found.low, found.high]).toEqual([expected.low, expected.high]);
    }),
    { numRuns: cases(500) },
  );
});

test('an element that all equal', () => {
  expect(uniformElement(Float32Array.of(-0, 0))).toBe(-0);
  expect(uniformElement(Float32Array.of(2, 2, 2))).toBe(2);
  expect(uniformElement(BigInt64Array.of(3n, 3n))).toBe(3);
  expect(uniformElement(Int8Array.of(1, 2))).toBeUndefined();
  expect(uniformElement(Float32Array.of(Number.NaN, Number.NaN))).toBeUndefined();
  expect(uniformElement(new Float32Array(0))).toBeUndefined();
  expect(extremesOf(Float32Array.of(7))).toEqual({ low: 7, high: 7 });
});

test('wrong arguments of the addon are errors', () => {
  const { exports: native } = loadBinding() as { exports: Record<string, (...args: unknown[]) => void> };
  const [two, three] = [new Float32Array(2), new Float32Array(3)];
  const calls: [name: string, ...args: unknown[]][] = [
    ['extremes', two, new Float64Array(1)],
    ['extremes', [], new Float64Array(2)],
    ['scale', two, 1, false, three],
    ['toBytes', two, 1, 0, 0, 255, new Uint8Array(3)],
    ['toBytes', two, 1, 0, 0, 255, new Uint16Array(2)],
    ['toBytes', two, 1, 0, 0, 256, new Uint8Array(2)],
    ['toBytes', two, 1, Number.NaN, 0, 255, new Uint8Array(2)],
    ['fromBytes', new Uint8Array(2), 0, 1, three],
  ];
  for (const [name, ...args] of calls)
    expect(() => native[name]!(...args)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
});
