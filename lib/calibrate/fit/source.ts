/** Images and texts to fit heads on, or to order settings by. */
import { ResidualSkipError } from '../../errors.js';
import type { CalibrationItem, FitImages } from '../options.js';
import { contentHash, MIN_FIT } from '../split.js';

/** Most images that order the settings of a model's own exits, and bytes of them. */
const [MAX_ORDERING, MAX_BYTES] = [2000, 2 ** 30];

export function sourceOf(items: readonly CalibrationItem[]): FitImages {
  return { count: items.length, load: async (index) => items[index]!.input };
}

/** The images but those that are among the items: what was fitted on an item can't be measured on it. */
export function without(source: FitImages, items: readonly CalibrationItem[]): FitImages {
  const known = new Set(items.map((item) => item.sha256));
  return {
    count: source.count,
    load: async (index) => {
      const input = await source.load(index);
      return input && known.has(contentHash(input)) ? undefined : input;
    },
  };
}

/**
 * Images that order settings, spread evenly over their source: at most 2,000, or 1 GiB.
 * @throws ResidualSkipError INVALID_DATA when there are too few
 */
export async function sampleOf({ count, load }: FitImages, bytesOfOne: number): Promise<CalibrationItem[]> {
  const max = Math.min(count, MAX_ORDERING, Math.floor(MAX_BYTES / bytesOfOne));
  const items: CalibrationItem[] = [];
  for (let i = 0; i < max; i++) {
    const input = await load(Math.floor((i * count) / max));
    if (input) items.push({ input, sha256: contentHash(input) });
  }
  if (items.length >= MIN_FIT) return items;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `fit: ${items.length} of its ${count} images can be used: the others can't be read, or are among the data; ` +
      `${MIN_FIT} are needed to order settings`,
  );
}
