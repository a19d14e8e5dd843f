import { sizeOf } from '../numeric/shapes.js';
import {
  applyActivation,
  arithmetic,
  choose,
  combine,
  constant,
  convert,
  decision,
  type Element,
  holds,
  isConstant,
  isPlain,
  logical,
  MIRRORED,
  type Scalar,
  type Score,
} from './decision.js';
import type { ValueId } from './program.js';
import type { Region, WorkStepNamed } from './region.js';

/** A position in a value; `all` stands for every element, which must all be equal. */
type Position = number | 'all';

/** Longest chain of steps that is followed. */
const DEPTH = 64;

/** Reads numbers out of a region symbolically, element by element. */
export class Tracer {
  private readonly known = new Map<string, Scalar | undefined>();

  constructor(private readonly region: Region) {}

  /** The number that all elements of `value` equal; undefined when they may differ. */
  uniform(value: ValueId): Scalar | undefined {
    return this.trace(value, 'all', 0);
  }

  private trace(value: ValueId, position: Position, depth: number): Scalar | undefined {
    const { data, shape } = this.region.value(value);
    const at: Position = sizeOf(shape) === 1 ? 0 : position;
    if (data) {
      const element = Number(data[at === 'all' ? 0 : at]);
      return at !== 'all' || data.every((other) => Number(other) === element) ? constant(element) : undefined;
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
    return { on: 0, off: 0, terms: new Map([[`${value}:${index}`, { element, factor: 1 }]]) };
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
      case 'cast':
        return convert(operands()[0], this.region.value(value).dtype, this.region.value(op.inputs[0]!).dtype);
      case 'unary':
        return applyActivation(op, operands()[0]);
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
    if (a && b && isPlain(a) && isPlain(b)) return combine(a, b, (x, y) => Number(holds(kind, x, y)));
    if (at === 'all' || kind === 'eq' || this.region.value(op.inputs[0]!).dtype !== 'float32')
      return undefined;
    const elementOf = (input: ValueId): Element => {
      return { value: input, index: this.broadcast(op.outputs[0]!, input, at) as number };
    };
    const [left, right] = [elementOf(op.inputs[0]!), elementOf(op.inputs[1]!)];
    const fromArgMax = false;
    if (b && isConstant(b)) {
      const score: Score = { kind: 'element', element: left };
      return decision({ score, compare: kind, threshold: b.on, fromArgMax });
    }
    if (a && isConstant(a)) {
      const score: Score = { kind: 'element', element: right };
      return decision({ score, compare: MIRRORED[kind], threshold: a.on, fromArgMax });
    }
    // a > b exactly when a - b > 0: gradual underflow keeps the difference of two unequal numbers nonzero.
    const score: Score = { kind: 'difference', minuend: left, subtrahend: right };
    return decision({ score, compare: kind, threshold: 0, fromArgMax });
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
    if (!pick || !isPlain(pick)) return undefined;
    const element = (i: number) => {
      const from = [
        ...index.slice(0, axis),
        i < 0 ? i + shape[axis]! : i,
        ...index.slice(axis + picks.length),
      ];
      return this.trace(data, ravel(from, shape), depth);
    };
    if (isConstant(pick)) return element(pick.on);
    const [on, off] = [element(pick.on), element(pick.off)];
    return on && off && isConstant(on) && isConstant(off) ? { ...pick, on: on.on, off: off.off } : undefined;
  }

  private oneHot(op: WorkStepNamed<'oneHot'>, at: number, depth: number): Scalar | undefined {
    const [indices, values] = op.inputs as [ValueId, ValueId];
    const { axis, depth: length } = op.attrs;
    const index = unravel(at, this.region.shape(op.outputs[0]!));
    const hot = index[axis]!;
    const from = [...index.slice(0, axis), ...index.slice(axis + 1)];
    const pick = this.trace(indices, ravel(from, this.region.shape(indices)), depth);
    const [off, on] = [this.trace(values, 0, depth), this.trace(values, 1, depth)];
    if (!pick || !isPlain(pick) || !on || !off || !isConstant(on) || !isConstant(off)) return undefined;
    const at2 = (i: number) => ((i < 0 ? i + length : i) === hot ? on.on : off.on);
    return { ...pick, on: at2(pick.on), off: at2(pick.off) };
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
