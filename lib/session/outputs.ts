/** What a run returns: which outputs, in whose arrays, and the memory that runs fill. */
import { ResidualSkipError } from '../errors.js';
import type { Port, Program } from '../model/program/program.js';
import type { ModelFacts } from '../model/read/model.js';
import { sizeOf } from '../numeric/shapes.js';
import { decisionsIn } from '../skip/compiled-policy.js';
import type { TensorMap } from '../skip/observer.js';
import {
  allocate,
  asType,
  type DataType,
  describe,
  describeTensor,
  isTensorLike,
  Tensor,
  type TensorData,
  type TensorLike,
  toTensor,
} from '../tensor/tensor.js';
import { checkNames } from './feeds.js';
import { runOptions } from './options.js';

/** The arrays that a run fills; see RunRequest. */
export interface Results {
  readonly items: number;
  readonly outputs: readonly TensorData[];
  readonly outcomes: Uint8Array;
  readonly scores: Float32Array;
}

/** V8 keeps typed arrays of up to this many bytes in its heap, where creating one costs almost nothing. */
const SMALL_BYTES = 64;

/** Results kept for reuse: as many as runs may overlap without allocating more. */
const KEPT = 16;

/** The shape of an output of a run of `items`. */
export function shapeOf({ value, batched }: Port, program: Program, items: number): readonly number[] {
  const { shape } = program.values[value]!;
  return batched ? [items, ...shape.slice(1)] : shape;
}

/** The type of an output's tensors. */
export function typeOf({ value, widened }: Port, program: Program): DataType {
  return widened ?? program.values[value]!.dtype;
}

/**
 * Reusable memory for the results of one program's runs: creating an ArrayBuffer takes longer than anything else
 * around a run. Outputs are reused only if all of them are small; the caller gets copies of those.
 */
export class ResultPool {
  readonly #free: Results[] = [];

  constructor(private readonly program: Program) {}

  take(items: number): Results {
    const last = this.#free.pop();
    if (last?.items === items) return areSmall(last.outputs) ? last : this.#withOutputs(last);
    // The next runs will probably have as many items as this one.
    this.#free.length = 0;
    const cells = items * decisionsIn(this.program);
    const decisions = new ArrayBuffer(5 * cells);
    const outcomes = new Uint8Array(decisions, 4 * cells);
    return this.#withOutputs({ items, outcomes, scores: new Float32Array(decisions, 0, cells) });
  }

  /** Called when the outputs are collected and nobody will read the trace. */
  giveBack(results: Results): void {
    if (this.#free.length < KEPT) this.#free.push(results);
  }

  #withOutputs({ items, outcomes, scores }: Omit<Results, 'outputs'>): Results {
    const outputs = this.program.outputs.map((port) => {
      const size = sizeOf(shapeOf(port, this.program, items));
      return allocate(this.program.values[port.value]!.dtype, size);
    });
    return { items, outputs, outcomes, scores };
  }
}

function areSmall(outputs: readonly TensorData[]): boolean {
  return outputs.every(({ byteLength }) => byteLength <= SMALL_BYTES);
}

/** Output number `index`, owned by the caller. */
export function keptOutput({ outputs }: Results, index: number): TensorData {
  const data = outputs[index]!;
  return areSmall(outputs) ? (data.slice() as TensorData) : data;
}

/** Which outputs a run returns: their names, or a map from name to null or to the tensor to fill. */
export type Fetches = readonly string[] | { readonly [outputName: string]: Tensor | TensorLike | null };

/**
 * Null is valid both as a fetch and as an option such as `signal`: the name decides, and names of outputs take
 * precedence.
 */
function isFetches(model: ModelFacts, value: unknown): value is Fetches {
  if (Array.isArray(value)) return true;
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(value).some(([name, entry]) => {
    if (entry !== null) return isTensorLike(entry);
    return !runOptions().includes(name) || model.outputs.some((output) => output.name === name);
  });
}

function asMap(model: ModelFacts, fetches: Fetches): FetchMap {
  const map = new Map(
    Array.isArray(fetches)
      ? fetches.map((name: unknown) => [typeof name === 'string' ? name : describe(name), null] as const)
      : Object.entries(fetches as Record<string, Tensor | TensorLike | null>),
  );
  checkNames('fetches', [...map.keys()], model.outputs);
  if (map.size === 0)
    throw new ResidualSkipError('INVALID_ARGUMENT', 'fetches: expected at least one output');
  return map;
}

/** By output name: null for a new tensor, or the one to fill. */
export type FetchMap = ReadonlyMap<string, Tensor | TensorLike | null>;

/** All outputs, as new tensors. */
export function allOutputs({ outputs }: ModelFacts): FetchMap {
  return new Map(outputs.map(({ name }) => [name, null]));
}

/**
 * Distinguishes `run(feeds, fetches, options)` from `run(feeds, options)`: fetches are an array, or an object with a
 * tensor, or with null for an output.
 * @param all the fetches of a call without any: allOutputs(model)
 * @throws ResidualSkipError INVALID_ARGUMENT for an output that the model doesn't have
 */
export function parseFetches(
  model: ModelFacts,
  all: FetchMap,
  second: unknown,
  third: unknown,
): { readonly fetches: FetchMap; readonly options: unknown } {
  if (isFetches(model, second)) return { fetches: asMap(model, second), options: third };
  if (third !== undefined && second !== undefined && second !== null) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      'fetches: expected an array of output names or an object of tensors and nulls by output name',
    );
  }
  return { fetches: all, options: third ?? second };
}

/** A tensor of the caller's, in any class, and a Tensor over the same elements. */
interface Preallocated {
  readonly given: TensorLike;
  readonly tensor: Tensor;
}

/** The tensor of `fetches` for an output, checked to fit; null if a new tensor is requested. */
function preallocated(
  name: string,
  type: DataType,
  shape: readonly number[],
  fetches: FetchMap,
): Preallocated | null {
  const given = fetches.get(name);
  if (!given) return null;
  const tensor = toTensor(`fetches '${name}'`, given);
  const compared = `expected ${describeTensor(type, shape)}, received ${describeTensor(tensor.type, tensor.dims)}`;
  if (tensor.type !== type) throw new ResidualSkipError('INVALID_DTYPE', `fetches '${name}': ${compared}`);
  if (!ArrayBuffer.isView(given.data)) {
    throw new ResidualSkipError('INVALID_ARGUMENT', `fetches '${name}': expected a typed array to fill`);
  }
  if (tensor.dims.join() !== shape.join()) {
    throw new ResidualSkipError('INVALID_SHAPE', `fetches '${name}': ${compared}`);
  }
  return { given, tensor };
}

/** Throws INVALID_ARGUMENT, INVALID_DTYPE or INVALID_SHAPE unless the tensors in `fetches` fit a run of `items`. */
export function checkFetches(program: Program, items: number, fetches: FetchMap): void {
  for (const port of program.outputs)
    preallocated(port.name, typeOf(port, program), shapeOf(port, program, items), fetches);
}

/** The requested outputs as tensors; fills those of the caller, now that the run has succeeded. */
export function collectOutputs(program: Program, results: Results, fetches: FetchMap): TensorMap {
  const given = program.outputs.map((port) =>
    preallocated(port.name, typeOf(port, program), shapeOf(port, program, results.items), fetches),
  );
  const outputs: Record<string, Tensor> = {};
  for (const [index, port] of program.outputs.entries()) {
    if (!fetches.has(port.name)) continue;
    const filled = given[index];
    if (filled) fill(filled, results.outputs[index]!);
    outputs[port.name] = (filled?.given as Tensor | undefined) ?? newOutput(program, results, index);
  }
  return outputs;
}

/** The same of tensors whose shapes only the run knows. */
export function collectAnswers(answers: TensorMap, fetches: FetchMap): TensorMap {
  const wanted = Object.entries(answers).filter(([name]) => fetches.has(name));
  const given = wanted.map(([name, { type, dims }]) => preallocated(name, type, dims, fetches));
  const outputs = wanted.map(([name, tensor], i) => {
    const filled = given[i];
    if (filled) fill(filled, tensor.data);
    return [name, filled?.given ?? tensor];
  });
  return Object.fromEntries(outputs) as TensorMap;
}

function fill({ tensor }: Preallocated, from: TensorData): void {
  (tensor.data as { set(from: TensorData): void }).set(asType(tensor.type, from));
}

function newOutput(program: Program, results: Results, index: number): Tensor {
  const port = program.outputs[index]!;
  const type = typeOf(port, program);
  return new Tensor(type, asType(type, keptOutput(results, index)), shapeOf(port, program, results.items));
}
