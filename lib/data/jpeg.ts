/** JPEG files that native code decodes: upright, whole or at a part of their size. */
import { nativeJpeg } from '../backends/addon.js';
import { isSrgb } from './icc.js';
import { MAX_PIXELS } from './limits.js';
import type { ResizeKernel, ResizeRule, Size } from './resize-rule.js';

/** Interleaved 8-bit samples: grey, or sRGB. */
export interface DecodedJpeg extends Size {
  readonly channels: 1 | 3;
  readonly data: Uint8Array;
  readonly shrunk?: Shrunk;
}

/** The size of an image of which each pixel is the mean of a square, `by` pixels high and wide. */
export interface Shrunk extends Size {
  readonly by: number;
}

/** What the segments before the first scan of a JPEG say. */
export interface JpegFrame extends Size {
  readonly channels: number;
  /** Whether there is an EXIF segment, which may say how the image is turned. */
  readonly hasExif: boolean;
  /** 1 to 8, as in EXIF. */
  readonly orientation: number;
  /** Whether nothing in `bytes` is what native code can't decode. */
  readonly isPlain: boolean;
}

/**
 * A JPEG that is so many times as long as its target, in both directions, is decoded at 1/2, 1/4 or 1/8 of its size: decoding all of it
 * takes most of the time then.
 */
export const SHRINKS_FROM = 4;
/** It stays at least so many times as long as its target: with less, the result is several times as far from that of the whole image. */
export const LEFT_AT_LEAST = 1.4;
/** Filters that look at every pixel. Others take the whole image. */
export const SMOOTH: readonly ResizeKernel[] = ['linear', 'cubic', 'lanczos3'];

const SOF0 = 0xc0;
const SOF1 = 0xc1;
const SOS = 0xda;
const APP0 = 0xe0;
const APP1 = 0xe1;
const APP2 = 0xe2;
const APP14 = 0xee;
/** Markers of this range that begin no frame. */
const NO_FRAMES = [0xc4, 0xc8, 0xcc];

/** Segments before a frame header and bytes that fill them up, at most: a usual file has some tens. */
const MAX_SEGMENTS = 4096;

/** Undefined if no frame header lies in `bytes`, or behind more segments than files have. */
export function frameOf(bytes: Buffer): JpegFrame | undefined {
  let frame: (Size & { channels: number }) | undefined;
  let hasExif = false;
  let [orientation, isPlain, hasProfile] = [1, true, false];
  for (let at = 2, left = MAX_SEGMENTS; at + 10 <= bytes.length && bytes[at] === 0xff; left--) {
    if (left === 0) return undefined;
    const marker = bytes[at + 1]!;
    if (marker === 0xff) {
      at++;
      continue;
    }
    const end = at + 2 + bytes.readUInt16BE(at + 2);
    const segment = bytes.subarray(at + 4, end);
    if (marker >= SOF0 && marker <= 0xcf && !NO_FRAMES.includes(marker)) {
      const [height, width, channels] = [
        bytes.readUInt16BE(at + 5),
        bytes.readUInt16BE(at + 7),
        bytes[at + 9]!,
      ];
      frame ??= { width, height, channels };
      isPlain &&= marker <= SOF1 && width > 0 && height > 0 && (channels === 1 || hasYccColours(segment));
    }
    if (marker === APP1 && segment.toString('latin1', 0, 4) === 'Exif') {
      const found = hasExif ? undefined : orientationOf(segment.subarray(6));
      hasExif = true;
      orientation = found ?? 1;
      isPlain &&= found !== undefined;
    }
    if (marker === APP2 && segment.toString('latin1', 0, 11) === 'ICC_PROFILE') {
      hasProfile = true;
      // The only part of it.
      isPlain &&= segment[12] === 1 && segment[13] === 1 && isSrgb(segment.subarray(14));
    }
    // A version that libjpeg warns of, and other colours than YCbCr.
    isPlain &&= marker !== APP0 || segment.toString('latin1', 0, 4) !== 'JFIF' || segment[5] === 1;
    isPlain &&= marker !== APP14 || segment.toString('latin1', 0, 5) !== 'Adobe' || segment[11] === 1;
    if (marker === SOS) break;
    at = end;
  }
  // A profile of colours doesn't fit a grey image.
  if (hasProfile) isPlain &&= frame?.channels === 3;
  return frame && { ...frame, hasExif, orientation, isPlain };
}

/** Whether the three components have the numbers that YCbCr has. */
function hasYccColours(segment: Buffer): boolean {
  return segment[5] === 3 && [1, 2, 3].every((id, i) => segment[6 + 3 * i] === id);
}

const ORIENTATION_TAG = 0x112;
const SHORT = 3;

/** The orientation that EXIF data give, 1 if they give none; undefined if they are damaged. */
function orientationOf(tiff: Buffer): number | undefined {
  const order = tiff.toString('latin1', 0, 2);
  if (tiff.length < 10 || (order !== 'II' && order !== 'MM')) return undefined;
  const short = (at: number) => (order === 'II' ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at));
  const first = order === 'II' ? tiff.readUInt32LE(4) : tiff.readUInt32BE(4);
  if (short(2) !== 42 || first < 8 || first + 2 > tiff.length) return undefined;
  const entries = short(first);
  if (first + 2 + 12 * entries > tiff.length) return undefined;
  for (let at = first + 2; at < first + 2 + 12 * entries; at += 12) {
    if (short(at) !== ORIENTATION_TAG) continue;
    const value = short(at + 8);
    return short(at + 2) === SHORT && value >= 1 && value <= 8 ? value : undefined;
  }
  return 1;
}

/** How many times as long as its target an image is, at least. */
export function shrinkOf(size: Size, rule: ResizeRule): number {
  const target = rule(size);
  return target ? Math.min(size.width / target.width, size.height / target.height) : 0;
}

/** At which part of its size an image is decoded: 1, 1/2, 1/4 or 1/8. */
function partOf(upright: Size, rule: ResizeRule | undefined): number {
  const shrink = rule ? shrinkOf(upright, rule) : 0;
  if (shrink < SHRINKS_FROM || !SMOOTH.includes(rule!(upright)!.kernel)) return 1;
  return [8, 4, 2].find((part) => shrink >= LEFT_AT_LEAST * part)!;
}

/** Decodes a JPEG file by native code; undefined if that can't, since the file is of another kind or damaged, or there is none. */
export async function decodeJpeg(
  file: Buffer,
  { resize, maxPixels = MAX_PIXELS }: { resize?: ResizeRule | undefined; maxPixels?: number | undefined },
): Promise<DecodedJpeg | undefined> {
  const decode = nativeJpeg();
  const frame = decode && frameOf(file);
  if (!frame?.isPlain) return undefined;
  const { width, height, channels, orientation } = frame;
  if (width * height > maxPixels) return undefined;
  const turned = <T extends Size>(size: T) =>
    orientation < 5 ? size : { ...size, width: size.height, height: size.width };
  const whole = turned({ width, height });
  const shrink = partOf(whole, resize);
  // The first cell of an axis that is turned round would be smaller than the others.
  if (orientation !== 1 && (width % shrink > 0 || height % shrink > 0)) return undefined;
  const stored = { width: Math.ceil(width / shrink), height: Math.ceil(height / shrink) };
  // All of it is written, or dropped.
  const data = Buffer.allocUnsafeSlow(stored.width * stored.height * channels);
  const numbers = Int32Array.of(width, height, channels, shrink, orientation);
  if (!(await decode!(file, numbers, data))) return undefined;
  return {
    ...turned(stored),
    channels: channels as 1 | 3,
    data,
    ...(shrink > 1 && { shrunk: { ...whole, by: shrink } }),
  };
}
