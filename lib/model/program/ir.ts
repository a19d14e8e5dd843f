import type { Port, Step, Value, ValueId } from './program.js';

/**
 * A model specialised for concrete shapes: each ONNX node lowered to steps, constants folded, not yet fused, without
 * blocks, in SSA form and topological order. Conditionals are still nested.
 */
export interface Ir {
  readonly values: Value[];
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly ops: readonly IrOp[];
  readonly batching: 'item' | 'whole';
  /** Names of recurrent nodes: a sum in their steps passes a state on, and is no shortcut. */
  readonly recurrent?: ReadonlySet<string>;
}

/** With what lowering knows of the graph that it came from. */
export interface LoweredIr extends Ir {
  /** The values that have names in the graph. */
  readonly scope: { get(name: string): ValueId | undefined };
  /** For each node of the graph, the first of the values that it made. */
  readonly firsts: readonly ValueId[];
}

/** Every step but `branch` and `jump`, which scheduling creates for an `if`. `node` is the ONNX node's name. */
export type IrStep = Exclude<Step, { op: 'branch' | 'jump' }> & { readonly node: string };

/** [condition bool, one element] -> outputs; branches see all values of the outer scope. */
export interface IrIf {
  readonly op: 'if';
  readonly node: string;
  readonly inputs: readonly ValueId[];
  readonly outputs: readonly ValueId[];
  readonly branches: { readonly then: IrBranch; readonly else: IrBranch };
}
export interface IrBranch {
  readonly ops: readonly IrOp[];
  readonly outputs: readonly ValueId[];
}
export type IrOp = IrStep | IrIf;
