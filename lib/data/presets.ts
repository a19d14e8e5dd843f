/** The mean and deviation of ImageNet's pixels, which torchvision's networks and most that were trained like them expect. */
const IMAGENET = { image_mean: [0.485, 0.456, 0.406], image_std: [0.229, 0.224, 0.225] };
/** From OpenAI's CLIP. */
const CLIP = {
  image_mean: [0.48145466, 0.4578275, 0.40821073],
  image_std: [0.26862954, 0.26130258, 0.27577711],
};
/** PIL's numbers of its filters. */
const BILINEAR = 2;
const BICUBIC = 3;

export const PRESETS = ['imagenet', 'clip', 'symmetric', 'unit', 'bytes', 'letterbox'] as const;
/**
 * Common ways to prepare pixels. `imagenet`: torchvision's, the middle of an image whose shorter side became 256 for a network of 224;
 * `clip`: CLIP's, the middle square, bicubic; `symmetric`: -1..1; `unit`: 0..1; `bytes`: 0..255; these three resize the whole image. `letterbox`: 0..1,
 * the whole image in the middle of grey, as YOLO's detectors are trained.
 */
export type PreprocessorPreset = (typeof PRESETS)[number];

/** What a preset sets, in the names of preprocessor_config.json. */
interface Fields {
  readonly size?:
    | { readonly shortest_edge: number }
    | { readonly max_height: number; readonly max_width: number }
    | { readonly height: number; readonly width: number };
  readonly do_pad?: boolean;
  readonly pad_size?: { readonly height: number; readonly width: number };
  readonly pad_value?: number;
  readonly pad_center?: boolean;
  readonly crop_size?: number;
  readonly resample?: number;
  readonly do_rescale?: boolean;
  readonly image_mean?: number | number[];
  readonly image_std?: number | number[];
}

/** Of networks with inputs of any size. */
const USUAL_SIDE = 224;
const LETTERBOX_SIDE = 640;

/** The fields of each preset, by the side of the square that it makes; without it, an image keeps its size or has the usual one. */
export const PRESET_FIELDS: Readonly<Record<PreprocessorPreset, (side: number | undefined) => Fields>> = {
  imagenet: (side = USUAL_SIDE) => ({
    ...{ size: { shortest_edge: Math.round((side * 256) / 224) }, crop_size: side, resample: BILINEAR },
    ...IMAGENET,
  }),
  clip: (side = USUAL_SIDE) => ({
    ...{ size: { shortest_edge: side }, crop_size: side, resample: BICUBIC },
    ...CLIP,
  }),
  symmetric: (side) => ({ ...squareOf(side), image_mean: 0.5, image_std: 0.5 }),
  unit: (side) => squareOf(side),
  letterbox: (side = LETTERBOX_SIDE) => ({
    ...{ size: { max_height: side, max_width: side }, pad_size: { height: side, width: side } },
    ...{ do_pad: true, pad_value: 114, pad_center: true },
  }),
  bytes: (side) => ({ ...squareOf(side), do_rescale: false }),
};

function squareOf(side: number | undefined): Fields {
  return side === undefined ? {} : { size: { height: side, width: side } };
}
