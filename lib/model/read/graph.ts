import type { TensorData, ValueType, WidenedType } from '../../tensor/tensor.js';

/** A dimension: a length, or the name of a symbolic one. */
export type Dimension = number | string;

export interface ModelPort {
  readonly name: string;
  /** What the graph computes with. */
  readonly dtype: ValueType;
  /** Type of the caller's tensors, where it is another. */
  readonly widened?: WidenedType;
  readonly shape: readonly Dimension[];
  /** An input that may have any number of axes, because the file gives it no shape; `shape` is empty then. */
  readonly anyRank?: true;
}

/** A constant tensor from the file, with fp16, bf16 and double converted to float32. */
export interface Constant {
  readonly dtype: ValueType;
  readonly shape: readonly number[];
  readonly data: TensorData;
  /** The elements have fewer bits in the file than here. */
  readonly bits?: 4;
}

export type Attribute = number | string | Constant | Graph | readonly number[] | readonly string[];

/** One ONNX node. An absent optional input is '', and so is an output that nothing reads. */
export interface Node {
  /** The node's name in the file, or one made from operator and output. For messages. */
  readonly name: string;
  /** The operator; `domain.operator` for domains other than ONNX's own. */
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, Attribute>;
  /** Whether graphs are among them, which few nodes have. */
  readonly hasSubgraphs: boolean;
  /** The operator set, where it isn't the model's. */
  readonly opset?: number;
}

/** An ONNX graph as decoded: nodes in topological order, SSA names. Subgraphs see outer names. */
export interface Graph {
  readonly name: string;
  readonly inputs: readonly ModelPort[];
  readonly outputs: readonly ModelPort[];
  readonly constants: ReadonlyMap<string, Constant>;
  readonly nodes: readonly Node[];
  /** What decoding could not represent: element types, sparse tensors, an opset out of range. */
  readonly unsupported: readonly Unsupported[];
}

/** A part of a graph that runs behind its program; the types and shapes of its inputs are known in a run. */
export interface Stage {
  /** Whether its layers are worth a program, which the backend runs; otherwise lowering computes it. */
  readonly isProgram: boolean;
  readonly graph: Graph;
}

/** Something that a model uses and that is not implemented. */
export interface Unsupported {
  /** An operator's name, with the attribute or element type if only that is the problem. */
  readonly op: string;
  /** The nodes, inputs, outputs or initialisers that use it. */
  readonly nodes: readonly string[];
}

const NO_GRAPHS: readonly Graph[] = [];

/** The subgraphs among a node's attributes. */
export function subgraphsOf({ attributes, hasSubgraphs }: Node): readonly Graph[] {
  return hasSubgraphs ? [...attributes.values()].filter(isGraph) : NO_GRAPHS;
}

export function isGraph(attribute: Attribute): attribute is Graph {
  return typeof attribute === 'object' && 'nodes' in attribute;
}

export function isConstant(attribute: Attribute): attribute is Constant {
  return typeof attribute === 'object' && 'dtype' in attribute;
}
