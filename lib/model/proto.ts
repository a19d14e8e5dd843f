/**
 * The part of the ONNX format (onnx.proto, IR version 3 to 10) that models are decoded by. Field numbers are
 * those of the specification; fields that nothing here reads are skipped by the decoder.
 */
import protobuf from 'protobufjs/light.js';

/** An int64 of the wire: a number where it is safe, two halves otherwise. */
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
  attribute?: AttributeProto[];
}

export interface GraphProto {
  node?: NodeProto[];
  name?: string;
  initializer?: TensorProto[];
  sparseInitializer?: { values?: TensorProto }[];
  input?: ValueInfoProto[];
  output?: ValueInfoProto[];
}

export interface ModelProto {
  irVersion?: Int64;
  opsetImport?: { domain?: string; version?: Int64 }[];
  graph?: GraphProto;
}

type Fields = Record<string, protobuf.IField>;

const one = (id: number, type: string): protobuf.IField => ({ id, type });
const many = (id: number, type: string): protobuf.IField => ({ id, type, rule: 'repeated' });
const message = (fields: Fields): protobuf.IType => ({ fields });

const root = protobuf.Root.fromJSON({
  nested: {
    Entry: message({ key: one(1, 'string'), value: one(2, 'string') }),
    OperatorSet: message({ domain: one(1, 'string'), version: one(2, 'int64') }),
    Model: message({
      irVersion: one(1, 'int64'),
      graph: one(7, 'Graph'),
      opsetImport: many(8, 'OperatorSet'),
    }),
    Graph: message({
      node: many(1, 'Node'),
      name: one(2, 'string'),
      initializer: many(5, 'Tensor'),
      input: many(11, 'ValueInfo'),
      output: many(12, 'ValueInfo'),
      sparseInitializer: many(15, 'SparseTensor'),
    }),
    Node: message({
      input: many(1, 'string'),
      output: many(2, 'string'),
      name: one(3, 'string'),
      opType: one(4, 'string'),
      attribute: many(5, 'Attribute'),
      domain: one(7, 'string'),
    }),
    Attribute: message({
      name: one(1, 'string'),
      f: one(2, 'float'),
      i: one(3, 'int64'),
      s: one(4, 'bytes'),
      t: one(5, 'Tensor'),
      g: one(6, 'Graph'),
      floats: many(7, 'float'),
      ints: many(8, 'int64'),
      strings: many(9, 'bytes'),
      type: one(20, 'int32'),
      refAttrName: one(21, 'string'),
    }),
    Tensor: message({
      dims: many(1, 'int64'),
      dataType: one(2, 'int32'),
      segment: one(3, 'Segment'),
      floatData: many(4, 'float'),
      int32Data: many(5, 'int32'),
      stringData: many(6, 'bytes'),
      int64Data: many(7, 'int64'),
      name: one(8, 'string'),
      rawData: one(9, 'bytes'),
      doubleData: many(10, 'double'),
      uint64Data: many(11, 'uint64'),
      externalData: many(13, 'Entry'),
      dataLocation: one(14, 'int32'),
    }),
    Segment: message({ begin: one(1, 'int64'), end: one(2, 'int64') }),
    SparseTensor: message({ values: one(1, 'Tensor') }),
    ValueInfo: message({ name: one(1, 'string'), type: one(2, 'ValueType') }),
    ValueType: message({ tensorType: one(1, 'TensorType') }),
    TensorType: message({ elemType: one(1, 'int32'), shape: one(2, 'Shape') }),
    Shape: message({ dim: many(1, 'Dimension') }),
    // A group of alternatives, so that a length of 0 is told from an absent one.
    Dimension: {
      ...message({ dimValue: one(1, 'int64'), dimParam: one(2, 'string') }),
      oneofs: { value: { oneof: ['dimValue', 'dimParam'] } },
    },
  },
});

const MODEL = root.lookupType('Model');
const TENSOR = root.lookupType('Tensor');

/**
 * Decodes a model file. Byte fields are views into `bytes`; absent singular fields are undefined.
 * @throws Error from the decoder when the bytes are no such message
 */
export function decodeModelProto(bytes: Uint8Array): ModelProto {
  return presentFields(MODEL.decode(bytes)) as ModelProto;
}

/** Decodes one serialised tensor, as the data sets of ONNX's own tests are. */
export function decodeTensorProto(bytes: Uint8Array): TensorProto {
  return presentFields(TENSOR.decode(bytes)) as TensorProto;
}

/** The bytes of a model file. */
export function encodeModelProto(model: ModelProto): Uint8Array {
  return MODEL.encode(MODEL.create({ ...model })).finish();
}

/** Drops the defaults that protobufjs puts on its prototypes, so that absent means undefined. */
function presentFields(decoded: unknown): unknown {
  if (Array.isArray(decoded)) return typeof decoded[0] === 'object' ? decoded.map(presentFields) : decoded;
  if (!(decoded instanceof protobuf.Message)) return decoded;
  const plain: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(decoded)) plain[key] = presentFields(value);
  return plain;
}
