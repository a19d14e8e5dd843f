import { ResidualSkipError } from '../errors.js';
import { widenFloat16 } from '../numeric/float16.js';
import { type FromImageOptions, type PixelData, tensorPartsOf } from './image-pixels.js';
import {
  ARRAY_OF,
  arrayFor,
  checkType,
  type DataType,
  describe,
  type FloatType,
  inferType,
  isArray,
  isFloatType,
  type TensorData,
  type TensorSource,
  type TypedArrayOf,
} from './tensor-data.js';

export {
  ARRAY_OF,
  allocate,
  asType,
  contentOf,
  copyData,
  DATA_TYPES,
  type DataType,
  describe,
  ELEMENT_BYTES,
  type FloatType,
  INTEGER_RANGE,
  isBig,
  isBigData,
  isFloatType,
  type NumberData,
  sameContent,
  type TensorData,
  type TensorSource,
  type TypedArrayOf,
  type ValueType,
  type WidenedType,
} from './tensor-data.js';

/** Anything shaped like a tensor, such as one of onnxruntime-common; what it holds is checked when it is used. */
export interface TensorLike {
  readonly type: string;
  readonly data: unknown;
  readonly dims: readonly number[];
  readonly location?: string;
}

/** A dense, row-major tensor of type `T` in main memory, shaped like onnxruntime's. */
export interface TypedTensor<T extends DataType> extends TensorLike {
  /** Element type. */
  readonly type: T;
  /** The elements; `bool` holds 0 and 1, `float16` its bits. Throws INVALID_ARGUMENT after `dispose`. */
  readonly data: TensorData<T>;
  /** Lengths of the axes, the outermost first. */
  readonly dims: readonly number[];
  /** Number of elements; 1 for a scalar, whose `dims` is empty. */
  readonly size: number;
  readonly location: 'cpu';
  /** The elements, as a promise, for code that is written for tensors of any location; `releaseData` is for the others. */
  getData(releaseData?: boolean): Promise<TensorData<T>>;
  /** The same elements under other `dims`, not copied. Throws INVALID_SHAPE when the sizes differ. */
  reshape(dims: readonly number[]): Tensor<T>;
  /** Lets go of the elements. */
  dispose(): void;
}

/** A tensor of one of the types `T`: `type` says which, and so what `data` is. */
export type Tensor<T extends DataType = DataType> = { [K in T]: TypedTensor<K> }[T];

/** The class of tensors: `new Tensor(type, data, dims)`. */
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
  new (data: Int8Array, dims?: readonly number[]): Tensor<'int8'>;
  new (data: Int16Array, dims?: readonly number[]): Tensor<'int16'>;
  new (data: Uint16Array, dims?: readonly number[]): Tensor<'uint16'>;
  new (data: Int32Array, dims?: readonly number[]): Tensor<'int32'>;
  new (data: Uint32Array, dims?: readonly number[]): Tensor<'uint32'>;
  new (data: BigInt64Array, dims?: readonly number[]): Tensor<'int64'>;
  new (data: BigUint64Array, dims?: readonly number[]): Tensor<'uint64'>;
  new (data: Float64Array, dims?: readonly number[]): Tensor<'float64'>;
  new (data: readonly boolean[], dims?: readonly number[]): Tensor<'bool'>;
  /**
   * The pixels of an image as a batch of one, in the manner of onnxruntime-common: float32[1, 3, height, width] of 0 to 1, in the order
   * RGB, when the options don't say otherwise. Nothing is resized.
   * @param image `{ width, height, data }` with 8-bit samples in rows: RGBA as a canvas has them, or `channels` of them (1: grey, 3: RGB)
   * @throws ResidualSkipError INVALID_ARGUMENT for what is no such image, or options that don't fit
   */
  fromImage(
    image: PixelData,
    options: FromImageOptions & { readonly dataType: 'uint8' },
  ): Promise<Tensor<'uint8'>>;
  fromImage(
    image: PixelData,
    options?: FromImageOptions & { readonly dataType?: 'float32' | undefined },
  ): Promise<Tensor<'float32'>>;
  fromImage(image: PixelData, options?: FromImageOptions): Promise<Tensor<'float32'> | Tensor<'uint8'>>;
}

/** onnxruntime's names of the types around a tensor. */
export declare namespace Tensor {
  /** Element types by name. */
  type Type = keyof TypedArrayOf;
  /** Arrays of elements by type. */
  type DataTypeMap = TypedArrayOf;
  /** The array that holds a tensor's elements. */
  type DataType = TensorData;
  /** Elements by type. */
  interface ElementTypeMap {
    float32: number;
    uint8: number;
    int32: number;
    int64: bigint;
    bool: boolean;
    int8: number;
    int16: number;
    uint16: number;
    uint32: number;
    uint64: bigint;
    float16: number;
    float64: number;
  }
  /** An element. */
  type ElementType = ElementTypeMap[Type];
  /** Where a tensor's elements are. */
  type DataLocation = 'cpu';
}

/** "float32[1,3,32,32]", as messages write it. */
export function describeTensor(type: string, dims: readonly (number | string)[]): string {
  return `${type}[${dims.join(',')}]`;
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
    throw new ResidualSkipError('INVALID_SHAPE', `dims: [${dims.join(',')}] have too many elements`);
  }
  return size;
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
        `dims: [${this.dims.join(',')}] need ${this.size} elements, but data has ${data.length}`,
      );
    }
  }

  static async fromImage(image: PixelData, options: FromImageOptions = {}): Promise<Tensor> {
    const { type, data, dims } = tensorPartsOf(image, options);
    return new Tensor(type, data, dims);
  }

  async getData(): Promise<TensorData> {
    return this.data;
  }

  reshape(dims: readonly number[]): Tensor {
    return new Tensor(this.type, this.data, dims);
  }

  dispose(): void {
    const get = () => {
      throw new ResidualSkipError('INVALID_ARGUMENT', 'tensor: it was disposed');
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

/** The numbers of a tensor of floats as float32, the type that networks compute in; a float32 tensor itself. */
export function toFloat32(tensor: Tensor<FloatType>): Tensor<'float32'> {
  if (tensor.type === 'float32') return tensor;
  const { type, data, dims } = tensor;
  return new Tensor('float32', type === 'float16' ? widenFloat16(data) : Float32Array.from(data), dims);
}

export function isFloat(tensor: Tensor): tensor is Tensor<FloatType> {
  return isFloatType(tensor.type);
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
