/** The operations of the kernels, with their operands and attributes. */

/**
 * A pointwise function of one float32.
 *  - `relu` max(x, 0); `leakyRelu` x < 0 ? alpha*x : x; `clip` min(max(x, alpha), beta)
 *  - `sigmoid` 1/(1+e^-x); `hardSigmoid` min(max(alpha*x + beta, 0), 1)
 *  - `hardSwish` x*min(max(x/6 + 0.5, 0), 1); `silu` x*sigmoid(x); `tanh`
 *  - `erf`; `gelu` x*(1 + erf(x/sqrt(2)))/2; `geluTanh` x*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x^3)))/2
 *  - `elu` x < 0 ? alpha*(e^x - 1) : x; `selu` beta*elu(x); `celu` x < 0 ? alpha*(e^(x/alpha) - 1) : x
 *  - `softplus` log(1 + e^x); `softsign` x/(1 + |x|); `mish` x*tanh(softplus(x))
 *  - `exp`, `log`, `sqrt`, `reciprocal`, `abs`, `sign`, `floor`, `ceil`; `round` of two equally near integers gives the even one
 *  - `sin`, `cos` of x limited to [-2^20, 2^20], beyond which float32 hardly resolves a period; of infinities NaN
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
  'erf',
  'gelu',
  'geluTanh',
  'elu',
  'selu',
  'celu',
  'softplus',
  'softsign',
  'mish',
  'exp',
  'log',
  'sqrt',
  'reciprocal',
  'abs',
  'sign',
  'floor',
  'ceil',
  'round',
  'sin',
  'cos',
] as const;
export type ActivationKind = (typeof ACTIVATION_KINDS)[number];
export const NO_ACTIVATION: Activation = { kind: 'none', alpha: 0, beta: 0 };

/** `mod` has the sign of the divisor, `fmod` that of the dividend; `min` and `max` propagate NaN. */
export const BINARY_KINDS = ['add', 'sub', 'mul', 'div', 'min', 'max', 'mod', 'fmod', 'pow'] as const;
export type BinaryKind = (typeof BINARY_KINDS)[number];
export const COMPARE_KINDS = ['gt', 'ge', 'lt', 'le', 'eq'] as const;
/** How a score is compared with a threshold: `>`, `>=`, `<`, `<=`, `=`. */
export type CompareKind = (typeof COMPARE_KINDS)[number];
export const LOGICAL_KINDS = ['and', 'or', 'not'] as const;
export type LogicalKind = (typeof LOGICAL_KINDS)[number];
export const GLOBAL_POOL_KINDS = ['avg', 'max', 'meanSquare'] as const;
export type GlobalPoolKind = (typeof GLOBAL_POOL_KINDS)[number];
export const REDUCE_KINDS = ['sum', 'prod', 'min', 'max'] as const;
export type ReduceKind = (typeof REDUCE_KINDS)[number];
/** What an update does to the element that it meets. */
export const SCATTER_KINDS = ['set', 'add', 'mul', 'min', 'max'] as const;
export type ScatterKind = (typeof SCATTER_KINDS)[number];
export const PAD_MODES = ['constant', 'reflect', 'edge', 'wrap'] as const;
export type PadMode = (typeof PAD_MODES)[number];

/** How a number becomes a byte: min(max(round(v), low - zero), high - zero) + zero, of two equally near integers the even one. */
export interface Requantisation {
  readonly zero: number;
  readonly low: number;
  readonly high: number;
}
/** Of outputs that are no bytes. */
export const NO_REQUANTISATION: Requantisation = { zero: 0, low: 0, high: 0 };
/** A byte stands for (x - zero) * factor. */
export interface Term {
  readonly zero: number;
  readonly factor: number;
}

/** Spatial attributes; every list has one entry per spatial axis (1 to 3 of them). */
export interface Window {
  readonly strides: readonly number[];
  /** Begin of every spatial axis, then end of every spatial axis, as in ONNX; `auto_pad` is resolved. */
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
}

/** Where element (batch, head, row, column) of an operand of `attention` lies in its tensor. */
export interface AttentionView {
  readonly offset: number;
  readonly batch: number;
  readonly head: number;
  readonly row: number;
  readonly column: number;
}

/**
 * The attributes of each operation. The comment above each one gives its operands: `[inputs] -> [outputs]`, where
 * NONE marks an optional input. Shapes and types of the outputs are given; a kernel infers nothing. Data types are
 * float32 unless noted.
 */
export interface Operations {
  /** [x (N,C,spatial...), weight (M,C/group,kernel...), bias (M) | NONE, residual (shape of y) | NONE] -> [y];
   *  y = act(conv(x) + bias + residual). */
  readonly conv: Window & { readonly group: number; readonly act: Activation };
  /** [a (...,K), b (K,N) or (N,K) if transB, c (N) | NONE, residual (...,N) | NONE] -> [y (...,N)];
   *  y = act(a*b + c + residual). */
  readonly gemm: { readonly transB: boolean; readonly act: Activation };
  /** [a, b] -> [y]; numpy.matmul with broadcasting of the leading axes, both of rank >= 2. */
  readonly matmul: object;
  /** [x (N,C,...), scale (C), shift (C)] -> [y]; y = act(x*scale[c] + shift[c]). */
  readonly affine: { readonly act: Activation };
  /** [x] -> [y] same shape. */
  readonly unary: { readonly act: Activation };
  /** [a, b] -> [y]; numpy broadcasting; float32, int32, int64 or uint8, same type on both sides;
   *  integer division truncates, and a remainder by zero is 0; an integer to a negative power is truncated, too.
   *  `act` applies to float32 only. */
  readonly binary: { readonly kind: BinaryKind; readonly act: Activation };
  /** [a, b] -> [y bool]; numpy broadcasting; any one type. */
  readonly compare: { readonly kind: CompareKind };
  /** [a, b] (or [a] for `not`) -> [y], bool, numpy broadcasting. */
  readonly logical: { readonly kind: LogicalKind };
  /** [condition bool, a, b] -> [y]; numpy broadcasting of all three; any type. */
  readonly where: object;
  /** [x] -> [y]; C conversion rules, float to integer truncates, to bool is != 0. */
  readonly cast: object;
  /** [x (N,C,spatial...)] -> [y] or [y, indices int64] (max only; indices into the flattened x tensor). Max also takes bytes. It
   *  ignores padding; NaN propagates. Avg divides by the window, with padding counted if countIncludePad.
   *  Rounding of the output size is already in y's shape. */
  readonly pool: Window & {
    readonly kind: 'max' | 'avg';
    readonly kernel: readonly number[];
    readonly countIncludePad: boolean;
    /** Indices are column-major over the spatial axes (ONNX storage_order = 1). */
    readonly columnMajorIndices: boolean;
  };
  /** [x (N,C,spatial...)] -> [y]; over all spatial axes; y is (N,C,1,1...) or (N,C). */
  readonly globalPool: { readonly kind: GlobalPoolKind };
  /** [x] -> [y]; mean over `axes` (sorted); y's shape says whether the axes were kept. */
  readonly reduceMean: { readonly axes: readonly number[] };
  /** [x] -> [y]; along `axis`. */
  readonly softmax: { readonly axis: number; readonly log: boolean };
  /** [x, scale (n) | NONE, shift (n) | NONE] -> [y]; along `axis`, of length n:
   *  y = (x - mean) / sqrt(variance + epsilon) * scale + shift. */
  readonly layerNorm: { readonly axis: number; readonly epsilon: number };
  /** [q, k, v, mask | NONE] -> [y]; y[b,h,i] = sum over j of softmax(scale * q[b,h,i].k[b,h,j] + mask[b,h,i,j]) * v[b,h,j].
   *  With `replaces`, an element of the mask that is below 0 takes the place of the score instead, and others leave it as it is.
   *  Rows of q, mask and y are queries, of k and v keys; columns of the mask are keys. The views say where that lies in
   *  tensors of any shape; y's view covers y, its columns are neighbours. */
  readonly attention: {
    readonly batch: number;
    readonly heads: number;
    readonly queries: number;
    readonly keys: number;
    readonly depth: number;
    readonly valueDepth: number;
    readonly scale: number;
    readonly replaces: boolean;
    readonly q: AttentionView;
    readonly k: AttentionView;
    readonly v: AttentionView;
    readonly mask: AttentionView;
    readonly y: AttentionView;
  };
  /** [x float32, int32, int64 or uint8] -> [y int64]; the first of equal maxima, or the last if selectLast. */
  readonly argMax: { readonly axis: number; readonly selectLast: boolean };
  /** [x float32] -> [y, indices int64]; the largest along `axis`, or the smallest, best first; as many as y has there. Of equal
   *  ones the first precedes; NaN is above all numbers. */
  readonly topK: { readonly axis: number; readonly largest: boolean };
  /** [indices int64|int32|float32, values (2) = [off, on]] -> [y]; y has `depth` at `axis`; an index in
   *  [-depth, -1] counts from the end, others outside give the off value everywhere. */
  readonly oneHot: { readonly axis: number; readonly depth: number };
  /** [data, indices int64|int32] -> [y]; negative indices count from the end; outside is an error at run. */
  readonly gather: { readonly axis: number };
  /** [x] -> [y]; y.shape[i] = x.shape[perm[i]]. */
  readonly transpose: { readonly perm: readonly number[] };
  /** [x, value (one element) | NONE for 0] -> [y], of any one type; pads as in ONNX over all axes (begins, then ends; negative crops). */
  readonly pad: { readonly pads: readonly number[]; readonly mode: PadMode };
  /** [x] -> [y]; starts are resolved (in range), steps may be negative; extents are y's shape. */
  readonly slice: { readonly starts: readonly number[]; readonly steps: readonly number[] };
  /** [x0, x1, ...] -> [y]. */
  readonly concat: { readonly axis: number };
  /** [x] -> [y]; same elements in the same order under another shape (also a plain copy). */
  readonly reshape: object;
  /** [x] -> [y]; numpy broadcasting to y's shape. */
  readonly expand: object;

  /*
   * Integer steps. Bytes are uint8 or int8; sums are int32 and wrap around; round() gives the even one of two equally near integers.
   * A scale is finite and positive. A zero point has the type of what it belongs to; without one it is 0.
   */

  /** [x, scale (1) or one for each position of `axis`, zero (as scale) | NONE] -> [y bytes]; y = saturate(round(x/scale) + zero).
   *  NaN gives zero. */
  readonly quantize: { readonly axis: number };
  /** [x bytes or int32, scale, zero | NONE, both as above] -> [y]; y = (x - zero)*scale. */
  readonly dequantize: { readonly axis: number };
  /** [x] -> [y uint8, scale (), zero uint8 ()], as ONNX's DynamicQuantizeLinear, over the whole tensor. */
  readonly dynamicQuantize: object;
  /** [x bytes, weight bytes, bias (M) | NONE, scale (1) or (M) | NONE, x's zero (1) | NONE, weight's zero (1) or (M) | NONE] -> [y];
   *  sum = conv(x - zero, weight - zero), in which padding adds nothing; y by its type is
   *   - int32: sum (scale is NONE)
   *   - float32: act(round(sum*scale) + bias) with a bias of float32, act((sum + bias)*scale) with one of int32
   *   - bytes: requantise((sum + bias)*scale) with a bias of int32. The product is of two float32. */
  readonly qconv: Window & {
    readonly group: number;
    readonly act: Activation;
    readonly requant: Requantisation;
  };
  /** [a bytes, b bytes, bias (N) | NONE, scale (1) or (N) | NONE, a's zero (1) | NONE, b's zero (1) or (N) | NONE] -> [y];
   *  sum = numpy.matmul(a - zero, b - zero), the last two axes of b swapped if transB; y as in `qconv`, but
   *  act(fma(sum, scale, bias)) with a bias of float32. */
  readonly qmatmul: { readonly transB: boolean; readonly act: Activation; readonly requant: Requantisation };
  /** [a bytes, b bytes] -> [y bytes]; numpy broadcasting; with the zeros and factors of `terms`, y = requantise(v) for
   *   - add: v = fma(a - zero0, factor0, (b - zero1)*factor1)
   *   - mul: v = ((a - zero0)*(b - zero1))*factor0 */
  readonly qbinary: {
    readonly kind: 'add' | 'mul';
    readonly terms: readonly [Term, Term];
    readonly requant: Requantisation;
  };
  /** [x bytes (N,C,spatial...)] -> [y bytes or float32]; v = sum(x - zero0)*factor0 over all spatial axes; requantised for bytes. */
  readonly qglobalPool: { readonly terms: readonly [Term]; readonly requant: Requantisation };
  /** [x bytes (N,C,spatial...)] -> [y]; v = sum(x - zero0)*factor0 over each window, or that of the squares; padding adds nothing. */
  readonly qpool: Window & {
    readonly kernel: readonly number[];
    readonly squares: boolean;
    readonly terms: readonly [Term];
  };
  /** [x bytes, table (256)] -> [y of table's type]; y = table[x], for int8 table[x + 256] below 0. */
  readonly lookup: object;
  /** [x] -> [y]; over `axes` (sorted); float32, int32, int64 or uint8; y's shape says whether the axes were kept. Min and max
   *  propagate NaN; those of nothing are the type's largest and smallest number. Integers wrap around. */
  readonly reduce: { readonly kind: ReduceKind; readonly axes: readonly number[] };
  /** [x] -> [y]; sums of the elements up to each one along `axis`, or from it on if reverse; exclusive: without the element
   *  itself. float32, int32, int64 or uint8. */
  readonly cumSum: { readonly axis: number; readonly exclusive: boolean; readonly reverse: boolean };
  /** [x, indices int32 (n,k), weights (n,k)] -> [y]; along `axis`, whose length becomes n:
   *  y[i] = sum over j of weights[i,j] * x[indices[i,j]]. An index outside is an error at run. */
  readonly resample: { readonly axis: number };
  /** [data, indices int64|int32] -> [y, like indices]; y[i] = data[i with indices[i] on `axis`]. Indices as in `gather`. */
  readonly gatherElements: { readonly axis: number };
  /** [data, indices int64|int32 (...,k)] -> [y]; each row of indices names a slice by its position on the k axes behind the first
   *  `batchDims`, which data and indices share. Indices as in `gather`. */
  readonly gatherNd: { readonly batchDims: number };
  /** [data, indices int64|int32, updates, like indices] -> [y, like data]; y = data, then for each i:
   *  y[i with indices[i] on `axis`] takes updates[i]. Indices as in `gather`. Add and mul of bool are or and and. */
  readonly scatterElements: { readonly axis: number; readonly reduction: ScatterKind };
  /** [data, indices int64|int32 (...,k), updates] -> [y, like data]; y = data, then the slice that each row of indices names on the
   *  first k axes takes a slice of the updates. Indices as in `gather`. */
  readonly scatterNd: { readonly reduction: ScatterKind };
}
export type OperationName = keyof Operations;
