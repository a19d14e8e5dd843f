/** How timm prepares pixels, by `pretrained_cfg` in its config.json. */
import { z } from 'zod';
import { late } from '../util/late.js';
import type { PreprocessorConfig } from './preprocessor-config.js';

export const pretrainedSchema = late(() =>
  z.looseObject({
    input_size: z.tuple([z.int().positive(), z.int().positive(), z.int().positive()]).nullish(),
    mean: z.array(z.number()).nonempty().nullish(),
    std: z.array(z.number()).nonempty().nullish(),
    crop_pct: z.number().positive().max(1).nullish(),
    crop_mode: z.string().nullish(),
    interpolation: z.string().nullish(),
  }),
);

/** By PIL's numbers. */
const FILTERS = ['nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming'];
/** What timm takes where a file says nothing. */
const DEFAULTS = { crop_pct: 0.875, interpolation: 'bicubic', crop_mode: 'center' };

/** As a preprocessor_config.json; undefined for what that can't say, such as a crop of an oblong. */
export function preprocessorOfTimm({
  input_size: input,
  mean,
  std,
  ...more
}: z.infer<ReturnType<typeof pretrainedSchema>>): PreprocessorConfig | undefined {
  if (!input || !mean || !std) return undefined;
  const [, height, width] = input;
  const resample = FILTERS.indexOf(more.interpolation ?? DEFAULTS.interpolation);
  const mode = more.crop_mode ?? DEFAULTS.crop_mode;
  const isKnown = mode === 'squash' || (mode === 'center' && height === width);
  if (resample < 0 || !isKnown) return undefined;
  const scaled = (side: number) => Math.floor(side / (more.crop_pct ?? DEFAULTS.crop_pct));
  return {
    size:
      mode === 'squash'
        ? { height: scaled(height), width: scaled(width) }
        : { shortest_edge: scaled(height) },
    crop_size: { height, width },
    resample,
    image_mean: mean,
    image_std: std,
  };
}
