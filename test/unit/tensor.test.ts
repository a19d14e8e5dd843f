import { inspect } from 'node:util';
import { ResidualSkipError } from 'lib/errors.js';
import { isTensorLike, Tensor, type TensorConstructor, toTensor } from 'lib/tensor/tensor.js';
import * as ort from 'onnxruntime-common';

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof ResidualSkipError) return error.code;
    throw error;
  }
  return 'no error';
}

function transferred(): Uint8ClampedArray {
  const array = new Uint8ClampedArray(4);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
}

describe('Tensor', () => {
  it('keeps a typed array without a copy', () => {
    const data = new Float32Array([1, 2, 3, 4, 5, 6]);
    const tensor = new Tensor('float32', data, [2, 3]);
    expect(tensor.data).toBe(data);
    expect(tensor.dims).toEqual([2, 3]);
    expect(tensor.size).toBe(6);
    expect(tensor.type).toBe('float32');
    expect(tensor.location).toBe('cpu');
    expect(tensor).toBeInstanceOf(Tensor);
  });

  it.each([
    ['float32', [0.5, Number.NaN], new Float32Array([0.5, Number.NaN])],
    ['uint8', [0, 255], new Uint8Array([0, 255])],
    ['uint8', new Uint8ClampedArray([7, 8]), new Uint8Array([7, 8])],
    ['int32', [-(2 ** 31), 2 ** 31 - 1], new Int32Array([-(2 ** 31), 2 ** 31 - 1])],
    ['int64', [1n, -(2n ** 63n)], new BigInt64Array([1n, -(2n ** 63n)])],
    ['int64', [1, -2], new BigInt64Array([1n, -2n])],
    ['bool', [true, false], new Uint8Array([1, 0])],
    ['int16', [-(2 ** 15)], new Int16Array([-(2 ** 15)])],
    ['uint16', [2 ** 16 - 1], new Uint16Array([2 ** 16 - 1])],
    ['uint32', [2 ** 32 - 1], new Uint32Array([2 ** 32 - 1])],
    ['uint64', [2n ** 64n - 1n, 7], new BigUint64Array([2n ** 64n - 1n, 7n])],
    ['float64', [1e300], new Float64Array([1e300])],
    ['float16', [1, -2, 1e6], new Uint16Array([0x3c00, 0xc000, 0x7c00])],
  ] as const)('converts data of %s', (type, source, expected) => {
    expect(new Tensor(type, source as never).data).toEqual(expected);
  });

  it.each([
    [new Float32Array(2), 'float32'],
    [new Uint8Array(2), 'uint8'],
    [new Uint8ClampedArray(2), 'uint8'],
    [new Int32Array(2), 'int32'],
    [new BigInt64Array(2), 'int64'],
    [[true, false], 'bool'],
    [new Uint16Array(2), 'uint16'],
    [new BigUint64Array(2), 'uint64'],
    [new Float64Array(2), 'float64'],
  ])('tells the type from the data (%#)', (data, type) => {
    const tensor = new (Tensor as unknown as new (data: unknown) => Tensor)(data);
    expect(tensor.type).toBe(type);
    expect(tensor.dims).toEqual([2]);
  });

  it('has scalars and empty tensors', () => {
    expect(new Tensor('float32', [3], []).size).toBe(1);
    expect(new Tensor('float32', [], [0, 3]).size).toBe(0);
  });

  it('reshapes over the same elements', () => {
    const tensor = new Tensor('int32', [1, 2, 3, 4]);
    const square = tensor.reshape([2, 2]);
    expect(square.data).toBe(tensor.data);
    expect(square.dims).toEqual([2, 2]);
    expect(codeOf(() => tensor.reshape([3]))).toBe('INVALID_SHAPE');
  });

  it('does not share its dims with the caller', () => {
    const dims = [2, 2];
    const tensor = new Tensor('float32', new Float32Array(4), dims);
    dims[0] = 9;
    expect(tensor.dims).toEqual([2, 2]);
  });

  it('keeps its data in a structured clone, as an object that is taken for a tensor', () => {
    const tensor = new Tensor('float32', [1, 2, 3, 4], [2, 2]);
    const clone = structuredClone(tensor) as unknown;
    expect(clone).toEqual({ type: 'float32', data: tensor.data, dims: [2, 2], size: 4, location: 'cpu' });
    expect(toTensor('clone', clone)).toEqual(tensor);
    expect(toTensor('clone', clone).reshape([4]).dims).toEqual([4]);
  });

  it('shows its data in console.log', () => {
    const shown = inspect(new Tensor('int32', [17, 23]));
    expect(shown).toMatch(/^Tensor \{/);
    expect(shown).toContain('17, 23');
  });

  it('is refused when its data was replaced by an array of another type', () => {
    const tensor = new Tensor('float32', [1, 2]);
    Object.assign(tensor, { data: new Int32Array(2) });
    expect(codeOf(() => toTensor('x', tensor))).toBe('INVALID_ARGUMENT');
  });

  it.each([
    ['a type without prototype', { type: Object.create(null), data: new Float32Array(1), dims: [1] }],
    ['a type that is a symbol', { type: Symbol('float32'), data: new Float32Array(1), dims: [1] }],
    ['a transferred buffer', { type: 'uint8', data: transferred(), dims: [1] }],
  ])('refuses %s', (_, value) => {
    expect(codeOf(() => toTensor('x', value))).toMatch(/^INVALID_/);
  });

  it('lets go of the data when disposed', async () => {
    const tensor = new Tensor('float32', [1]);
    expect(await tensor.getData()).toEqual(new Float32Array([1]));
    tensor.dispose();
    expect(codeOf(() => tensor.data)).toBe('INVALID_ARGUMENT');
  });

  const Any = Tensor as unknown as new (...args: unknown[]) => Tensor;
  it.each([
    ['INVALID_SHAPE', ['float32', new Float32Array(3), [2, 2]]],
    ['INVALID_SHAPE', ['float32', new Float32Array(1), [-1]]],
    ['INVALID_SHAPE', ['float32', new Float32Array(1), [1.5]]],
    ['INVALID_SHAPE', ['float32', new Float32Array(1), [Number.NaN]]],
    ['INVALID_SHAPE', ['float32', new Float32Array(1), ['1']]],
    ['INVALID_SHAPE', ['float32', new Float32Array(1), 1]],
    ['INVALID_SHAPE', ['float32', new Float32Array(1), [2 ** 30, 2 ** 30]]],
    ['INVALID_DTYPE', ['string', ['a']]],
    ['INVALID_DTYPE', ['constructor', [1]]],
    ['INVALID_DTYPE', ['float32', new Float64Array(1)]],
    ['INVALID_DTYPE', ['int64', new Float32Array(1)]],
    ['INVALID_DTYPE', ['float32', 'text']],
    ['INVALID_DTYPE', ['float32', null]],
    ['INVALID_DTYPE', ['float32']],
    ['INVALID_DTYPE', [[1, 2, 3]]],
    ['INVALID_DTYPE', [null]],
    ['INVALID_DTYPE', []],
    ['INVALID_DTYPE', [new DataView(new ArrayBuffer(4))]],
    ['INVALID_ARGUMENT', ['uint8', [256]]],
    ['INVALID_ARGUMENT', ['uint8', [-1]]],
    ['INVALID_ARGUMENT', ['int32', [1.5]]],
    ['INVALID_ARGUMENT', ['int32', [2 ** 31]]],
    ['INVALID_ARGUMENT', ['int64', [2n ** 63n]]],
    ['INVALID_ARGUMENT', ['int64', [0.5]]],
    ['INVALID_ARGUMENT', ['uint64', [-1n]]],
    ['INVALID_ARGUMENT', ['uint16', [2 ** 16]]],
    ['INVALID_ARGUMENT', ['float16', ['1']]],
    ['INVALID_ARGUMENT', ['bool', [1]]],
    ['INVALID_ARGUMENT', ['float32', ['1']]],
  ])('refuses with %s (%#)', (code, args) => {
    expect(codeOf(() => new Any(...args))).toBe(code);
  });

  it('says what it expected', () => {
    expect(() => new Tensor('float32', new Float32Array(3), [2, 2])).toThrow(
      'dims: [2,2] need 4 elements, but data has 3',
    );
    expect(() => new Any('float32', new Float64Array(1))).toThrow(
      "data: expected Float32Array or an array for type 'float32', received Float64Array",
    );
  });
});

describe('toTensor', () => {
  it('takes a tensor of onnxruntime-common', () => {
    const other = new ort.Tensor('float32', new Float32Array([1, 2]), [1, 2]);
    const tensor = toTensor("input 'x'", other);
    expect(tensor).toBeInstanceOf(Tensor as TensorConstructor);
    expect(tensor.data).toBe(other.data);
    expect(tensor.dims).toEqual([1, 2]);
  });

  it('returns a Tensor as it is', () => {
    const tensor = new Tensor('float32', [1]);
    expect(toTensor('x', tensor)).toBe(tensor);
  });

  it('names what it was given', () => {
    const text = new ort.Tensor('string', ['a']);
    expect(() => toTensor("input 'x'", text)).toThrow("input 'x': type 'string' is not supported");
    expect(() => toTensor("input 'x'", [1])).toThrow("input 'x': expected a Tensor, received Array");
    const remote = { type: 'float32', location: 'gpu-buffer', data: undefined, dims: [1] };
    expect(() => toTensor("input 'x'", remote)).toThrow("the tensor is at 'gpu-buffer'");
  });

  it('refuses a tensor whose buffer has gone to another thread', () => {
    const tensor = new Tensor('float32', new Float32Array(4));
    structuredClone(tensor.data, { transfer: [tensor.data.buffer as ArrayBuffer] });
    expect(codeOf(() => toTensor('x', tensor))).toBe('INVALID_ARGUMENT');
  });

  it('knows what is shaped like a tensor', () => {
    expect(isTensorLike(new Tensor('bool', [true]))).toBe(true);
    expect(isTensorLike(new ort.Tensor('bool', [true]))).toBe(true);
    expect(isTensorLike({ type: 'bool', data: [] })).toBe(false);
    expect(isTensorLike(null)).toBe(false);
  });
});
