/** Sources of many items that are given as what `session.run` takes: tensors by the name of the input. */
import { join } from 'node:path';
import { isArrayFile, readArrays, type SoundForm } from '../data/arrays.js';
import { kindOf, listFolder } from '../data/files.js';
import { ResidualSkipError } from '../errors.js';
import type { Feeds } from '../session/feeds.js';
import type { InferenceSession } from '../session/session.js';
import type { TensorMap } from '../skip/observer.js';
import {
  copyData,
  isTensorLike,
  type Tensor,
  type TensorData,
  type TensorLike,
  toTensor,
  withData,
} from '../tensor/tensor.js';
import { type DataOptions, type Item, type Items, labelOf } from './images.js';

/** The inputs of one item, with what is known about it. */
export interface LabelledFeeds {
  readonly feeds: Feeds;
  /** Its class: an index, or one of the model's labels. */
  readonly label?: number | string | undefined;
  /** Names of the groups that it belongs to. */
  readonly groups?: readonly string[] | undefined;
  /** Its name in messages. */
  readonly name?: string | undefined;
}

/**
 * Many items as tensors by input, a batch of one each: an iterable, or the path of a file of NumPy's arrays, or of a folder of such files.
 * In a `.npz` file, arrays are named like the inputs, and the first axis has the items; of those of a `.npy` file it is, too, and they are
 * for the only input. So are the samples of a `.wav` file, which is one item.
 */
export type FeedSource =
  | string
  | Iterable<Feeds | LabelledFeeds | TensorLike>
  | AsyncIterable<Feeds | LabelledFeeds | TensorLike>;

/** Whether a value is the inputs of an item. */
export function isFeeds(value: unknown): value is Feeds | LabelledFeeds {
  if (typeof value !== 'object' || value === null || isTensorLike(value)) return false;
  if ('feeds' in value) return true;
  const given = Object.values(value);
  return given.length > 0 && given.every(isTensorLike);
}

/** Whether a path names files of tensors or sounds. */
export async function holdsArrays(path: string): Promise<boolean> {
  if ((await kindOf(path)) !== 'folder') return isArrayFile(path);
  const { files, folders } = await listFolder(path);
  if (files.some(isArrayFile)) return true;
  // Folders in it are classes.
  return folders.length > 0 && (await listFolder(join(path, folders[0]!))).files.some(isArrayFile);
}

/** All inputs of a prepared item, by the elements of the first. Of all readers: two sessions may run the same items. */
const FEEDS = new WeakMap<TensorData, TensorMap>();

/**
 * The items of a source. What is prepared of an item is its first input, which stands for all: `feeds` has the others.
 */
export class FeedReader {
  /** By the number of elements of the first input: its lengths, and the shapes of all inputs. */
  readonly #shapes = new Map<number, { readonly dims: readonly number[]; readonly all: string }>();

  /** @param labels null where the network has no classes: labels are left out then */
  constructor(
    private readonly session: InferenceSession,
    private readonly labels: readonly string[] | null,
    private readonly sounds?: SoundForm,
  ) {}

  /** All inputs of a prepared item; of other elements for the only input, that one. */
  feeds(prepared: Tensor): TensorMap {
    return FEEDS.get(prepared.data) ?? { [this.session.inputMetadata[0]!.name]: prepared };
  }

  /** The lengths of prepared items of this many elements. */
  dimsOf(elements: number): readonly number[] {
    return this.#shapes.get(elements)!.dims;
  }

  /**
   * The items of a source, in order.
   * @param labelled whether labels are read
   * @throws ResidualSkipError INVALID_ARGUMENT for what is no source, INVALID_DATA naming the file
   */
  async open(source: FeedSource, options: DataOptions, labelled: boolean): Promise<Items<Tensor>> {
    if (typeof source !== 'string') {
      const count = Array.isArray(source) ? source.length : null;
      return { count, list: this.#each(source, labelled) };
    }
    const rows = await readArrays(source, this.session.inputMetadata, options, this.sounds);
    return { count: rows.length, list: rows.map((row) => this.#itemOf(row, row.name, labelled)) };
  }

  async *#each(
    source: Exclude<FeedSource, string>,
    labelled: boolean,
  ): AsyncGenerator<Item<Tensor>, void, undefined> {
    let index = 0;
    for await (const given of source) {
      const name = `data[${index++}]`;
      const entry = this.#entryOf(given, name);
      // Copied now, because the caller may reuse the tensors' memory for the next item.
      yield this.#itemOf({ ...entry, feeds: copied(entry.feeds, name) }, entry.name ?? name, labelled);
    }
  }

  #entryOf(given: Feeds | LabelledFeeds | TensorLike, name: string): LabelledFeeds {
    const { inputMetadata } = this.session;
    const [first, ...others] = inputMetadata;
    if (isTensorLike(given) && first && others.length === 0) return { feeds: { [first.name]: given } };
    if (isFeeds(given)) return isLabelled(given) ? given : { feeds: given };
    const inputs = inputMetadata.map((input) => input.name).join(', ');
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${name}: expected an object of tensors by input (${inputs}), or { feeds, label, groups }`,
    );
  }

  #itemOf({ feeds, label, groups }: LabelledFeeds, name: string, labelled: boolean): Item<Tensor> {
    return {
      ...{ name, groups, load: undefined },
      label: labelled && this.labels ? labelOf(label, name, this.labels) : undefined,
      prepare: async () => this.#prepare(feeds, name),
    };
  }

  #prepare(feeds: Feeds, name: string): Tensor {
    for (const { name: input, shape } of this.session.inputMetadata) {
      const dims = feeds[input]?.dims;
      if (!dims || !isBatch(dims, shape) || this.session.model.batching !== 'item') continue;
      throw new ResidualSkipError(
        'INVALID_SHAPE',
        `${name}, input '${input}': it is [${dims.join(',')}]; give each item of a batch by itself, [1,${dims.slice(1).join(',')}]`,
      );
    }
    const names = this.session.inputNames;
    const tensors = this.#fitting(feeds, name);
    const first = tensors[names[0]!]!;
    const shapes = names.map((input) => `[${tensors[input]!.dims.join(',')}]`).join(' ');
    const known = this.#shapes.get(first.size)?.all ?? shapes;
    if (known !== shapes) {
      throw new ResidualSkipError(
        'INVALID_SHAPE',
        `${name}: its inputs are ${shapes}, but those of an earlier item, as large, are ${known}; give all items of one size the same shapes`,
      );
    }
    this.#shapes.set(first.size, { dims: first.dims, all: shapes });
    FEEDS.set(first.data, tensors);
    return first;
  }

  /** What the model takes of these feeds. @throws ResidualSkipError INVALID_DATA or INVALID_SHAPE, naming the item */
  #fitting(feeds: Feeds, name: string): TensorMap {
    try {
      return this.session.checkedFeeds(feeds);
    } catch (error) {
      if (!(error instanceof ResidualSkipError)) throw error;
      const code = error.code === 'INVALID_SHAPE' ? error.code : 'INVALID_DATA';
      throw new ResidualSkipError(code, `${name}, ${error.message}`, { cause: error });
    }
  }
}

const isBatch = (dims: readonly number[], { length }: readonly unknown[]) =>
  dims.length === length && dims[0]! > 1;

const isLabelled = (given: Feeds | LabelledFeeds): given is LabelledFeeds =>
  'feeds' in given && !isTensorLike(given.feeds);

function copied(feeds: Feeds, name: string): Feeds {
  if (typeof feeds !== 'object' || feeds === null) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${name}: expected feeds to be an object of tensors by input`,
    );
  }
  return Object.fromEntries(
    Object.entries(feeds).map(([input, given]) => {
      const tensor = toTensor(`${name}, input '${input}'`, given);
      return [input, withData(tensor, copyData(tensor.data))];
    }),
  );
}
