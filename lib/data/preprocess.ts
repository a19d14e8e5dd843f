import { createHash } from 'node:crypto';
import { discard } from '../backends/addon.js';
import { ResidualSkipError } from '../errors.js';
import { roundHalfEven } from '../numeric/rounding.js';
import { keepRecent } from '../util/maps.js';
import { inTurns, type Sliced } from '../util/slices.js';
import { type RawImage, toGrey } from './image.js';
import { type ImageInput, type PreprocessorConfig, withPreset } from './preprocessor-config.js';
import { type Drawing, draw, tapsOf } from './resample.js';
import {
  cropResize,
  type Resize,
  type ResizeKernel,
  type ResizeRule,
  resizeTo,
  type Size,
  square,
  targetSize,
} from './resize-rule.js';

/** An image prepared for the model: float32, one channel after the other; `shape` is [1, C, H, W]. */
export interface PreparedImage {
  readonly data: Float32Array;
  readonly shape: readonly [1, number, number, number];
}

/** The part of an image that is kept. */
interface Crop extends Size {
  /** Set for torchvision's, which rounds an odd margin to the even half; those of Hugging Face round down. */
  readonly toEven?: true;
}

/** What lies around an image that is smaller than the network's input. */
interface Padding extends Size {
  /** The pixel value; undefined for the number 0 behind the normalisation. */
  readonly pixel: number | undefined;
  /** The image is in the middle; otherwise at the top left. */
  readonly centred: boolean;
}

/** Where an image lies in what the network sees: position * scale + offset, for x and y. */
export interface Placement extends Size {
  readonly scale: readonly [number, number];
  readonly offset: readonly [number, number];
}

/** Kernels by PIL's filter numbers. */
const KERNELS: readonly ResizeKernel[] = ['nearest', 'lanczos3', 'linear', 'cubic', 'box', 'hamming'];
/** Hugging Face's processors that do more to pixels than others: they crop first, or find the nearest colours. */
const UNSUPPORTED = /^(ImageGPT|Perceiver)/;

/** Counted up whenever the same files and configuration give other pixels, so that a policy shows which pixels certified it. */
const VERSION = 2;

/** How images of one size are drawn. */
type Layout = Pick<Drawing, 'columns' | 'rows' | 'size' | 'left' | 'top'>;

/** How many of the last sizes of images are remembered. */
const LAYOUTS = 8;

/** Longest side of an image that is resized: the factors of an axis grow with it. */
const MAX_SIDE = 2 ** 20;

/** Most pixels after resizing, also along one axis alone. More indicates a very narrow image or a wrong configuration. */
const MAX_PIXELS = 2 ** 26;

/** The processor of Hugging Face that a file is for; empty if it names none. */
const typeOf = ({ image_processor_type, feature_extractor_type }: PreprocessorConfig) =>
  image_processor_type ?? feature_extractor_type ?? '';

/** Prepares decoded images for one model. Immutable; calls may overlap. */
export class Preprocessor {
  readonly #source: string;
  readonly #input: ImageInput;
  readonly #resize: Resize;
  readonly #kernel: ResizeKernel;
  readonly #crop: Crop | undefined;
  readonly #padding: Padding | undefined;
  /** For every output channel, the prepared value of each of the 256 pixel values. */
  readonly #tables: Float32Array;
  /** How images of a size are drawn, by the size. */
  readonly #layouts = new Map<string, Layout>();
  readonly #flip: boolean;
  readonly #normalisation: { readonly scale: readonly number[]; readonly offset: readonly number[] };

  /**
   * @param source the file that `given` is from, for messages
   * @throws INVALID_DATA when the configuration asks for something that isn't implemented, or doesn't fit the model
   */
  constructor(given: PreprocessorConfig, input: ImageInput, source: string) {
    this.#source = source;
    this.#input = input;
    const config = withPreset(given, input);
    if (input.channels !== 1 && input.channels !== 3) {
      throw this.#invalid(`the model's input has ${input.channels} channels; images have 1 or 3`);
    }
    const { resize, crop } = this.#geometry(config);
    this.#resize = resize;
    this.#crop = crop;
    this.#padding = this.#paddingOf(config);
    const kernel = KERNELS[config.resample ?? 2];
    if (kernel === undefined) {
      throw this.#invalid(`resample ${config.resample} is not one of ${Object.keys(KERNELS).join(', ')}`);
    }
    this.#kernel = kernel;
    this.#flip = config.do_flip_channel_order ?? false;
    const { factor, mean, std, last } = this.#normalising(config);
    this.#normalisation = {
      scale: std.map((s, c) => factor / s / last[c]!),
      offset: mean.map((m, c) => -m / std[c]! / last[c]!),
    };
    const value = (c: number, pixel: number) => (pixel * factor - mean[c]!) / std[c]! / last[c]!;
    this.#tables = Float32Array.from({ length: 256 * input.channels }, (_, i) => value(i >> 8, i & 255));
  }

  /** The size of every prepared image; undefined if it depends on the image. */
  get outputSize(): Size | undefined {
    const framed = this.#crop ?? this.#padding;
    if (framed !== undefined) return { height: framed.height, width: framed.width };
    return this.#resize !== undefined && 'height' in this.#resize ? this.#resize : undefined;
  }

  /**
   * What `apply` resizes an image to, for who decodes it.
   * @internal
   */
  get resizing(): ResizeRule {
    return (size) => {
      const { height, width } = targetSize(size, this.#resize);
      return height * width > MAX_PIXELS ? undefined : { height, width, kernel: this.#kernel };
    };
  }

  /**
   * Resizes, crops and normalises one image into float32[1, channels, height, width]. Its pixels must not be changed or transferred before
   * the promise settles.
   * @param name name of the image in messages
   * @throws ResidualSkipError INVALID_SHAPE when the result doesn't fit the model; INVALID_DATA when it is too large
   */
  async apply(image: RawImage, name: string): Promise<PreparedImage> {
    const { channels } = this.#input;
    const drawn = channels === 1 ? await inTurns(toGrey(image)) : image;
    const { width: wide, height: high, by } = image.shrunk ?? { ...drawn, by: 1 };
    const key = `${wide}x${high}/${by}`;
    const layout =
      this.#layouts.get(key) ??
      keepRecent(
        this.#layouts,
        key,
        await inTurns(this.#layoutOf({ width: wide, height: high }, by, name)),
        LAYOUTS,
      );
    const { height, width } = layout.size;
    const size = channels * height * width;
    const isCovered = layout.columns.firsts.length === width && layout.rows.firsts.length === height;
    const output = isCovered
      ? new Float32Array(Buffer.allocUnsafeSlow(4 * size).buffer)
      : this.#filled(new Float32Array(size));
    const order = this.#flip ? [2, 1, 0] : [0, 1, 2];
    const sources = order.slice(0, channels).map((channel) => (drawn.channels === 1 ? 0 : channel));
    await draw({ image: drawn, ...layout, channels: sources, tables: this.#tables, output });
    if (drawn !== image) discard(drawn.data);
    return { data: output, shape: [1, channels, height, width] };
  }

  /** How images of this size are drawn whose pixels are the means of `by` rows and columns. */
  *#layoutOf(image: Size, by: number, name: string): Sliced<Layout> {
    const target = targetSize(image, this.#resize);
    const isResized = target.height !== image.height || target.width !== image.width;
    const most = Math.max(target.height, isResized ? image.height : 0) * target.width;
    if (most > MAX_PIXELS || (isResized && Math.max(image.height, image.width) > MAX_SIDE)) {
      const size = `${target.height}x${target.width}`;
      throw new ResidualSkipError(
        'INVALID_DATA',
        `${name}: the image would be resized to ${size}, too much to hold`,
      );
    }
    const { height, width } = this.#crop ?? this.#padding ?? target;
    this.#checkSize(name, height, width);
    const { left, top } = this.#originOf(target);
    // What goes beyond is cropped.
    const taps = (from: number, to: number, start: number, length: number) => {
      const [begin, end] = [Math.max(-start, 0), Math.min(to, length - start)];
      return tapsOf({ from, to, kernel: this.#kernel, begin, end, shrunkBy: by });
    };
    return {
      columns: yield* taps(image.width, target.width, left, width),
      rows: yield* taps(image.height, target.height, top, height),
      ...{ size: { height, width }, left: Math.max(left, 0), top: Math.max(top, 0) },
    };
  }

  /** Gives what lies around an image its value. */
  #filled(output: Float32Array): Float32Array {
    const pixel = this.#padding ? this.#padding.pixel : 0;
    const plane = output.length / this.#input.channels;
    if (pixel === undefined) return output;
    for (let c = 0; c < this.#input.channels; c++) {
      output.fill(this.#tables[256 * c + pixel]!, c * plane, (c + 1) * plane);
    }
    return output;
  }

  /** Where `apply` puts an image of this size. */
  placementOf(image: Size): Placement {
    const target = targetSize(image, this.#resize);
    const { height, width } = this.#crop ?? this.#padding ?? target;
    const { left, top } = this.#originOf(target);
    return {
      ...{ height, width, offset: [left, top] },
      scale: [target.width / image.width, target.height / image.height],
    };
  }

  #originOf(image: Size): { left: number; top: number } {
    if (this.#crop) {
      const { width, height, toEven } = this.#crop;
      const half = (whole: number, own: number) => {
        if (!toEven) return Math.ceil((whole - own) / 2);
        return whole > own ? Math.floor((whole - own) / 2) : -roundHalfEven((own - whole) / 2);
      };
      return { left: half(width, image.width), top: half(height, image.height) };
    }
    if (!this.#padding?.centred) return { left: 0, top: 0 };
    const half = (whole: number, own: number) => Math.floor((whole - own) / 2);
    return { left: half(this.#padding.width, image.width), top: half(this.#padding.height, image.height) };
  }

  /** One image isn't padded to the size of others: only to a given size, or that of the network's input. */
  #paddingOf({ do_pad, pad_size, pad_value, pad_center }: PreprocessorConfig): Padding | undefined {
    if (!do_pad) return undefined;
    const { height, width } = this.#input;
    const size = pad_size ?? (height !== undefined && width !== undefined ? { height, width } : undefined);
    const keeps =
      this.#resize === undefined ||
      'within' in this.#resize ||
      ('shortestEdge' in this.#resize && this.#resize.longestEdge);
    if (this.#crop || !keeps) {
      throw this.#invalid(
        'do_pad needs a size with shortest_edge and longest_edge, or max_height and max_width, and no crop',
      );
    }
    return size && { ...size, pixel: pad_value, centred: pad_center ?? false };
  }

  /**
   * A hash of all that decides which tensor an image becomes: this configuration, and `VERSION`. Sixteen hexadecimal digits.
   */
  get id(): string {
    const [resize, crop, padding] = [this.#resize, this.#crop, this.#padding].map((part) => part ?? null);
    const made = [VERSION, this.#input.channels, resize, crop, padding, this.#kernel, this.#flip];
    const text = JSON.stringify([...made, ...this.#tables]);
    return createHash('sha256').update(text).digest('hex').slice(0, 16);
  }

  /** Of each channel, by pixel value (0 to 255): what it is multiplied by, and what is added then. */
  get normalisation(): { readonly scale: readonly number[]; readonly offset: readonly number[] } {
    return this.#normalisation;
  }

  /** Whether the order of the channels is turned round. */
  get flips(): boolean {
    return this.#flip;
  }

  #invalid(why: string): ResidualSkipError {
    return new ResidualSkipError('INVALID_DATA', `${this.#source}: ${why}`);
  }

  #checkSize(name: string, height: number, width: number): void {
    const { height: wantedHeight = height, width: wantedWidth = width } = this.#input;
    if (height === wantedHeight && width === wantedWidth) return;
    throw new ResidualSkipError(
      'INVALID_SHAPE',
      `${name}: it becomes ${height}x${width} (height x width) by ${this.#source}, ` +
        `but the model takes ${wantedHeight}x${wantedWidth}; set do_resize and size, or do_center_crop and crop_size`,
    );
  }

  #geometry(config: PreprocessorConfig): { resize: Resize; crop: Crop | undefined } {
    const size = config.size ?? undefined;
    const type = typeOf(config);
    const resizes = config.do_resize ?? size !== undefined;
    if (resizes && size === undefined) throw this.#invalid('do_resize is set without a size');
    const crop = this.#cropOf(config);
    if (!resizes) return { resize: undefined, crop };
    if (UNSUPPORTED.test(type))
      throw this.#invalid(`${type} isn't supported; give tensors instead of images`);
    const cropPct = config.crop_pct ?? (type.startsWith('ConvNext') ? 224 / 256 : undefined);
    if (cropPct !== undefined) return cropResize(size!, cropPct, (why) => this.#invalid(why));
    const resize = resizeTo(size!, { type, crops: crop !== undefined, most: config.max_size ?? undefined });
    const divisor = config.size_divisor ?? config.size_divisibility ?? 1;
    if (divisor > 1 && this.#input.height === undefined && !(resize && 'height' in resize))
      throw this.#invalid(
        `sides that are multiples of ${divisor} aren't supported; give tensors instead of images`,
      );
    return { resize, crop };
  }

  /** Without a size, the middle is that which the network takes: processors of such files have one of their own. */
  #cropOf(config: PreprocessorConfig): Crop | undefined {
    const given = config.crop_size ?? undefined;
    if (!(config.do_center_crop ?? given !== undefined)) return undefined;
    const { height, width } = this.#input;
    const own = height !== undefined && width !== undefined ? { height, width } : undefined;
    const size = given ?? own;
    if (size === undefined) throw this.#invalid('do_center_crop is set without a crop_size');
    return { ...square(size), ...(typeOf(config) === '' && { toEven: true }) };
  }

  #normalising(config: PreprocessorConfig) {
    const factor = (config.do_rescale ?? true) ? (config.rescale_factor ?? 1 / 255) : 1;
    const normalizes = config.do_normalize ?? (config.image_mean !== undefined && config.image_mean !== null);
    const mean = this.#channelValues('image_mean', normalizes ? config.image_mean : 0);
    const std = this.#channelValues('image_std', normalizes ? config.image_std : 1);
    if (std.includes(0)) throw this.#invalid('image_std has a zero');
    // EfficientNet's processor divides twice.
    const twice = config.include_top ?? typeOf(config).startsWith('EfficientNet');
    return {
      factor,
      mean,
      std,
      last: twice ? this.#channelValues('image_std', config.image_std) : std.map(() => 1),
    };
  }

  #channelValues(field: string, value: number | readonly number[] | null | undefined): readonly number[] {
    const { channels } = this.#input;
    if (value === undefined || value === null) throw this.#invalid(`do_normalize is set without ${field}`);
    if (typeof value === 'number') return Array<number>(channels).fill(value);
    if (value.length === channels) return value;
    if (value.every((one) => one === value[0])) return Array<number>(channels).fill(value[0]!);
    throw this.#invalid(`${field} has ${value.length} values, but the model takes ${channels} channel(s)`);
  }
}
