import type { CompareKind, ValueId } from './program.js';
import type { WorkStepNamed } from './region.js';

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

/**
 * What is known about a number before the network runs: it is one of two constants, chosen by a condition (or always
 * the same constant), plus a weighted sum of unknown elements.
 */
export interface Scalar {
  readonly on: number;
  readonly off: number;
  readonly condition?: Condition;
  readonly terms: ReadonlyMap<string, { readonly element: Element; readonly factor: number }>;
}

const NO_TERMS: Scalar['terms'] = new Map();
export const MIRRORED = { gt: 'lt', ge: 'le', lt: 'gt', le: 'ge' } as const;
const NEGATED = { gt: 'le', ge: 'lt', lt: 'ge', le: 'gt' } as const;

export const constant = (x: number): Scalar => ({ on: x, off: x, terms: NO_TERMS });

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

/** The condition under which a gate value is 1, if the value is always exactly 0 or 1. */
export function hardGate(scalar: Scalar | undefined): Condition | undefined {
  if (!scalar?.condition || scalar.terms.size > 0 || Number.isNaN(scalar.condition.threshold))
    return undefined;
  if (scalar.on === 1 && scalar.off === 0) return scalar.condition;
  return scalar.on === 0 && scalar.off === 1 ? negate(scalar.condition) : undefined;
}

export function decision(condition: Condition): Scalar {
  return { on: 1, off: 0, condition, terms: NO_TERMS };
}

export function isPlain(scalar: Scalar): boolean {
  return scalar.terms.size === 0;
}

export function isConstant(scalar: Scalar): boolean {
  return isPlain(scalar) && scalar.condition === undefined;
}

/** f of both, case by case; undefined when they depend on different conditions. */
export function combine(a: Scalar, b: Scalar, f: (x: number, y: number) => number): Scalar | undefined {
  if (a.condition && b.condition && !sameCondition(a.condition, b.condition)) return undefined;
  const condition = a.condition ?? b.condition;
  const both = { on: f(a.on, b.on), off: f(a.off, b.off), terms: NO_TERMS };
  return condition ? { ...both, condition } : both;
}

export function convert(scalar: Scalar | undefined, to: string, from: string): Scalar | undefined {
  if (!scalar || to === from) return scalar;
  if (!isPlain(scalar)) return undefined;
  const f = to === 'bool' ? (x: number) => Number(x !== 0) : to === 'float32' ? Math.fround : Math.trunc;
  return { ...scalar, on: f(scalar.on), off: f(scalar.off) };
}

export function applyActivation(op: WorkStepNamed<'unary'>, scalar: Scalar | undefined): Scalar | undefined {
  if (!scalar || !isPlain(scalar)) return undefined;
  const { kind, alpha, beta } = op.attrs.act;
  if (kind === 'none') return scalar;
  if (kind !== 'relu' && kind !== 'clip') return undefined;
  const f = (x: number) => (kind === 'relu' ? Math.max(x, 0) : Math.min(Math.max(x, alpha), beta));
  return { ...scalar, on: f(scalar.on), off: f(scalar.off) };
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
    case 'sub': {
      const sign = op.attrs.kind === 'add' ? 1 : -1;
      const sum = combine(a, b, (x, y) => round(x + sign * y));
      return sum && { ...sum, terms: addTerms(a.terms, b.terms, sign) };
    }
    case 'mul':
      if (isConstant(a) || isConstant(b)) {
        const [scaled, factor] = isConstant(b) ? [a, b.on] : [b, a.on];
        const product = { on: round(scaled.on * factor), off: round(scaled.off * factor) };
        return { ...scaled, ...product, terms: addTerms(NO_TERMS, scaled.terms, factor) };
      }
      return isPlain(a) && isPlain(b) ? combine(a, b, (x, y) => round(x * y)) : undefined;
    case 'div':
      return isPlain(a) && isPlain(b) ? combine(a, b, (x, y) => round(x / y)) : undefined;
  }
}

/** a + factor*b, without terms that cancel. */
function addTerms(a: Scalar['terms'], b: Scalar['terms'], factor: number): Scalar['terms'] {
  const sum = new Map(a);
  for (const [key, term] of b) {
    const total = (sum.get(key)?.factor ?? 0) + factor * term.factor;
    if (total === 0) sum.delete(key);
    else sum.set(key, { element: term.element, factor: total });
  }
  return sum;
}

export function logical(
  op: WorkStepNamed<'logical'>,
  operands: readonly (Scalar | undefined)[],
): Scalar | undefined {
  const [a, b] = operands;
  if (!a) return undefined;
  if (op.attrs.kind === 'not') return { ...a, on: Number(!a.on), off: Number(!a.off) };
  const and = op.attrs.kind === 'and';
  return b && combine(a, b, (x, y) => (and ? Number(x && y) : Number(x || y)));
}

export function choose(operands: readonly (Scalar | undefined)[]): Scalar | undefined {
  const [condition, a, b] = operands;
  if (!condition || !a || !b || !isPlain(condition)) return undefined;
  if (isConstant(condition)) return condition.on ? a : b;
  if (!isPlain(a) || !isPlain(b)) return undefined;
  const [first, second] = [combine(condition, a, (_, x) => x), combine(condition, b, (_, x) => x)];
  if (!first || !second) return undefined;
  return {
    ...first,
    on: condition.on ? first.on : second.on,
    off: condition.off ? first.off : second.off,
  };
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
