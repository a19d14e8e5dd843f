/**
 * Program: what a model becomes before any backend sees it. Plain data: a flat list of steps over typed
 * values of concrete shape, with the residual blocks made explicit. It knows nothing of ONNX, layouts,
 * instruction sets or threads.
 *
 * All tensors are dense and row-major, images are NCHW. Axes are non-negative. Shapes are concrete: for
 * `batching: 'item'` the batch axis (axis 0) of every batched value has length 1 and the program is run
 * once for each item; for `batching: 'whole'` the program sees the whole batch as one item.
 */
import type { DataType, TensorData } from '../tensor.js';

/** Index into `Program.values`. `NONE` stands for an absent optional input. */
export type ValueId = number;
export const NONE = -1;

export interface Value {
  /** The ONNX name where there is one; made up otherwise. For messages only. */
  readonly name: string;
  readonly dtype: DataType;
  readonly shape: readonly number[];
  /** Set for constants. The same array object may stand in several programs of one model. */
  readonly data?: TensorData;
}

/**
 * A pointwise function of one float32.
 *  - `relu` max(x, 0); `leakyRelu` x < 0 ? alpha*x : x; `clip` min(max(x, alpha), beta)
 *  - `sigmoid` 1/(1+e^-x); `hardSigmoid` min(max(alpha*x + beta, 0), 1)
 *  - `hardSwish` x*min(max(x/6 + 0.5, 0), 1); `silu` x*sigmoid(x); `tanh`
 * NaN propagates. Unused parameters are 0.
 */
export interface Activation {
  readonly kind: ActivationKind;
  readonly alpha: number;
  readonly beta: number;
}
export const ACTIVATION_KINDS = [
  'none',
  'relu',
  'leakyRelu',
  'clip',
  'sigmoid',
  'hardSigmoid',
  'hardSwish',
  'silu',
  'tanh',
] as const;
export type ActivationKind = (typeof ACTIVATION_KINDS)[number];
export const NO_ACTIVATION: Activation = { kind: 'none', alpha: 0, beta: 0 };

export const BINARY_KINDS = ['add', 'sub', 'mul', 'div'] as const;
export type BinaryKind = (typeof BINARY_KINDS)[number];
export const COMPARE_KINDS = ['gt', 'ge', 'lt', 'le', 'eq'] as const;
export type CompareKind = (typeof COMPARE_KINDS)[number];
export const LOGICAL_KINDS = ['and', 'or', 'not'] as const;
export type LogicalKind = (typeof LOGICAL_KINDS)[number];
export const PAD_MODES = ['constant', 'reflect', 'edge', 'wrap'] as const;
export type PadMode = (typeof PAD_MODES)[number];

/** Spatial attributes; every list has one entry per spatial axis (1 to 3 of them). */
interface Window {
  readonly strides: readonly number[];
  /** Begin of every spatial axis, then end of every spatial axis, as in ONNX; `auto_pad` is resolved. */
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
}

/**
 * One step. `inputs` and `outputs` are ValueIds, in the order given here. Output shapes and types are
 * those of the output values; a backend need not infer anything. Data types are float32 unless noted.
 */
export type Step =
  /** [x (N,C,spatial...), weight (M,C/group,kernel...), bias (M) | NONE, residual (shape of y) | NONE] -> [y];
   *  y = act(conv(x) + bias + residual). */
  | StepOf<'conv', Window & { readonly group: number; readonly act: Activation }>
  /** [a (M,K), b (K,N) or (N,K) if transB, c (N) | NONE, residual (M,N) | NONE] -> [y (M,N)];
   *  y = act(a*b + c + residual). */
  | StepOf<'gemm', { readonly transB: boolean; readonly act: Activation }>
  /** [a, b] -> [y]; numpy.matmul with broadcasting of the leading axes, both of rank >= 2. */
  | StepOf<'matmul', object>
  /** [x (N,C,...), scale (C), shift (C)] -> [y]; y = act(x*scale[c] + shift[c]). */
  | StepOf<'affine', { readonly act: Activation }>
  /** [x] -> [y] same shape. */
  | StepOf<'unary', { readonly act: Activation }>
  /** [a, b] -> [y]; numpy broadcasting; float32, int32, int64 or uint8, same type on both sides;
   *  integer division truncates. `act` applies to float32 only. */
  | StepOf<'binary', { readonly kind: BinaryKind; readonly act: Activation }>
  /** [a, b] -> [y bool]; numpy broadcasting; any one type. */
  | StepOf<'compare', { readonly kind: CompareKind }>
  /** [a, b] (or [a] for `not`) -> [y], bool, numpy broadcasting. */
  | StepOf<'logical', { readonly kind: LogicalKind }>
  /** [condition bool, a, b] -> [y]; numpy broadcasting of all three; any type. */
  | StepOf<'where', object>
  /** [x] -> [y]; C conversion rules, float to integer truncates, to bool is != 0. */
  | StepOf<'cast', object>
  /** [x (N,C,spatial...)] -> [y] or [y, indices int64] (max only; indices into the flattened x tensor). Max
   *  ignores padding; NaN propagates. Avg divides by the window, with padding counted if countIncludePad.
   *  Rounding of the output size is already in y's shape. */
  | StepOf<
      'pool',
      Window & {
        readonly kind: 'max' | 'avg';
        readonly kernel: readonly number[];
        readonly countIncludePad: boolean;
        /** Indices are column-major over the spatial axes (ONNX storage_order = 1). */
        readonly columnMajorIndices: boolean;
      }
    >
  /** [x (N,C,spatial...)] -> [y]; over all spatial axes; y is (N,C,1,1...) or (N,C). */
  | StepOf<'globalPool', { readonly kind: 'max' | 'avg' }>
  /** [x] -> [y]; mean over `axes` (sorted); y's shape says whether the axes were kept. */
  | StepOf<'reduceMean', { readonly axes: readonly number[] }>
  /** [x] -> [y]; along `axis`. */
  | StepOf<'softmax', { readonly axis: number; readonly log: boolean }>
  /** [x float32] -> [y int64]; the first of equal maxima, or the last if selectLast. */
  | StepOf<'argMax', { readonly axis: number; readonly selectLast: boolean }>
  /** [indices int64|int32|float32, values (2) = [off, on]] -> [y]; y has `depth` at `axis`; an index in
   *  [-depth, -1] counts from the end, others outside give the off value everywhere. */
  | StepOf<'oneHot', { readonly axis: number; readonly depth: number }>
  /** [data, indices int64|int32] -> [y]; negative indices count from the end; outside is an error at run. */
  | StepOf<'gather', { readonly axis: number }>
  /** [x] -> [y]; y.shape[i] = x.shape[perm[i]]. */
  | StepOf<'transpose', { readonly perm: readonly number[] }>
  /** [x] -> [y]; pads as in ONNX over all axes (begins, then ends; negative crops). */
  | StepOf<'pad', { readonly pads: readonly number[]; readonly mode: PadMode; readonly value: number }>
  /** [x] -> [y]; starts are resolved (in range), steps may be negative; extents are y's shape. */
  | StepOf<'slice', { readonly starts: readonly number[]; readonly steps: readonly number[] }>
  /** [x0, x1, ...] -> [y]. */
  | StepOf<'concat', { readonly axis: number }>
  /** [x] -> [y]; same elements in the same order under another shape (also a plain copy). */
  | StepOf<'reshape', object>
  /** [x] -> [y]; numpy broadcasting to y's shape. */
  | StepOf<'expand', object>
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

/**
 * How a learned gate stood in the file; `policy` when a policy brought it along, `confidence` when a policy lets it read
 * the confidence of an exit.
 */
export type GateForm = 'multiply' | 'blend' | 'argmax' | 'where' | 'if' | 'policy' | 'confidence';

/** The block runs when `score <compare> threshold`. The score is one float32 that the network computes. */
export interface Gate {
  readonly form: GateForm;
  readonly score: ValueId;
  readonly compare: Exclude<CompareKind, 'eq'>;
  readonly threshold: number;
}

export type ShortcutKind = 'identity' | 'projection' | 'padded';

/**
 * A residual block: steps [first, end) of the program. Blocks are in order, disjoint and never cross a
 * branch. Skipping means: none of [first, end) runs, `output` takes the elements of `shortcut`, and
 * `skipActivation` (unless 'none') is applied to it.
 */
export interface Block {
  readonly name: string;
  readonly shortcut: ShortcutKind;
  /** True when the shortcut is the identity and nothing but `output` leaves the body. */
  readonly skippable: boolean;
  /** Steps [gateFirst, first) do nothing but compute this gate's score; they run only when the gate is asked. */
  readonly gateFirst: number;
  readonly first: number;
  readonly end: number;
  /** The value of the residual stream before the block. */
  readonly input: ValueId;
  /** The value of the residual stream after it; produced by step end-1. Same shape as `input` if skippable. */
  readonly output: ValueId;
  readonly skipActivation: Activation;
  readonly gate?: Gate;
  readonly cost: Cost;
  /**
   * Multiply-adds of the heads that a policy brought along, part of no `cost`: of the gate before the block, spent when it is
   * asked, and of the exit behind it, spent when an item comes there. `beyond` are those of the network behind the block
   * that are no block's: what leaving here saves besides the blocks.
   */
  readonly heads?: { readonly gate: number; readonly exit: number; readonly beyond: number };
}

export interface Cost {
  /** Multiply-adds of one item: convolutions, fully connected layers, matrix products. */
  readonly multiplyAdds: number;
  /** Bytes of weights plus activations read and written once. */
  readonly bytes: number;
  /** Convolutions and fully connected layers. */
  readonly layers: number;
}

/**
 * An early exit that stood in the graph, apart from the program's steps: behind its block an item whose score is at least
 * the threshold has its answer, of the shape of the program's output.
 */
export interface Exit {
  /** Name of the block. */
  readonly after: string;
  /** What makes score and answer, from outputs of blocks and what the exits before have computed. */
  readonly steps: readonly Step[];
  /** One float32. */
  readonly score: ValueId;
  readonly threshold: number;
  readonly answer: ValueId;
  readonly cost: Cost;
}

export interface Exits {
  /** Behind the program's values, which they continue. */
  readonly values: readonly Value[];
  /** In order, each behind another block. */
  readonly list: readonly Exit[];
}

export interface Port {
  readonly name: string;
  readonly value: ValueId;
  /** True when axis 0 is the batch: each item has its own slice. Otherwise all items share it. */
  readonly batched: boolean;
}

export interface Program {
  readonly values: readonly Value[];
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly steps: readonly Step[];
  readonly blocks: readonly Block[];
  readonly batching: 'item' | 'whole';
  /** Of the whole program, gates included, exits not. */
  readonly cost: Cost;
  readonly exits?: Exits;
}
