import type { Sliced } from '../../../util/slices.js';
import type { ValueId } from '../../program/program.js';
import type { Node } from '../../read/graph.js';
import type { NodeLowering } from '../lowering.js';

/** How nodes of one ONNX operator become steps. */
export interface Operator {
  /**
   * Adds the node's steps and returns all outputs that it can compute (a single one may be returned alone). All
   * shapes are concrete. Handles the differences between opsets. What may become very many steps comes in slices.
   */
  readonly lower: (node: NodeLowering) => ValueId | readonly ValueId[] | Sliced<readonly ValueId[]>;
  /** Inputs whose elements, not only their shapes, decide the steps. */
  readonly constantInputs?: readonly number[];
  /** Inputs that choose between subgraphs of which only one runs, and needs to fit. */
  readonly choosingInputs?: readonly number[];
  /** The elements of the inputs decide the shape of the output: see `splitGraph`. Of a loop, whether they decide how often it runs. */
  readonly dataDependent?: (node: Node) => boolean;
  /** Inputs of which only shape and type matter. */
  readonly shapeOnly?: boolean;
  /** What this node needs that isn't implemented, as its attributes say. */
  readonly unsupported?: (node: Node) => string | undefined;
}

/** The index of an input that an operator doesn't have. */
export const NO_INPUT = -1;

/** By ONNX operator name. */
export type OperatorTable = Readonly<Record<string, Operator>>;
