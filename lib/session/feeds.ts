import { ResidualSkipError } from '../errors.js';
import type { Dimension, ModelPort } from '../model/read/graph.js';
import type { Binding, InputBinding, ModelFacts, ModelInput } from '../model/read/model.js';
import {
  copyData,
  describeTensor,
  isFloat,
  type Tensor,
  type TensorData,
  type TensorLike,
  toFloat32,
  toTensor,
  withData,
} from '../tensor/tensor.js';
import { suggest } from '../util/suggest.js';

/** Input tensors by name; tensors of onnxruntime-common are accepted, too. */
export type Feeds = { readonly [inputName: string]: Tensor | TensorLike };

type Tensors = { readonly [inputName: string]: Tensor };

/** Feeds that fit a model. */
export class BoundFeeds {
  #binding: Binding | undefined;

  /** @param items 1 for a model that runs its batch as a whole */
  constructor(
    private readonly model: ModelFacts,
    readonly items: number,
    readonly tensors: Tensors,
  ) {}

  /** Built on demand: most models have only one. */
  get binding(): Binding {
    this.#binding ??= new Map(
      this.model.inputs.map((input) => [input.name, bind(input, this.tensors[input.name]!)]),
    );
    return this.#binding;
  }

  /** These feeds with copies of the arrays: the caller may change or transfer its own. */
  copied(copy: (data: TensorData) => TensorData): BoundFeeds {
    const tensors: Record<string, Tensor> = {};
    for (const { name } of this.model.inputs) {
      const tensor = this.tensors[name]!;
      tensors[name] = withData(tensor, copy(tensor.data));
    }
    return new BoundFeeds(this.model, this.items, tensors);
  }
}

function checkName(subject: string, name: string, ports: readonly ModelPort[]): void {
  if (ports.some((port) => port.name === name)) return;
  const known = ports.map((port) => port.name);
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${subject}: the model has no ${subject === 'feeds' ? 'input' : 'output'} '${name}'; ${suggest(name, known)}`,
  );
}

/** Throws INVALID_ARGUMENT unless each of `names` is one of the `ports`. */
export function checkNames(
  subject: 'feeds' | 'fetches',
  names: readonly string[],
  ports: readonly ModelPort[],
): void {
  for (const name of names) checkName(subject, name, ports);
}

function fits(input: ModelInput, axis: number, declared: Dimension, length: number): boolean {
  // Each item is a separate run of the model, whatever batch the file was exported with.
  if (axis === 0 && input.batched) return length > 0;
  return typeof declared === 'number' ? length === declared : true;
}

function checkTensor(input: ModelInput, tensor: Tensor): void {
  const { dtype, widened, shape } = input;
  const { type, dims } = tensor;
  const declared = widened ?? dtype;
  const compared = () =>
    `expected ${describeTensor(declared, shape)}, received ${describeTensor(type, dims)}`;
  // What a float16 or float64 input is computed in is taken, too.
  if (type !== declared && type !== dtype)
    throw new ResidualSkipError('INVALID_DTYPE', `input '${input.name}': ${compared()}`);
  const fitting =
    input.anyRank ||
    (dims.length === shape.length && dims.every((length, axis) => fits(input, axis, shape[axis]!, length)));
  if (!fitting) {
    const empty =
      dims.length === shape.length && dims.includes(0) && !shape.includes(0) ? '; it is empty' : '';
    throw new ResidualSkipError('INVALID_SHAPE', `input '${input.name}': ${compared()}${empty}`);
  }
  if (type === 'bool' && (tensor.data as Uint8Array).some((value) => value > 1)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `input '${input.name}': it holds values other than 0 and 1; a bool tensor holds only these`,
    );
  }
}

function take(input: ModelInput, feeds: Feeds): Tensor {
  const value = Object.hasOwn(feeds, input.name) ? feeds[input.name] : undefined;
  if (value === undefined) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `feeds: input '${input.name}' (${describeTensor(input.widened ?? input.dtype, input.shape)}) is missing`,
    );
  }
  const tensor = toTensor(`input '${input.name}'`, value);
  checkTensor(input, tensor);
  return isFloat(tensor) ? toFloat32(tensor) : tensor;
}

function bind(input: ModelInput, tensor: Tensor): InputBinding {
  const shape = input.batched ? [1, ...tensor.dims.slice(1)] : tensor.dims;
  // The program keeps the data, while the memory of feeds is reused.
  return input.boundByValue ? { shape, data: copyData(tensor.data) } : { shape };
}

/**
 * Checks `feeds` against the inputs of `model`.
 * @throws ResidualSkipError INVALID_ARGUMENT (missing or unknown inputs, values that are not tensors), INVALID_DTYPE,
 * INVALID_SHAPE (not the declared shape, an empty batch, batches that differ)
 */
export function bindFeeds(model: ModelFacts, feeds: Feeds): BoundFeeds {
  if (typeof feeds !== 'object' || feeds === null || Array.isArray(feeds)) {
    throw new ResidualSkipError('INVALID_ARGUMENT', 'feeds: expected an object of tensors by input name');
  }
  checkNames('feeds', Object.keys(feeds), model.inputs);
  const tensors: Record<string, Tensor> = {};
  let leader: ModelInput | undefined;
  for (const input of model.inputs) {
    const tensor = take(input, feeds);
    tensors[input.name] = tensor;
    if (!input.batched) continue;
    leader ??= input;
    const items = tensors[leader.name]!.dims[0];
    if (tensor.dims[0] !== items) {
      throw new ResidualSkipError(
        'INVALID_SHAPE',
        `input '${input.name}': its batch is ${tensor.dims[0]}, but that of input '${leader.name}' is ${items}; expected the same`,
      );
    }
  }
  return new BoundFeeds(model, leader ? tensors[leader.name]!.dims[0]! : 1, tensors);
}

function withOverrides<P extends ModelPort>(port: P, overrides: Readonly<Record<string, number>>): P {
  const shape = port.shape.map((dim) =>
    typeof dim === 'string' && Object.hasOwn(overrides, dim) ? overrides[dim]! : dim,
  );
  return { ...port, shape };
}

/**
 * `model` with lengths for some of its symbolic dimensions.
 * @throws ResidualSkipError INVALID_ARGUMENT for a dimension that no input has
 */
export function overrideDimensions<M extends ModelFacts>(
  model: M,
  overrides: Readonly<Record<string, number>>,
): M {
  const symbols = new Set(
    model.inputs.flatMap(({ shape }) => shape.filter((dim) => typeof dim === 'string')),
  );
  for (const name of Object.keys(overrides)) {
    if (symbols.has(name)) continue;
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `options.freeDimensionOverrides: no input has a dimension '${name}'; ${suggest(name, [...symbols])}`,
    );
  }
  if (Object.keys(overrides).length === 0) return model;
  // With the hash's getter: to read it may be to compute it.
  return Object.create(model, {
    inputs: { value: model.inputs.map((port) => withOverrides(port, overrides)) },
    outputs: { value: model.outputs.map((port) => withOverrides(port, overrides)) },
  });
}

/**
 * The binding for the declared shapes of `model`; undefined if it depends on the feeds. A model that runs its batch
 * as a whole is bound to a batch of one if axis 0 is symbolic.
 */
export function declaredBinding(model: ModelFacts): Binding | undefined {
  const binding = new Map<string, InputBinding>();
  for (const input of model.inputs) {
    const shape = input.shape.map((dim, axis) =>
      axis === 0 && (input.batched || (model.batching === 'whole' && typeof dim === 'string')) ? 1 : dim,
    );
    if (input.boundByValue || input.anyRank || !shape.every((dim) => typeof dim === 'number'))
      return undefined;
    binding.set(input.name, { shape });
  }
  return binding;
}

/** Whether every feed leads to `declaredBinding`. */
export function hasOneBinding({ inputs }: ModelFacts): boolean {
  return inputs.every(
    ({ batched, boundByValue, anyRank, shape }) =>
      !boundByValue &&
      !anyRank &&
      shape.every((dim, axis) => typeof dim === 'number' || (batched && axis === 0)),
  );
}
