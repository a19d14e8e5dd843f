import { InvalidArgumentError } from 'commander';
import { ResidualSkipError } from '../errors.js';
import type { Shapes } from '../inspect/shapes.js';
import { sizeOf } from '../numeric/shapes.js';

/** `--shape 1x3x224x224`, or `--shape NAME=1x3x224x224` for a model with several inputs. */
export interface ShapeOption {
  readonly input?: string;
  readonly dims: readonly number[];
}

export const SHAPE_HELP = 'shape for open dimensions: 1x3x224x224, or INPUT=1x3x224x224';

/** Most elements of an input that a shape may ask for. */
const MAX_ELEMENTS = 2 ** 28;

/** Parses one `--shape` for commander, and appends it to the previous ones. */
export function collectShape(text: string, previous: readonly ShapeOption[] = []): ShapeOption[] {
  const match = /^(?:(.*)=)?(\d+(?:[x,]\d+)*)$/.exec(text);
  const dims = match?.[2]?.split(/[x,]/).map(Number);
  if (!match || !dims || dims.includes(0) || sizeOf(dims) > MAX_ELEMENTS) {
    throw new InvalidArgumentError('Expected lengths above 0, such as 1x3x224x224 or INPUT=1x3x224x224.');
  }
  return [...previous, { input: match[1], dims }];
}

/** @throws ResidualSkipError INVALID_ARGUMENT when one of several shapes names no input */
export function shapesOf(options: readonly ShapeOption[] = []): Shapes {
  const [first, ...others] = options;
  if (first && first.input === undefined && others.length === 0) return first.dims;
  const unnamed = options.find(({ input }) => input === undefined);
  if (!unnamed) return Object.fromEntries(options.map(({ input, dims }) => [input, dims]));
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `--shape ${unnamed.dims.join('x')}: it names no input; write INPUT=SHAPE for each of several`,
  );
}
