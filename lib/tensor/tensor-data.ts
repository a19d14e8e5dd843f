/** Element types, and the arrays that hold the elements of a tensor. */
import { ResidualSkipError } from '../errors.js';
import { narrowToFloat16, numberToFloat16 } from '../numeric/float16.js';

/** Element types that networks compute with. */
export type ValueType =
  | 'float32'
  | 'uint8'
  | 'int32'
  | 'int64'
  | 'bool'
  | 'int8'
  | 'int16'
  | 'uint16'
  | 'uint32'
  | 'uint64';

/**
 * Element types that tensors of this package can have; names are onnxruntime's. `float16` and `float64` are types of
 * inputs and outputs: a network computes with them in float32.
 */
export type DataType = ValueType | WidenedType;

/** Element types of tensors that are computed in float32. */
export type WidenedType = 'float16' | 'float64';

export type FloatType = 'float32' | WidenedType;

export function isFloatType(type: DataType): type is FloatType {
  return type === 'float32' || type === 'float16' || type === 'float64';
}

/** The array that holds the elements of each type; `bool` is 0 and 1 in bytes, `float16` its bits. */
export interface TypedArrayOf {
  float32: Float32Array;
  uint8: Uint8Array;
  int32: Int32Array;
  int64: BigInt64Array;
  bool: Uint8Array;
  int8: Int8Array;
  int16: Int16Array;
  uint16: Uint16Array;
  uint32: Uint32Array;
  uint64: BigUint64Array;
  float16: Uint16Array;
  float64: Float64Array;
}

/** The array that holds the elements of a tensor of type `T`. */
export type TensorData<T extends DataType = DataType> = TypedArrayOf[T];

/** Arrays of numbers; the others hold bigints. */
export type NumberData = Exclude<TensorData, BigInt64Array | BigUint64Array>;

export function isBig(type: DataType): type is 'int64' | 'uint64' {
  return type === 'int64' || type === 'uint64';
}

export function isBigData<T>(data: T): data is Extract<T, BigInt64Array | BigUint64Array> {
  return data instanceof BigInt64Array || data instanceof BigUint64Array;
}

/** Least and greatest number of each type of integers. */
export const INTEGER_RANGE = {
  uint8: [0, 255],
  int8: [-128, 127],
  int16: [-(2 ** 15), 2 ** 15 - 1],
  uint16: [0, 2 ** 16 - 1],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint32: [0, 2 ** 32 - 1],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
} as const;

export const ELEMENT_BYTES: Readonly<Record<DataType, number>> = {
  float32: 4,
  uint8: 1,
  int32: 4,
  int64: 8,
  bool: 1,
  int8: 1,
  int16: 2,
  uint16: 2,
  uint32: 4,
  uint64: 8,
  float16: 2,
  float64: 8,
};

/** What a tensor of type `T` can be made from. A typed array is kept, not copied; lists are converted. */
export interface TensorSource {
  float32: Float32Array | readonly number[];
  uint8: Uint8Array | Uint8ClampedArray | readonly number[];
  int32: Int32Array | readonly number[];
  int64: BigInt64Array | readonly bigint[] | readonly number[];
  bool: Uint8Array | readonly boolean[];
  int8: Int8Array | readonly number[];
  int16: Int16Array | readonly number[];
  uint16: Uint16Array | readonly number[];
  uint32: Uint32Array | readonly number[];
  uint64: BigUint64Array | readonly bigint[] | readonly number[];
  /** Bits in a Uint16Array or, where Node has it, numbers in a Float16Array; numbers in a list are rounded. */
  float16: Uint16Array | readonly number[];
  float64: Float64Array | readonly number[];
}

/** The class of the array that holds the elements of a type. */
export const ARRAY_OF = {
  float32: Float32Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
  int8: Int8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  float16: Uint16Array,
  float64: Float64Array,
} as const;

export const DATA_TYPES = Object.keys(ARRAY_OF) as readonly DataType[];

/** A zeroed array for `length` elements of `type`; OUT_OF_MEMORY when there is no room for it. */
export function allocate(type: DataType, length: number): TensorData {
  try {
    return new ARRAY_OF[type](length);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new ResidualSkipError(
      'OUT_OF_MEMORY',
      `tensor: there is no memory for ${length} elements of type ${type}`,
      {
        cause: error,
      },
    );
  }
}

/** The bytes as a string, for keys: equal for equal elements alone. Writing numbers as text would take a hundred times as long. */
export function contentOf(data: TensorData): string {
  return bytesOf(data).toString('latin1');
}

function bytesOf({ buffer, byteOffset, byteLength }: TensorData): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** Whether two arrays have the same bytes. */
export function sameContent(a: TensorData, b: TensorData): boolean {
  return bytesOf(a).equals(bytesOf(b));
}

/** A copy of `data`. The method of a Buffer, which is a Uint8Array, would return a view. */
export function copyData(data: TensorData): TensorData {
  return Uint8Array.prototype.slice.call(data) as TensorData;
}

/** Computed elements in the array of the caller's type: a copy for float16 and float64, which are computed in float32. */
export function asType(type: DataType, data: TensorData): TensorData {
  if (type === 'float16') return narrowToFloat16(data as Float32Array);
  return type === 'float64' ? Float64Array.from(data as Float32Array) : data;
}

/** What kind of value it is, for messages. */
export function describe(value: unknown): string {
  if (value === null) return 'null';
  return typeof value === 'object' ? (value.constructor?.name ?? 'an object') : typeof value;
}

export function isArray(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}

interface Check {
  holds(value: unknown): boolean;
  readonly range: string;
}

const integer = ([min, greatest]: readonly [number, number]): Check => ({
  holds: (v) => Number.isInteger(v) && (v as number) >= min && (v as number) <= greatest,
  range: `an integer in ${min}..${greatest}`,
});

const real: Check = { holds: (v) => typeof v === 'number', range: 'a number' };

const CHECKS: { readonly [T in DataType]: Check } = {
  float32: real,
  uint8: integer(INTEGER_RANGE.uint8),
  int32: {
    holds: (v) => Number.isInteger(v) && (v as number) === ((v as number) | 0),
    range: 'a 32-bit integer',
  },
  int64: {
    holds: (v) => Number.isSafeInteger(v) || (typeof v === 'bigint' && BigInt.asIntN(64, v) === v),
    range: 'a 64-bit bigint or a safe integer',
  },
  bool: { holds: (v) => typeof v === 'boolean', range: 'true or false' },
  int8: integer(INTEGER_RANGE.int8),
  int16: integer(INTEGER_RANGE.int16),
  uint16: integer(INTEGER_RANGE.uint16),
  uint32: integer(INTEGER_RANGE.uint32),
  uint64: {
    holds: (v) =>
      (Number.isSafeInteger(v) && (v as number) >= 0) ||
      (typeof v === 'bigint' && BigInt.asUintN(64, v) === v),
    range: 'an unsigned 64-bit bigint or safe integer',
  },
  float16: real,
  float64: real,
};

function fromList(type: DataType, list: readonly unknown[]): TensorData {
  const { holds, range } = CHECKS[type];
  for (const [index, value] of list.entries()) {
    if (!holds(value)) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        `data[${index}]: expected ${range} for type '${type}', received ${typeof value === 'number' || typeof value === 'bigint' ? value : describe(value)}`,
      );
    }
  }
  const numbers = list as readonly (number | bigint)[];
  if (type === 'int64') return BigInt64Array.from(numbers, BigInt);
  if (type === 'uint64') return BigUint64Array.from(numbers, BigInt);
  const data = allocate(type, list.length) as Float64Array;
  data.set(type === 'float16' ? (list as number[]).map(numberToFloat16) : list.map(Number));
  return data;
}

/** Arrays that are taken as another view of the same elements. */
const OTHER_ARRAY_OF: { readonly [T in DataType]?: string } = {
  uint8: 'Uint8ClampedArray',
  float16: 'Float16Array',
};

/** The elements of `data` as the array that `type` is kept in. */
export function arrayFor(type: DataType, data: unknown): TensorData {
  if (isArray(data)) return fromList(type, data);
  // Not instanceof: an array may come from another realm (a vm context, a test runner).
  const tag: string | undefined = ArrayBuffer.isView(data)
    ? (data as TensorData)[Symbol.toStringTag]
    : undefined;
  if (tag === ARRAY_OF[type].name) return data as TensorData;
  if (tag !== undefined && OTHER_ARRAY_OF[type] === tag) {
    const { buffer, byteOffset, length } = data as TensorData;
    // Of a buffer that was transferred there is no other view.
    return length === 0 ? allocate(type, 0) : new ARRAY_OF[type](buffer as ArrayBuffer, byteOffset, length);
  }
  throw new ResidualSkipError(
    'INVALID_DTYPE',
    `data: expected ${ARRAY_OF[type].name} or an array for type '${type}', received ${describe(data)}`,
  );
}

const TYPE_OF_ARRAY: Readonly<Record<string, DataType>> = {
  Float32Array: 'float32',
  Uint8Array: 'uint8',
  Int8Array: 'int8',
  Uint8ClampedArray: 'uint8',
  Int32Array: 'int32',
  BigInt64Array: 'int64',
  Int16Array: 'int16',
  Uint16Array: 'uint16',
  Uint32Array: 'uint32',
  BigUint64Array: 'uint64',
  Float16Array: 'float16',
  Float64Array: 'float64',
};

/** The type that follows from an array. */
export function inferType(data: unknown): DataType {
  if (isArray(data)) {
    if (typeof data[0] === 'boolean') return 'bool';
    throw new ResidualSkipError(
      'INVALID_DTYPE',
      `type: a plain array doesn't determine it; write new Tensor('float32', data, dims)`,
    );
  }
  const tag = ArrayBuffer.isView(data) ? (data as TensorData)[Symbol.toStringTag] : '';
  const type = TYPE_OF_ARRAY[tag];
  if (type !== undefined) return type;
  throw new ResidualSkipError(
    'INVALID_DTYPE',
    `data: expected one of ${Object.keys(TYPE_OF_ARRAY).join(', ')} or boolean[], received ${describe(data)}`,
  );
}

/** @throws ResidualSkipError INVALID_DTYPE for what is no element type */
export function checkType(type: unknown): DataType {
  if (typeof type === 'string' && Object.hasOwn(ARRAY_OF, type)) return type as DataType;
  const shown = typeof type === 'string' ? `'${type}'` : describe(type);
  throw new ResidualSkipError(
    'INVALID_DTYPE',
    `type ${shown} is not supported; expected one of ${DATA_TYPES.join(', ')}`,
  );
}
