import type { DataType, TensorData } from '../tensor.js';
import type { ModelPort } from './model.js';

/** A constant tensor of the file; fp16, bf16 and double have become float32. */
export interface Constant {
  readonly dtype: DataType;
  readonly shape: readonly number[];
  readonly data: TensorData;
}

export type Attribute = number | string | Constant | Graph | readonly number[] | readonly string[];

/** One ONNX node. An absent optional input is ''. */
export interface Node {
  /** The file's node name, or one made from operator and output. For messages. */
  readonly name: string;
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, Attribute>;
}

/** An ONNX graph as decoded: nodes in topological order, SSA names. Subgraphs see outer names. */
export interface Graph {
  readonly name: string;
  readonly inputs: readonly ModelPort[];
  readonly outputs: readonly ModelPort[];
  readonly constants: ReadonlyMap<string, Constant>;
  readonly nodes: readonly Node[];
}
