import type { Node } from '../graph.js';
import type { NodeLowering } from '../lowering.js';
import type { ValueId } from '../program.js';

/** How nodes of one ONNX operator become steps. */
export interface Operator {
  /**
   * Adds the node's steps and returns its outputs (one may stand alone), as many as it can give. All shapes
   * are concrete. Differences between opsets are settled here.
   */
  readonly lower: (node: NodeLowering) => ValueId | readonly ValueId[];
  /** Inputs whose elements, not only their shape, decide the steps. */
  readonly constantInputs?: readonly number[];
  /** Inputs of which only shape and type matter. */
  readonly shapeOnly?: boolean;
  /** What of this node isn't implemented, as far as its attributes tell. */
  readonly unsupported?: (node: Node) => string | undefined;
}

/** By ONNX operator name. */
export type OperatorTable = Readonly<Record<string, Operator>>;
