import { ResidualSkipError } from './errors.js';

/** Element types that tensors of this package can have; names are onnxruntime's. */
export type DataType = 'float32' | 'uint8' | 'int32' | 'int64' | 'bool';

export interface TypedArrayOf {
  float32: Float32Array;
  uint8: Uint8Array;
  int32: Int32Array;
  int64: BigInt64Array;
  bool: Uint8Array;
}

/** The array that holds the elements of a tensor of type `T`. */
export type TensorData<T extends DataType = DataType> = TypedArrayOf[T];

export const ELEMENT_BYTES: Readonly<Record<DataType, number>> = {
  float32: 4,
  uint8: 1,
  int32: 4,
  int64: 8,
  bool: 1,
};

/** What a tensor of type `T` can be made from. A typed array is kept, not copied; lists are converted. */
export interface TensorSource {
  float32: Float32Array | readonly number[];
  uint8: Uint8Array | Uint8ClampedArray | readonly number[];
  int32: Int32Array | readonly number[];
  int64: BigInt64Array | readonly bigint[] | readonly number[];
  bool: Uint8Array | readonly boolean[];
}

/** The class of the array that holds the elements of a type. */
export const ARRAY_OF = {
  float32: Float32Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
} as const;

export const DATA_TYPES = Object.keys(ARRAY_OF) as readonly DataType[];

/** A zeroed array for `length` elements of `type`; OUT_OF_MEMORY when there is no room for it. */
export function allocate(type: DataType, length: number): TensorData {
  try {
    return new ARRAY_OF[type](length);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new ResidualSkipError('OUT_OF_MEMORY', `no memory for a ${type} tensor of ${length} elements`, {
      cause: error,
    });
  }
}

/** A copy of `data`. The method of a Buffer, which is a Uint8Array, would return a view. */
export function copyData(data: TensorData): TensorData {
  return Uint8Array.prototype.slice.call(data) as TensorData;
}

/** Anything shaped like a tensor, such as one of onnxruntime-common; what it holds is checked when it is used. */
export interface TensorLike {
  readonly type: string;
  readonly data: unknown;
  readonly dims: readonly number[];
  readonly location?: string;
}

/** A dense, row-major tensor of type `T` in main memory, shaped like onnxruntime's. */
export interface TypedTensor<T extends DataType> extends TensorLike {
  readonly type: T;
  /** The elements; `bool` holds 0 and 1. Throws INVALID_ARGUMENT after `dispose`. */
  readonly data: TensorData<T>;
  readonly dims: readonly number[];
  /** Number of elements; 1 for a scalar, whose `dims` is empty. */
  readonly size: number;
  readonly location: 'cpu';
  /** The elements, as a promise, for code that is written for tensors of any location. */
  getData(): Promise<TensorData<T>>;
  /** The same elements under other `dims`, not copied. Throws INVALID_SHAPE when the sizes differ. */
  reshape(dims: readonly number[]): Tensor<T>;
  /** Lets go of the elements. */
  dispose(): void;
}

/** A tensor of one of the types `T`: `type` tells which, and so what `data` is. */
export type Tensor<T extends DataType = DataType> = { [K in T]: TypedTensor<K> }[T];

export interface TensorConstructor {
  readonly prototype: TypedTensor<DataType>;
  /**
   * @param dims lengths of the axes; one axis as long as the data when left out.
   * @throws ResidualSkipError INVALID_DTYPE (type, or an array that does not fit it), INVALID_SHAPE (dims
   * that are no lengths or don't multiply to the number of elements), INVALID_ARGUMENT (an element that
   * the type can't hold).
   */
  new <T extends DataType>(type: T, data: TensorSource[T], dims?: readonly number[]): Tensor<T>;
  /** The type follows from the array: `boolean[]` makes `bool`, a Uint8Array `uint8`. */
  new (data: Float32Array, dims?: readonly number[]): Tensor<'float32'>;
  new (data: Uint8Array | Uint8ClampedArray, dims?: readonly number[]): Tensor<'uint8'>;
  new (data: Int32Array, dims?: readonly number[]): Tensor<'int32'>;
  new (data: BigInt64Array, dims?: readonly number[]): Tensor<'int64'>;
  new (data: readonly boolean[], dims?: readonly number[]): Tensor<'bool'>;
}

/** "float32[1,3,32,32]", as messages write it. */
export function describeTensor(type: string, dims: readonly (number | string)[]): string {
  return `${type}[${dims.join(',')}]`;
}

/** What kind of value it is, for messages. */
export function describe(value: unknown): string {
  if (value === null) return 'null';
  return typeof value === 'object' ? (value.constructor?.name ?? 'an object') : typeof value;
}

function isArray(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}

/** Number of elements of a tensor with these `dims`; INVALID_SHAPE unless they are lengths. */
function checkedSize(dims: unknown): number {
  if (!isArray(dims)) {
    throw new ResidualSkipError(
      'INVALID_SHAPE',
      `dims: expected an array of lengths, received ${describe(dims)}`,
    );
  }
  let size = 1;
  for (const [axis, length] of dims.entries()) {
    if (!Number.isSafeInteger(length) || (length as number) < 0) {
      const shown = typeof length === 'number' ? length : describe(length);
      throw new ResidualSkipError(
        'INVALID_SHAPE',
        `dims[${axis}]: expected a non-negative integer, received ${shown}`,
      );
    }
    size *= length as number;
  }
  if (!Number.isSafeInteger(size)) {
    throw new ResidualSkipError('INVALID_SHAPE', `dims [${dims.join(',')}] have too many elements`);
  }
  return size;
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
function arrayFor(type: DataType, data: unknown): TensorData {
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
  Uint8ClampedArray: 'uint8',
  Int32Array: 'int32',
  BigInt64Array: 'int64',
};

function inferType(data: unknown): DataType {
  if (isArray(data)) {
    if (typeof data[0] === 'boolean') return 'bool';
    throw new ResidualSkipError(
      'INVALID_DTYPE',
      `the type can't be told from a plain array; write new Tensor('float32', data, dims)`,
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

function checkType(type: unknown): DataType {
  if (typeof type === 'string' && Object.hasOwn(ARRAY_OF, type)) return type as DataType;
  const shown = typeof type === 'string' ? `'${type}'` : describe(type);
  throw new ResidualSkipError(
    'INVALID_DTYPE',
    `type ${shown} is not supported; expected one of ${DATA_TYPES.join(', ')}`,
  );
}

/** A tensor that is known to be sound, and other elements of the same number and type. */
class Copied {
  constructor(
    readonly from: Tensor,
    readonly data: TensorData,
  ) {}
}

/** All is in properties of its own, so that structuredClone and postMessage keep it, as an object that `run` takes. */
class CpuTensor implements TypedTensor<DataType> {
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly size: number;
  readonly location = 'cpu';
  readonly data: TensorData;

  constructor(first: unknown, second?: unknown, third?: unknown) {
    if (first instanceof Copied) {
      ({ type: this.type, dims: this.dims, size: this.size } = first.from);
      this.data = first.data;
      return;
    }
    const typed = typeof first === 'string';
    this.type = typed ? checkType(first) : inferType(first);
    const data = arrayFor(this.type, typed ? second : first);
    const dims = (typed ? third : second) ?? [data.length];
    this.size = checkedSize(dims);
    this.dims = Object.freeze([...(dims as readonly number[])]);
    this.data = data;
    if (this.size !== data.length) {
      throw new ResidualSkipError(
        'INVALID_SHAPE',
        `dims [${this.dims.join(',')}] ask for ${this.size} elements, data has ${data.length}`,
      );
    }
  }

  async getData(): Promise<TensorData> {
    return this.data;
  }

  reshape(dims: readonly number[]): Tensor {
    return new Tensor(this.type, this.data, dims);
  }

  dispose(): void {
    const get = () => {
      throw new ResidualSkipError('INVALID_ARGUMENT', 'the tensor was disposed');
    };
    Object.defineProperty(this, 'data', { get, enumerable: false });
  }
}
// As console.log shows it.
Object.defineProperty(CpuTensor, 'name', { value: 'Tensor' });

export const Tensor = CpuTensor as unknown as TensorConstructor;

/** A tensor like `tensor` over `data`, which has as many elements of its type. */
export function withData(tensor: Tensor, data: TensorData): Tensor {
  return new CpuTensor(new Copied(tensor, data)) as Tensor;
}

/** True for a Tensor and for anything that has a tensor's `type`, `data` and `dims`. */
export function isTensorLike(value: unknown): value is TensorLike {
  return typeof value === 'object' && value !== null && 'type' in value && 'data' in value && 'dims' in value;
}

function checkAttached(name: string, tensor: Tensor): Tensor {
  const { data, type, size } = tensor;
  // Also what was assigned in spite of the types.
  if (data.length === size && data[Symbol.toStringTag] === ARRAY_OF[type]?.name) return tensor;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${name}: the tensor's buffer was resized or transferred to another thread`,
  );
}

/**
 * `value` as a Tensor over the same elements. `name` says in messages where it came from.
 * @throws ResidualSkipError as the constructor, and INVALID_ARGUMENT for what is no tensor in main memory.
 */
export function toTensor(name: string, value: unknown): Tensor {
  if (value instanceof CpuTensor) return checkAttached(name, value as Tensor);
  if (!isTensorLike(value)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${name}: expected a Tensor, received ${describe(value)}`,
    );
  }
  const { location = 'cpu' } = value;
  if (location !== 'cpu' && location !== 'cpu-pinned') {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${name}: the tensor is at '${location}'; download it to the CPU first (await tensor.getData())`,
    );
  }
  try {
    return new Tensor(checkType(value.type), value.data as TensorData, value.dims);
  } catch (error) {
    if (!(error instanceof ResidualSkipError)) throw error;
    throw new ResidualSkipError(error.code, `${name}: ${error.message}`, { cause: error });
  }
}
