import type { ModelFiles } from '../data/model-files.js';
import { Preprocessor } from '../data/preprocess.js';
import { TOKEN_INPUTS, tokenLimit } from '../data/tokenizer.js';
import { ResidualSkipError } from '../errors.js';
import type { Dimension } from '../model/read/graph.js';
import type { Binding, Model, ModelInput } from '../model/read/model.js';
import { sizeOf } from '../numeric/shapes.js';
import { bindFeeds, declaredBinding } from '../session/feeds.js';
import { allocate, type DataType, Tensor, type TensorLike } from '../tensor/tensor.js';
import { suggest } from '../util/suggest.js';

/** Shapes of inputs by name, or the shape of the only input. */
export type Shapes = readonly number[] | { readonly [input: string]: readonly number[] };

interface InputShape {
  readonly dtype: DataType;
  readonly dims: readonly number[];
  readonly batched: boolean;
}

/**
 * A concrete shape for every input, by name: the given one, or else the declared one, with a batch of one; an open height
 * or width is that of prepared images, an open number of tokens the most that a text may have.
 * @param files undefined for a model given as bytes
 * @throws ResidualSkipError INVALID_ARGUMENT when a dimension remains open, or a shape fits no input
 */
export async function inputShapes(
  model: Model,
  files: ModelFiles | undefined,
  shapes: Shapes,
): Promise<Map<string, InputShape>> {
  const names = model.inputs.map(({ name }) => name);
  const given = byName(names, shapes);
  for (const [name, dims] of given) {
    if (names.includes(name)) continue;
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `shape ${name}=${dims.join('x')}: it fits no input; ${suggest(name, names)}`,
    );
  }
  const tokens = model.inputs.some(isOpenText) && files ? await tokenLimit(files.folder) : undefined;
  return new Map(
    model.inputs.map((input) => {
      const { name, dtype, batched } = input;
      return [name, { dtype, batched, dims: given.get(name) ?? assumedShape(input, files, tokens) }];
    }),
  );
}

function byName(names: readonly string[], shapes: Shapes): ReadonlyMap<string, readonly number[]> {
  if (!isList(shapes)) return new Map(Object.entries(shapes));
  if (names.length === 1) return new Map([[names[0]!, shapes]]);
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `shape ${shapes.join('x')}: the model has several inputs; say which one it is for: ${names.join(', ')}`,
  );
}

function isList(shapes: Shapes): shapes is readonly number[] {
  return Array.isArray(shapes);
}

/** Whether an input has a row of tokens for each item, of any number. */
function isOpenText({ name, shape }: ModelInput): boolean {
  const known = (TOKEN_INPUTS as readonly string[]).includes(name);
  return known && shape.length === 2 && typeof shape[1] === 'string';
}

function assumedShape(
  input: ModelInput,
  files: ModelFiles | undefined,
  tokens: number | undefined,
): number[] {
  const model = files?.model ?? 'the model';
  if (input.anyRank) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${model}: input '${input.name}' has no declared shape; give one (shapes; --shape ${input.name}=SHAPE)`,
    );
  }
  const [, channels, height, width] = input.shape;
  let size: { height: number; width: number } | undefined;
  if (files?.preprocessor && input.shape.length === 4 && typeof channels === 'number') {
    const { config, source } = files.preprocessor;
    const known = (length: Dimension | undefined) => (typeof length === 'number' ? length : undefined);
    const image = { channels, height: known(height), width: known(width) };
    size = new Preprocessor(config, image, source).outputSize;
  }
  return input.shape.map((dim, axis) => {
    if (typeof dim === 'number') return dim;
    if (axis === 0) return 1;
    if (tokens !== undefined && isOpenText(input)) return tokens;
    const length = axis === 2 ? size?.height : axis === 3 ? size?.width : undefined;
    if (length !== undefined) return length;
    const usual = isOpenText(input) ? 128 : 224;
    const example = input.shape.map((d, i) => (typeof d === 'number' ? d : i === 0 ? 1 : usual));
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${model}: input '${input.name}' leaves [${input.shape.join(', ')}] open; give its shape (shapes; ` +
        `--shape ${input.name}=${example.join('x')})`,
    );
  });
}

/** The binding for the shapes of `inputShapes`. */
export async function bindingOf(
  model: Model,
  files: ModelFiles | undefined,
  shapes: Shapes,
): Promise<Binding> {
  if (Object.keys(shapes).length === 0) {
    const declared = declaredBinding(model);
    if (declared !== undefined) return declared;
  }
  const feeds: Record<string, TensorLike> = {};
  for (const [name, { dtype, dims }] of await inputShapes(model, files, shapes)) {
    feeds[name] = new Tensor(dtype, allocate(dtype, sizeOf(dims)), dims) as TensorLike;
  }
  return bindFeeds(model, feeds).binding;
}
