import { basename, dirname, join, relative } from 'node:path';
import { ResidualSkipError } from '../errors.js';
import { classWith } from '../util/labels.js';
import { CIFAR_BATCH, readCifarBatch } from './cifar.js';
import { isImageFile, kindOf, listFolder, listImagesBelow } from './files.js';
import { readIdx } from './idx.js';
import { decodeImage, type RawImage } from './image.js';
import type { DataLimits } from './limits.js';
import type { ResizeRule } from './resize-rule.js';

/** One labelled image, not yet read. */
export interface Sample {
  /** Its file, relative to the data set's folder, or a file and the index in it: `t10k-images-idx3-ubyte[7]`. */
  readonly name: string;
  readonly label: number;
  /**
   * @param resize what it is to become: a large file may then be decoded to that size, others aren't resized
   * @throws INVALID_DATA naming the file
   */
  load(resize?: ResizeRule): Promise<RawImage>;
}

/** An image without its label. */
export type Unlabelled = Omit<Sample, 'label'>;

/** How a data set is opened. */
export interface Opening extends DataLimits {
  /** Called with a note if class folders are matched with classes by their order alone. */
  readonly onOrder?: ((note: string) => void) | undefined;
}

/** A labelled set of images in a fixed order. */
export interface Dataset {
  readonly samples: readonly Sample[];
}

/**
 * Opens the data set at `path`: a folder with one folder of images per class; a folder with a pair of IDX files
 * (`NAME-images-idx3-ubyte` and `NAME-labels-idx1-ubyte`, plain or `.gz`; if there are several pairs, `t10k` or `test`
 * is used); a folder with CIFAR-10's binary batches (`test_batch.bin`, or else all of `data_batch_N.bin`); or a single
 * file: the IDX file of the images, or a batch.
 * @param labels the model's labels by index; folder names are matched with them
 * @throws INVALID_DATA when there is no such data, or its classes don't fit the model's
 */
export async function openDataset(
  path: string,
  labels: readonly string[],
  limits?: Opening,
): Promise<Dataset> {
  const kind = await kindOf(path);
  if (kind === undefined) throw new ResidualSkipError('INVALID_DATA', `data ${path}: it doesn't exist`);
  if (kind === 'file') {
    return CIFAR_BATCH.test(basename(path))
      ? openCifar([path], labels.length, limits)
      : openIdx(path, labels.length, limits);
  }
  const { folders, files } = await listFolder(path);
  const images = files.filter((name) => IDX_IMAGES.test(name));
  if (images.length > 0) return openIdx(join(path, chooseIdx(path, images)), labels.length, limits);
  const batches = files.filter((name) => CIFAR_BATCH.test(name));
  if (batches.length > 0) {
    const test = batches.filter((name) => name.startsWith('test'));
    return openCifar(
      (test.length > 0 ? test : batches).map((name) => join(path, name)),
      labels.length,
      limits,
    );
  }
  if (folders.length > 0) return openFolders(path, folders, labels, limits);
  const has = files.some(isImageFile)
    ? 'its images lie beside each other, which gives them no label'
    : 'it has no images';
  throw new ResidualSkipError(
    'INVALID_DATA',
    `data ${path}: ${has}; expected a folder of images per class, IDX files (NAME-images-idx3-ubyte[.gz]), or CIFAR-10's binary batches (test_batch.bin)`,
  );
}

/**
 * The images of a data set whose labels don't matter: any folder of images, subfolders included, or what openDataset takes.
 * @throws INVALID_DATA when there is none
 */
export async function openImages(
  path: string,
  labels: readonly string[],
  limits?: DataLimits,
): Promise<readonly Unlabelled[]> {
  if ((await kindOf(path)) === 'folder') {
    const { files } = await listFolder(path);
    const packed = files.some((name) => IDX_IMAGES.test(name) || CIFAR_BATCH.test(name));
    const images = packed ? [] : await listImagesBelow(path);
    if (images.length > 0) {
      return images.map((file) => ({
        name: relative(path, file),
        load: (resize) => decodeImage(file, { ...limits, resize }),
      }));
    }
  }
  return (await openDataset(path, labels, limits)).samples;
}

/** Like openDataset, but also takes a folder of images without class folders; those have no labels. */
export async function openSamples(
  path: string,
  labels: readonly string[],
  limits?: Opening,
): Promise<readonly (Unlabelled & { readonly label?: number })[]> {
  if ((await kindOf(path)) === 'folder') {
    const { folders, files } = await listFolder(path);
    const packed = files.some((name) => IDX_IMAGES.test(name) || CIFAR_BATCH.test(name));
    if (folders.length === 0 && !packed && files.some(isImageFile)) return openImages(path, labels, limits);
  }
  return (await openDataset(path, labels, limits)).samples;
}

/** `limit` samples spread evenly over the set, so that every class keeps its share; all when there are fewer. */
export function takeEvenly<T>(samples: readonly T[], limit: number): readonly T[] {
  if (limit >= samples.length) return samples;
  return Array.from({ length: limit }, (_, i) => samples[Math.floor((i * samples.length) / limit)]!);
}

/** `samples` with those that `takeEvenly` takes first, so that the items of a log recorded with a limit are found at once. */
export function likelyFirst<T>(samples: readonly T[], limit: number): readonly T[] {
  const likely = takeEvenly(samples, limit);
  if (likely === samples) return samples;
  const known = new Set(likely);
  return [...likely, ...samples.filter((sample) => !known.has(sample))];
}

async function openFolders(
  root: string,
  folders: string[],
  labels: readonly string[],
  { onOrder, ...limits }: Opening = {},
): Promise<Dataset> {
  const samples: Sample[] = [];
  for (const [folder, label] of matchClasses(root, folders, labels, onOrder)) {
    for (const file of await listImagesBelow(join(root, folder))) {
      samples.push({
        name: relative(root, file),
        label,
        load: (resize) => decodeImage(file, { ...limits, resize }),
      });
    }
  }
  if (samples.length === 0)
    throw new ResidualSkipError('INVALID_DATA', `data ${root}: none of its folders holds an image`);
  return { samples };
}

/**
 * The label of every class folder: by name (ignoring case; hyphens and underscores count as spaces), or by order, that of
 * their numbers if all are numbers, if no name is known and there are as many folders as labels.
 */
function matchClasses(
  root: string,
  folders: string[],
  labels: readonly string[],
  onOrder: Opening['onOrder'],
): [string, number][] {
  // The file systems of macOS take letters and their accents apart.
  const plain = (name: string) =>
    name
      .normalize('NFC')
      .toLowerCase()
      .replace(/[\s_-]+/g, ' ');
  const known = labels.map(plain);
  const found = folders.map((folder) => classWith(plain(folder), known));
  const several = found.indexOf('several');
  if (several >= 0) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `${root}: several classes of the model have the label of the folder "${folders[several]}"; give the class of each image in a file ` +
        '(labelsFrom; eval --labels)',
    );
  }
  const indices = found as (number | undefined)[];
  if (indices.every((index) => index !== undefined)) return folders.map((folder, i) => [folder, indices[i]!]);
  const unknown = folders.filter((_, i) => indices[i] === undefined);
  if (unknown.length === folders.length && folders.length === labels.length) {
    const areNumbers = folders.every((folder) => /^\d+$/.test(folder));
    const ordered = areNumbers ? folders.toSorted((a, b) => Number(a) - Number(b)) : folders;
    const pairs = [0, labels.length - 1].map((i) => `"${ordered[i]}" for "${labels[i]}"`);
    onOrder?.(
      `data ${root}: none of its folders is called as a class of the model; they are taken in the order of the classes, ${pairs.join(' to ')}; ` +
        'if that is wrong, rename them, or give the class of each image in a file (labelsFrom; eval --labels)',
    );
    return ordered.map((folder, index) => [folder, index]);
  }
  throw new ResidualSkipError(
    'INVALID_DATA',
    `${root}: the model has no label for the class ${unknown.length > 1 ? 'folders' : 'folder'} ` +
      `${shorten(unknown)}; its ${labels.length} labels are ${shorten(labels)}; where labels aren't needed, read the images without them (labelsFrom: 'none'; eval --no-labels)`,
  );
}

/** The first of `names`, quoted, for messages. */
export function shorten(names: readonly string[]): string {
  const shown = names.slice(0, 10).map((name) => `"${name}"`);
  return names.length > 10 ? `${shown.join(', ')}, …` : shown.join(', ');
}

async function openCifar(
  files: readonly string[],
  classes: number,
  limits: DataLimits | undefined,
): Promise<Dataset> {
  const samples: Sample[] = [];
  for (const file of files) {
    for (const [i, { label, decode }] of (await readCifarBatch(file, limits)).entries()) {
      if (label >= classes) {
        throw new ResidualSkipError(
          'INVALID_DATA',
          `CIFAR-10 batch ${file}: item ${i} has the label ${label}, but the model has ${classes} classes`,
        );
      }
      samples.push({ name: `${basename(file)}[${i}]`, label, load: async () => decode() });
    }
  }
  return { samples };
}

const IDX_IMAGES = /^(.*)images([-.])idx3-ubyte(\.gz)?$/;

function chooseIdx(root: string, images: string[]): string {
  // A plain file and its gzipped twin are one data set.
  const sets = images.filter((name) => !name.endsWith('.gz') || !images.includes(name.slice(0, -3)));
  const chosen = sets.length === 1 ? sets : sets.filter((name) => /^(t10k|test)/.test(name));
  if (chosen.length === 1) return chosen[0]!;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `data ${root}: it holds several IDX sets (${sets.join(', ')}); name one of these files`,
  );
}

async function openIdx(imageFile: string, classes: number, limits: DataLimits | undefined): Promise<Dataset> {
  const match = IDX_IMAGES.exec(basename(imageFile));
  if (match === null) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `data ${imageFile}: it is not a data set; expected an image folder, an IDX file named NAME-images-idx3-ubyte[.gz], or one of CIFAR-10's binary batches`,
    );
  }
  const stem = join(dirname(imageFile), `${match[1]}labels${match[2]}idx1-ubyte`);
  const labelFile = (await kindOf(stem)) === 'file' ? stem : `${stem}.gz`;
  const [images, labels] = await Promise.all([readIdx(imageFile, limits), readIdx(labelFile, limits)]);
  const [items = 0, height = 0, width = 0] = images.shape;
  const invalid = (file: string, why: string) =>
    new ResidualSkipError('INVALID_DATA', `IDX file ${file}: it ${why}`);
  if (images.shape.length !== 3 || items * height * width === 0) {
    throw invalid(
      imageFile,
      `has the shape ${images.shape.join('x')}; expected items x rows x columns, none of them 0`,
    );
  }
  if (labels.shape.length !== 1 || labels.shape[0] !== items) {
    throw invalid(labelFile, `has the shape ${labels.shape.join('x')}, but there are ${items} images`);
  }
  const wrong = labels.data.findIndex((label) => label >= classes);
  if (wrong >= 0) {
    throw invalid(
      labelFile,
      `has the label ${labels.data[wrong]} for item ${wrong}, but the model has ${classes} classes`,
    );
  }
  const pixels = height * width;
  const samples = Array.from(labels.data, (label, i) => ({
    name: `${basename(imageFile)}[${i}]`,
    label,
    load: async (): Promise<RawImage> => ({
      width,
      height,
      channels: 1,
      data: images.data.subarray(i * pixels, (i + 1) * pixels),
    }),
  }));
  return { samples };
}
