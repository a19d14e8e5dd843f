/** Pixels of an image as the elements of a tensor: the arithmetic of `Tensor.fromImage`. */
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { late } from '../util/late.js';
import { parseStrict } from '../util/validation.js';

/** Pixels as a canvas holds them: 8-bit samples, row-major, channels interleaved; RGBA where `channels` is left out. */
export interface PixelData {
  readonly width: number;
  readonly height: number;
  /** 1: grey, 3: sRGB, 4: sRGB with an alpha channel. */
  readonly channels?: 1 | 3 | 4 | undefined;
  readonly data: Uint8Array | Uint8ClampedArray;
}

/** Options of `Tensor.fromImage`, which are onnxruntime-common's. */
export interface FromImageOptions {
  /** Channels of the tensor, in their order; RGB when left out. Of an image without an alpha channel, A is opaque. */
  tensorFormat?: 'RGB' | 'RGBA' | 'BGR' | 'RBG' | undefined;
  /** float32 when left out; uint8 keeps the pixels as they are. */
  dataType?: 'float32' | 'uint8' | undefined;
  /** NCHW when left out. */
  tensorLayout?: 'NCHW' | 'NHWC' | undefined;
  /**
   * An element is (pixel + bias) / mean, of float32 alone. `mean` is 255 and `bias` 0 when left out, so that elements are 0 to 1. Lists
   * are for R, G, B and A, whatever the format; A has the mean 255 and the bias 0 where a list has three.
   */
  norm?:
    | {
        mean?: number | readonly [number, number, number, number?] | undefined;
        bias?: number | readonly [number, number, number, number?] | undefined;
      }
    | undefined;
}

const perChannel = late(() =>
  z.union([z.number(), z.array(z.number()).min(3).max(4)], 'expected a number, or a list of 3 or 4 numbers'),
);
const resized = late(() =>
  z.undefined('is not done here: resize the image before, with sharp or a Preprocessor').optional(),
);
const optionsSchema = late(() =>
  z.strictObject({
    tensorFormat: z.enum(['RGB', 'RGBA', 'BGR', 'RBG']).optional(),
    dataType: z.enum(['float32', 'uint8']).optional(),
    tensorLayout: z.enum(['NCHW', 'NHWC']).optional(),
    norm: z
      .strictObject({
        mean: perChannel()
          .refine((mean) => ![mean].flat().includes(0), 'expected numbers other than 0')
          .optional(),
        bias: perChannel().optional(),
      })
      .optional(),
    resizedHeight: resized(),
    resizedWidth: resized(),
  }),
);

const [MEAN, BIAS, OPAQUE] = [255, 0, 255];
const CHANNELS = 'RGBA';

/** The bytes of a view or buffer of any realm; undefined for what is none. */
export function bytesOf(value: unknown): Uint8Array | undefined {
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  // Not instanceof: bytes may come from another realm (a vm context, a test runner).
  const tag = Object.prototype.toString.call(value);
  return tag === '[object ArrayBuffer]' ? new Uint8Array(value as ArrayBuffer) : undefined;
}

export function isPixelData(value: object): value is PixelData {
  return 'width' in value && 'height' in value && 'data' in value;
}

/**
 * Checked pixels: their bytes and the number of channels.
 * @param name what messages call the image
 * @throws ResidualSkipError INVALID_ARGUMENT unless there are as many bytes as the size and the channels ask for
 */
export function checkPixels(
  { width, height, channels = 4, data }: PixelData,
  name: string,
): { readonly bytes: Uint8Array; readonly channels: 1 | 3 | 4 } {
  const bytes = bytesOf(data);
  const sound =
    bytes !== undefined &&
    [width, height].every((length) => Number.isSafeInteger(length) && length > 0) &&
    [1, 3, 4].includes(channels);
  if (sound && bytes.length === width * height * channels) return { bytes, channels };
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${name}: expected width x height x channels (1, 3 or 4; 4 when left out) bytes of data, received ` +
      `${width} x ${height} x ${channels} and ${bytes?.length ?? 'no'} bytes`,
  );
}

/** @throws ResidualSkipError INVALID_ARGUMENT */
export function tensorPartsOf(
  image: unknown,
  options: FromImageOptions,
): { readonly type: 'float32' | 'uint8'; readonly data: Float32Array | Uint8Array; readonly dims: number[] } {
  if (typeof image !== 'object' || image === null || !isPixelData(image)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      'fromImage: expected pixels, { width, height, data }; ImageClassifier.prepare takes files, URLs and encoded images',
    );
  }
  const parsed = parseStrict(optionsSchema(), options);
  const { tensorFormat = 'RGB', dataType: type = 'float32', tensorLayout = 'NCHW', norm } = parsed;
  if (type === 'uint8' && norm) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      "options.norm: is for float32; leave it out, or use dataType 'float32'",
    );
  }
  const { width, height } = image;
  const { bytes, channels: from } = checkPixels(image, 'fromImage');
  const pixels = width * height;
  const to = tensorFormat.length;
  const data = type === 'uint8' ? new Uint8Array(pixels * to) : new Float32Array(pixels * to);
  const [step, apart] = tensorLayout === 'NHWC' ? [to, 1] : [1, pixels];
  for (const [place, letter] of [...tensorFormat].entries()) {
    const channel = CHANNELS.indexOf(letter);
    const [mean, bias] =
      type === 'uint8' ? [1, 0] : [at(norm?.mean, channel, MEAN), at(norm?.bias, channel, BIAS)];
    // Of grey there is one sample for all three.
    const source = from === 1 && channel < 3 ? 0 : channel;
    for (let i = 0, target = place * apart; i < pixels; i++, target += step) {
      const sample = source < from ? bytes[i * from + source]! : OPAQUE;
      data[target] = (sample + bias) / mean;
    }
  }
  const dims = tensorLayout === 'NHWC' ? [1, height, width, to] : [1, to, height, width];
  return { type, data, dims };
}

function at(value: number | readonly number[] | undefined, channel: number, byDefault: number): number {
  return typeof value === 'number' ? value : (value?.[channel] ?? byDefault);
}
