/** The size that images are resized and cropped to. */
import { roundHalfEven } from '../numeric/rounding.js';
import type { PreprocessorConfig } from './preprocessor-config.js';

export interface Size {
  readonly height: number;
  readonly width: number;
}

/** Filters of PIL. Those that sharp has too are named as there. */
export type ResizeKernel = 'nearest' | 'lanczos3' | 'linear' | 'cubic' | 'box' | 'hamming';

/** The size of an upright image, and what makes it. */
export interface Resized extends Size {
  readonly kernel: ResizeKernel;
}
/** What an upright image of this size is to become; undefined if it keeps its size. */
export type ResizeRule = (size: Size) => Resized | undefined;

export type Resize =
  | Size
  | { readonly shortestEdge: number; readonly longestEdge?: number | undefined }
  | { readonly within: Size }
  | undefined;

/** Hugging Face's processors to which a number is the side of a square, even if a crop follows. To others it is the shortest edge then. */
const SQUARE = /^(Beit|DeiT|EfficientFormer|EfficientNet|Flava|ViT)(Feature|Image)/;

/** Those of detectors, to which a number is the shortest edge, and the longest has a limit. */
const DETECTING = /^(ConditionalDetr|DeformableDetr|Deta|Detr|Yolos)(Feature|Image)/;
/** The limit, where `max_size` names none. */
const LONGEST_OF_DETECTORS = 1333;

/** What a processor of Hugging Face resizes to. */
export function resizeTo(
  size: NonNullable<PreprocessorConfig['size']>,
  {
    type,
    crops,
    most,
  }: { readonly type: string; readonly crops: boolean; readonly most: number | undefined },
): Resize {
  const longestEdge = most ?? (DETECTING.test(type) ? LONGEST_OF_DETECTORS : undefined);
  if (typeof size === 'number' && longestEdge !== undefined) return { shortestEdge: size, longestEdge };
  const resize =
    typeof size === 'number' && crops && !SQUARE.test(type) ? { shortestEdge: size } : asWritten(size);
  // LeViT's file has the side that is left of 256 pixels.
  if (!type.startsWith('Levit') || !resize || !('shortestEdge' in resize)) return resize;
  return { ...resize, shortestEdge: Math.trunc((256 / 224) * resize.shortestEdge) };
}

function asWritten(size: NonNullable<PreprocessorConfig['size']>): Resize {
  if (typeof size === 'object' && 'shortest_edge' in size)
    return { shortestEdge: size.shortest_edge, longestEdge: size.longest_edge };
  if (typeof size === 'object' && 'max_height' in size)
    return { within: { height: size.max_height, width: size.max_width } };
  return square(size);
}

export function square(size: number | Size): Size {
  return typeof size === 'number' ? { height: size, width: size } : size;
}

/**
 * ConvNeXt's rule, which ResNet's processor shares: below 384 the shortest edge is resized to size / crop_pct and the
 * centre is cropped; from 384 on the image is resized to size x size, whatever its aspect ratio.
 */
export function cropResize(
  size: NonNullable<PreprocessorConfig['size']>,
  cropPct: number,
  invalid: (why: string) => Error,
): { resize: Resize; crop: Size | undefined } {
  if (typeof size === 'object' && !('shortest_edge' in size))
    throw invalid('crop_pct needs a size with shortest_edge');
  const edge = typeof size === 'number' ? size : size.shortest_edge;
  if (edge >= 384) return { resize: square(edge), crop: undefined };
  return { resize: { shortestEdge: Math.floor(edge / cropPct) }, crop: square(edge) };
}

export function targetSize(image: Size, resize: Resize): Size {
  if (resize === undefined) return image;
  if ('within' in resize) {
    const { within } = resize;
    const scale = Math.min(within.height / image.height, within.width / image.width);
    // A product may be a little below a whole number.
    const scaled = (side: number) => Math.max(1, Math.trunc(side * scale + 1e-6));
    return { height: scaled(image.height), width: scaled(image.width) };
  }
  if (!('shortestEdge' in resize)) return resize;
  const [short, long] = [Math.min(image.height, image.width), Math.max(image.height, image.width)];
  const { longestEdge = Number.POSITIVE_INFINITY } = resize;
  // Before it is rounded.
  const edge =
    (long / short) * resize.shortestEdge > longestEdge ? (longestEdge * short) / long : resize.shortestEdge;
  // As Python's `round`.
  const shortestEdge = Math.max(1, roundHalfEven(edge));
  const longest = (long: number, short: number) => Math.max(1, Math.trunc((edge * long) / short));
  return image.height <= image.width
    ? { height: shortestEdge, width: longest(image.width, image.height) }
    : { height: longest(image.height, image.width), width: shortestEdge };
}
