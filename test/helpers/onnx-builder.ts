import {
  type AttributeProto,
  encodeModelProto,
  type GraphProto,
  type Int64,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from 'lib/model/read/proto.js';
import type { TensorData } from 'lib/tensor/tensor.js';

/** ONNX's numbers for element types. */
export const ELEMENT_TYPE = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  double: 11,
  uint32: 12,
  uint64: 13,
  bfloat16: 16,
} as const;
export type ElementTypeName = keyof typeof ELEMENT_TYPE;

type Shape = readonly (number | string)[];
/** Integers become ints, other numbers floats; `float` makes a float of an integer. */
type AttributeValue =
  | number
  | string
  | readonly number[]
  | TensorProto
  | GraphBuilder
  | { readonly float: number }
  | { readonly floats: readonly number[] }
  | { readonly strings: readonly string[] };

export const float = (value: number) => ({ float: value });
export const floats = (...values: number[]) => ({ floats: values });
export const strings = (...values: string[]) => ({ strings: values });

function int64(value: number | bigint): Int64 {
  const wide = BigInt.asIntN(64, BigInt(value));
  return { low: Number(BigInt.asIntN(32, wide)), high: Number(wide >> 32n), unsigned: false } as Int64;
}

function dtypeOf(data: TensorData): ElementTypeName {
  if (data instanceof Float32Array) return 'float32';
  if (data instanceof Int32Array) return 'int32';
  if (data instanceof Int8Array) return 'int8';
  return data instanceof BigInt64Array ? 'int64' : 'uint8';
}

/** A tensor in raw form. */
export function tensor(
  data: TensorData,
  shape: readonly number[] = [data.length],
  type = dtypeOf(data),
): TensorProto {
  const rawData = new Uint8Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
  return { dataType: ELEMENT_TYPE[type], dims: shape.map(int64), rawData };
}

export function int64s(...values: number[]): TensorProto {
  return tensor(BigInt64Array.from(values, BigInt));
}

export function float32s(...values: number[]): TensorProto {
  return tensor(Float32Array.from(values));
}

function valueInfo(name: string, shape?: Shape, type: ElementTypeName = 'float32'): ValueInfoProto {
  const dim = shape?.map((length) =>
    typeof length === 'string' ? { dimParam: length } : { dimValue: int64(length) },
  );
  return { name, type: { tensorType: { elemType: ELEMENT_TYPE[type], ...(dim && { shape: { dim } }) } } };
}

function attribute(name: string, value: AttributeValue): AttributeProto {
  if (typeof value === 'number') {
    return Number.isInteger(value) ? { name, type: 2, i: int64(value) } : { name, type: 1, f: value };
  }
  const bytes = (text: string) => new TextEncoder().encode(text);
  if (typeof value === 'string') return { name, type: 3, s: bytes(value) };
  if (Array.isArray(value)) return { name, type: 7, ints: value.map(int64) };
  if (value instanceof GraphBuilder) return { name, type: 5, g: value.proto };
  if ('float' in value) return { name, type: 1, f: value.float };
  if ('floats' in value) return { name, type: 6, floats: [...value.floats] };
  if ('strings' in value) return { name, type: 8, strings: value.strings.map(bytes) };
  return { name, type: 4, t: value as TensorProto };
}

/** Writes ONNX graphs for tests. It checks nothing, so that tests can make broken files. */
export class GraphBuilder {
  readonly proto: Required<Pick<GraphProto, 'node' | 'initializer' | 'input' | 'output'>> & GraphProto;
  private made = 0;

  /** @param prefix of names: those of a subgraph must differ from those around it */
  constructor(
    name = 'graph',
    private readonly prefix = '',
  ) {
    this.proto = { name, node: [], initializer: [], input: [], output: [] };
  }

  input(name: string, shape?: Shape, type?: ElementTypeName): string {
    this.proto.input.push(valueInfo(name, shape, type));
    return name;
  }

  output(name: string, shape?: Shape, type?: ElementTypeName): this {
    this.proto.output.push(valueInfo(name, shape, type));
    return this;
  }

  constant(value: TensorProto, name = `${this.prefix}constant${this.made++}`): string {
    this.proto.initializer.push({ ...value, name });
    return name;
  }

  /** Adds a node named after its operator and returns its outputs. */
  nodes(
    opType: string,
    inputs: readonly string[],
    attributes: Record<string, AttributeValue> = {},
    options: { outputs?: readonly string[]; name?: string; domain?: string } = {},
  ): readonly string[] {
    const name = options.name ?? `${this.prefix}${opType}${this.made++}`;
    const output = [...(options.outputs ?? [`${name}_y`])];
    const node: NodeProto = { name, opType, input: [...inputs], output };
    if (options.domain) node.domain = options.domain;
    node.attribute = Object.entries(attributes).map(([key, value]) => attribute(key, value));
    this.proto.node.push(node);
    return output;
  }

  /** Adds a node with one output and returns the output. */
  node(opType: string, inputs: readonly string[], attributes: Record<string, AttributeValue> = {}): string {
    return this.nodes(opType, inputs, attributes)[0]!;
  }
}

/** The bytes of a model with this graph, and with `more` fields. */
export function modelBytes(graph: GraphBuilder, opset = 17, more: ModelProto = {}): Uint8Array {
  const model: ModelProto = {
    ...more,
    irVersion: int64(8),
    opsetImport: [{ version: int64(opset) }],
    graph: graph.proto,
  };
  return encodeModelProto(model);
}
