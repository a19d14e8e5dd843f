/** Sources of many images: folders, data sets, and iterables. */
import { z } from 'zod';
import { readAssignments, valuesOf } from '../data/assignments.js';
import {
  type Opening,
  openDataset,
  openImages,
  openSamples,
  shorten,
  type Unlabelled,
} from '../data/dataset.js';
import type { RawImage } from '../data/image.js';
import type { DataLimits } from '../data/limits.js';
import { prefetch } from '../data/prefetch.js';
import { ResidualSkipError } from '../errors.js';
import { describeTensor, isTensorLike, Tensor, type TensorLike, toTensor } from '../tensor/tensor.js';
import { classWith } from '../util/labels.js';
import { late } from '../util/late.js';
import type { ImageClassifier } from './image-classifier.js';
import { type ImageSource, nameOf, toRawImage } from './image-source.js';
import type { Unusable } from './unusable.js';

/** An image with what is known about it. */
export interface LabelledImage {
  /** The image, or a tensor of it, prepared for the model: float32[1, channels, height, width]. */
  readonly image: ImageSource | TensorLike;
  /** Its class: an index, or one of the model's labels. */
  readonly label?: number | string | undefined;
  /** Names of the groups that it belongs to. */
  readonly groups?: readonly string[] | undefined;
  /** Its name in messages. */
  readonly name?: string | undefined;
}

/**
 * Many images: the path of a folder (of images, of one folder for each class, of IDX files, or of CIFAR-10's binary
 * batches), the path of an IDX file or a batch, or an iterable of images. A few images of an iterable are read ahead.
 */
export type Images =
  | string
  | Iterable<ImageSource | TensorLike | LabelledImage>
  | AsyncIterable<ImageSource | TensorLike | LabelledImage>;

/** How the images of a path are read. */
export interface DataOptions extends DataLimits {
  /**
   * Source of the labels of a folder: `data` (its class folders or label files), a CSV or JSON file with the label of each
   * image by its path below the folder, or `none`.
   */
  readonly labelsFrom?: 'data' | 'none' | (string & {}) | undefined;
  /** Source of the groups: `folder` (the first folder in an image's path), or a CSV or JSON file with the group of each image. */
  readonly groupsFrom?: 'folder' | (string & {}) | undefined;
}

const most = late(() => z.int({ error: 'expected a whole number above 0' }).positive().optional());

/** Schema fields of DataOptions. */
export const dataShape = late(() => ({
  labelsFrom: z.string().min(1).optional(),
  groupsFrom: z.string().min(1).optional(),
  maxPixels: most(),
  maxBytes: most(),
}));

/** One item of a source, an image or a text, not yet read. */
export interface Item<T extends Tensor = Tensor<'float32'>> {
  readonly name: string;
  readonly label: number | undefined;
  readonly groups: readonly string[] | undefined;
  /** Reads the item and prepares it for the model. */
  prepare(): Promise<T>;
  /** Reads its pixels; undefined if it was given as a tensor, or is a text. */
  readonly load: (() => Promise<RawImage>) | undefined;
}

export interface Items<T extends Tensor = Tensor<'float32'>> {
  /** Null if it isn't known before the end. */
  readonly count: number | null;
  readonly list: readonly Item<T>[] | AsyncIterable<Item<T>>;
}

/**
 * The images of a source, in order.
 * @param labels default of the option `labelsFrom`; undefined to use labels if the data has any
 * @throws ResidualSkipError INVALID_ARGUMENT for a value that is not a source, INVALID_DATA for a folder that can't be read, or
 * labels or groups that don't fit
 */
export async function openItems(
  images: Images,
  classifier: ImageClassifier,
  options: DataOptions,
  labels?: 'data' | 'none',
): Promise<Items> {
  const labelsFrom = options.labelsFrom ?? labels;
  if (typeof images === 'string') {
    const list = await itemsOfPath(images, classifier, { ...options, labelsFrom });
    return { count: list.length, list };
  }
  if (Object(images)[Symbol.asyncIterator] === undefined && Object(images)[Symbol.iterator] === undefined) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      'images: expected the path of a folder, or an iterable or async iterable of images or tensors',
    );
  }
  for (const [name, value] of Object.entries({ labelsFrom, groupsFrom: options.groupsFrom })) {
    if (value === undefined || value === 'data' || value === 'none') continue;
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `options.${name}: '${value}' is for folders; give each image its own: { image, label, groups }`,
    );
  }
  const count = Array.isArray(images) ? images.length : null;
  const reading = { ...options, labelled: labelsFrom !== 'none' };
  return { count, list: itemsOfIterable(images, classifier, reading) };
}

/**
 * Prepares items in order, a few ahead of the consumer. One that can't be used is noted in `unusable`, in order too, and has no
 * tensor.
 * @throws any error that isn't about a single item
 */
export async function* prepareItems<T extends Pick<Item<Tensor>, 'prepare'>>(
  items: Iterable<T> | AsyncIterable<T>,
  unusable: Unusable,
): AsyncGenerator<{ item: T; tensor: Awaited<ReturnType<T['prepare']>> | undefined }, void, undefined> {
  const prepared = prefetch(items, async (item) => {
    try {
      return { item, tensor: (await item.prepare()) as Awaited<ReturnType<T['prepare']>> };
    } catch (error) {
      return { item, error };
    }
  });
  for await (const { item, tensor, error } of prepared) {
    yield { item, tensor: tensor ?? unusable.note(error) };
  }
}

interface Reading extends DataLimits {
  readonly labelled: boolean;
}

async function* itemsOfIterable(
  images: Exclude<Images, string>,
  classifier: ImageClassifier,
  { labelled, maxPixels }: Reading,
): AsyncGenerator<Item> {
  let index = -1;
  for await (const given of images) {
    index++;
    const entry: LabelledImage = isLabelled(given) ? given : { image: given };
    const { image, groups } = entry;
    const name = entry.name ?? nameOf(image, index);
    const label = labelled ? labelOf(entry.label, name, classifier.labels) : undefined;
    if (isTensorLike(image)) {
      // Copied now, because the caller may reuse the tensor's memory for the next one.
      const prepared = checkTensor(image, name, classifier);
      yield { name, label, groups, load: undefined, prepare: async () => prepared };
      continue;
    }
    const { resizing: resize } = classifier.preprocessor;
    const load = () => toRawImage(image, name, { maxPixels });
    const prepare = async () =>
      classifier.prepareOwn(await toRawImage(image, name, { maxPixels, resize }), name);
    yield { name, label, groups, load, prepare };
  }
}

function isLabelled(value: ImageSource | TensorLike | LabelledImage): value is LabelledImage {
  return typeof value === 'object' && value !== null && 'image' in value;
}

function severalClasses(what: string, label: string | number): ResidualSkipError {
  return new ResidualSkipError(
    'INVALID_DATA',
    `${what}: several classes of the model have the label ${JSON.stringify(label)}; give the index of one`,
  );
}

/** The class of a label; undefined if there is none. */
export function labelOf(
  label: number | string | undefined,
  name: string,
  known: readonly string[],
): number | undefined {
  if (label === undefined) return undefined;
  const index = typeof label === 'string' ? (classWith(label, known) ?? -1) : label;
  if (index === 'several') throw severalClasses(name, label);
  if (Number.isInteger(index) && index >= 0 && index < known.length) return index;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `${name}: its label ${JSON.stringify(label)} is not one of the model's; expected one of the ${known.length} labels ` +
      `${shorten(known)}, or their indices`,
  );
}

/** Checks that a tensor is one item that fits the model; returns a copy. */
function checkTensor(value: TensorLike, name: string, { session }: ImageClassifier): Tensor<'float32'> {
  const { type, data, dims } = toTensor(name, value);
  const { shape } = session.inputMetadata[0]!;
  const expected = describeTensor('float32', [1, ...shape.slice(1)]);
  const compared = `${name}: expected ${expected}, received ${describeTensor(type, dims)}`;
  if (type !== 'float32') throw new ResidualSkipError('INVALID_DTYPE', compared);
  const fits =
    dims.length === shape.length &&
    dims[0] === 1 &&
    dims.every((length, axis) => axis === 0 || typeof shape[axis] === 'string' || length === shape[axis]);
  if (fits) return new Tensor('float32', data.slice(), dims);
  const advice = dims.length === shape.length && dims[0] !== 1 ? '; give each item of a batch by itself' : '';
  throw new ResidualSkipError('INVALID_SHAPE', `${compared}${advice}`);
}

/** The images of a folder or file, in order. Throws the same errors as `openItems`. */
export async function itemsOfPath(
  path: string,
  classifier: ImageClassifier,
  { labelsFrom, groupsFrom, ...limits }: DataOptions,
): Promise<readonly Item[]> {
  const { labels: known } = classifier;
  const onOrder = classifier.labelsKnown ? (note: string) => classifier.note(note) : undefined;
  const images = await openAs(labelsFrom, path, known, { ...limits, onOrder });
  const names = images.map(({ name }) => name);
  const fromFile = labelsFrom !== undefined && labelsFrom !== 'data' && labelsFrom !== 'none';
  const classes = fromFile ? await classesOf(names, labelsFrom, known) : images.map(({ label }) => label);
  const grouped = groupsFrom === undefined ? undefined : await groupsOf(names, path, groupsFrom);
  return images.map((image, i) => ({
    name: image.name,
    load: () => image.load(),
    prepare: async () =>
      classifier.prepareOwn(await image.load(classifier.preprocessor.resizing), image.name),
    label: classes[i],
    groups: grouped && [grouped[i]!],
  }));
}

type Unread = Unlabelled & { readonly label?: number };

async function openAs(
  labelsFrom: DataOptions['labelsFrom'],
  path: string,
  known: readonly string[],
  opening: Opening,
): Promise<readonly Unread[]> {
  if (labelsFrom === undefined) return openSamples(path, known, opening);
  if (labelsFrom === 'data') return (await openDataset(path, known, opening)).samples;
  const images = await openImages(path, known, opening);
  return images.map(({ name, load }) => ({ name, load }));
}

/** The class of each image, from a file with labels of the model or class indices. */
async function classesOf(
  names: readonly string[],
  file: string,
  known: readonly string[],
): Promise<number[]> {
  const values = valuesOf(names, await readAssignments(file), file);
  const classOf = (value: string | number) => {
    if (typeof value === 'number') return value;
    const index = classWith(value, known) ?? (/^\d+$/.test(value) ? Number(value) : -1);
    if (index === 'several') throw severalClasses(`file ${file}`, value);
    return index;
  };
  const indices = new Map([...new Set(values)].map((value) => [value, classOf(value)]));
  return values.map((value, i) => {
    const index = indices.get(value)!;
    if (index >= 0 && index < known.length) return index;
    throw new ResidualSkipError(
      'INVALID_DATA',
      `file ${file}: it gives "${names[i]}" the label "${value}", which is not one of the model's ${known.length}; they are ` +
        `${shorten(known)}, or their indices`,
    );
  });
}

async function groupsOf(names: readonly string[], data: string, groups: string): Promise<string[]> {
  if (groups !== 'folder') return valuesOf(names, await readAssignments(groups), groups).map(String);
  return names.map((name) => {
    const [folder, inside] = name.split(/[/\\]/, 2);
    if (inside !== undefined) return folder!;
    throw new ResidualSkipError(
      'INVALID_DATA',
      `groups by folder: "${name}" is in no folder below ${data}; give --groups a file that names the group of each image`,
    );
  });
}
