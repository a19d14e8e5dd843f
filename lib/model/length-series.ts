/**
 * Programs of a model with one open length, such as that of a text. Compiling takes milliseconds, and the programs of
 * two lengths differ in numbers alone: after a few, the others follow by interpolation.
 */
import { sizeOf } from '../numeric/shapes.js';
import { recalled } from '../tensor/recall.js';
import type { TensorData } from '../tensor/tensor.js';
import { atOnce, type Sliced } from '../util/slices.js';
import { building } from './compile.js';
import { isLinear, type Outline, outlineOf } from './length-proof.js';
import { specializing } from './lower/specialize.js';
import type { Ir } from './program/ir.js';
import type { Program, Value } from './program/program.js';
import type { Binding, Model } from './read/model.js';

/** Programs that interpolation starts from: three determine a polynomial, the fourth confirms it. */
const SAMPLES = 4;

interface Sample {
  readonly length: number;
  readonly outline: Outline;
  readonly program: Program;
}

/** The same thing for another length; undefined where it can't be interpolated. */
type Made<T> = (length: number) => T | undefined;

/** `same` where all samples are equal, otherwise how it depends on the length. */
type Fitted<T> = { readonly same: T } | { readonly make: Made<T> };

/**
 * Interpolates only between lengths that were compiled, and only what is known to be a polynomial: four samples alone prove nothing,
 * since at a, a + 1, d - 1 and d, with a and d even, floor(length / 2) is on one, too.
 *  - The numbers of the lowered graph are proven to be linear, positive and growing.
 *  - A length at which two of them are equal that differ elsewhere is compiled, because a pass may take its shapes for the same by
 *    chance. So every comparison in the passes has the same result as for the samples.
 *  - The numbers of a program are sums of products of them, none of whose derivatives is negative. One of a degree above 2 has a
 *    positive third difference: a fourth sample isn't on the polynomial of three.
 */
export class LengthSeries {
  /** The shortest first. */
  private samples: readonly Sample[] = [];
  /** The last interpolation, and its samples. To make one takes as long as to compile, so it is made when a length needs it. */
  private known: { readonly samples: readonly Sample[]; readonly make: Made<Program> } | undefined;

  constructor(
    private readonly model: Model,
    private readonly build: (ir: Ir) => Sliced<Program> = building,
  ) {}

  /** What `build` returns for the binding, or the same without its work. */
  program(binding: Binding): Program {
    return atOnce(this.compiling(binding));
  }

  /** The same in slices. */
  *compiling(binding: Binding): Sliced<Program> {
    const length = openLength(this.model, binding);
    const made = length === undefined ? undefined : this.interpolated(length);
    if (made) return made;
    const ir = yield* specializing(this.model, binding);
    const program = yield* this.build(ir);
    if (length !== undefined && !(this.known && spans(this.known.samples, length)))
      this.add({ length, outline: outlineOf(ir, length), program });
    return program;
  }

  private interpolated(length: number): Program | undefined {
    const { samples, known } = this;
    if (known && spans(known.samples, length)) return known.make(length);
    if (samples === known?.samples || samples.length < SAMPLES || !spans(samples, length)) return undefined;
    const make = interpolation(samples, this.model);
    if (make) this.known = { samples, make };
    // One of the samples is a special case, and it may be an earlier one.
    else this.samples = known?.samples ?? samples.slice(1);
    return make?.(length);
  }

  private add(sample: Sample): void {
    if (this.samples.some(({ length }) => length === sample.length)) return;
    const samples = [...this.samples, sample].sort((a, b) => a.length - b.length);
    // The shortest and the longest stay: lengths between them can be interpolated.
    if (samples.length > SAMPLES) samples.splice(samples[1] === sample ? 2 : 1, 1);
    this.samples = samples;
  }
}

/** Whether `length` is between those of samples. */
function spans(samples: readonly Sample[], length: number): boolean {
  return samples[0]!.length < length && length < samples.at(-1)!.length;
}

/**
 * The length that all open axes but the batch have in common; undefined if they differ, or if elements or the number of items count
 * as well.
 */
function openLength(model: Model, binding: Binding): number | undefined {
  if (model.loweredItems !== undefined) return undefined;
  const lengths = new Set<number>();
  for (const { name, shape, batched, anyRank, boundByValue } of model.inputs) {
    const bound = binding.get(name);
    if (!bound || anyRank || boundByValue) return undefined;
    for (const [axis, dim] of shape.entries()) {
      if (typeof dim === 'string' && !(batched && axis === 0)) lengths.add(bound.shape[axis]!);
    }
  }
  // Without elements much is left out.
  return lengths.size === 1 && !lengths.has(0) ? [...lengths][0] : undefined;
}

function interpolation(samples: readonly Sample[], { graph }: Model): Made<Program> | undefined {
  const lengths = samples.map(({ length }) => length);
  // Otherwise a pattern that repeats would look like a constant.
  if (lengths.slice(1).reduce((divisor, length) => gcd(divisor, length - lengths[0]!), 0) !== 1)
    return undefined;
  const outlines = samples.map(({ outline }) => outline);
  if (!isLinear(graph, outlines)) return undefined;
  const numbers = new Numbers(lengths);
  for (const [id, { shape }] of outlines[0]!.values.entries()) {
    for (const axis of shape.keys()) numbers.note(outlines.map(({ values }) => values[id]!.shape[axis]!));
  }
  const programs = samples.map(({ program }) => program);
  const values = valuesOf(
    programs.map(({ values }) => values),
    numbers,
  );
  const exitValues =
    values &&
    valuesOf(
      programs.map(({ ownExits }) => ownExits?.values ?? []),
      numbers,
    );
  const rest =
    exitValues &&
    interpolated(
      programs.map(({ values: _, ownExits, ...others }) => ({ others, exits: ownExits?.list })),
      numbers,
    );
  if (!rest) return undefined;
  return (length) => {
    if (numbers.meet(length)) return undefined;
    const { others, exits: list } = ('same' in rest ? rest.same : rest.make(length)) ?? {};
    const [made, ofExits] = [values(length), exitValues(length)];
    if (!others || !made || !ofExits) return undefined;
    return { ...others, values: made, ...(list && { ownExits: { values: ofExits, list } }) };
  };
}

function valuesOf(samples: readonly (readonly Value[])[], numbers: Numbers): Made<Value[]> | undefined {
  const count = samples[0]!.length;
  if (samples.some((values) => values.length !== count)) return undefined;
  const each: Fitted<Value>[] = [];
  for (let id = 0; id < count; id++) {
    const value = fitValue(
      samples.map((values) => values[id]!),
      numbers,
    );
    if (!value) return undefined;
    each.push(value);
  }
  return (length) => all(each, length);
}

function fitValue(values: readonly Value[], numbers: Numbers): Fitted<Value> | undefined {
  const shapes = values.map(({ shape }) => shape);
  const described = interpolated(
    values.map(({ data: _, ...others }) => others),
    numbers,
  );
  if (!described) return undefined;
  const arrays = values.map(({ data }) => data);
  const longest = arrays.at(-1);
  if (arrays.every((data) => data === undefined)) return described;
  if (!longest || arrays.includes(undefined)) return undefined;
  if (arrays.every((data) => sameData(data!, longest))) {
    return 'same' in described
      ? { same: { ...described.same, data: longest } }
      : { make: (length) => withData(described.make(length), longest) };
  }
  // A table of positions or a triangular mask of which shorter programs have the beginning.
  const whole = shapes.at(-1)!;
  const begins = arrays.every((data, i) => sameData(data!, beginning(longest, whole, shapes[i]!)));
  if (!begins || 'same' in described) return undefined;
  return {
    make: (length) => {
      const value = described.make(length);
      return withData(value, value && beginning(longest, whole, value.shape));
    },
  };
}

function withData(value: Omit<Value, 'data'> | undefined, data: TensorData | undefined): Value | undefined {
  return value && data && { ...value, data };
}

function sameData(a: TensorData, b: TensorData): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (const data of [a, b]) recalled(data);
  for (let i = 0; i < a.length; i++) if (!Object.is(a[i], b[i])) return false;
  return true;
}

/** The elements of `data` whose positions are within `shape`, which is nowhere longer than `whole`. */
function beginning(data: TensorData, whole: readonly number[], shape: readonly number[]): TensorData {
  const part = recalled(data).slice(0, sizeOf(shape));
  const row = shape.at(-1) ?? 1;
  const at = new Array<number>(shape.length).fill(0);
  for (let to = 0; to < part.length; to += row) {
    const from = at.reduce((offset, index, axis) => offset * whole[axis]! + index, 0);
    // The types agree: both are parts of one array.
    part.set(data.subarray(from, from + row) as never, to);
    for (let axis = shape.length - 2; axis >= 0 && ++at[axis]! === shape[axis]; axis--) at[axis] = 0;
  }
  return part;
}

/** The numbers that were found in samples, and how they depend on the length. */
class Numbers {
  private readonly constants = new Set<number>();
  private readonly varying = new Map<string, Made<number>>();

  constructor(private readonly lengths: readonly number[]) {}

  add(constant: number): void {
    this.constants.add(constant);
  }

  note(samples: readonly number[]): void {
    if (samples.every((sample) => sample === samples[0])) this.add(samples[0]!);
    else this.polynomial(samples);
  }

  /** The polynomial of second degree at most through the first three samples, if the others are on it. */
  polynomial(samples: readonly number[]): Made<number> | undefined {
    const key = samples.join();
    const known = this.varying.get(key);
    if (known) return known;
    const [a, b, c] = this.lengths as [number, number, number];
    const [p, q, r] = samples as [number, number, number];
    // Newton's form of it.
    const slope = (q - p) / (b - a);
    const bend = ((r - q) / (c - b) - slope) / (c - a);
    const exact = (length: number) => p + (length - a) * (slope + (length - b) * bend);
    const rounded = (length: number) => {
      const number = exact(length);
      const whole = Math.round(number);
      return Math.abs(number - whole) < 1e-6 && Number.isSafeInteger(whole) ? whole : undefined;
    };
    if (!samples.every((sample, i) => rounded(this.lengths[i]!) === sample)) return undefined;
    this.varying.set(key, rounded);
    return rounded;
  }

  /** Whether two numbers that differ for most lengths are the same for this one. */
  meet(length: number): boolean {
    const found = new Set(this.constants);
    for (const make of this.varying.values()) {
      const number = make(length);
      if (number === undefined || found.has(number)) return true;
      found.add(number);
    }
    return false;
  }
}

/** Keys under which passes compare numbers; other numbers are indices of steps and values. */
const COMPARED: ReadonlySet<string> = new Set(['shape', 'attrs']);

/** How plain data of four lengths depends on the length; undefined when it differs in more than whole numbers. */
function interpolated<T>(samples: readonly T[], numbers: Numbers, compared = false): Fitted<T> | undefined {
  const [first] = samples as [T];
  if (samples.every((sample) => Object.is(sample, first))) {
    if (compared && typeof first === 'number') numbers.add(first);
    return { same: first };
  }
  if (samples.every((sample) => Number.isSafeInteger(sample))) {
    const make = numbers.polynomial(samples as readonly number[]);
    return make && { make: make as Made<unknown> as Made<T> };
  }
  if (samples.some((sample) => typeof sample !== 'object' || sample === null)) return undefined;
  const keys = Object.keys(first as object);
  const alike = samples.every((sample) => {
    const own = Object.keys(sample as object);
    return (
      own.length === keys.length &&
      own.every((key, i) => key === keys[i]) &&
      Array.isArray(sample) === Array.isArray(first)
    );
  });
  if (!alike) return undefined;
  const parts: Fitted<unknown>[] = [];
  for (const key of keys) {
    const part = interpolated(
      samples.map((sample) => sample[key as keyof T]),
      numbers,
      compared || COMPARED.has(key),
    );
    if (!part) return undefined;
    parts.push(part);
  }
  if (parts.every((part) => 'same' in part)) return { same: first };
  const isList = Array.isArray(first);
  return {
    make: (length) => {
      const made = all(parts, length);
      if (!made || isList) return made as T | undefined;
      return Object.fromEntries(keys.map((key, i) => [key, made[i]])) as T;
    },
  };
}

function all<T>(parts: readonly Fitted<T>[], length: number): T[] | undefined {
  const made: T[] = [];
  for (const one of parts) {
    if ('same' in one) {
      made.push(one.same);
      continue;
    }
    const part = one.make(length);
    if (part === undefined) return undefined;
    made.push(part);
  }
  return made;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
