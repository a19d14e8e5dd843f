import { ResidualSkipError } from '../../errors.js';
import { late } from '../../util/late.js';
import { isDue, type Sliced } from '../../util/slices.js';
import type { ExternalData } from './external.js';
import type { Attribute, Constant, Dimension, Graph, ModelPort, Node, Unsupported } from './graph.js';
import { checkedNodes, type Names, reachable } from './order.js';
import type {
  AttributeProto,
  GraphProto,
  ModelProto,
  NodeProto,
  TensorProto,
  ValueInfoProto,
} from './proto.js';
import {
  type DecodedElements,
  decodeTensor,
  dtypeOf,
  elementTypeName,
  isDecodable,
  toNumber,
  widenedTypeOf,
} from './tensor-proto.js';

/** Opset 6 declares broadcasting in another way than 7 but is otherwise the same. */
const OLDEST_OPSET = 6;
const NEWEST_OPSET = 24;
const STANDARD_DOMAINS = new Set(['', 'ai.onnx']);

export interface DecodedModel {
  readonly opset: number;
  readonly graph: Graph;
}

/**
 * Decodes the graph of a model and checks that every name is defined once and before its use. What is not implemented
 * is listed in the graph, not thrown.
 * @throws ResidualSkipError MODEL_CORRUPT when essential parts are missing, MODEL_INVALID naming the node
 */
export function* decodeModel(model: ModelProto, external: ExternalData): Sliced<DecodedModel> {
  if (!model.graph) corrupt('it has no graph');
  const imports = model.opsetImport ?? [];
  if (imports.length === 0) corrupt('it names no operator set');
  const standard = imports.find(({ domain = '' }) => STANDARD_DOMAINS.has(domain));
  const opset = toNumber(standard?.version ?? 0);
  const graph = yield* new GraphDecoder(external, `graph '${model.graph.name ?? ''}'`).decode(
    model.graph,
    new Set(),
  );
  if (opset >= OLDEST_OPSET && opset <= NEWEST_OPSET) return { opset, graph };
  const range = `opset ${opset} (${OLDEST_OPSET} to ${NEWEST_OPSET} are supported)`;
  return { opset, graph: { ...graph, unsupported: [{ op: range, nodes: [] }, ...graph.unsupported] } };
}

function corrupt(problem: string): never {
  throw new ResidualSkipError('MODEL_CORRUPT', problem);
}

/** Stands for a tensor that can't be decoded; a graph that has one is never lowered. */
const PLACEHOLDER: Constant = { dtype: 'float32', shape: [0], data: new Float32Array(0) };

/** Decodes one graph; a subgraph has a decoder of its own. */
class GraphDecoder {
  private readonly unsupported = new Map<string, string[]>();
  private readonly constants = new Map<string, Constant>();

  constructor(
    private readonly external: ExternalData,
    private readonly where: string,
    private readonly decoded: DecodedElements = new Map(),
    private readonly nested = false,
  ) {}

  *decode(graph: GraphProto, outer: Names): Sliced<Graph> {
    const tensors = graph.initializer ?? [];
    for (let i = 0; i < tensors.length; i++) {
      const tensor = tensors[i]!;
      if (isDue()) yield;
      this.define(tensor.name ?? '', tensor, `initialiser '${tensor.name ?? ''}'`);
    }
    for (const { values } of graph.sparseInitializer ?? []) {
      const name = values?.name ?? '';
      this.constants.set(name, PLACEHOLDER);
      this.report('sparse initialiser', name);
    }
    const inputs = (graph.input ?? [])
      .filter(({ name = '' }) => !this.constants.has(name))
      .map((info) => this.port(info, 'input'));
    const visible = this.visible(graph, inputs, outer);
    const decoded: Node[] = [];
    const protos = graph.node ?? [];
    for (let i = 0; i < protos.length; i++) {
      const proto = protos[i]!;
      const node = this.node(proto, hasGraphs(proto) ? yield* this.subgraphs(proto, visible) : undefined);
      if (node) decoded.push(node);
      if (isDue()) yield;
    }
    const outputs = (graph.output ?? []).map((info) => this.port(info, this.nested ? 'branch' : 'output'));
    const defined = new Set([...inputs.map(({ name }) => name), ...this.constants.keys()]);
    if (defined.size < inputs.length + this.constants.size) {
      invalid(`${this.where}: two of its inputs have the same name`);
    }
    const nodes = checkedNodes(decoded, defined, outer, outputs, this.where);
    const unsupported: Unsupported[] = [...this.unsupported].map(([op, names]) => ({ op, nodes: names }));
    const whole = { name: graph.name ?? '', inputs, outputs, constants: this.constants, nodes, unsupported };
    return reachable(whole);
  }

  /** What subgraphs see: few graphs have any. */
  private visible(graph: GraphProto, inputs: readonly ModelPort[], outer: Names): Names {
    const own = late(() => {
      const names = new Set([...inputs.map(({ name }) => name), ...this.constants.keys()]);
      for (const node of graph.node ?? []) for (const name of node.output ?? []) names.add(name);
      return names;
    });
    return { has: (name) => own().has(name) || outer.has(name) };
  }

  private report(op: string, node: string): void {
    const nodes = this.unsupported.get(op);
    if (nodes) nodes.push(node);
    else this.unsupported.set(op, [node]);
  }

  private define(name: string, tensor: TensorProto, what: string): void {
    if (name === '') invalid(`${this.where}: ${what} has no name`);
    if (this.constants.has(name)) invalid(`${this.where}: ${what} is defined twice`);
    this.constants.set(name, this.tensor(tensor, name));
  }

  private tensor(tensor: TensorProto, name: string): Constant {
    const type = tensor.dataType ?? 0;
    if (isDecodable(type) && !tensor.segment)
      return decodeTensor(tensor, this.external.get(tensor), this.decoded);
    this.report(tensor.segment ? 'tensor in segments' : `tensor of ${elementTypeName(type)}`, name);
    return PLACEHOLDER;
  }

  /** @param kind `branch`: the output of a subgraph. Its declared type may be empty, as that of a subgraph's input; lowering finds the type. */
  private port({ name = '', type }: ValueInfoProto, kind: 'input' | 'output' | 'branch'): ModelPort {
    if (name === '') invalid(`${this.where}: an ${kind === 'input' ? 'input' : 'output'} has no name`);
    const tensorType = type?.tensorType;
    const elementType = tensorType?.elemType ?? 0;
    const dtype = dtypeOf(elementType);
    const isOpen = kind === 'branch' || (type === undefined && (kind === 'output' || this.nested));
    if (!isOpen) {
      if (!tensorType) this.report(`${kind} that is not a tensor`, name);
      else if (!dtype) this.report(`${kind} of ${elementTypeName(elementType)}`, name);
    }
    const shape = (tensorType?.shape?.dim ?? []).map(({ dimValue, dimParam }, axis): Dimension => {
      if (dimParam) return dimParam;
      // An axis without a length or a name can have any length. All unnamed batch axes are taken to be the same.
      if (dimValue === undefined) return axis === 0 ? 'batch' : `${name}.${axis}`;
      const length = toNumber(dimValue);
      // Some exporters write -1 for an axis of any length.
      if (length === -1) return axis === 0 ? 'batch' : `${name}.${axis}`;
      if (length < 0) invalid(`${this.where}: ${kind} '${name}' has a length of ${length}`);
      return length;
    });
    const anyRank = kind === 'input' && tensorType && !tensorType.shape;
    const widened = widenedTypeOf(elementType);
    return {
      name,
      dtype: dtype ?? 'float32',
      shape,
      ...(widened && { widened }),
      ...(anyRank && { anyRank }),
    };
  }

  /**
   * A Constant node becomes a constant instead of a node.
   * @param subgraphs those of its attributes that are graphs
   */
  private node(
    proto: NodeProto,
    subgraphs: ReadonlyMap<AttributeProto, Graph> | undefined,
  ): Node | undefined {
    const { input = [], output = [], opset } = proto;
    const op = operatorOf(proto);
    const name = nameOf(proto, op);
    if (op === 'Constant') {
      this.constant(proto, output[0] ?? '', name);
      return undefined;
    }
    const node = {
      name,
      op,
      inputs: trimmed(input),
      outputs: trimmed(output),
      attributes: proto.attribute ? this.attributes(proto.attribute, name, subgraphs) : NO_ATTRIBUTES,
      hasSubgraphs: subgraphs !== undefined,
    };
    return opset === undefined ? node : { ...node, opset };
  }

  private attributes(
    given: readonly AttributeProto[],
    node: string,
    subgraphs: ReadonlyMap<AttributeProto, Graph> | undefined,
  ): ReadonlyMap<string, Attribute> {
    const attributes = new Map<string, Attribute>();
    for (let i = 0; i < given.length; i++) {
      const value = subgraphs?.get(given[i]!) ?? this.attribute(given[i]!, node);
      if (value !== undefined) attributes.set(given[i]!.name ?? '', value);
    }
    return attributes;
  }

  private *subgraphs(proto: NodeProto, visible: Names): Sliced<ReadonlyMap<AttributeProto, Graph>> {
    const node = nameOf(proto, operatorOf(proto));
    const decoded = new Map<AttributeProto, Graph>();
    for (const attribute of proto.attribute!) {
      if (!isGraphAttribute(attribute)) continue;
      const where = `${this.where}, node '${node}', ${attribute.name ?? ''}`;
      decoded.set(attribute, yield* this.subgraph(attribute.g!, where, visible));
    }
    return decoded;
  }

  private constant({ attribute = [] }: NodeProto, output: string, node: string): void {
    const [value] = attribute;
    if (!value || attribute.length > 1) invalid(`node '${node}' (Constant): expected exactly one attribute`);
    const tensor = constantTensor(value);
    if (tensor) {
      this.define(output, tensor, `node '${node}' (Constant)`);
      return;
    }
    this.constants.set(output, PLACEHOLDER);
    this.report(`Constant with ${value.name ?? ''}`, node);
  }

  /** One that is no graph. */
  private attribute(attribute: AttributeProto, node: string): Attribute | undefined {
    const { f, i, s, t, floats, ints, strings } = attribute;
    switch (typeOf(attribute)) {
      case 'float':
        return f ?? 0;
      case 'int':
        return toNumber(i ?? 0);
      case 'string':
        return s ? Buffer.from(s).toString('utf8') : '';
      case 'tensor':
        return t && this.tensor(t, node);
      case 'floats':
        return [...(floats ?? [])];
      case 'ints':
        return (ints ?? []).map(toNumber);
      case 'strings':
        return (strings ?? []).map((text) => Buffer.from(text).toString('utf8'));
      default:
        // No implemented operator has an attribute of another type.
        return undefined;
    }
  }

  private *subgraph(graph: GraphProto, where: string, visible: Names): Sliced<Graph> {
    const decoded = yield* new GraphDecoder(this.external, where, this.decoded, true).decode(graph, visible);
    for (const { op, nodes } of decoded.unsupported) for (const node of nodes) this.report(op, node);
    return decoded;
  }
}

const NO_ATTRIBUTES: ReadonlyMap<string, Attribute> = new Map();

function operatorOf({ domain = '', opType = '' }: NodeProto): string {
  return STANDARD_DOMAINS.has(domain) ? opType : `${domain}.${opType}`;
}

function nameOf({ name, output = [] }: NodeProto, op: string): string {
  return name || `${op}(${output.find((candidate) => candidate !== '') ?? ''})`;
}

/** Whether a node has subgraphs. A Constant is read in another way, whatever it has. */
function hasGraphs(proto: NodeProto): boolean {
  return proto.attribute?.some(isGraphAttribute) === true && operatorOf(proto) !== 'Constant';
}

function isGraphAttribute(attribute: AttributeProto): boolean {
  return attribute.g !== undefined && typeOf(attribute) === 'graph';
}

/** By AttributeProto.AttributeType. */
const ATTRIBUTE_TYPES = [
  'undefined',
  'float',
  'int',
  'string',
  'tensor',
  'graph',
  'floats',
  'ints',
  'strings',
] as const;

function typeOf(attribute: AttributeProto): (typeof ATTRIBUTE_TYPES)[number] | undefined {
  return ATTRIBUTE_TYPES[attribute.type ?? guessType(attribute)];
}

/** Files of IR version 1 omit the type. */
function guessType({ f, i, s, t, g, floats, ints, strings }: AttributeProto): number {
  const fields = [undefined, f, i, s, t, g, floats, ints, strings];
  return Math.max(
    0,
    fields.findIndex((field) => field !== undefined && !(Array.isArray(field) && field.length === 0)),
  );
}

/** The tensor that a Constant node's attribute stands for; undefined for strings and sparse tensors. */
function constantTensor({ name, t, f, i, floats, ints }: AttributeProto): TensorProto | undefined {
  switch (name) {
    case 'value':
      return t;
    case 'value_float':
      return { dataType: 1, dims: [], floatData: [f ?? 0] };
    case 'value_floats':
      return { dataType: 1, dims: [floats?.length ?? 0], floatData: floats };
    case 'value_int':
      return { dataType: 7, dims: [], int64Data: [i ?? 0] };
    case 'value_ints':
      return { dataType: 7, dims: [ints?.length ?? 0], int64Data: ints };
    default:
      return undefined;
  }
}

/** Names without absent ones at the end. */
function trimmed(names: readonly string[]): readonly string[] {
  return names.at(-1) === '' ? names.slice(0, names.findLastIndex((name) => name !== '') + 1) : names;
}

function invalid(problem: string): never {
  throw new ResidualSkipError('MODEL_INVALID', problem);
}
