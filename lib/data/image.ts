import { open } from 'node:fs/promises';
import type { KernelEnum, Sharp, SharpOptions } from 'sharp';
import { discard } from '../backends/addon.js';
import { ResidualSkipError } from '../errors.js';
import { requirePackage } from '../util/packages.js';
import { inTurns, type Sliced } from '../util/slices.js';
import { opaqueGif, rgbOfCmyk, SLICE } from './as-pil.js';
import {
  decodeJpeg,
  frameOf,
  type JpegFrame,
  LEFT_AT_LEAST,
  SHRINKS_FROM,
  type Shrunk,
  SMOOTH,
  shrinkOf,
} from './jpeg.js';
import { type DataLimits, MAX_PIXELS } from './limits.js';
import type { ResizeRule, Size } from './resize-rule.js';

/** A decoded image: 8-bit samples, row-major, channels interleaved (1: grey, 3: sRGB). */
export interface RawImage {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  readonly data: Uint8Array;
  /** Set if it was decoded at a part of its size. */
  readonly shrunk?: Shrunk;
}

type SharpModule = (input: string | Uint8Array, options?: SharpOptions) => Sharp;

/** Loads sharp, an optional peer, when it is first needed; only then is it an error if it is missing. */
function loadSharp(): SharpModule {
  try {
    return requirePackage('sharp');
  } catch (cause) {
    throw new ResidualSkipError(
      'MISSING_DEPENDENCY',
      'images: reading them needs the package "sharp", which can\'t be loaded here; install it with "npm install sharp"',
      { cause },
    );
  }
}

/** How the files of each format begin, in hexadecimal digits. XML, of which SVG is made, begins with none of them. */
const SIGNATURES: readonly RegExp[] = [
  /^ffd8ff/, // JPEG
  /^89504e470d0a1a0a/, // PNG
  /^474946383[79]61/, // GIF
  /^52494646.{8}57454250/, // WebP
  /^(49492[ab]00|4d4d002[ab])/, // TIFF, BigTIFF
  /^0000.{4}66747970(.{8})*?617669(66|73)/, // AVIF: one of its brands is avif or avis
];
/** They include the brands of an AVIF file. */
const SIGNATURE_BYTES = 64;
/** They include the frame header of most JPEG files. */
const HEAD_BYTES = 1 << 16;

export interface ImageFileOptions extends DataLimits {
  /** Its name in messages. */
  readonly name?: string | undefined;
}

/** Larger files are left to sharp, which reads them piece by piece. */
const NATIVE_BYTES = 1 << 26;

/**
 * An image file for sharp. If its first bytes weren't checked, sharp would also render SVG: a few hundred bytes of it can take any
 * time and memory.
 * @throws INVALID_DATA, MISSING_DEPENDENCY
 */
export async function openImage(
  file: string | Uint8Array,
  { name, maxPixels = MAX_PIXELS }: ImageFileOptions,
  readsWhole = (_head: Buffer) => false,
) {
  const what = `image ${name ?? (typeof file === 'string' ? file : 'bytes')}: it can't be decoded`;
  const { head, source, read } = await headOf(file, readsWhole).catch((cause: Error) => {
    const isAddress = typeof file === 'string' && /^https?:\/\//.test(file);
    const wayOut = isAddress ? '; download it, or give a URL object in code' : '';
    throw invalid(what, `${cause.message}${wayOut}`, cause);
  });
  if (head.length === 0) throw invalid(what, 'it is empty');
  const signature = head.toString('hex', 0, SIGNATURE_BYTES);
  if (!SIGNATURES.some((each) => each.test(signature)))
    throw invalid(what, 'unsupported image format, not JPEG, PNG, WebP, AVIF, GIF or TIFF');
  const failed = (cause: Error) => {
    // sharp may name its own option alone. Behind a colon, it has what the decoder said, which may be nothing.
    const why = /failOn/.test(cause.message) ? 'it is damaged' : cause.message.replace(/[:\s]+$/, '');
    if (!/pixel limit/.test(cause.message)) return invalid(what, why, cause);
    const wayOut = 'make it smaller, or raise the limit (maxPixels, --max-pixels)';
    return new ResidualSkipError('INVALID_DATA', `${what} (more than ${maxPixels} pixels); ${wayOut}`, {
      cause,
    });
  };
  const open = (bytes = source) => loadSharp()(bytes, { failOn: 'warning', limitInputPixels: maxPixels });
  return { open, head, source, read, maxPixels, failed };
}

interface OpenedFile {
  readonly head: Buffer;
  /** What is to be read. */
  readonly source: string | Uint8Array;
  /** All that was read for this. */
  readonly read: readonly Buffer[];
}

/** Reads the first bytes of a file. All of it is read if it is small, or if `readsWhole` holds for its head. */
async function headOf(file: string | Uint8Array, readsWhole: (head: Buffer) => boolean): Promise<OpenedFile> {
  if (typeof file !== 'string') {
    const head = Buffer.from(file.buffer, file.byteOffset, Math.min(file.length, HEAD_BYTES));
    return { head, source: file, read: [] };
  }
  const handle = await open(file);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafeSlow(HEAD_BYTES), 0, HEAD_BYTES, 0);
    const head = buffer.subarray(0, bytesRead);
    if (bytesRead < HEAD_BYTES) return { head, source: bytesRead > 0 ? head : file, read: [buffer] };
    if (!readsWhole(head)) return { head, source: file, read: [buffer] };
    const { size } = await handle.stat();
    if (size <= HEAD_BYTES || size > NATIVE_BYTES) return { head, source: file, read: [buffer] };
    const whole = Buffer.allocUnsafeSlow(size);
    head.copy(whole);
    let end = HEAD_BYTES;
    while (end < size) {
      // Some file systems give less than was asked for.
      const { bytesRead: more } = await handle.read(whole, end, size - end, end);
      if (more === 0) break;
      end += more;
    }
    return { head, source: whole.subarray(0, end), read: [buffer, whole] };
  } finally {
    await handle.close();
  }
}

interface Decoding extends ImageFileOptions {
  readonly resize?: ResizeRule | undefined;
}

/**
 * Decodes an image file (JPEG, PNG, WebP, AVIF, GIF, TIFF): rotated by its EXIF orientation, in sRGB, without transparency. Of
 * an animation, the first frame is decoded.
 * @param file its path, or its bytes
 * @param options `resize`: what the image is to become. A JPEG that is much larger is decoded at a part of its size (by sharp, to what it is
 * to become); any other image keeps its size
 * @throws INVALID_DATA when the file can't be read, has another format, is damaged (even partly), or has more pixels than the
 * limit; MISSING_DEPENDENCY without sharp
 */
export async function decodeImage(file: string | Uint8Array, options: Decoding = {}): Promise<RawImage> {
  const readsWhole = (start: Buffer) => mayBePlain(start) || isGif(start);
  const { open, head, source, read, failed } = await openImage(file, options, readsWhole);
  try {
    const native = await decodedNatively(head, source, options);
    if (native) {
      for (const bytes of read) discard(bytes);
      return native;
    }
    const image = open(typeof source !== 'string' && isGif(head) ? opaqueGif(source) : source);
    if (isCmyk(head, source)) return await cmykToRaw(image.rotate());
    const target = options.resize && (await shrunkOnLoad(image, head, options.resize));
    if (!target) return await toRaw(image.rotate());
    const { width, height, ...how } = target;
    return await toRaw(image.rotate().resize(width, height, { fit: 'fill', ...how }));
  } catch (cause) {
    throw cause instanceof ResidualSkipError ? cause : failed(cause as Error);
  }
}

/** Whether a file that begins like this may be a JPEG that native code decodes. */
function mayBePlain(head: Buffer): boolean {
  return head[0] === 0xff && frameOf(head)?.isPlain !== false;
}

const isGif = (head: Buffer) => head.toString('latin1', 0, 3) === 'GIF';

/** Whether a file is a JPEG of CMYK. Its frame header may be behind a profile that is longer than the head. */
function isCmyk(head: Buffer, source: string | Uint8Array): boolean {
  if (head[0] !== 0xff) return false;
  const whole =
    typeof source === 'string' ? head : Buffer.from(source.buffer, source.byteOffset, source.byteLength);
  return frameOf(whole)?.channels === 4;
}

/** A JPEG as native code decodes it; undefined if it is no JPEG or can't be decoded like that. */
async function decodedNatively(head: Buffer, source: string | Uint8Array, options: Decoding) {
  if (typeof source === 'string' || !mayBePlain(head)) return undefined;
  return decodeJpeg(Buffer.from(source.buffer, source.byteOffset, source.byteLength), options);
}

/** Pixels of a side that become one at the least size that a JPEG is decoded at. */
const CELL = 8;

/** How sharp resizes a JPEG that it decodes at a part of its size; undefined for any other image. */
async function shrunkOnLoad(image: Sharp, head: Buffer, rule: ResizeRule) {
  if (head[0] !== 0xff) return undefined;
  const frame = frameOf(head);
  const turned = frame && { ...frame, width: frame.height, height: frame.width };
  // Reading the metadata takes a tenth of the time of decoding a small image.
  if (frame && shrinkOf(frame, rule) < SHRINKS_FROM && shrinkOf(turned!, rule) < SHRINKS_FROM)
    return undefined;
  const size = await uprightSize(image, frame);
  const shrink = size ? shrinkOf(size, rule) : 0;
  if (shrink < SHRINKS_FROM) return undefined;
  // sharp takes the last cells of an axis for whole ones: the image would be moved, by up to a third of a pixel of the result.
  if (size!.width % CELL > 0 || size!.height % CELL > 0) return undefined;
  const { width, height, kernel } = rule(size!)!;
  if (!SMOOTH.includes(kernel)) return undefined;
  // What sharp decodes it at with `fastShrinkOnLoad`: 1 to 2 times are left; without it, 2 to 4.
  const part = shrink >= 9 ? 8 : shrink >= 5 ? 4 : 2;
  return {
    width,
    height,
    kernel: kernel as keyof KernelEnum,
    fastShrinkOnLoad: shrink / part >= LEFT_AT_LEAST,
  };
}

/** Of a JPEG of grey or sRGB; undefined for any other. */
async function uprightSize(image: Sharp, frame: JpegFrame | undefined): Promise<Size | undefined> {
  if (frame && !frame.hasExif && (frame.channels === 1 || frame.channels === 3)) return frame;
  const { width, height, space, orientation = 1 } = await image.metadata();
  if (space !== 'srgb' && space !== 'b-w') return undefined;
  return orientation < 5 ? { width, height } : { width: height, height: width };
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

/** An image as a PNG file. */
export async function encodePng({ width, height, channels, data }: RawImage): Promise<Uint8Array> {
  return new Uint8Array(await loadSharp()(data, { raw: { width, height, channels } }).png().toBuffer());
}

async function toRaw(pipeline: Sharp): Promise<RawImage> {
  const { data, info } = await pipeline
    .toColourspace('srgb')
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const channels = info.channels as number;
  if (channels !== 1 && channels !== 3) throw new Error(`it has ${channels} channels`);
  return { width: info.width, height: info.height, channels, data };
}

async function cmykToRaw(pipeline: Sharp): Promise<RawImage> {
  const { data, info } = await pipeline
    .pipelineColourspace('cmyk')
    .toColourspace('cmyk')
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, channels: 3, data: await inTurns(rgbOfCmyk(data)) };
}

function invalid(what: string, why: string, cause?: unknown): ResidualSkipError {
  return new ResidualSkipError('INVALID_DATA', `${what} (${why.split('\n')[0]})`, { cause });
}

/** Luma with the weights of ITU-R BT.601 in 16-bit fixed point; an image that is already grey is returned unchanged. */
export function* toGrey(image: RawImage): Sliced<RawImage> {
  if (image.channels === 1) return image;
  const pixels = image.width * image.height;
  const data = new Uint8Array(pixels);
  const rgb = image.data;
  for (let from = 0; from < pixels; from += SLICE) {
    for (let i = from, j = 3 * from; i < Math.min(from + SLICE, pixels); i++, j += 3) {
      data[i] = (rgb[j]! * 19595 + rgb[j + 1]! * 38470 + rgb[j + 2]! * 7471 + 0x8000) >> 16;
    }
    yield;
  }
  return { width: image.width, height: image.height, channels: 1, data };
}
