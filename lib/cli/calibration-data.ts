/** Images as a calibration takes them: prepared, hashed, and with the labels and groups that were asked for. */

import type { CalibrationItem, ImageSource } from '../calibrate/options.js';
import { contentHash } from '../calibrate/split.js';
import { readAssignments, valuesOf } from '../data/assignments.js';
import { openDataset, openImages, shorten, type Unlabelled } from '../data/dataset.js';
import type { RawImage } from '../data/image.js';
import type { DataLimits } from '../data/limits.js';
import { prefetch } from '../data/prefetch.js';
import { ResidualSkipError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import type { Classifier } from './classifier.js';
import { type Io, startProgress } from './io.js';
import { Unusable } from './unusable.js';

export interface DataOptions extends DataLimits {
  readonly data: string;
  /** True: as the data set has them; otherwise a file that has them by image name. */
  readonly labels?: true | string;
  /** 'folder', or a file that has them by image name. */
  readonly groups?: string;
}

export interface CalibrationData {
  readonly items: readonly CalibrationItem[];
  /** One prepared image, for its shape. */
  readonly first: Tensor;
  /** The image of an item, read again. */
  load(sha256: string): Promise<RawImage>;
}

interface Image extends Unlabelled {
  readonly label?: number;
  readonly groups?: readonly string[];
}

/** @throws INVALID_DATA naming every image that can't be read, and labels or groups that don't fit */
export async function readCalibrationData(
  classifier: Classifier,
  options: DataOptions,
  io: Io,
  progress: boolean,
): Promise<CalibrationData> {
  const images = await imagesOf(options, classifier.labels);
  const items: CalibrationItem[] = [];
  const bySha256 = new Map<string, Image>();
  const unusable = new Unusable();
  let first: Tensor | undefined;
  const reading = startProgress(io, images.length, 'Reading', progress);
  try {
    const prepared = prefetch(images, async (image) => {
      const tensor = await classifier.prepareOne(image).catch((error: unknown) => unusable.note(error));
      return { image, tensor };
    });
    for await (const { image, tensor } of prepared) {
      reading.advance();
      if (!tensor) continue;
      first ??= tensor;
      const input = tensor.data;
      const sha256 = contentHash(input);
      items.push({ input, sha256, label: image.label, groups: image.groups });
      bySha256.set(sha256, image);
    }
  } finally {
    reading.stop();
  }
  // A promise is about all of the data: none of it is left out in silence.
  unusable.check('repair them, or take them out of the data');
  return { items, first: first!, load: (sha256) => bySha256.get(sha256)!.load() };
}

/** Prepared images are kept while they take no more bytes than this; others are prepared whenever they are asked for. */
const MOST_KEPT = 2 ** 30;

/** Images to fit heads on. */
export interface FitImages extends ImageSource {
  /** Those that were left out. */
  readonly unusable: Unusable;
}

/** @param dir any folder of images, or what eval takes; labels are not needed */
export async function openFitImages(
  classifier: Classifier,
  dir: string,
  limits: DataLimits,
): Promise<FitImages> {
  const images = await openImages(dir, classifier.labels, limits);
  /** Undefined for those that can't be used. */
  const kept = new Map<number, Float32Array | undefined>();
  const unusable = new Unusable();
  let bytes = 0;
  return {
    count: images.length,
    unusable,
    load: async (index) => {
      if (kept.has(index)) return kept.get(index);
      const tensor = await classifier
        .prepareOne(images[index]!)
        .catch((error: unknown) => unusable.note(error));
      const size = tensor?.data.byteLength ?? 0;
      if (bytes + size <= MOST_KEPT) {
        bytes += size;
        kept.set(index, tensor?.data);
      }
      return tensor?.data;
    },
  };
}

async function imagesOf(options: DataOptions, known: readonly string[]): Promise<Image[]> {
  const { data, labels, groups } = options;
  const labelled = labels === true ? (await openDataset(data, known, options)).samples : undefined;
  const images = labelled ?? (await openImages(data, known, options));
  const names = images.map(({ name }) => name);
  const classes =
    typeof labels === 'string' ? await classesOf(names, labels, known) : labelled?.map(({ label }) => label);
  const grouped = groups === undefined ? undefined : await groupsOf(names, data, groups);
  return images.map((image, i) => ({
    name: image.name,
    load: () => image.load(),
    label: classes?.[i],
    groups: grouped && [grouped[i]!],
  }));
}

/** Values are labels of the model, or class indices. */
async function classesOf(
  names: readonly string[],
  file: string,
  known: readonly string[],
): Promise<number[]> {
  const values = valuesOf(names, await readAssignments(file), file);
  const indexOf = new Map(known.map((label, index) => [label, index]));
  return values.map((value, i) => {
    const index = indexOf.get(value) ?? (/^\d+$/.test(value) ? Number(value) : -1);
    if (index >= 0 && index < known.length) return index;
    throw new ResidualSkipError(
      'INVALID_DATA',
      `${file} gives "${names[i]}" the label "${value}", which the model doesn't have; its ${known.length} labels are ` +
        `${shorten(known)}, or their indices`,
    );
  });
}

async function groupsOf(names: readonly string[], data: string, groups: string): Promise<string[]> {
  if (groups !== 'folder') return valuesOf(names, await readAssignments(groups), groups);
  return names.map((name) => {
    const [folder, inside] = name.split(/[/\\]/, 2);
    if (inside !== undefined) return folder!;
    throw new ResidualSkipError(
      'INVALID_DATA',
      `groups by folder: "${name}" is in no folder below ${data}; give --groups a file that names the group of each image`,
    );
  });
}
