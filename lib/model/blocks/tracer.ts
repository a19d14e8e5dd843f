import { sizeOf } from '../../numeric/shapes.js';
import { uniformElement } from '../../tensor/extremes.js';
import { recalled } from '../../tensor/recall.js';
import { rangeOf } from '../optimise/range.js';
import type { Region, WorkStepNamed } from '../optimise/region.js';
import type { ValueId } from '../program/program.js';
import {
  applyActivation,
  arithmetic,
  choose,
  combine,
  comparison,
  compute,
  constant,
  convert,
  decision,
  type Element,
  elementOf,
  isConstant,
  logical,
  MIRRORED,
  type Scalar,
  type Score,
  unknown,
} from './decision.js';

/** A position in a value; `all` stands for every element, which must all be equal. */
type Position = number | 'all';

/** Longest chain of steps that is followed. */
const DEPTH = 64;
/** Most updates of one element that are followed. */
const MAX_UPDATES = 16;

/** Reads numbers out of a region symbolically, element by element. */
export class Tracer {
  private readonly known = new Map<string, Scalar | undefined>();

  constructor(private readonly region: Region) {}

  /** The number that all elements of `value` equal; undefined when they may differ. */
  uniform(value: ValueId): Scalar | undefined {
    return this.trace(value, 'all', 0);
  }

  /** The first element of `value`. */
  first(value: ValueId): Scalar | undefined {
    return this.trace(value, 0, 0);
  }

  private trace(value: ValueId, position: Position, depth: number): Scalar | undefined {
    const { data, shape } = this.region.value(value);
    const at: Position = sizeOf(shape) === 1 ? 0 : position;
    if (data) {
      const element = at === 'all' ? uniformElement(data) : Number(recalled(data)[at]);
      return element === undefined ? undefined : constant(element);
    }
    const key = `${value}:${at}`;
    if (!this.known.has(key)) {
      const scalar = depth < DEPTH ? this.compute(value, at, depth + 1) : undefined;
      this.known.set(key, scalar ?? (at === 'all' ? undefined : this.opaque(value, at)));
    }
    return this.known.get(key);
  }

  private opaque(value: ValueId, index: number): Scalar {
    const element = { value, index };
    if (this.region.value(value).dtype === 'bool') {
      const score: Score = { kind: 'bool', element };
      return decision({ score, compare: 'gt', threshold: 0.5, fromArgMax: false });
    }
    return unknown(element);
  }

  private compute(value: ValueId, at: Position, depth: number): Scalar | undefined {
    const op = this.region.producer(value);
    if (!op || op.op === 'if' || op.op === 'select') return undefined;
    const operands = () => op.inputs.map((id) => this.trace(id, this.broadcast(value, id, at), depth));
    switch (op.op) {
      case 'reshape':
        return this.trace(op.inputs[0]!, at, depth);
      case 'expand':
        return operands()[0];
      case 'cast': {
        const [x] = operands();
        const { dtype } = this.region.value(value);
        const whole = dtype === 'int64' || dtype === 'int32';
        const converted = convert(x, dtype, this.region.value(op.inputs[0]!).dtype);
        return converted ?? (whole ? this.step('floor', op.inputs[0]!, at, x) : undefined);
      }
      case 'unary': {
        const [x] = operands();
        return applyActivation(op, x) ?? this.step(op.attrs.act.kind, op.inputs[0]!, at, x);
      }
      case 'binary':
        return arithmetic(op, operands(), this.region.value(value).dtype === 'float32');
      case 'logical':
        return logical(op, operands());
      case 'where':
        return choose(operands());
      case 'compare':
        return this.compare(op, at, operands());
      case 'slice':
      case 'transpose':
      case 'concat':
        return at === 'all' ? undefined : this.moved(op, at, depth);
      case 'gather':
        return at === 'all' ? undefined : this.gathered(op, at, depth);
      case 'oneHot':
        return at === 'all' ? undefined : this.oneHot(op, at, depth);
      case 'argMax':
        return at === 'all' ? undefined : this.argMax(op, at);
      case 'scatterElements':
        return at === 'all' ? undefined : this.scattered(op, at, depth);
      default:
        return undefined;
    }
  }

  /** Where position `at` of `output` reads `input` under numpy broadcasting. */
  private broadcast(output: ValueId, input: ValueId, at: Position): Position {
    if (at === 'all') return 'all';
    const [to, from] = [this.region.shape(output), this.region.shape(input)];
    const index = unravel(at, to).slice(to.length - from.length);
    return ravel(
      index.map((i, axis) => (from[axis] === 1 ? 0 : i)),
      from,
    );
  }

  private compare(
    op: WorkStepNamed<'compare'>,
    at: Position,
    operands: (Scalar | undefined)[],
  ): Scalar | undefined {
    const { kind } = op.attrs;
    const [a, b] = operands;
    const known = a && b && comparison(kind, a, b);
    if (known) return known;
    if (kind === 'eq' || this.region.value(op.inputs[0]!).dtype !== 'float32') return undefined;
    // The same number may be read in several shapes: where it was computed, it is known as one.
    const [left, right] = op.inputs.map((input, i): Element | undefined => {
      const index = this.broadcast(op.outputs[0]!, input, at);
      return elementOf(operands[i]) ?? (index === 'all' ? undefined : { value: input, index });
    });
    const fromArgMax = false;
    if (left && b && isConstant(b)) {
      const score: Score = { kind: 'element', element: left };
      return decision({ score, compare: kind, threshold: b.on.constant, fromArgMax });
    }
    if (right && a && isConstant(a)) {
      const score: Score = { kind: 'element', element: right };
      return decision({ score, compare: MIRRORED[kind], threshold: a.on.constant, fromArgMax });
    }
    if (!left || !right) return undefined;
    // a > b exactly when a - b > 0: gradual underflow keeps the difference of two unequal numbers nonzero.
    const score: Score = { kind: 'difference', minuend: left, subtrahend: right };
    return decision({ score, compare: kind, threshold: 0, fromArgMax });
  }

  /** The rounding of a number whose range leaves two results, 0 and 1. */
  private step(kind: string, input: ValueId, at: Position, x: Scalar | undefined): Scalar | undefined {
    const element = elementOf(x) ?? (at === 'all' ? undefined : { value: input, index: at });
    const { low, high } = rangeOf(this.region, input);
    const score: Score | undefined = element && { kind: 'element', element };
    if (!score) return undefined;
    const when = (compare: 'gt' | 'ge', threshold: number) =>
      decision({ score, compare, threshold, fromArgMax: false });
    // Halves are rounded to the even number.
    if (kind === 'round' && low >= -0.5 && high < 1.5) return when('gt', 0.5);
    if (kind === 'floor' && low >= 0 && high < 2) return when('ge', 1);
    if (kind === 'ceil' && low > -1 && high <= 1) return when('gt', 0);
    return kind === 'sign' && low >= 0 ? when('gt', 0) : undefined;
  }

  private moved(
    op: WorkStepNamed<'slice' | 'transpose' | 'concat'>,
    at: number,
    depth: number,
  ): Scalar | undefined {
    const index = unravel(at, this.region.shape(op.outputs[0]!));
    let input = op.inputs[0]!;
    if (op.op === 'slice') {
      const { starts, steps } = op.attrs;
      index.forEach((i, axis) => {
        index[axis] = starts[axis]! + i * steps[axis]!;
      });
    } else if (op.op === 'transpose') {
      const moved = [...index];
      op.attrs.perm.forEach((axis, i) => {
        index[axis] = moved[i]!;
      });
    } else {
      for (const id of op.inputs) {
        input = id;
        const length = this.region.shape(id)[op.attrs.axis]!;
        if (index[op.attrs.axis]! < length) break;
        index[op.attrs.axis]! -= length;
      }
    }
    return this.trace(input, ravel(index, this.region.shape(input)), depth);
  }

  private gathered(op: WorkStepNamed<'gather'>, at: number, depth: number): Scalar | undefined {
    const [data, indices] = op.inputs as [ValueId, ValueId];
    const [shape, picks] = [this.region.shape(data), this.region.shape(indices)];
    const { axis } = op.attrs;
    const index = unravel(at, this.region.shape(op.outputs[0]!));
    const pick = this.trace(indices, ravel(index.slice(axis, axis + picks.length), picks), depth);
    const element = (i: number) => {
      const from = [
        ...index.slice(0, axis),
        i < 0 ? i + shape[axis]! : i,
        ...index.slice(axis + picks.length),
      ];
      return this.trace(data, ravel(from, shape), depth);
    };
    if (!pick) return undefined;
    if (isConstant(pick)) return element(pick.on.constant);
    return combine([pick], (chosen) => {
      const picked = chosen!.terms.size === 0 ? element(chosen!.constant) : undefined;
      return picked?.condition ? undefined : picked?.on;
    });
  }

  private oneHot(op: WorkStepNamed<'oneHot'>, at: number, depth: number): Scalar | undefined {
    const [indices, values] = op.inputs as [ValueId, ValueId];
    const { axis, depth: length } = op.attrs;
    const index = unravel(at, this.region.shape(op.outputs[0]!));
    const hot = index[axis]!;
    const from = [...index.slice(0, axis), ...index.slice(axis + 1)];
    const pick = this.trace(indices, ravel(from, this.region.shape(indices)), depth);
    const [off, on] = [this.trace(values, 0, depth), this.trace(values, 1, depth)];
    if (!pick || !on || !off || !isConstant(on) || !isConstant(off)) return undefined;
    return compute([pick], (i) => ((i! < 0 ? i! + length : i) === hot ? on : off).on.constant);
  }

  /** The last of the updates whose index is this position, or else the element that was there. */
  private scattered(op: WorkStepNamed<'scatterElements'>, at: number, depth: number): Scalar | undefined {
    const [data, indices, updates] = op.inputs as [ValueId, ValueId, ValueId];
    const { axis, reduction } = op.attrs;
    const shape = this.region.shape(indices);
    const index = unravel(at, this.region.shape(data));
    const length = this.region.shape(data)[axis]!;
    if (reduction !== 'set' || shape[axis]! > MAX_UPDATES) return undefined;
    let element = this.trace(data, at, depth);
    if (index.some((i, other) => other !== axis && i >= shape[other]!)) return element;
    for (let i = 0; i < shape[axis]!; i++) {
      const from = ravel(index.with(axis, i), shape);
      const target = this.trace(indices, from, depth);
      const here = target && compute([target], (to) => Number((to! < 0 ? to! + length : to) === index[axis]));
      element = choose([here, this.trace(updates, from, depth), element]);
    }
    return element;
  }

  /** The index of the larger of two numbers is 1 exactly when their difference has the right sign. */
  private argMax(op: WorkStepNamed<'argMax'>, at: number): Scalar | undefined {
    const input = op.inputs[0]!;
    const shape = this.region.shape(input);
    const { axis, selectLast } = op.attrs;
    if (shape[axis] !== 2) return undefined;
    const outer = unravel(at, [...shape.slice(0, axis), 1, ...shape.slice(axis + 1)]);
    const logit = (i: number): Element => ({
      value: input,
      index: ravel([...outer.slice(0, axis), i, ...outer.slice(axis + 1)], shape),
    });
    const score: Score = { kind: 'difference', minuend: logit(1), subtrahend: logit(0) };
    return decision({ score, compare: selectLast ? 'ge' : 'gt', threshold: 0, fromArgMax: true });
  }
}

function unravel(at: number, shape: readonly number[]): number[] {
  const index = new Array<number>(shape.length).fill(0);
  let rest = at;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = rest % shape[axis]!;
    rest = Math.floor(rest / shape[axis]!);
  }
  return index;
}

function ravel(index: readonly number[], shape: readonly number[]): number {
  return index.reduce((at, i, axis) => at * shape[axis]! + i, 0);
}
