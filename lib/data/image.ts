import type { Sharp, SharpOptions } from 'sharp';
import { ResidualSkipError } from '../errors.js';
import { type DataLimits, MAX_PIXELS } from './limits.js';

/** A decoded image: 8-bit samples, row-major, channels interleaved (1: grey, 3: sRGB). */
export interface RawImage {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  readonly data: Uint8Array;
}

/** Interpolation kernels; the names are sharp's. */
export type ResizeKernel = 'nearest' | 'linear' | 'cubic' | 'lanczos3';

type SharpModule = (input: string | Uint8Array, options?: SharpOptions) => Sharp;

/**
 * Loads sharp, an optional peer, when it is first needed; only then is it an error if it is missing. It is required, not imported,
 * because Jest refuses a dynamic import.
 */
function loadSharp(): SharpModule {
  try {
    return require('sharp');
  } catch (cause) {
    throw new ResidualSkipError(
      'MISSING_DEPENDENCY',
      'images: reading or resizing them needs the package "sharp", which can\'t be loaded here; install it with "npm install sharp"',
      { cause },
    );
  }
}

/**
 * Decodes an image file: rotated by its EXIF orientation, in sRGB, without transparency. Of an animation, the first
 * frame is decoded.
 * @param file its path, or its bytes
 * @param name its name in messages
 * @throws INVALID_DATA when the file can't be read, is damaged (even partly), or has more pixels than the limit;
 * MISSING_DEPENDENCY without sharp
 */
export async function decodeImage(
  file: string | Uint8Array,
  { name = String(file), maxPixels = MAX_PIXELS }: { name?: string } & DataLimits = {},
): Promise<RawImage> {
  const sharp = loadSharp();
  const problem = `image ${name}: it can't be decoded`;
  if (file.length === 0) throw new ResidualSkipError('INVALID_DATA', `${problem} (it is empty)`);
  const decoded = toRaw(sharp(file, { failOn: 'warning', limitInputPixels: maxPixels }).rotate(), problem);
  return decoded.catch((error: Error) => {
    if (!/pixel limit/.test(error.message)) throw error;
    throw new ResidualSkipError(
      'INVALID_DATA',
      `${problem} (more than ${maxPixels} pixels); make it smaller, or raise the limit (maxPixels, --max-pixels)`,
      { cause: error },
    );
  });
}

/** Resizes to exactly `width` x `height`; returns the same object when it already has that size. */
export async function resizeImage(
  image: RawImage,
  width: number,
  height: number,
  kernel: ResizeKernel,
): Promise<RawImage> {
  if (image.width === width && image.height === height) return image;
  const sharp = loadSharp();
  const raw = { width: image.width, height: image.height, channels: image.channels };
  const resized = sharp(image.data, { raw }).resize(width, height, { fit: 'fill', kernel });
  return toRaw(resized, `An image of ${image.width}x${image.height} can't be resized to ${width}x${height}`);
}

/** A picture of at most 64 pixels a side as a data URI (JPEG), for reports. */
export async function encodeThumbnail({ width, height, channels, data }: RawImage): Promise<string> {
  const sharp = loadSharp();
  const bytes = await sharp(data, { raw: { width, height, channels } })
    .resize(64, 64, { fit: 'inside', kernel: width < 64 ? 'nearest' : 'lanczos3' })
    .jpeg({ quality: 80 })
    .toBuffer();
  return `data:image/jpeg;base64,${bytes.toString('base64')}`;
}

async function toRaw(pipeline: Sharp, problem: string): Promise<RawImage> {
  try {
    const { data, info } = await pipeline
      .toColourspace('srgb')
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    const channels = info.channels as number;
    if (channels !== 1 && channels !== 3) throw new Error(`it has ${channels} channels`);
    return { width: info.width, height: info.height, channels, data };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ResidualSkipError('INVALID_DATA', `${problem} (${reason.split('\n')[0]})`, { cause });
  }
}

/** Luma with the weights of ITU-R BT.601 in 16-bit fixed point; an image that is already grey is returned unchanged. */
export function toGrey(image: RawImage): RawImage {
  if (image.channels === 1) return image;
  const pixels = image.width * image.height;
  const data = new Uint8Array(pixels);
  const rgb = image.data;
  for (let i = 0, j = 0; i < pixels; i++, j += 3) {
    data[i] = (rgb[j]! * 19595 + rgb[j + 1]! * 38470 + rgb[j + 2]! * 7471 + 0x8000) >> 16;
  }
  return { width: image.width, height: image.height, channels: 1, data };
}
