import { ResidualSkipError } from '../../errors.js';
import { widenFloat16 } from '../../numeric/float16.js';
import { sizeOf } from '../../numeric/shapes.js';
import {
  ARRAY_OF,
  ELEMENT_BYTES,
  type TensorData,
  type ValueType,
  type WidenedType,
} from '../../tensor/tensor.js';
import type { Constant } from './graph.js';
import type { Int64, TensorProto } from './proto.js';

/** Longer axes and tensors with more elements are refused: the engine could not hold them. */
export const MAX_ELEMENTS = 2 ** 31 - 1;

/** How an ONNX element type is stored and what it becomes. */
interface ElementType {
  readonly dtype: ValueType;
  /** Bytes of one element in raw data. */
  readonly bytes: number;
  /** @param own nothing else uses `raw`, so it needn't be copied */
  readonly fromRaw: (raw: Uint8Array, own: boolean) => TensorData;
  /** Elements from the typed field that the specification names for this type. */
  readonly fromField: (tensor: TensorProto) => TensorData;
}

/** A copy of `raw` whose start is aligned for any element. */
function aligned(raw: Uint8Array): ArrayBuffer {
  const copy = new ArrayBuffer(raw.byteLength);
  new Uint8Array(copy).set(raw);
  return copy;
}

const FEW_BYTES = 64;
const FEW = new Uint8Array(FEW_BYTES);
const VIEWS = {
  float32: new Float32Array(FEW.buffer),
  int64: new BigInt64Array(FEW.buffer),
};

/** The elements of a copy of `raw`. A file has hundreds of scales and zero points: a slice is one object, memory with two views three. */
function elementsOf(dtype: keyof typeof VIEWS, raw: Uint8Array): TensorData {
  if (raw.length > FEW_BYTES) return new ARRAY_OF[dtype](aligned(raw));
  FEW.set(raw);
  return VIEWS[dtype].slice(0, raw.length / ELEMENT_BYTES[dtype]);
}

const SCRATCH = new DataView(new ArrayBuffer(4));

export function bfloat16ToNumber(bits: number): number {
  SCRATCH.setUint32(0, (bits & 0xffff) << 16);
  return SCRATCH.getFloat32(0);
}

export function toBigInt(value: Int64): bigint {
  return typeof value === 'number' ? BigInt(value) : (BigInt(value.high) << 32n) | BigInt(value.low >>> 0);
}

/** Rounded where it is beyond the safe integers. */
export function toNumber(value: Int64): number {
  return typeof value === 'number' ? value : Number(toBigInt(value));
}

const half = (widen: (bits: ArrayLike<number>) => Float32Array): ElementType => ({
  dtype: 'float32',
  bytes: 2,
  fromRaw: (raw) => widen(new Uint16Array(aligned(raw))),
  fromField: ({ int32Data = [] }) => widen(int32Data),
});

/** Integers that the typed field holds one by one. */
const integers = (
  dtype: 'int16' | 'uint16' | 'int32' | 'uint32',
  field: (tensor: TensorProto) => ArrayLike<number>,
): ElementType => ({
  dtype,
  bytes: ELEMENT_BYTES[dtype],
  fromRaw: (raw) => new ARRAY_OF[dtype](aligned(raw)),
  fromField: (tensor) => new ARRAY_OF[dtype](field(tensor)),
});
const int32Field = ({ int32Data = [] }: TensorProto) => int32Data;

const asBool = (value: number) => (value ? 1 : 0);

/** By TensorProto.DataType; other types are unsupported. */
const ELEMENT_TYPES: ReadonlyMap<number, ElementType> = new Map<number, ElementType>([
  [
    1,
    {
      dtype: 'float32',
      bytes: 4,
      fromRaw: (raw, own) =>
        own && raw.byteOffset % Float32Array.BYTES_PER_ELEMENT === 0
          ? new Float32Array(raw.buffer as ArrayBuffer, raw.byteOffset, raw.byteLength / 4)
          : elementsOf('float32', raw),
      fromField: ({ floatData = [] }) => new Float32Array(floatData),
    },
  ],
  [
    2,
    {
      dtype: 'uint8',
      bytes: 1,
      fromRaw: (raw, own) =>
        own ? new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength) : new Uint8Array(raw),
      fromField: ({ int32Data = [] }) => new Uint8Array(int32Data),
    },
  ],
  [
    3,
    {
      dtype: 'int8',
      bytes: 1,
      fromRaw: (raw, own) =>
        own ? new Int8Array(raw.buffer, raw.byteOffset, raw.byteLength) : new Int8Array(raw),
      fromField: ({ int32Data = [] }) => new Int8Array(int32Data),
    },
  ],
  [4, integers('uint16', int32Field)],
  [5, integers('int16', int32Field)],
  [6, integers('int32', int32Field)],
  [
    7,
    {
      dtype: 'int64',
      bytes: 8,
      fromRaw: (raw) => elementsOf('int64', raw),
      fromField: ({ int64Data = [] }) => BigInt64Array.from(int64Data, toBigInt),
    },
  ],
  [
    9,
    {
      dtype: 'bool',
      bytes: 1,
      fromRaw: (raw) => Uint8Array.from(raw, asBool),
      fromField: ({ int32Data = [] }) => Uint8Array.from(int32Data, asBool),
    },
  ],
  [10, half(widenFloat16)],
  [
    11,
    {
      dtype: 'float32',
      bytes: 8,
      fromRaw: (raw) => Float32Array.from(new Float64Array(aligned(raw))),
      fromField: ({ doubleData = [] }) => Float32Array.from(doubleData),
    },
  ],
  [12, integers('uint32', ({ uint64Data = [] }) => uint64Data.map((value) => Number(toBigInt(value))))],
  [
    13,
    {
      dtype: 'uint64',
      bytes: 8,
      fromRaw: (raw) => new BigUint64Array(aligned(raw)),
      fromField: ({ uint64Data = [] }) => BigUint64Array.from(uint64Data, toBigInt),
    },
  ],
  [16, half((bits) => Float32Array.from(bits, bfloat16ToNumber))],
]);

/** Two elements in a byte, the first in its lower half; they are widened to bytes. An odd number leaves one half unused. */
const FOUR_BITS: ReadonlyMap<number, ElementType> = new Map<number, ElementType>([
  [21, fourBits('uint8', (raw) => Uint8Array.from(raw, (nibble) => nibble & 15))],
  [22, fourBits('int8', (raw) => Int8Array.from(raw, (nibble) => (nibble << 28) >> 28))],
]);

function fourBits(dtype: ValueType, widen: (nibbles: Uint8Array) => TensorData): ElementType {
  const split = (bytes: ArrayLike<number>) =>
    widen(Uint8Array.from({ length: 2 * bytes.length }, (_, i) => bytes[i >> 1]! >> (i % 2 ? 4 : 0)));
  return {
    dtype,
    bytes: 0.5,
    fromRaw: split,
    fromField: ({ int32Data = [] }) => split(new Uint8Array(int32Data)),
  };
}

const TYPE_NAMES: readonly string[] = [
  'undefined',
  'float',
  'uint8',
  'int8',
  'uint16',
  'int16',
  'int32',
  'int64',
  'string',
  'bool',
  'float16',
  'double',
  'uint32',
  'uint64',
  'complex64',
  'complex128',
  'bfloat16',
  'float8e4m3fn',
  'float8e4m3fnuz',
  'float8e5m2',
  'float8e5m2fnuz',
  'uint4',
  'int4',
];

/** ONNX's name of an element type, for messages. */
export function elementTypeName(type: number): string {
  return TYPE_NAMES[type] ?? `number ${type}`;
}

/** Whether constants of this ONNX type can be decoded. */
export function isDecodable(type: number): boolean {
  return ELEMENT_TYPES.has(type) || FOUR_BITS.has(type);
}

/** The element type that an ONNX type becomes; undefined for unsupported types, and for those of constants alone. */
export function dtypeOf(type: number): ValueType | undefined {
  return ELEMENT_TYPES.get(type)?.dtype;
}

/** The type of the tensors of an input or output that is computed in float32. JavaScript has no array of bfloat16. */
export function widenedTypeOf(type: number): WidenedType | undefined {
  return type === 10 ? 'float16' : type === 11 ? 'float64' : undefined;
}

function invalid(tensor: TensorProto, problem: string): never {
  throw new ResidualSkipError('MODEL_INVALID', `tensor '${tensor.name ?? ''}': ${problem}`);
}

/** Why memory couldn't hold a tensor of this shape; undefined if it could. */
export function problemOf(shape: readonly number[]): string | undefined {
  if (shape.length > 32) return `it has ${shape.length} axes; at most 32 are supported`;
  let count = 1;
  for (let axis = 0; axis < shape.length; axis++) {
    const length = shape[axis]!;
    if (!Number.isSafeInteger(length) || length < 0) return `its shape [${shape}] has a negative length`;
    count *= length || 1;
  }
  if (count <= MAX_ELEMENTS) return undefined;
  return `its shape [${shape}] overflows: more than ${MAX_ELEMENTS} elements`;
}

function shapeOf(tensor: TensorProto): { shape: number[]; count: number } {
  const shape = (tensor.dims ?? []).map(toNumber);
  const problem = problemOf(shape);
  if (problem !== undefined) invalid(tensor, problem);
  return { shape, count: sizeOf(shape) };
}

function elementTypeOf({ dataType = 0 }: TensorProto): ElementType | undefined {
  return ELEMENT_TYPES.get(dataType) ?? FOUR_BITS.get(dataType);
}

/**
 * Bytes of a tensor in raw form; undefined when its type is unsupported.
 * @throws ResidualSkipError MODEL_INVALID when its declared shape overflows
 */
export function byteLengthOf(tensor: TensorProto): number | undefined {
  const type = elementTypeOf(tensor);
  return type && Math.ceil(shapeOf(tensor).count * type.bytes);
}

interface Elements {
  readonly dataType: number | undefined;
  readonly data: TensorData;
}

/** Elements by the bytes, or the tensor, that they were decoded from: those of the ONNX type that was asked for first. */
export type DecodedElements = Map<object, Elements>;

/**
 * Decodes a tensor of a supported type.
 * @param external its bytes if they are stored elsewhere; they are used in place
 * @param known elements decoded before: what several tensors share, such as the weights of a function that is called again, is one
 * array
 * @throws ResidualSkipError MODEL_INVALID when shape and data don't fit together; UNSUPPORTED_MODEL
 */
export function decodeTensor(
  tensor: TensorProto,
  external?: Uint8Array,
  known: DecodedElements = new Map(),
): Constant {
  const type = elementTypeOf(tensor);
  if (!type || tensor.segment) {
    const what = tensor.segment
      ? 'it is stored in segments'
      : `its type is ${elementTypeName(tensor.dataType ?? 0)}`;
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      `tensor '${tensor.name ?? ''}': ${what}, which is not implemented`,
    );
  }
  const { shape, count } = shapeOf(tensor);
  const raw = external ?? tensor.rawData;
  const expected = Math.ceil(count * type.bytes);
  if (raw && raw.byteLength !== expected) {
    invalid(tensor, `it has ${raw.byteLength} bytes; its shape [${shape}] needs ${expected}`);
  }
  const source: object = raw ?? tensor;
  const made = known.get(source);
  let all = made && made.dataType === tensor.dataType ? made.data : undefined;
  all ??= raw ? type.fromRaw(raw, external !== undefined) : type.fromField(tensor);
  if (!made) known.set(source, { dataType: tensor.dataType, data: all });
  const halves = type.bytes < 1;
  const data = halves && all.length === count + (count % 2) ? all.subarray(0, count) : all;
  if (data.length !== count) {
    invalid(tensor, `it has ${data.length} elements; its shape [${shape}] needs ${count}`);
  }
  return { dtype: type.dtype, shape, data, ...(halves && { bits: 4 as const }) };
}
