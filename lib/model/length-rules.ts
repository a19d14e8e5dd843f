/** How operators treat an open length: the rules from which lib/model/length-proof.ts proves that a graph depends linearly on it. */
import { range, type Shape } from '../numeric/shapes.js';
import { ACTIVATIONS } from './lower/operators/activations.js';
import { ATTENTION } from './lower/operators/attention.js';
import { ELEMENTWISE } from './lower/operators/elementwise.js';
import { findOperator } from './lower/operators/index.js';
import { MATRIX } from './lower/operators/matrix.js';
import { NORMALIZATION } from './lower/operators/normalization.js';
import { REDUCTION } from './lower/operators/reduction.js';
import type { Node } from './read/graph.js';

export interface OutlinedValue {
  readonly shape: Shape;
  readonly isConstant: boolean;
  /** The elements of a small constant of integers. */
  readonly integers: readonly number[] | undefined;
}

/**
 * How a value depends on the length. The lengths of its axes are always linear.
 *  - `fixed`: not at all
 *  - `open`: its shape does, and it is computed at run time
 *  - `grows`: a constant whose elements are, at the same positions, those of a longer one as well
 *  - `lengths`: a constant of integers, each of them linear
 */
export type Kind = 'fixed' | 'open' | 'grows' | 'lengths';

/** The kind of the constants that the node makes, if it makes any; undefined when nothing is proven. */
type Rule = (node: SampledNode) => Kind | undefined;

/** One number of the graph at all sampled lengths, the shortest first. */
export type Samples = readonly number[];

export const varies = (samples: Samples) => samples.some((number) => number !== samples[0]);

/** Of lists of the same length: the samples of each element. */
export function transposed(lists: readonly (readonly number[])[]): Samples[] {
  return lists[0]!.map((_, i) => lists.map((list) => list[i]!));
}

/** A node with operands that depend on the length. */
export class SampledNode {
  /** Whether all operands are constants. */
  readonly isConstant: boolean;

  constructor(
    readonly node: Node,
    /** By input, then by sample; undefined where the input is absent. */
    private readonly operands: readonly (readonly OutlinedValue[] | undefined)[],
    readonly kinds: readonly (Kind | undefined)[],
    readonly output: readonly OutlinedValue[],
  ) {
    this.isConstant = operands.every((operand) => !operand || operand[0]!.isConstant);
  }

  has(kind: Kind): boolean {
    return this.kinds.includes(kind);
  }

  /** Absent operands don't depend on anything. */
  isFixed(index: number): boolean {
    return (this.kinds[index] ?? 'fixed') === 'fixed';
  }

  /** By axis. */
  shape(index: number): Samples[] {
    return transposed(this.operands[index]!.map(({ shape }) => shape));
  }

  /** The elements of a small list, which older operator sets have as an attribute; undefined where there is none. */
  integers(index: number, attribute: string): Samples[] | undefined {
    const operand = this.operands[index];
    const given = this.node.attributes.get(attribute) as readonly number[] | undefined;
    if (!operand) return given?.map((number) => this.output.map(() => number));
    const lists = operand.flatMap(({ integers }) => (integers ? [integers] : []));
    const listed =
      lists.length === operand.length && lists.every(({ length }) => length === lists[0]!.length);
    return listed ? transposed(lists) : undefined;
  }

  attribute<T>(name: string, fallback: T): T {
    return (this.node.attributes.get(name) ?? fallback) as T;
  }

  axis(name: string, fallback: number): number {
    const axis = this.attribute(name, fallback);
    return axis < 0 ? axis + this.operands[0]![0]!.shape.length : axis;
  }
}

/** Whether the operands that decide about the steps don't depend on the length. */
function hasFixedParameters(node: SampledNode): boolean {
  return (findOperator(node.node.op)?.constantInputs ?? []).every((i) => node.isFixed(i));
}

/** The shape follows from those of the operands by copying, adding and multiplying lengths. */
const computed: Rule = (node) =>
  node.isConstant || node.has('lengths') || !hasFixedParameters(node) ? undefined : 'grows';

/** Each element of the result follows from those at its position. */
const elementwise: Rule = (node) => (node.isConstant && !node.has('lengths') ? 'grows' : computed(node));

/** Elements that are lengths are copied, added or multiplied; for others it is `other`. */
const ofLengths =
  (other: Rule): Rule =>
  (node) => {
    if (!node.has('lengths') || !node.isConstant) return other(node);
    return node.has('grows') || !hasFixedParameters(node) ? undefined : 'lengths';
  };

/** A comparison of two lengths, or a choice between them: they are in the same order at both ends. */
const ordered =
  (kind: Kind): Rule =>
  (node) => {
    if (!node.has('lengths')) return elementwise(node);
    const [a, b] = [node.integers(0, ''), node.integers(1, '')];
    if (!a || !b || node.kinds.length !== 2 || node.shape(0).length > 1 || node.shape(1).length > 1)
      return undefined;
    const order = (i: number) => {
      const [x, y] = [a[a.length === 1 ? 0 : i]!, b[b.length === 1 ? 0 : i]!];
      return x.map((number, sample) => Math.sign(number - y[sample]!));
    };
    return range(Math.max(a.length, b.length)).some((i) => varies(order(i))) ? undefined : kind;
  };

/** What a bound of a slice becomes. What is between two samples is in the same of these convex regions as they are. */
const BOUNDS: readonly ((bound: number, length: number) => number | undefined)[] = [
  (bound, length) => (bound >= 0 && bound <= length ? bound : undefined),
  (bound, length) => (bound >= 0 && bound >= length ? length : undefined),
  (bound, length) => (bound < 0 && bound + length >= 0 ? bound + length : undefined),
  (bound, length) => (bound < 0 && bound + length <= 0 ? 0 : undefined),
];

function clamped(bounds: Samples, lengths: Samples): Samples | undefined {
  for (const resolve of BOUNDS) {
    const resolved = bounds.map((bound, sample) => resolve(bound, lengths[sample]!));
    if (resolved.every((number) => number !== undefined)) return resolved;
  }
  return undefined;
}

const slice: Rule = (node) => {
  const [starts, ends] = [node.integers(1, 'starts'), node.integers(2, 'ends')];
  if (!starts || !ends || !node.isFixed(3) || !node.isFixed(4)) return undefined;
  const shape = node.shape(0);
  const axes = node.integers(3, 'axes')?.map(([axis]) => axis!) ?? range(starts.length);
  const steps = node.integers(4, 'steps')?.map(([step]) => step!);
  for (const [i, axis] of axes.entries()) {
    const length = shape.at(axis)!;
    if (![length, starts[i]!, ends[i]!].some(varies)) continue;
    const [start, end] = [clamped(starts[i]!, length), clamped(ends[i]!, length)];
    // A step of more than one rounds.
    if (!start || !end || (steps?.[i] ?? 1) !== 1) return undefined;
    const count = start.map((from, sample) => end[sample]! - from);
    if (Math.min(...count) < 0 || (node.isConstant && varies(start))) return undefined;
  }
  if (node.kinds[0] === 'lengths') return node.isFixed(1) && node.isFixed(2) ? 'lengths' : undefined;
  return 'grows';
};

const gather: Rule = (node) => {
  const [data, indices] = node.kinds;
  if (!node.isConstant) return computed(node);
  if (indices === 'lengths') return undefined;
  if (data === 'lengths') return indices === 'fixed' ? 'lengths' : undefined;
  if (!varies(node.shape(0)[node.axis('axis', 0)]!)) return 'grows';
  // A negative index counts from an end that moves.
  const listed = node.integers(1, '');
  return listed?.every((samples) => samples.every((index) => index >= 0)) ? 'grows' : undefined;
};

const concat: Rule = (node) => {
  if (!node.isConstant || node.has('lengths')) return ofLengths(computed)(node);
  const axis = node.axis('axis', 0);
  return node.kinds.some((_, i) => varies(node.shape(i)[axis]!)) ? undefined : 'grows';
};

/**
 * At most so many axes are open on both sides of a reshape. What its target leaves open is a quotient of products: four samples, at
 * which they agree, determine products of that degree.
 */
const MAX_OPEN = 3;

const reshape: Rule = (node) => {
  const [shape, target] = [node.shape(0), transposed(node.output.map((value) => value.shape))];
  if (!node.integers(1, '') && !node.isFixed(1)) return undefined;
  if (node.kinds[0] === 'lengths') return node.isFixed(1) ? 'lengths' : undefined;
  if (!node.isConstant) {
    return [shape, target].every((axes) => axes.filter(varies).length <= MAX_OPEN) ? 'grows' : undefined;
  }
  // Elements stay where they are.
  const long = (axes: readonly Samples[]) => `${axes.filter((samples) => Math.max(...samples) > 1)}`;
  return long(shape) === long(target) ? 'grows' : undefined;
};

/** Lengths to which a constant or a computed value is repeated. */
const filled =
  (target: number): Rule =>
  (node) =>
    node.integers(target, '') && (target === 0 || node.kinds[0] !== 'lengths') ? 'grows' : undefined;

const counted: Rule = (node) => {
  const step = node.integers(2, '')?.[0];
  const fits = node.isFixed(0) && node.isFixed(2) && step?.[0] === 1;
  return fits && node.integers(1, '') ? 'grows' : undefined;
};

/** Windows that don't step over elements. */
const window: Rule = (node) => {
  const strides = node.attribute<readonly number[]>('strides', []);
  const spatial = node.shape(0).slice(2);
  const whole = spatial.every((samples, axis) => !varies(samples) || (strides[axis] ?? 1) === 1);
  return whole && node.kinds.slice(1).every((kind) => (kind ?? 'fixed') === 'fixed')
    ? computed(node)
    : undefined;
};

/** Sums over the inner axis. */
const product: Rule = (node) => {
  if (!node.isConstant || node.has('lengths')) return computed(node);
  return varies(node.shape(0).at(-1)!) ? undefined : 'grows';
};

const split: Rule = (node) =>
  varies(node.shape(0)[node.axis('axis', 0)]!) ? undefined : ofLengths(computed)(node);

/** Scales for blocks of elements round the number of blocks. */
const quantised: Rule = (node) => (node.attribute('block_size', 0) === 0 ? elementwise(node) : undefined);

/** Positions behind earlier tokens move with their number. */
const attention: Rule = (node) => (node.node.inputs[4] ? undefined : computed(node));

function rules(rule: Rule, ...names: readonly string[]): Record<string, Rule> {
  return Object.fromEntries(names.map((name) => [name, rule]));
}

const microsoft = (...names: readonly string[]) => names.map((name) => `com.microsoft.${name}`);

export const LENGTH_RULES: Readonly<Record<string, Rule>> = {
  ...rules(elementwise, ...Object.keys(ACTIVATIONS), ...Object.keys(ELEMENTWISE), 'Trilu'),
  ...rules(computed, ...Object.keys(MATRIX), ...Object.keys(NORMALIZATION), ...Object.keys(REDUCTION)),
  ...rules(computed, ...Object.keys(ATTENTION), 'RotaryEmbedding', ...microsoft('RotaryEmbedding')),
  ...rules(
    computed,
    'GatherElements',
    'GatherND',
    'GlobalAveragePool',
    'GlobalMaxPool',
    'OneHot',
    'Pad',
    'Tile',
  ),
  ...rules(computed, 'DynamicQuantizeLinear', 'MatMulInteger', 'QLinearMatMul'),
  ...rules(computed, ...microsoft('MatMulNBits', 'QGemm', 'QLinearAdd', 'QLinearMul', 'QLinearSoftmax')),
  ...rules(computed, ...microsoft('BiasGelu', 'FastGelu', 'Gelu', 'QuickGelu', 'FusedGemm', 'FusedMatMul')),
  ...rules(computed, ...microsoft('SkipLayerNormalization', 'SkipSimplifiedLayerNormalization')),
  ...rules(computed, ...microsoft('EmbedLayerNormalization')),
  ...rules(
    quantised,
    'QuantizeLinear',
    'DequantizeLinear',
    ...microsoft('QuantizeLinear', 'DequantizeLinear'),
  ),
  ...rules(ofLengths(elementwise), 'Add', 'Sub', 'Mul', 'Where', 'Cast', 'CastLike', 'Identity', 'Dropout'),
  ...rules(ofLengths(elementwise), 'Transpose', 'Unsqueeze', 'Squeeze'),
  ...rules(ordered('fixed'), 'Equal', 'Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual'),
  ...rules(ordered('lengths'), 'Min', 'Max'),
  ...rules(() => 'lengths', 'Shape', 'Size'),
  ...rules(window, 'Conv', 'ConvInteger', 'QLinearConv', 'MaxPool', 'AveragePool'),
  ...rules(reshape, 'Reshape', 'Flatten'),
  Attention: attention,
  Concat: concat,
  ConstantOfShape: filled(0),
  Expand: filled(1),
  Gather: gather,
  MatMul: product,
  Range: counted,
  Slice: slice,
  Split: split,
};
