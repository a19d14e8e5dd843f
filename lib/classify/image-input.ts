/** The images that a network takes, and how they are prepared. */
import { z } from 'zod';
import type { ModelFiles } from '../data/model-files.js';
import { Preprocessor } from '../data/preprocess.js';
import { type ImageInput, type PreprocessorConfig, parsePreprocessor } from '../data/preprocessor-config.js';
import type { PreprocessorPreset } from '../data/presets.js';
import { ResidualSkipError } from '../errors.js';
import type { TensorMetadata } from '../session/metadata.js';
import { isFloatType } from '../tensor/tensor.js';
import { parseStrict } from '../util/validation.js';

/** What a network takes: a batch of images, or one `alone`. */
export interface NamedImageInput extends ImageInput {
  readonly name: string;
  readonly alone: boolean;
}

export function imageInput(inputs: readonly TensorMetadata[], model: string): NamedImageInput {
  const [first] = inputs;
  if (
    inputs.length !== 1 ||
    first === undefined ||
    ![3, 4].includes(first.shape.length) ||
    !isFloatType(first.type)
  ) {
    const found = inputs.map(({ name, type, shape }) => `${name}: ${type}[${shape.join(', ')}]`).join('; ');
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${model}: it takes ${found || 'nothing'}; images need one input of floats, [batch, channels, height, width] or [channels, height, width], and calibrate and ` +
        'evaluate also take tensors by input, { name: tensor }, or .npz files',
    );
  }
  const [channels, height, width] = first.shape.slice(-3);
  const known = (length: string | number | undefined) => (typeof length === 'number' ? length : undefined);
  const alone = first.shape.length === 3;
  return {
    name: first.name,
    alone,
    channels: known(channels) ?? 3,
    height: known(height),
    width: known(width),
  };
}

/** Whether images can be prepared for a network. */
export function takesImages(inputs: readonly TensorMetadata[], model: string): boolean {
  try {
    return [1, 3].includes(imageInput(inputs, model).channels);
  } catch {
    return false;
  }
}

/**
 * @param own instead of the configuration beside the model
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA for a configuration that can't be used
 */
export function preprocessorOf(
  input: ImageInput,
  { preprocessor: beside }: ModelFiles,
  own: PreprocessorConfig | PreprocessorPreset | undefined,
): Preprocessor {
  if (own) {
    const config = typeof own === 'string' ? { preset: own } : own;
    const source = 'options.preprocessor';
    return new Preprocessor(parsePreprocessor(config, source, 'INVALID_ARGUMENT'), input, source);
  }
  if (beside) return new Preprocessor(beside.config, input, beside.source);
  const { height, width } = input;
  const fixed = height !== undefined && width !== undefined;
  return new Preprocessor(fixed ? { size: { height, width } } : {}, input, 'preprocessing by default');
}

export function checkMaxPixels(value: unknown): number | undefined {
  return parseStrict(z.int().positive().optional(), value, { subject: 'options.maxPixels' });
}
