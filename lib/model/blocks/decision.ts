import type { WorkStepNamed } from '../optimise/region.js';
import type { CompareKind, ValueId } from '../program/program.js';

/** One element of a value. */
export interface Element {
  readonly value: ValueId;
  readonly index: number;
}

/** The float32 that a condition compares: an element, the difference of two, or a bool as 0 or 1. */
export type Score =
  | { readonly kind: 'element'; readonly element: Element }
  | { readonly kind: 'bool'; readonly element: Element }
  | { readonly kind: 'difference'; readonly minuend: Element; readonly subtrahend: Element };

/** True when `score <compare> threshold`. */
export interface Condition {
  readonly score: Score;
  readonly compare: Exclude<CompareKind, 'eq'>;
  readonly threshold: number;
  readonly fromArgMax: boolean;
}

/** A constant plus a weighted sum of elements that are known only at run time. */
export interface Sum {
  readonly constant: number;
  readonly terms: ReadonlyMap<string, { readonly element: Element; readonly factor: number }>;
}

/**
 * What is known about a number before the network runs: it is `on` when the condition holds, and `off` when it doesn't. Without a
 * condition both are the same.
 */
export interface Scalar {
  readonly on: Sum;
  readonly off: Sum;
  readonly condition?: Condition;
}

const NO_TERMS: Sum['terms'] = new Map();
export const MIRRORED = { gt: 'lt', ge: 'le', lt: 'gt', le: 'ge' } as const;
const NEGATED = { gt: 'le', ge: 'lt', lt: 'ge', le: 'gt' } as const;

const plain = (constant: number): Sum => ({ constant, terms: NO_TERMS });
const isPlainSum = ({ terms }: Sum): boolean => terms.size === 0;

export function constant(x: number): Scalar {
  return { on: plain(x), off: plain(x) };
}

/** An element of which nothing is known. */
export function unknown(element: Element): Scalar {
  const terms = new Map([[`${element.value}:${element.index}`, { element, factor: 1 }]]);
  const sum = { constant: 0, terms };
  return { on: sum, off: sum };
}

/** 1 when the condition holds, otherwise 0. */
export function decision(condition: Condition): Scalar {
  return { on: plain(1), off: plain(0), condition };
}

/** The condition that holds when `condition` does not. A difference is reversed instead, so that it stays a margin. */
export function negate(condition: Condition): Condition {
  const { score, compare, threshold } = condition;
  if (score.kind !== 'difference' || threshold !== 0) return { ...condition, compare: NEGATED[compare] };
  const turned: Score = { kind: 'difference', minuend: score.subtrahend, subtrahend: score.minuend };
  return { ...condition, score: turned, compare: MIRRORED[NEGATED[compare]] };
}

export function sameCondition(a: Condition | undefined, b: Condition | undefined): boolean {
  return a !== undefined && b !== undefined && JSON.stringify(a) === JSON.stringify(b);
}

/** The constant that a number is when `condition` holds (or doesn't), if that alone decides it. */
export function valueWhen(
  scalar: Scalar | undefined,
  condition: Condition,
  holding: boolean,
): number | undefined {
  if (!scalar) return undefined;
  const negated = sameCondition(scalar.condition, negate(condition));
  if (scalar.condition && !negated && !sameCondition(scalar.condition, condition)) return undefined;
  const sum = holding !== negated ? scalar.on : scalar.off;
  return isPlainSum(sum) ? sum.constant : undefined;
}

/** The condition under which a gate value is 1, if the value is always exactly 0 or 1. */
export function hardGate(scalar: Scalar | undefined): Condition | undefined {
  const condition = usable(scalar);
  if (!scalar || !condition || !isPlain(scalar)) return undefined;
  if (scalar.on.constant === 1 && scalar.off.constant === 0) return condition;
  return scalar.on.constant === 0 && scalar.off.constant === 1 ? negate(condition) : undefined;
}

/** The condition of a number, if it can be evaluated at run time. */
export function usable(scalar: Scalar | undefined): Condition | undefined {
  return Number.isNaN(scalar?.condition?.threshold) ? undefined : scalar?.condition;
}

export function isPlain({ on, off }: Scalar): boolean {
  return isPlainSum(on) && isPlainSum(off);
}

export function isConstant(scalar: Scalar): boolean {
  return isPlain(scalar) && scalar.condition === undefined;
}

/** f of the cases of all `scalars`; undefined when they depend on different conditions, or when f is. */
export function combine(
  scalars: readonly Scalar[],
  f: (...sums: Sum[]) => Sum | undefined,
): Scalar | undefined {
  let condition: Condition | undefined;
  for (const scalar of scalars) {
    if (condition && scalar.condition && !sameCondition(condition, scalar.condition)) return undefined;
    condition ??= scalar.condition;
  }
  const on = f(...scalars.map((scalar) => scalar.on));
  if (!condition) return on && { on, off: on };
  const off = f(...scalars.map((scalar) => scalar.off));
  return on && off && { on, off, condition };
}

/** f of plain numbers, case by case. */
export function compute(scalars: readonly Scalar[], f: (...numbers: number[]) => number): Scalar | undefined {
  return combine(scalars, (...sums) =>
    sums.every(isPlainSum) ? plain(f(...sums.map((sum) => sum.constant))) : undefined,
  );
}

/** The one element that a number is. */
export function elementOf(scalar: Scalar | undefined): Element | undefined {
  const [term, ...others] = scalar && !scalar.condition ? scalar.on.terms.values() : [];
  return term && others.length === 0 && term.factor === 1 && scalar?.on.constant === 0
    ? term.element
    : undefined;
}

export function convert(scalar: Scalar | undefined, to: string, from: string): Scalar | undefined {
  if (!scalar || to === from) return scalar;
  const f = to === 'bool' ? (x: number) => Number(x !== 0) : to === 'float32' ? Math.fround : Math.trunc;
  return compute([scalar], f);
}

export function applyActivation(op: WorkStepNamed<'unary'>, scalar: Scalar | undefined): Scalar | undefined {
  if (!scalar) return undefined;
  const { kind, alpha, beta } = op.attrs.act;
  switch (kind) {
    case 'none':
      return scalar;
    case 'relu':
      return compute([scalar], (x) => Math.max(x, 0));
    case 'clip':
      return compute([scalar], (x) => Math.min(Math.max(x, alpha), beta));
    case 'sign':
      return compute([scalar], Math.sign);
    case 'floor':
      return compute([scalar], Math.floor);
    case 'ceil':
      return compute([scalar], Math.ceil);
    default:
      return undefined;
  }
}

export function arithmetic(
  op: WorkStepNamed<'binary'>,
  operands: readonly (Scalar | undefined)[],
  float: boolean,
): Scalar | undefined {
  const [a, b] = operands;
  if (!a || !b || op.attrs.act.kind !== 'none') return undefined;
  const round = float ? Math.fround : Math.trunc;
  switch (op.attrs.kind) {
    case 'add':
      return combine([a, b], (x, y) => weighted(x!, y!, 1, round));
    case 'sub':
      return combine([a, b], (x, y) => weighted(x!, y!, -1, round));
    case 'mul':
      return combine([a, b], (x, y) => {
        if (isPlainSum(x!)) return weighted(plain(0), y!, x.constant, round);
        return isPlainSum(y!) ? weighted(plain(0), x!, y.constant, round) : undefined;
      });
    case 'div':
      return compute([a, b], (x, y) => round(x! / y!));
    default:
      return undefined;
  }
}

/** a + factor*b, without terms that cancel. */
function weighted(a: Sum, b: Sum, factor: number, round: (x: number) => number): Sum {
  const terms = new Map(a.terms);
  for (const [key, term] of b.terms) {
    const total = (terms.get(key)?.factor ?? 0) + factor * term.factor;
    if (total === 0) terms.delete(key);
    else terms.set(key, { element: term.element, factor: total });
  }
  return { constant: round(a.constant + factor * b.constant), terms };
}

export function logical(
  op: WorkStepNamed<'logical'>,
  operands: readonly (Scalar | undefined)[],
): Scalar | undefined {
  const [a, b] = operands;
  if (!a) return undefined;
  if (op.attrs.kind === 'not') return compute([a], (x) => Number(!x));
  const and = op.attrs.kind === 'and';
  return b && compute([a, b], (x, y) => (and ? Number(x && y) : Number(x || y)));
}

export function choose(operands: readonly (Scalar | undefined)[]): Scalar | undefined {
  const [condition, a, b] = operands;
  if (!condition || !a || !b) return undefined;
  return combine([condition, a, b], (c, x, y) => (isPlainSum(c!) ? (c.constant ? x : y) : undefined));
}

/**
 * Comparison of a number with a constant: decided by the number's own condition where the same element is compared in it, as in
 * `p < 0.5 ? 0 : p`, which is at least 0.5 exactly when it isn't 0.
 */
export function comparison(kind: CompareKind, a: Scalar, b: Scalar): Scalar | undefined {
  const both = compute([a, b], (x, y) => Number(holds(kind, x!, y!)));
  const { condition } = a;
  if (both || !condition || !isConstant(b) || kind === 'eq') return both;
  const known = (sum: Sum, assumed: Condition): Sum | undefined => {
    if (isPlainSum(sum)) return plain(Number(holds(kind, sum.constant, b.on.constant)));
    const element = elementOf({ on: sum, off: sum });
    const { score } = assumed;
    const same =
      element &&
      score.kind === 'element' &&
      score.element.value === element.value &&
      score.element.index === element.index;
    const follows = same ? implied(assumed, kind, b.on.constant) : undefined;
    return follows === undefined ? undefined : plain(Number(follows));
  };
  const [on, off] = [known(a.on, condition), known(a.off, negate(condition))];
  return on && off && { on, off, condition };
}

/** Whether `x <kind> threshold` follows from the condition on x, or its contrary does; undefined if neither. */
function implied(given: Condition, kind: Condition['compare'], threshold: number): boolean | undefined {
  const above = (compare: string) => compare === 'gt' || compare === 'ge';
  const strict = (compare: string) => compare === 'gt' || compare === 'lt';
  const distance = above(given.compare) ? given.threshold - threshold : threshold - given.threshold;
  if (distance < 0) return undefined;
  if (above(given.compare) === above(kind)) {
    return distance > 0 || strict(given.compare) || !strict(kind) ? true : undefined;
  }
  return distance > 0 || strict(given.compare) || strict(kind) ? false : undefined;
}

export function holds(kind: CompareKind, x: number, y: number): boolean {
  switch (kind) {
    case 'gt':
      return x > y;
    case 'ge':
      return x >= y;
    case 'lt':
      return x < y;
    case 'le':
      return x <= y;
    case 'eq':
      return x === y;
  }
}
