import { InvalidArgumentError } from 'commander';
import type { ModelFiles } from '../data/model-files.js';
import { Preprocessor } from '../data/preprocess.js';
import { ResidualSkipError } from '../errors.js';
import type { Dimension } from '../model/graph.js';
import type { Binding, Model, ModelInput } from '../model/model.js';
import { sizeOf } from '../numeric/shapes.js';
import { bindFeeds, declaredBinding } from '../session/feeds.js';
import { allocate, type DataType, Tensor, type TensorLike } from '../tensor.js';

/** `--shape 1x3x224x224`, or `--shape NAME=1x3x224x224` for a model with several inputs. */
export interface ShapeOption {
  readonly input?: string;
  readonly dims: readonly number[];
}

export const SHAPE_HELP = 'shape for open dimensions: 1x3x224x224, or INPUT=1x3x224x224';

/** Elements of the largest input that a shape may ask for. */
const MOST_ELEMENTS = 2 ** 28;

/** For commander: one `--shape`, added to those before it. */
export function collectShape(text: string, previous: readonly ShapeOption[] = []): ShapeOption[] {
  const match = /^(?:(.*)=)?(\d+(?:[x,]\d+)*)$/.exec(text);
  const dims = match?.[2]?.split(/[x,]/).map(Number);
  if (!match || !dims || dims.includes(0) || sizeOf(dims) > MOST_ELEMENTS) {
    throw new InvalidArgumentError('Expected lengths above 0, such as 1x3x224x224 or INPUT=1x3x224x224.');
  }
  return [...previous, { input: match[1], dims }];
}

/**
 * A concrete shape for every input, by name: from the options, or else as declared, with a batch of one and open
 * height and width as images are prepared.
 * @throws ResidualSkipError INVALID_ARGUMENT when a dimension stays open, or an option fits no input
 */
export function inputShapes(
  model: Model,
  files: ModelFiles,
  shapes: readonly ShapeOption[],
): Map<string, { dtype: DataType; dims: readonly number[]; batched: boolean }> {
  const unused = new Set(shapes);
  const result = new Map<string, { dtype: DataType; dims: readonly number[]; batched: boolean }>();
  for (const input of model.inputs) {
    const given = shapes.find(
      (shape) => shape.input === input.name || (!shape.input && model.inputs.length === 1),
    );
    if (given) unused.delete(given);
    const { dtype, batched } = input;
    result.set(input.name, { dtype, batched, dims: given?.dims ?? assumedShape(input, files) });
  }
  for (const { input, dims } of unused) {
    const names = model.inputs.map(({ name }) => name).join(', ');
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `--shape ${input ? `${input}=` : ''}${dims.join('x')} fits no input; write INPUT=SHAPE for one of: ${names}`,
    );
  }
  return result;
}

function assumedShape(input: ModelInput, { preprocessor, model }: ModelFiles): number[] {
  if (input.anyRank) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${model}: input '${input.name}' has no declared shape; give --shape ${input.name}=SHAPE`,
    );
  }
  const [, channels, height, width] = input.shape;
  let size: { height: number; width: number } | undefined;
  if (preprocessor && input.shape.length === 4 && typeof channels === 'number') {
    const known = (length: Dimension | undefined) => (typeof length === 'number' ? length : undefined);
    const image = { channels, height: known(height), width: known(width) };
    size = new Preprocessor(preprocessor.config, image, preprocessor.source).outputSize;
  }
  return input.shape.map((dim, axis) => {
    if (typeof dim === 'number') return dim;
    if (axis === 0) return 1;
    const length = axis === 2 ? size?.height : axis === 3 ? size?.width : undefined;
    if (length !== undefined) return length;
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${model}: input '${input.name}' leaves [${input.shape.join(', ')}] open; give --shape, such as ` +
        `--shape ${input.name}=${input.shape.map((d, i) => (typeof d === 'number' ? d : i === 0 ? 1 : 224)).join('x')}`,
    );
  });
}

/** Shapes from the options, or else as the model declares them, open height and width as images are prepared. */
export function bindingOf(model: Model, files: ModelFiles, shapes: readonly ShapeOption[]): Binding {
  if (shapes.length === 0) {
    const declared = declaredBinding(model);
    if (declared !== undefined) return declared;
  }
  const feeds: Record<string, TensorLike> = {};
  for (const [name, { dtype, dims }] of inputShapes(model, files, shapes)) {
    const size = sizeOf(dims);
    feeds[name] = new Tensor(dtype, allocate(dtype, size), dims) as TensorLike;
  }
  return bindFeeds(model, feeds).binding;
}
