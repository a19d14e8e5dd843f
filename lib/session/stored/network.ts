/**
 * A network whose programs are kept in a folder, so that the next session neither decodes nor lowers its graph. An entry is valid for the
 * bytes of the file that lowering may have looked at: all but large weights that were only packed, which each session reads from the file.
 */
import { resolve } from 'node:path';
import type { Program } from '../../model/program/program.js';
import { files, type ModelLocation, readRanges, requireModel } from '../../model/read/file.js';
import type { FirstLayer } from '../../model/read/first-layer.js';
import type { Binding, ModelFacts } from '../../model/read/model.js';
import { FileIdentity, WeightFile } from '../../tensor/recall.js';
import { inTurns, type Sliced } from '../../util/slices.js';
import { packageVersion } from '../../util/version.js';
import { overrideDimensions } from '../feeds.js';
import { loadNetwork, type Network, type OpenNetwork, type Reading, reloadNetwork } from '../network.js';
import { Constants, type StoredProgram, type Weights } from './constants.js';
import { digesting, digestOf } from './digest.js';
import { decodeEntry, encodeEntry } from './entry.js';
import { Folder } from './folder.js';

/** Changes with the form of entries. */
const FORMAT = 1;
/** Programs of a model that are kept, such as those of texts of several lengths. */
const MOST_PROGRAMS = 32;

/** Large weights by offset: bytes. */
type Ranges = readonly (readonly [offset: number, bytes: number])[];

/** The bytes of a model's file that its programs were derived from. */
interface Content {
  readonly size: number;
  /** Digest of all bytes outside of large weights. */
  readonly kept: string;
  /** Weights that were only packed. */
  readonly left: Ranges;
  /** Weights that lowering has looked at, and their digest. */
  readonly seen: Ranges;
  readonly ofSeen: string;
}

type Facts = Omit<ModelFacts, 'sha256' | 'identify' | 'location' | 'external' | 'firstLayer'>;

interface StoredModel {
  readonly content: Content;
  readonly facts: Facts;
  readonly mayHaveExits: boolean;
  /** Its arrays are those of the entry: weights, mean, and variance if there is one. */
  readonly firstLayer?: FirstLayer['shape'];
}

/**
 * The network of a model's file, from the folder if it has an entry for the file.
 * @param identified whether the file's hash is needed for certain
 * @throws what `loadNetwork` throws
 */
export async function openStored(
  path: string,
  cache: string,
  reading: Reading,
  identified: (location: ModelLocation) => boolean,
): Promise<Network> {
  const location = await requireModel(path);
  const name = nameOf(location.model, reading);
  const place = { folder: new Folder(cache), name, location, reading };
  // Whatever is wrong with an entry or the file, reading the file finds out.
  const network = (await found(place).catch(() => undefined)) ?? (await made(path, place));
  if (identified(location)) await network.model.identify();
  return network;
}

interface Place {
  readonly folder: Folder;
  /** Of the model's entry; those of its programs begin with it. */
  readonly name: string;
  readonly location: ModelLocation;
  readonly reading: Reading;
}

function nameOf(model: string, { front }: Reading): string {
  return hexOf([FORMAT, packageVersion(), resolve(model), ...(front ? [front.key] : [])]);
}

const hexOf = (data: unknown) => digestOf(JSON.stringify(data)).toString('hex', 0, 16);

async function found(place: Place): Promise<Network | undefined> {
  const { folder, name, location, reading } = place;
  const bytes = folder.read(name);
  const entry = bytes && decodeEntry(bytes);
  if (!entry) return undefined;
  const { content, facts, mayHaveExits, firstLayer } = entry.data as StoredModel;
  const weights = await weightsOf(location.model, content);
  if (!weights) return undefined;
  const identity = new FileIdentity([weights.file]);
  const model: ModelFacts = {
    get sha256() {
      return identity.sha256;
    },
    identify: () => identity.identify(),
    location,
    external: [],
    ...facts,
    firstLayer: firstLayer && firstLayerOf(firstLayer, entry.arrays),
  };
  const network = { model: overrideDimensions(model, reading.overrides ?? {}), mayHaveExits };
  return new StoredNetwork(place, network, { file: weights.file, content, weights });
}

/** The file's bytes but for weights that are left there; undefined if they aren't those of the entry. */
async function weightsOf(path: string, content: Content): Promise<Weights | undefined> {
  const { size, left, seen } = content;
  if (!(await files.stat(path)).isFile()) return undefined;
  const descriptor = await files.open(path, 'r');
  try {
    const stamp = await files.fstat(descriptor, { bigint: true });
    if (Number(stamp.size) !== size) return undefined;
    const file = new WeightFile(path, stamp);
    const bytes = await readRanges(descriptor, path, size, between(left, size));
    const same =
      (await inTurns(keptOf(bytes, [...left, ...seen]))) === content.kept &&
      (await inTurns(seenOf(bytes, seen))) === content.ofSeen;
    return same && file.isSame() ? { file, bytes, left: new Set(left.map(([offset]) => offset)) } : undefined;
  } finally {
    await files.close(descriptor);
  }
}

/** What is not in `ranges`, as beginnings and ends. */
function between(ranges: Ranges, size: number): [from: number, end: number][] {
  const found: [number, number][] = [];
  let from = 0;
  for (const [offset, bytes] of ranges.toSorted(([a], [b]) => a - b)) {
    found.push([from, offset]);
    from = offset + bytes;
  }
  return [...found, [from, size]];
}

const keptOf = (bytes: Uint8Array, large: Ranges) =>
  digesting(between(large, bytes.length).map(([from, end]) => bytes.subarray(from, end)));

const seenOf = (bytes: Uint8Array, seen: Ranges) =>
  digesting(seen.map(([offset, length]) => bytes.subarray(offset, offset + length)));

function firstLayerOf(shape: FirstLayer['shape'], arrays: readonly Uint8Array[]): FirstLayer {
  const [weights, mean, variance] = arrays.map((array) => array.slice().buffer);
  return {
    weights: new Float32Array(weights!),
    shape,
    mean: new Float64Array(mean!),
    ...(variance && { variance: new Float64Array(variance) }),
  };
}

/** Reads the file as without a cache, and writes entries as programs are made. */
async function made(path: string, place: Place): Promise<Network> {
  let read: Read | undefined;
  const open = await loadNetwork(path, place.reading, {
    identified: () => false,
    onRead: async ({ file, bytes, unread }) => {
      const kept = await inTurns(keptOf(bytes, [...unread]));
      read = { file, content: { size: bytes.length, kept, left: [...unread], seen: [], ofSeen: '' } };
    },
  });
  // What follows a program depends on each run, and what lies in other files may change without the model's own.
  if (!read || open.staged || open.model.external.length > 0) return open;
  return new StoredNetwork(place, open, { ...read, open });
}

/** What was read of a model's file. */
interface Read {
  readonly file: WeightFile;
  readonly content: Content;
  /** If its entry is there. */
  readonly weights?: Weights;
  /** If its graph was decoded. */
  readonly open?: OpenNetwork;
}

class StoredNetwork implements Network {
  readonly model: ModelFacts;
  readonly mayHaveExits: boolean;
  readonly #constants = new Constants();
  readonly #file: WeightFile;
  readonly #weights: Weights | undefined;
  /** Of the model's entry. */
  #content: Content;
  #isWritten: boolean;
  #open: OpenNetwork | undefined;

  constructor(
    private readonly place: Place,
    { model, mayHaveExits }: Pick<Network, 'model' | 'mayHaveExits'>,
    { file, content, weights, open }: Read,
  ) {
    this.model = model;
    this.mayHaveExits = mayHaveExits;
    this.#file = file;
    this.#content = content;
    this.#weights = weights;
    this.#isWritten = weights !== undefined;
    this.#open = open;
  }

  *compiling(binding: Binding): Sliced<Program> {
    const name = this.#nameOf(binding);
    const known = name && this.#find(name);
    if (known) return known;
    const { location, reading } = this.place;
    const opened = this.#open ?? (yield* reloadNetwork(location, this.#file, reading));
    // Two lengths may have been asked for at once.
    this.#open ??= opened;
    const program = this.#constants.adopted(yield* this.#open.compiling(binding));
    try {
      if (name) yield* this.#keep(name, program, this.#open);
    } catch {
      // Nothing is kept. If the file has changed, packing its weights finds out.
    }
    return program;
  }

  /** Undefined where elements count as well. */
  #nameOf(binding: Binding): string | undefined {
    const shapes: unknown[] = [];
    for (const [name, { shape, dtype, data }] of binding) {
      if (data) return undefined;
      shapes.push([name, shape, dtype]);
    }
    return `${this.place.name}-${hexOf(shapes)}`;
  }

  #find(name: string): Program | undefined {
    const weights = this.#weights;
    const bytes = weights && this.place.folder.read(name);
    if (!bytes) return undefined;
    try {
      const entry = decodeEntry(bytes);
      if (!entry) return undefined;
      const { of, program } = entry.data as KeptProgram;
      if (of !== hexOf(this.#content)) return undefined;
      return this.#constants.decode({ data: program, arrays: entry.arrays }, weights);
    } catch {
      // It is written again.
      return undefined;
    }
  }

  *#keep(name: string, program: Program, open: OpenNetwork): Sliced<void> {
    const { folder } = this.place;
    yield* this.#note(open);
    const names = folder.list(`${this.place.name}-`);
    if (names.length >= MOST_PROGRAMS && !names.includes(name)) return;
    const { data, arrays } = this.#constants.encode(program);
    const kept: KeptProgram = { of: hexOf(this.#content), program: data };
    folder.write(name, encodeEntry({ data: kept, arrays }));
  }

  /** Writes the model's entry, unless it is there. Programs of another one are removed. */
  *#note({ own, mayHaveExits, unseen }: OpenNetwork): Sliced<void> {
    const offsets = unseen();
    const { left, seen, ...rest } = this.#content;
    const leftNow = left.filter(([offset]) => offsets.has(offset));
    if (this.#isWritten && leftNow.length === left.length) return;
    const seenNow = [...seen, ...left.filter(([offset]) => !offsets.has(offset))];
    const ofSeen = yield* digesting(seenNow.map((range) => this.#read(range)));
    this.#content = { ...rest, left: leftNow, seen: seenNow, ofSeen };
    const { opset, metadata, inputs, outputs, batching, batchingReason, loweredItems, parameters } = own;
    const data: StoredModel = {
      content: this.#content,
      facts: {
        ...{ opset, metadata, inputs, outputs, batching, parameters },
        ...(batchingReason !== undefined && { batchingReason }),
        ...(loweredItems !== undefined && { loweredItems }),
      },
      mayHaveExits,
      ...(own.firstLayer && { firstLayer: own.firstLayer.shape }),
    };
    const { weights, mean, variance } = own.firstLayer ?? {};
    const arrays = [weights, mean, variance].filter((array) => array !== undefined);
    const { folder, name } = this.place;
    for (const program of folder.list(`${name}-`)) folder.remove(program);
    folder.write(name, encodeEntry({ data, arrays }));
    this.#isWritten = true;
  }

  #read([offset, length]: Ranges[number]): Uint8Array {
    const bytes = new Uint8Array(length);
    this.#file.read(bytes, offset);
    return bytes;
  }
}

/** The entry of a program. */
interface KeptProgram {
  /** What it was derived from: a digest of the content in the model's entry. */
  readonly of: string;
  readonly program: StoredProgram;
}
