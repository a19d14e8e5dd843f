/** Element types, and the arrays that hold the elements of a tensor. */
import { ResidualSkipError } from './errors.js';

/** Element types that tensors of this package can have; names are onnxruntime's. */
export type DataType = 'float32' | 'uint8' | 'int32' | 'int64' | 'bool' | 'int8';

/** The array that holds the elements of each type; `bool` is 0 and 1 in bytes. */
export interface TypedArrayOf {
  float32: Float32Array;
  uint8: Uint8Array;
  int32: Int32Array;
  int64: BigInt64Array;
  bool: Uint8Array;
  int8: Int8Array;
}

/** The array that holds the elements of a tensor of type `T`. */
export type TensorData<T extends DataType = DataType> = TypedArrayOf[T];

export const ELEMENT_BYTES: Readonly<Record<DataType, number>> = {
  float32: 4,
  uint8: 1,
  int32: 4,
  int64: 8,
  bool: 1,
  int8: 1,
};

/** What a tensor of type `T` can be made from. A typed array is kept, not copied; lists are converted. */
export interface TensorSource {
  float32: Float32Array | readonly number[];
  uint8: Uint8Array | Uint8ClampedArray | readonly number[];
  int32: Int32Array | readonly number[];
  int64: BigInt64Array | readonly bigint[] | readonly number[];
  bool: Uint8Array | readonly boolean[];
  int8: Int8Array | readonly number[];
}

/** The class of the array that holds the elements of a type. */
export const ARRAY_OF = {
  float32: Float32Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
  int8: Int8Array,
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

/** A copy of `data`. The method of a Buffer, which is a Uint8Array, would return a view. */
export function copyData(data: TensorData): TensorData {
  return Uint8Array.prototype.slice.call(data) as TensorData;
}

/** What kind of value it is, for messages. */
export function describe(value: unknown): string {
  if (value === null) return 'null';
  return typeof value === 'object' ? (value.constructor?.name ?? 'an object') : typeof value;
}

export function isArray(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}

const CHECKS: { readonly [T in DataType]: { holds(value: unknown): boolean; readonly range: string } } = {
  float32: { holds: (v) => typeof v === 'number', range: 'a number' },
  uint8: {
    holds: (v) => Number.isInteger(v) && (v as number) >= 0 && (v as number) <= 255,
    range: 'an integer in 0..255',
  },
  int32: {
    holds: (v) => Number.isInteger(v) && (v as number) === ((v as number) | 0),
    range: 'a 32-bit integer',
  },
  int64: {
    holds: (v) => Number.isSafeInteger(v) || (typeof v === 'bigint' && BigInt.asIntN(64, v) === v),
    range: 'a 64-bit bigint or a safe integer',
  },
  bool: { holds: (v) => typeof v === 'boolean', range: 'true or false' },
  int8: {
    holds: (v) => Number.isInteger(v) && (v as number) >= -128 && (v as number) <= 127,
    range: 'an integer in -128..127',
  },
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
  if (type === 'int64') return BigInt64Array.from(list as readonly (number | bigint)[], BigInt);
  const data = allocate(type, list.length) as Exclude<TensorData, BigInt64Array>;
  data.set(list.map(Number));
  return data;
}

/** The elements of `data` as the array that `type` is kept in. */
export function arrayFor(type: DataType, data: unknown): TensorData {
  if (isArray(data)) return fromList(type, data);
  // Not instanceof: an array may come from another realm (a vm context, a test runner).
  const tag = ArrayBuffer.isView(data) ? (data as TensorData)[Symbol.toStringTag] : undefined;
  if (tag === ARRAY_OF[type].name) return data as TensorData;
  if (type === 'uint8' && (tag as string) === 'Uint8ClampedArray') {
    const clamped = data as unknown as Uint8ClampedArray;
    // Of a buffer that was transferred there is no other view.
    return clamped.length === 0
      ? new Uint8Array()
      : new Uint8Array(clamped.buffer, clamped.byteOffset, clamped.length);
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
