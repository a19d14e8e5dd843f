import { ResidualSkipError } from '../errors.js';
import type { Port, Program } from '../model/program/program.js';
import type { Model } from '../model/read/model.js';
import type { TensorMap } from '../skip/observer.js';
import {
  asType,
  describe,
  describeTensor,
  isTensorLike,
  Tensor,
  type TensorData,
  type TensorLike,
  toTensor,
} from '../tensor/tensor.js';
import { checkNames } from './feeds.js';
import { RUN_OPTIONS } from './options.js';
import { keptOutput, type Results, shapeOf, typeOf } from './results.js';

/** Which outputs a run returns: their names, or a map from name to null or to the tensor to fill. */
export type Fetches = readonly string[] | { readonly [outputName: string]: Tensor | TensorLike | null };

/**
 * Null is valid both as a fetch and as an option such as `signal`: the name decides, and names of outputs take
 * precedence.
 */
function isFetches(model: Model, value: unknown): value is Fetches {
  if (Array.isArray(value)) return true;
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(value).some(([name, entry]) => {
    if (entry !== null) return isTensorLike(entry);
    return !RUN_OPTIONS.includes(name) || model.outputs.some((output) => output.name === name);
  });
}

function asMap(model: Model, fetches: Fetches): FetchMap {
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

const everything = new WeakMap<Model, FetchMap>();

/** All outputs, as new tensors; the same object for each call with the same model. */
export function allOutputs(model: Model): FetchMap {
  const known = everything.get(model);
  if (known) return known;
  const made: FetchMap = new Map(model.outputs.map(({ name }) => [name, null]));
  everything.set(model, made);
  return made;
}

/**
 * Distinguishes `run(feeds, fetches, options)` from `run(feeds, options)`: fetches are an array, or an object with a
 * tensor, or with null for an output.
 * @throws ResidualSkipError INVALID_ARGUMENT for an output that the model doesn't have
 */
export function parseFetches(
  model: Model,
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
  return { fetches: allOutputs(model), options: third ?? second };
}

/** A tensor of the caller's, in any class, and a Tensor over the same elements. */
interface Preallocated {
  readonly given: TensorLike;
  readonly tensor: Tensor;
}

/** The tensor of `fetches` for `port`, checked to fit; null if a new tensor is requested. */
function preallocated(port: Port, program: Program, items: number, fetches: FetchMap): Preallocated | null {
  const given = fetches.get(port.name);
  if (!given) return null;
  const tensor = toTensor(`fetches '${port.name}'`, given);
  const type = typeOf(port, program);
  const shape = shapeOf(port, program, items);
  const compared = `expected ${describeTensor(type, shape)}, received ${describeTensor(tensor.type, tensor.dims)}`;
  if (tensor.type !== type)
    throw new ResidualSkipError('INVALID_DTYPE', `fetches '${port.name}': ${compared}`);
  if (!ArrayBuffer.isView(given.data)) {
    throw new ResidualSkipError('INVALID_ARGUMENT', `fetches '${port.name}': expected a typed array to fill`);
  }
  if (tensor.dims.join() !== shape.join()) {
    throw new ResidualSkipError('INVALID_SHAPE', `fetches '${port.name}': ${compared}`);
  }
  return { given, tensor };
}

/** Throws INVALID_ARGUMENT, INVALID_DTYPE or INVALID_SHAPE unless the tensors in `fetches` fit a run of `items`. */
export function checkFetches(program: Program, items: number, fetches: FetchMap): void {
  for (const port of program.outputs) preallocated(port, program, items, fetches);
}

/** The requested outputs as tensors; fills those of the caller, now that the run has succeeded. */
export function collectOutputs(program: Program, results: Results, fetches: FetchMap): TensorMap {
  const given = program.outputs.map((port) => preallocated(port, program, results.items, fetches));
  const outputs: Record<string, Tensor> = {};
  for (const [index, port] of program.outputs.entries()) {
    if (!fetches.has(port.name)) continue;
    const filled = given[index];
    if (filled) {
      const data = asType(filled.tensor.type, results.outputs[index]!);
      (filled.tensor.data as { set(from: TensorData): void }).set(data);
    }
    outputs[port.name] = (filled?.given as Tensor | undefined) ?? newOutput(program, results, index);
  }
  return outputs;
}

function newOutput(program: Program, results: Results, index: number): Tensor {
  const port = program.outputs[index]!;
  const type = typeOf(port, program);
  return new Tensor(type, asType(type, keptOutput(results, index)), shapeOf(port, program, results.items));
}
