/**
 * The part of the ONNX format (onnx.proto, IR version 3 to 10) that is needed to decode models. Field numbers are
 * those of the specification; other fields are skipped. The reader of @protobuf-ts/runtime reads messages by these
 * tables.
 */
import { BinaryReader, BinaryWriter, type IBinaryWriter } from '@protobuf-ts/runtime';
import { ResidualSkipError } from '../../errors.js';
import { atOnce, isDue, type Sliced } from '../../util/slices.js';

/** An int64 on the wire: a number if it is a safe integer, otherwise two halves. */
export type Int64 = number | { readonly low: number; readonly high: number };

export interface KeyValueProto {
  key?: string;
  value?: string;
}

export interface TensorProto {
  dims?: Int64[];
  dataType?: number;
  segment?: object;
  floatData?: number[];
  int32Data?: number[];
  stringData?: Uint8Array[];
  int64Data?: Int64[];
  doubleData?: number[];
  uint64Data?: Int64[];
  name?: string;
  rawData?: Uint8Array;
  externalData?: KeyValueProto[];
  dataLocation?: number;
}

export interface DimensionProto {
  dimValue?: Int64;
  dimParam?: string;
}

export interface ValueInfoProto {
  name?: string;
  type?: { tensorType?: { elemType?: number; shape?: { dim?: DimensionProto[] } } };
}

export interface AttributeProto {
  name?: string;
  refAttrName?: string;
  type?: number;
  f?: number;
  i?: Int64;
  s?: Uint8Array;
  t?: TensorProto;
  g?: GraphProto;
  floats?: number[];
  ints?: Int64[];
  strings?: Uint8Array[];
}

export interface NodeProto {
  input?: string[];
  output?: string[];
  name?: string;
  opType?: string;
  domain?: string;
  overload?: string;
  attribute?: AttributeProto[];
  /** Of the function that the node was part of, where it isn't the model's; not part of a file. */
  opset?: number;
}

export interface GraphProto {
  node?: NodeProto[];
  name?: string;
  docString?: string;
  initializer?: TensorProto[];
  sparseInitializer?: { values?: TensorProto }[];
  input?: ValueInfoProto[];
  output?: ValueInfoProto[];
}

export interface FunctionProto {
  name?: string;
  input?: string[];
  output?: string[];
  node?: NodeProto[];
  opsetImport?: { domain?: string; version?: Int64 }[];
  domain?: string;
  /** Attributes with default values. */
  attributeProto?: AttributeProto[];
  overload?: string;
}

export interface ModelProto {
  irVersion?: Int64;
  producerName?: string;
  producerVersion?: string;
  domain?: string;
  modelVersion?: Int64;
  docString?: string;
  metadataProps?: { key?: string; value?: string }[];
  opsetImport?: { domain?: string; version?: Int64 }[];
  graph?: GraphProto;
  functions?: FunctionProto[];
}

type Scalar = 'string' | 'bytes' | 'int32' | 'int64' | 'uint64' | 'float' | 'double';

interface Field {
  readonly name: string;
  /** A scalar, or the fields of a message; a function if messages contain each other. */
  readonly type: Scalar | (() => Message);
  readonly repeated: boolean;
}
/** By field number. */
type Message = Readonly<Record<number, Field>>;

const one = (name: string, type: Field['type']): Field => ({ name, type, repeated: false });
const many = (name: string, type: Field['type']): Field => ({ name, type, repeated: true });

const ENTRY: Message = { 1: one('key', 'string'), 2: one('value', 'string') };
const OPERATOR_SET: Message = { 1: one('domain', 'string'), 2: one('version', 'int64') };
const SEGMENT: Message = { 1: one('begin', 'int64'), 2: one('end', 'int64') };
const DIMENSION: Message = { 1: one('dimValue', 'int64'), 2: one('dimParam', 'string') };
const SHAPE: Message = { 1: many('dim', () => DIMENSION) };
const TENSOR_TYPE: Message = { 1: one('elemType', 'int32'), 2: one('shape', () => SHAPE) };
const VALUE_TYPE: Message = { 1: one('tensorType', () => TENSOR_TYPE) };
const VALUE_INFO: Message = { 1: one('name', 'string'), 2: one('type', () => VALUE_TYPE) };
const TENSOR: Message = {
  1: many('dims', 'int64'),
  2: one('dataType', 'int32'),
  3: one('segment', () => SEGMENT),
  4: many('floatData', 'float'),
  5: many('int32Data', 'int32'),
  6: many('stringData', 'bytes'),
  7: many('int64Data', 'int64'),
  8: one('name', 'string'),
  9: one('rawData', 'bytes'),
  10: many('doubleData', 'double'),
  11: many('uint64Data', 'uint64'),
  13: many('externalData', () => ENTRY),
  14: one('dataLocation', 'int32'),
};
const SPARSE_TENSOR: Message = { 1: one('values', () => TENSOR) };
const ATTRIBUTE: Message = {
  1: one('name', 'string'),
  2: one('f', 'float'),
  3: one('i', 'int64'),
  4: one('s', 'bytes'),
  5: one('t', () => TENSOR),
  6: one('g', () => GRAPH),
  7: many('floats', 'float'),
  8: many('ints', 'int64'),
  9: many('strings', 'bytes'),
  20: one('type', 'int32'),
  21: one('refAttrName', 'string'),
};
const NODE: Message = {
  1: many('input', 'string'),
  2: many('output', 'string'),
  3: one('name', 'string'),
  4: one('opType', 'string'),
  5: many('attribute', () => ATTRIBUTE),
  7: one('domain', 'string'),
  8: one('overload', 'string'),
};
const FUNCTION: Message = {
  1: one('name', 'string'),
  4: many('input', 'string'),
  5: many('output', 'string'),
  7: many('node', () => NODE),
  9: many('opsetImport', () => OPERATOR_SET),
  10: one('domain', 'string'),
  11: many('attributeProto', () => ATTRIBUTE),
  13: one('overload', 'string'),
};
const GRAPH: Message = {
  1: many('node', () => NODE),
  2: one('name', 'string'),
  5: many('initializer', () => TENSOR),
  10: one('docString', 'string'),
  11: many('input', () => VALUE_INFO),
  12: many('output', () => VALUE_INFO),
  15: many('sparseInitializer', () => SPARSE_TENSOR),
};
const MODEL: Message = {
  1: one('irVersion', 'int64'),
  2: one('producerName', 'string'),
  3: one('producerVersion', 'string'),
  4: one('domain', 'string'),
  5: one('modelVersion', 'int64'),
  6: one('docString', 'string'),
  7: one('graph', () => GRAPH),
  8: many('opsetImport', () => OPERATOR_SET),
  14: many('metadataProps', () => ENTRY),
  25: many('functions', () => FUNCTION),
};

/** Wire type of each scalar: 0 is a varint, 1 eight bytes, 2 length-delimited, 5 four bytes. */
const WIRE_TYPES = { string: 2, bytes: 2, int32: 0, int64: 0, uint64: 0, float: 5, double: 1 } as const;
const DELIMITED = 2;

/** Deeper nesting is refused: no real model comes near this depth, and the stack suffices for it. */
const MAX_DEPTH = 100;

type Decoded = Record<string, unknown>;

/** Text that isn't UTF-8 is read with replacement characters: names only need to differ. */
const TEXT = new TextDecoder('utf-8', { ignoreBOM: true });

const wide = ({ lo, hi }: { lo: number; hi: number }): Int64 => {
  const value = hi * 2 ** 32 + (lo >>> 0);
  return Number.isSafeInteger(value) ? value : { low: lo, high: hi };
};

const READ: Readonly<Record<Scalar, (reader: BinaryReader) => unknown>> = {
  string: (reader) => reader.string(),
  bytes: (reader) => reader.bytes(),
  int32: (reader) => reader.int32(),
  int64: (reader) => wide(reader.int64()),
  uint64: (reader) => wide(reader.uint64()),
  float: (reader) => reader.float(),
  double: (reader) => reader.double(),
};

const bigint = (value: Int64) =>
  typeof value === 'number' ? BigInt(value) : (BigInt(value.high) << 32n) | BigInt(value.low >>> 0);

const WRITE: Readonly<Record<Scalar, (writer: IBinaryWriter, value: never) => unknown>> = {
  string: (writer, value) => writer.string(value),
  bytes: (writer, value) => writer.bytes(value),
  int32: (writer, value) => writer.int32(value),
  int64: (writer, value) => writer.int64(BigInt.asIntN(64, bigint(value))),
  uint64: (writer, value) => writer.uint64(BigInt.asUintN(64, bigint(value))),
  float: (writer, value) => writer.float(value),
  double: (writer, value) => writer.double(value),
};

/** Yields after so many numbers of a list. */
const NUMBERS_AT_ONCE = 2 ** 14;

function corrupt(problem: string, cause?: unknown): never {
  throw new ResidualSkipError('MODEL_CORRUPT', problem, { cause });
}

/** What the reader throws where bytes end too early or are no message; any other error is a defect. */
const OF_READER: readonly unknown[] = ['Error', 'RangeError'];

function* decodeAll(bytes: Uint8Array, fields: Message): Sliced<Decoded> {
  try {
    return yield* decode(new BinaryReader(bytes, TEXT), fields, bytes.length);
  } catch (error) {
    const { name, message } = error as Error;
    if (!OF_READER.includes(name)) throw error;
    corrupt(message, error);
  }
}

function* decode(reader: BinaryReader, fields: Message, end: number, depth = 0): Sliced<Decoded> {
  if (depth > MAX_DEPTH) corrupt(`messages are nested beyond a depth of ${MAX_DEPTH}`);
  const message: Decoded = {};
  while (reader.pos < end) {
    const tag = reader.uint32();
    const wireType = tag & 7;
    const field = fields[tag >>> 3];
    const { type } = field ?? {};
    const own = typeof type === 'string' ? WIRE_TYPES[type] : DELIMITED;
    const packed = wireType === DELIMITED && own !== DELIMITED && field?.repeated === true;
    if (!field || (wireType !== own && !packed)) {
      reader.skip(wireType);
    } else if (packed) {
      const last = delimitedEnd(reader, end);
      const values = listOf(message, field);
      const read = READ[type as Scalar];
      while (reader.pos < last) {
        values.push(read(reader));
        if (values.length % NUMBERS_AT_ONCE === 0) yield;
      }
    } else if (typeof field.type === 'string') {
      put(message, field, READ[field.type](reader));
    } else {
      put(message, field, yield* decode(reader, field.type(), delimitedEnd(reader, end), depth + 1));
      if (depth < 2 && isDue()) yield;
    }
  }
  if (reader.pos !== end) corrupt('a field is longer than the message around it');
  return message;
}

function delimitedEnd(reader: BinaryReader, limit: number): number {
  const length = reader.uint32();
  if (length > limit - reader.pos) corrupt('a message is longer than the one around it');
  return reader.pos + length;
}

function put(message: Decoded, field: Field, value: unknown): void {
  if (field.repeated) listOf(message, field).push(value);
  else message[field.name] = value;
}

function listOf(message: Decoded, { name }: Field): unknown[] {
  message[name] ??= [];
  return message[name] as unknown[];
}

function encode(writer: IBinaryWriter, fields: Message, message: Decoded): IBinaryWriter {
  for (const [number, { name, type, repeated }] of Object.entries(fields)) {
    const given = message[name];
    if (given === undefined) continue;
    for (const value of (repeated ? given : [given]) as never[]) {
      if (typeof type === 'string') WRITE[type](writer.tag(Number(number), WIRE_TYPES[type]), value);
      else encode(writer.tag(Number(number), DELIMITED).fork(), type(), value).join();
    }
  }
  return writer;
}

/**
 * Decodes a model file. Byte fields are views into `bytes`; absent fields are undefined.
 * @throws ResidualSkipError MODEL_CORRUPT when the bytes are not such a message
 */
export function decodeModelProto(bytes: Uint8Array): ModelProto {
  return atOnce(decodingModelProto(bytes));
}

/** The same in slices. */
export function decodingModelProto(bytes: Uint8Array): Sliced<ModelProto> {
  return decodeAll(bytes, MODEL);
}

/** Decodes one serialised tensor, such as those in the data sets of ONNX's own tests. */
export function decodeTensorProto(bytes: Uint8Array): TensorProto {
  return atOnce(decodeAll(bytes, TENSOR));
}

/** The bytes of a model file. */
export function encodeModelProto(model: ModelProto): Uint8Array {
  return encode(new BinaryWriter(), MODEL, { ...model }).finish();
}
