/** The configuration of how pixels are prepared. */
import { z } from 'zod';
import type { ErrorCode } from '../errors.js';
import { late } from '../util/late.js';
import { parseStrict, refuseMisspelt } from '../util/validation.js';
import { PRESET_FIELDS, PRESETS } from './presets.js';

const length = late(() => z.int().positive().max(65535));
const rectangle = late(() => z.strictObject({ height: length(), width: length() }));
const perChannel = late(() => z.union([z.number(), z.array(z.number()).nonempty()]));

/**
 * The part of Hugging Face's `preprocessor_config.json` that describes what happens to the pixels. Unrelated fields are
 * ignored; fields that ask for something that isn't implemented are errors.
 */
export const preprocessorConfigSchema = late(() =>
  z.looseObject({
    preset: z.enum(PRESETS).optional(),
    image_processor_type: z.string().nullish(),
    feature_extractor_type: z.string().nullish(),
    do_resize: z.boolean().nullish(),
    size: z
      .union([
        length(),
        rectangle(),
        z.strictObject({ shortest_edge: length(), longest_edge: length().optional() }),
        z.strictObject({ max_height: length(), max_width: length() }),
      ])
      .nullish(),
    max_size: length().nullish(),
    size_divisor: z.int().nullish(),
    size_divisibility: z.int().nullish(),
    resample: z.int().nullish(),
    crop_pct: z.number().positive().max(1).nullish(),
    do_center_crop: z.boolean().nullish(),
    crop_size: z.union([length(), rectangle()]).nullish(),
    do_rescale: z.boolean().nullish(),
    rescale_factor: z.number().nullish(),
    do_normalize: z.boolean().nullish(),
    image_mean: perChannel().nullish(),
    image_std: perChannel().nullish(),
    do_flip_channel_order: z.boolean().nullish(),
    do_pad: z.boolean().nullish(),
    pad_size: rectangle().nullish(),
    pad_value: z.int().min(0).max(255).optional(),
    pad_center: z.boolean().optional(),
    rescale_offset: z.literal(false).nullish(),
    include_top: z.boolean().nullish(),
    keep_aspect_ratio: z.literal(false).nullish(),
  }),
);
type Parsed = z.infer<ReturnType<typeof preprocessorConfigSchema>>;
/**
 * How pixels are prepared: the fields of Hugging Face's preprocessor_config.json, and `preset`, whose fields these change. Other
 * fields are ignored or refused.
 * @interface
 */
export type PreprocessorConfig = { [Key in keyof Parsed as string extends Key ? never : Key]: Parsed[Key] };

/**
 * Checks a configuration. An unknown key is an error where it looks like a misspelt one.
 * @throws ResidualSkipError with `code`
 */
export function parsePreprocessor(value: unknown, subject: string, code: ErrorCode): PreprocessorConfig {
  const config = parseStrict(preprocessorConfigSchema(), value, { code, subject });
  refuseMisspelt(config, Object.keys(preprocessorConfigSchema().shape), subject, code);
  return config;
}

/** The image input of a model: NCHW with one item; a length is undefined if the model leaves it open. */
export interface ImageInput {
  readonly channels: number;
  readonly height?: number;
  readonly width?: number;
}

/**
 * A configuration with its preset written out. Its own fields go before those of the preset, whose sizes are for the side `size`, or
 * else for the model's.
 */
export function withPreset(
  { preset, ...config }: PreprocessorConfig,
  { height, width }: ImageInput,
): PreprocessorConfig {
  if (preset === undefined) return config;
  const { size, ...rest } = config;
  const fixed = height !== undefined && width !== undefined;
  const side = typeof size === 'number' ? size : height === width ? height : undefined;
  const made = PRESET_FIELDS[preset](side);
  // A crop to a square would not fit an input that is none.
  const { crop_size: _, ...uncropped } = made;
  const isOblong = fixed && height !== width && typeof size !== 'number';
  const keeps = typeof made.size === 'object' && 'max_height' in made.size;
  const oblong = { height: height!, width: width! };
  const sizes = keeps
    ? { size: { max_height: height!, max_width: width! }, pad_size: oblong }
    : { size: oblong };
  const own = isOblong ? { ...uncropped, ...sizes } : made;
  return { ...own, ...(typeof size === 'object' && size !== null && { size }), ...rest };
}
