import { broadcast, sameShape, sizeOf } from '../../numeric/shapes.js';
import type { Region, WorkStep, WorkStepNamed } from '../optimise/region.js';
import type { ValueId } from '../program/program.js';
import { type Condition, negate, sameCondition, usable, valueWhen } from './decision.js';
import type { Tracer } from './tracer.js';

/** Steps between a gate and the sum or choice that it decides. */
const DEPTH = 8;

/** Functions with f(0) = 0. */
const KEEPS_ZERO = new Set([
  'none',
  'relu',
  'leakyRelu',
  'tanh',
  'silu',
  'gelu',
  'geluTanh',
  'hardSwish',
  'erf',
  'elu',
]);

/**
 * What a value is once a condition is known: one number everywhere, or the value `id`. `fresh`: it is not a value of the region,
 * but the output of one of `Resolution.steps`.
 */
export type Resolved = number | { readonly id: ValueId; readonly fresh: boolean };

/** The conditions that decide about `value` through sums, products and choices, each once. */
export function conditionsIn(region: Region, tracer: Tracer, value: ValueId): Condition[] {
  const found: Condition[] = [];
  const add = (id: ValueId): boolean => {
    const condition = usable(tracer.uniform(id));
    if (!condition) return false;
    const known = found.some(
      (other) => sameCondition(other, condition) || sameCondition(other, negate(condition)),
    );
    if (!known) found.push(condition);
    return true;
  };
  const visit = (id: ValueId, depth: number): void => {
    const op = depth < DEPTH ? transparent(region, id, depth) : undefined;
    for (const input of op?.inputs ?? []) if (!add(input)) visit(input, depth + 1);
  };
  visit(value, 0);
  return found;
}

/**
 * Whether one operator, lowered to several steps, both computes the condition and chooses by it, as an LSTM with `sequence_lens`
 * does: that is part of what it computes, not a decision of the network.
 */
export function isMask(region: Region, { node, inputs }: WorkStepNamed<'where'>): boolean {
  return region.producer(inputs[0]!)?.node === node;
}

/** The step that makes `id`, if it is one that resolution looks into, and nothing else reads its result. */
function transparent(region: Region, id: ValueId, depth: number): WorkStep | undefined {
  const op = region.producer(id);
  if (!op || op.op === 'if' || op.op === 'select' || (depth > 0 && !region.usedOnce(id))) return undefined;
  switch (op.op) {
    case 'binary':
      return op.attrs.act.kind === 'none' ? op : undefined;
    case 'where':
      return isMask(region, op) ? undefined : op;
    case 'unary':
    case 'reshape':
    case 'expand':
      return op;
    default:
      return undefined;
  }
}

/** Rewrites values under the assumption that a condition holds, or that it doesn't. */
export class Resolution {
  /** Steps that compute what was left of rewritten values. The region doesn't have them yet. */
  readonly steps: WorkStep[] = [];
  /** Whether a `where` was decided. */
  chose = false;

  constructor(
    private readonly region: Region,
    private readonly tracer: Tracer,
    private readonly condition: Condition,
    private readonly holding: boolean,
    private readonly node: string,
  ) {}

  resolve(value: ValueId, depth = 0): Resolved {
    const uniform = this.constantOf(value);
    if (uniform !== undefined) return uniform;
    const leaf = { id: value, fresh: false };
    const op = depth < DEPTH ? transparent(this.region, value, depth) : undefined;
    if (!op) return leaf;
    if (op.op === 'where') return this.choose(op, depth) ?? leaf;
    const operands = op.inputs.map((id) => this.resolve(id, depth + 1));
    const simpler = op.op === 'binary' ? this.arithmetic(op, operands) : this.pointwise(op, operands[0]!);
    if (simpler !== undefined) return simpler;
    return operands.some((operand, i) => this.decides(op.inputs[i]!, operand))
      ? (this.rebuild(op, operands) ?? leaf)
      : leaf;
  }

  /** The values of the region that `resolved` is computed from. */
  leaves({ id }: Exclude<Resolved, number>): ValueId[] {
    const step = this.steps.find(({ outputs }) => outputs.includes(id));
    return step ? step.inputs.flatMap((input) => this.leaves({ id: input, fresh: false })) : [id];
  }

  private constantOf(value: ValueId): number | undefined {
    return valueWhen(this.tracer.uniform(value), this.condition, this.holding);
  }

  /** Whether `resolved`, which `id` is under the condition, may be something else without it. */
  private decides(id: ValueId, resolved: Resolved): boolean {
    if (typeof resolved === 'object') return resolved.id !== id;
    const scalar = this.tracer.uniform(id);
    return !scalar || scalar.condition !== undefined;
  }

  private choose(op: WorkStepNamed<'where'>, depth: number): Resolved | undefined {
    const [when, a, b] = op.inputs as [ValueId, ValueId, ValueId];
    const chosen = this.constantOf(when);
    if (chosen === undefined) return undefined;
    this.chose = true;
    return this.fitting(op, this.resolve(chosen ? a : b, depth + 1));
  }

  private arithmetic(op: WorkStepNamed<'binary'>, [a, b]: readonly Resolved[]): Resolved | undefined {
    switch (op.attrs.kind) {
      case 'add':
        if (a === 0) return this.fitting(op, b!);
        if (b === 0) return this.fitting(op, a!);
        return this.cancelled(op, a!, b!) ?? this.cancelled(op, b!, a!);
      case 'sub':
        return b === 0 ? this.fitting(op, a!) : undefined;
      case 'mul':
        if (a === 0 || b === 0) return 0;
        if (a === 1) return this.fitting(op, b!);
        return b === 1 ? this.fitting(op, a!) : undefined;
      case 'div':
        if (a === 0) return 0;
        return b === 1 ? this.fitting(op, a!) : undefined;
      default:
        return undefined;
    }
  }

  /** x + (F - x) is F. */
  private cancelled(op: WorkStep, x: Resolved, difference: Resolved): Resolved | undefined {
    if (typeof x !== 'object' || typeof difference !== 'object' || difference.fresh) return undefined;
    const sub = this.region.producerOf(difference.id, 'binary');
    if (sub?.attrs.kind !== 'sub' || sub.attrs.act.kind !== 'none' || sub.inputs[1] !== x.id)
      return undefined;
    return this.fitting(op, { id: sub.inputs[0]!, fresh: false });
  }

  private pointwise(op: WorkStep, x: Resolved): Resolved | undefined {
    if (x !== 0) return undefined;
    return op.op !== 'unary' || KEEPS_ZERO.has(op.attrs.act.kind) ? 0 : undefined;
  }

  /** `x` in place of the output of `op`, unless broadcasting would have changed its shape. */
  private fitting(op: WorkStep, x: Resolved): Resolved | undefined {
    if (typeof x === 'number') return x;
    return sameShape(this.shapeOf(x.id), this.shapeOf(op.outputs[0]!)) ? x : undefined;
  }

  private shapeOf(id: ValueId): readonly number[] {
    return this.region.shape(id);
  }

  /** Whether `op` of these inputs has the shape. */
  private gives({ op }: WorkStep, inputs: readonly ValueId[], shape: readonly number[]): boolean {
    const shapes = inputs.map((id) => this.shapeOf(id));
    if (op === 'binary') return sameShape(broadcast(...shapes) ?? [], shape);
    if (op === 'unary') return sameShape(shapes[0]!, shape);
    return op !== 'reshape' || sizeOf(shapes[0]!) === sizeOf(shape);
  }

  /** `op` of the operands, unless without those that are numbers it would have another shape. */
  private rebuild(op: WorkStep, operands: readonly Resolved[]): Resolved | undefined {
    const inputs = operands.map((operand, i) => {
      if (typeof operand === 'object') return operand.id;
      if (!this.decides(op.inputs[i]!, operand)) return op.inputs[i]!;
      return this.region.addValue(`${this.node}.open`, 'float32', [], Float32Array.of(operand));
    });
    const { name, dtype, shape } = this.region.value(op.outputs[0]!);
    if (!this.gives(op, inputs, shape)) return undefined;
    const output = this.region.addValue(`${name}.open`, dtype, shape);
    this.steps.push({ ...op, inputs, outputs: [output] });
    return { id: output, fresh: true };
  }
}
