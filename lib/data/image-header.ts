/** How many pixels an image has, and how much memory it takes to decode it, from the header of its file. */
import type { Metadata } from 'sharp';
import { type ImageFileOptions, openImage } from './image.js';
import { frameOf } from './jpeg.js';
import type { Size } from './resize-rule.js';

/**
 * The number of pixels of an image file (JPEG, PNG, WebP, AVIF, GIF, TIFF), from its header: it isn't decoded.
 * @param file its path, or its bytes
 * @param options `name`: its name in messages
 * @throws ResidualSkipError INVALID_DATA for another format, a damaged header, or more pixels than `maxPixels` (2^26 when left
 * out); MISSING_DEPENDENCY without sharp, which usual JPEG files don't need
 */
export async function pixelsOf(
  file: string | Uint8Array,
  options: { name?: string; maxPixels?: number } = {},
): Promise<number> {
  const { width, height } = await headerOf(file, options);
  return width * height;
}

/**
 * About how many bytes of memory it takes to decode an image file, from its header: it isn't decoded.
 * Otherwise as pixelsOf.
 */
export async function decodingBytes(
  file: string | Uint8Array,
  options: { name?: string; maxPixels?: number } = {},
): Promise<number> {
  const header = await headerOf(file, options);
  return header.width * header.height * bytesPerPixel(header);
}

interface Header extends Size, Pick<Metadata, 'format' | 'depth' | 'isProgressive'> {
  readonly channels: number;
}

async function headerOf(file: string | Uint8Array, options: ImageFileOptions): Promise<Header> {
  const { open, head, maxPixels, failed } = await openImage(file, options);
  const frame = head[0] === 0xff ? frameOf(head) : undefined;
  const header: Header = frame?.isPlain
    ? { ...frame, format: 'jpeg', depth: 'uchar', isProgressive: false }
    : await open()
        .metadata()
        .catch((cause: Error) => {
          throw failed(cause);
        });
  if (header.width * header.height > maxPixels) throw failed(new Error('it exceeds the pixel limit'));
  return header;
}

/** Of the result, with some room for its neighbours in the pipeline. */
const RESULT_BYTES = 4;
/** What libwebp and libheif hold at most for each pixel; for more than 8 bits a sample, libheif holds about half as much again. */
const WEBP_BYTES = 8;
const HEIF_BYTES = 15;
const DEEP_HEIF_BYTES = 23;

/**
 * Bytes for each pixel while an image is decoded: most formats are decoded row by row, the others hold the whole image (libvips 8.17,
 * peaks of the process measured with images of 4096 x 4096).
 */
function bytesPerPixel({ format, depth, channels, isProgressive }: Header): number {
  const samples = channels * (depth === 'uchar' ? 1 : depth === 'ushort' ? 2 : 8);
  if (format === 'heif') return RESULT_BYTES + (depth === 'uchar' ? HEIF_BYTES : DEEP_HEIF_BYTES);
  if (format === 'webp') return RESULT_BYTES + WEBP_BYTES;
  // Coefficients of 16 bits.
  if (format === 'jpeg') return RESULT_BYTES + (isProgressive ? 2 * channels : 0) + (channels > 3 ? 1 : 0);
  if (format === 'png' && !isProgressive) return RESULT_BYTES;
  // A TIFF may be one strip.
  return RESULT_BYTES + samples;
}
