/**
 * Program: what a model becomes before any backend sees it. Plain data: a flat list of steps over typed
 * values of concrete shape, with the residual blocks made explicit. It knows nothing of ONNX, layouts,
 * instruction sets or threads.
 *
 * All tensors are dense and row-major, images are NCHW. Axes are non-negative. Shapes are concrete: for
 * `batching: 'item'` the batch axis (axis 0) of every batched value has length 1 and the program is run
 * once for each item; for `batching: 'whole'` the program sees the whole batch as one item.
 */
import type { Activation, CompareKind, OperationName, Operations, Term } from '../../kernels/operations.js';
import type { TensorData, ValueType, WidenedType } from '../../tensor/tensor.js';

export {
  ACTIVATION_KINDS,
  type Activation,
  type ActivationKind,
  BINARY_KINDS,
  type BinaryKind,
  COMPARE_KINDS,
  type CompareKind,
  GLOBAL_POOL_KINDS,
  LOGICAL_KINDS,
  type LogicalKind,
  NO_ACTIVATION,
  NO_REQUANTISATION,
  PAD_MODES,
  type PadMode,
  REDUCE_KINDS,
  type ReduceKind,
  type Requantisation,
  SCATTER_KINDS,
  type ScatterKind,
  type Term,
  type Window,
} from '../../kernels/operations.js';

/** Index into `Program.values`. `NONE` stands for an absent optional input. */
export type ValueId = number;
export const NONE = -1;

export interface Value {
  /** The ONNX name if there is one, otherwise a generated one. For messages only. */
  readonly name: string;
  readonly dtype: ValueType;
  readonly shape: readonly number[];
  /** Set for constants. Several programs of one model may share the same array. */
  readonly data?: TensorData;
  /** Of a constant whose elements have fewer bits in the file than here. */
  readonly bits?: 4;
  /** Of bytes that stand for numbers: (x - zero)*factor. Not every such value has it. */
  readonly term?: Term;
}

/**
 * One step: an operation, or a jump. `inputs` and `outputs` are ValueIds, in the order that `Operations` gives. Output
 * shapes and types are those of the output values.
 */
export type Step =
  | { [Op in OperationName]: StepOf<Op, Operations[Op]> }[OperationName]
  /** [condition bool, one element] -> []; goes to step `target` when false. Forward only. */
  | StepOf<'branch', { readonly target: number }>
  /** [] -> []; goes to step `target`. Forward only. */
  | StepOf<'jump', { readonly target: number }>;

export interface StepOf<Op extends string, Attributes> {
  readonly op: Op;
  readonly inputs: readonly ValueId[];
  readonly outputs: readonly ValueId[];
  readonly attrs: Attributes;
}
export type OpName = Step['op'];
export type StepNamed<Op extends OpName> = Extract<Step, { op: Op }>;

/** How a learned gate is written in the file. */
export type GateForm = 'multiply' | 'blend' | 'argmax' | 'where' | 'if';

/** The block runs when `score <compare> threshold`. The score is one float32 that the network computes. */
export interface Gate {
  readonly form: GateForm;
  readonly score: ValueId;
  readonly compare: Exclude<CompareKind, 'eq'>;
  readonly threshold: number;
}

/** How the input of a block comes to its end: as it is, through a projection, or padded with channels of zeros. */
export type ShortcutKind = 'identity' | 'projection' | 'padded';

/**
 * A residual block: steps [first, end) of the program. Blocks are in order, disjoint and never cross a
 * branch. Skipping means: none of [first, end) runs, `output` takes the elements of `shortcut`, and
 * `skipActivation` (unless 'none') is applied to it, or `skipTable` if it is there.
 */
export interface Block {
  readonly name: string;
  readonly shortcut: ShortcutKind;
  /** True when the shortcut is the identity and nothing but `output` leaves the body. */
  readonly skippable: boolean;
  /** Steps [gateFirst, first) only compute this gate's score; they run only when the gate is evaluated. */
  readonly gateFirst: number;
  readonly first: number;
  readonly end: number;
  /** The value of the residual stream before the block. */
  readonly input: ValueId;
  /** The value of the residual stream after it; produced by step end-1. Same shape as `input` if skippable. */
  readonly output: ValueId;
  readonly skipActivation: Activation;
  /** Of a stream of bytes whose ends differ in scale or zero point: skipping is a `lookup` in this constant. */
  readonly skipTable?: ValueId;
  readonly gate?: Gate;
  readonly cost: Cost;
}

/**
 * An early exit: steps [first, end) compute a score and the answers to give here. They are in no block, and no jump enters or
 * leaves them. The item ends behind them, with these answers, when the score reaches the policy's threshold; a NaN doesn't. Exits are in order and disjoint.
 */
export interface Exit {
  /** Name of the last block in front of it, or of the front whose exit it is, or INPUT. Policies and traces name the exit by it. */
  readonly after: string;
  /** Number of blocks in front of it; 0 if it precedes the first block. */
  readonly blocks: number;
  readonly first: number;
  readonly end: number;
  /** One float32. */
  readonly score: ValueId;
  /** If the policy gives no other. */
  readonly threshold: number;
  /** For each output of the program a value of the same type and shape. */
  readonly answers: readonly ValueId[];
  /** Multiply-adds of its steps, which are not part of the program's cost. */
  readonly multiplyAdds: number;
  /** Multiply-adds of the network behind it that belong to no block. */
  readonly beyond: number;
}

/** A hard decision in the graph that looks like a gate but can't skip anything; it is computed as the graph has it. */
export interface UnusableGate {
  /** Name of the ONNX node that applies it. */
  readonly node: string;
  readonly reason: string;
}

export interface Cost {
  /** Multiply-adds of one item: convolutions, fully connected layers, matrix products. */
  readonly multiplyAdds: number;
  /** Bytes of weights plus activations read and written once. */
  readonly bytes: number;
  /** Convolutions and fully connected layers. */
  readonly layers: number;
}

/** An early exit of the graph, kept apart from the program: it decides only once it is built into it. */
export interface OwnExit {
  /** Name of the last block in front of it, INPUT if there is none; of a front's exit, the front's. */
  readonly after: string;
  /** It comes from another network, which a policy puts before this one. */
  readonly front?: true;
  /** The step of the program before which it is evaluated: behind its block, and not beyond the next one's beginning. */
  readonly at: number;
  /** Steps that compute score and answer from values outside the blocks, such as the program's inputs, and values of earlier exits. */
  readonly steps: readonly Step[];
  /** One float32. */
  readonly score: ValueId;
  readonly threshold: number;
  readonly answer: ValueId;
  readonly cost: Cost;
}

export interface OwnExits {
  /** Numbered after the program's own values. */
  readonly values: readonly Value[];
  /** In order: those of fronts, others before the first block, then at most one behind each block. */
  readonly list: readonly OwnExit[];
}

export interface Port {
  readonly name: string;
  readonly value: ValueId;
  /** Type of the caller's tensors, where it isn't the value's. */
  readonly widened?: WidenedType;
  /** True when axis 0 is the batch: each item has its own slice. Otherwise all items share it. */
  readonly batched: boolean;
}

export interface Program {
  readonly values: readonly Value[];
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly steps: readonly Step[];
  readonly blocks: readonly Block[];
  /** Those that decide. */
  readonly exits: readonly Exit[];
  readonly batching: 'item' | 'whole';
  /** Of the whole program, including gates but not exits. */
  readonly cost: Cost;
  /** Those of the graph. */
  readonly ownExits?: OwnExits;
  readonly unusableGates?: readonly UnusableGate[];
  /** Float32 where it is left out. */
  readonly precision?: Precision;
}

/** What the network's own numbers are rounded to where convolutions and products with constant matrices multiply them. */
export const PRECISIONS = ['float32', 'bfloat16', 'bfloat16-amx'] as const;
/**
 * `float32`, or `bfloat16` for the products of convolutions and of matrices with constants, whose sums are float32. The network is
 * another one then: its answers differ from those in float32. `bfloat16-amx` sums in the order of the instructions that multiply
 * matrices, and also computes 3x3 convolutions in bfloat16. Each has the same bits on every processor.
 */
export type Precision = (typeof PRECISIONS)[number];

/** Those that round. */
export type ReducedPrecision = Exclude<Precision, 'float32'>;
export const isReduced = (precision: Precision | undefined): precision is ReducedPrecision =>
  precision !== undefined && precision !== 'float32';

/** The same program in a precision. */
export function inPrecision(program: Program, precision: Precision | undefined): Program {
  return isReduced(precision) ? { ...program, precision } : program;
}
