/**
 * The part of the ONNX format (onnx.proto, IR version 3 to 10) that is needed to decode models. Field numbers are
 * those of the specification; other fields are skipped.
 */
import { atOnce, type Sliced } from '../../util/slices.js';
import { decodeAll, encodeAll, type Int64, type Message, many, one } from './wire.js';

export type { Int64 } from './wire.js';

export interface KeyValueProto {
  key?: string;
  value?: string;
}

/** A list, or what was decoded at once. */
type Numbers = ArrayLike<number> & Iterable<number>;

export interface TensorProto {
  dims?: Int64[];
  dataType?: number;
  segment?: object;
  floatData?: Numbers;
  int32Data?: Numbers;
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
  floats?: Numbers;
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
  return encodeAll(MODEL, { ...model });
}
