import { fileURLToPath } from 'node:url';
import { discard } from '../backends/addon.js';
import { decodeImage, type RawImage } from '../data/image.js';
import type { ResizeRule } from '../data/resize-rule.js';
import { ResidualSkipError } from '../errors.js';
import { bytesOf, checkPixels, isPixelData, type PixelData } from '../tensor/image-pixels.js';

/** The part of a sharp instance that is used here. */
export interface SharpLike {
  clone(): SharpLike;
  toBuffer(options: { resolveWithObject: true }): Promise<{ readonly data: Uint8Array }>;
  png(options?: { compressionLevel?: number }): SharpLike;
}

/**
 * An image: the path of a file, a `file:`, `data:` or `http(s):` URL, the bytes of a file (JPEG, PNG, WebP, AVIF, GIF,
 * TIFF), a sharp instance, or pixels, whose alpha channel is dropped. A string is always a path; only a URL object is fetched.
 */
export type ImageSource = string | URL | Uint8Array | ArrayBuffer | Blob | SharpLike | PixelData;

/** Larger downloads are refused. */
const MAX_BYTES = 64 << 20;

/** The name of an image in messages. */
export function nameOf(source: unknown, index: number): string {
  if (typeof source === 'string') return source;
  if (source instanceof URL) return source.protocol === 'data:' ? 'the data: URL' : source.href;
  return `images[${index}]`;
}

/**
 * The pixels of an image.
 * @param options `resize`: what it is to become; a large file may then be decoded to that size, others aren't resized
 * @throws ResidualSkipError INVALID_ARGUMENT for a value that is not an image source, INVALID_DATA for an image that can't be
 * read, MISSING_DEPENDENCY when decoding needs sharp and it isn't installed, ABORTED
 */
export async function toRawImage(
  source: ImageSource,
  name: string,
  options: RawImageOptions = {},
): Promise<RawImage> {
  const { signal } = options;
  const image = await rawImage(source, name, options);
  // Nothing ends the decoder early, but what is left to do may take as long again.
  if (signal?.aborted) {
    discard(image.data);
    throw new ResidualSkipError('ABORTED', `${name}: it was aborted`, { cause: signal.reason });
  }
  return image;
}

interface RawImageOptions {
  readonly signal?: AbortSignal | null | undefined;
  readonly maxPixels?: number | undefined;
  readonly resize?: ResizeRule | undefined;
}

async function rawImage(
  source: ImageSource,
  name: string,
  { signal, ...options }: RawImageOptions,
): Promise<RawImage> {
  const decode = (bytes: Uint8Array) => decodeImage(bytes, { name, ...options });
  if (typeof source === 'string') return decodeImage(source, options);
  if (source instanceof URL) {
    if (source.protocol === 'file:') return decodeImage(fileURLToPath(source), options);
    return decode(await download(source, name, signal));
  }
  if (source instanceof Blob) return decode(new Uint8Array(await source.arrayBuffer()));
  if (typeof source === 'object' && source !== null) {
    if (isSharp(source)) return decode(await encoded(source, name));
    if (isPixelData(source)) return fromPixels(source, name);
    const bytes = bytesOf(source);
    if (bytes) return decode(bytes);
  }
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${name}: expected a path, a URL, the bytes of an image file, a sharp instance, or { width, height, data }`,
  );
}

/** Whether `value` is one image and not a list of them. */
export function isImageSource(value: unknown): boolean {
  return typeof value === 'string' || (typeof value === 'object' && value !== null && !Array.isArray(value));
}

function isSharp(value: object): value is SharpLike {
  return (
    typeof Reflect.get(value, 'toBuffer') === 'function' && typeof Reflect.get(value, 'png') === 'function'
  );
}

/** The result of a sharp pipeline as an uncompressed PNG, which loses nothing. */
async function encoded(image: SharpLike, name: string): Promise<Uint8Array> {
  try {
    return (await image.clone().png({ compressionLevel: 0 }).toBuffer({ resolveWithObject: true })).data;
  } catch (cause) {
    throw new ResidualSkipError('INVALID_DATA', `${name}: sharp failed: ${(cause as Error).message}`, {
      cause,
    });
  }
}

async function download(url: URL, name: string, signal: AbortSignal | null | undefined): Promise<Uint8Array> {
  if (!['data:', 'http:', 'https:'].includes(url.protocol)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${name}: expected a file:, data:, http: or https: URL, received ${url.protocol}`,
    );
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    const response = await fetch(url, { signal: signal ?? null });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    for await (const chunk of response.body ?? []) {
      size += chunk.byteLength;
      if (size > MAX_BYTES) throw new Error(`it is larger than ${MAX_BYTES >> 20} MiB`);
      chunks.push(chunk);
    }
  } catch (cause) {
    if (signal?.aborted)
      throw new ResidualSkipError('ABORTED', `${name}: the download was aborted`, { cause });
    const { message, cause: deeper } = cause as Error;
    const why = deeper instanceof Error ? `${message}: ${deeper.message}` : message;
    throw new ResidualSkipError('INVALID_DATA', `${name}: it can't be downloaded (${why})`, { cause });
  }
  return Buffer.concat(chunks);
}

function fromPixels(image: PixelData, name: string): RawImage {
  const { width, height } = image;
  const { bytes, channels } = checkPixels(image, name);
  // A copy: the caller may change or transfer its own while another thread draws.
  if (channels !== 4) return { width, height, channels, data: bytes.slice() };
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < bytes.length; from += 4, to += 3) {
    rgb[to] = bytes[from]!;
    rgb[to + 1] = bytes[from + 1]!;
    rgb[to + 2] = bytes[from + 2]!;
  }
  return { width, height, channels: 3, data: rgb };
}
