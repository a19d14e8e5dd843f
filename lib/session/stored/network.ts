/**
 * A network whose programs are kept in a folder, so that the next session neither decodes nor lowers its graph. An entry is valid for the
 * bytes of the model's files that lowering may have looked at: all but large weights that were only packed, which each session reads from
 * them. Files with weights beside the model's own are treated as that, with all that is between the weights.
 */
import { dirname, resolve } from 'node:path';
import type { Program } from '../../model/program/program.js';
import { pathInside } from '../../model/read/external.js';
import { type ModelLocation, requireModel } from '../../model/read/file.js';
import type { FirstLayer } from '../../model/read/first-layer.js';
import type { Binding, ModelFacts } from '../../model/read/model.js';
import { FileIdentity, type WeightFile } from '../../tensor/recall.js';
import { inTurns, type Sliced } from '../../util/slices.js';
import { packageVersion } from '../../util/version.js';
import { overrideDimensions } from '../feeds.js';
import { loadNetwork, type Network, type OpenNetwork, type Reading, reloadNetwork } from '../network.js';
import { Constants, type StoredProgram, type Weights } from './constants.js';
import { type Content, contentNow, contentOf, keptOf, weightsOf } from './content.js';
import { digestOf } from './digest.js';
import { decodeEntry, encodeEntry } from './entry.js';
import { Folder } from './folder.js';

/** Changes with the form of entries. */
const FORMAT = 2;
/** Programs of a model that are kept, such as those of texts of several lengths. */
const MOST_PROGRAMS = 32;
/** Files with weights beside the model's own, all of which stay open, and the bytes of each: entries of more would save little. */
const [MOST_FILES, MOST_BYTES] = [8, 2 ** 31];

type Facts = Omit<ModelFacts, 'sha256' | 'identify' | 'location' | 'external' | 'firstLayer'>;

interface StoredModel {
  /** Of its own file, and of those with weights of it. */
  readonly contents: readonly Content[];
  /** Paths of the latter, as the model names them. */
  readonly external: readonly string[];
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
  const { contents, external, facts, mayHaveExits, firstLayer } = entry.data as StoredModel;
  const read: Weights[] = [];
  for (const [i, content] of contents.entries()) {
    const { model } = location;
    const path = i === 0 ? model : await pathInside(external[i - 1]!, dirname(model));
    const weights = path === undefined ? undefined : await weightsOf(path, content);
    if (!weights) return undefined;
    read.push(weights);
  }
  const identity = new FileIdentity(read.map(({ file }) => file));
  const model: ModelFacts = {
    get sha256() {
      return identity.sha256;
    },
    identify: () => identity.identify(),
    location,
    external,
    ...facts,
    firstLayer: firstLayer && firstLayerOf(firstLayer, entry.arrays),
  };
  const network = { model: overrideDimensions(model, reading.overrides ?? {}), mayHaveExits };
  return new StoredNetwork(
    place,
    network,
    read.map(({ file }) => file),
    contents,
    { weights: read },
  );
}

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
  let own: { readonly file: WeightFile; readonly content: Content } | undefined;
  const open = await loadNetwork(path, place.reading, {
    identified: () => false,
    onRead: async ({ file, bytes, unread }) => {
      const kept = await inTurns(keptOf(bytes, [...unread]));
      own = { file, content: { size: bytes.length, kept, left: [...unread], seen: [], ofSeen: '' } };
    },
  });
  const { externalFiles, externalOverlap } = open.own;
  const tooLarge = [...externalFiles.values()].some(({ size }) => size > MOST_BYTES);
  // What follows a program depends on each run. A weight of which other tensors are parts is never left alone.
  if (!own || open.staged || externalFiles.size > MOST_FILES || tooLarge || externalOverlap) return open;
  const files = [...externalFiles.values()];
  try {
    const unseen = open.unseen();
    const contents = [own.content];
    for (const file of files) contents.push(await inTurns(contentOf(file, unseen.get(file))));
    return new StoredNetwork(place, open, [own.file, ...files], contents, { open });
  } catch {
    // One has changed. If its weights are needed again, packing finds out.
    return open;
  }
}

class StoredNetwork implements Network {
  readonly model: ModelFacts;
  readonly mayHaveExits: boolean;
  readonly #constants: Constants;
  /** Of the files, if the entry was there. */
  readonly #weights: readonly Weights[] | undefined;
  #isWritten: boolean;
  #open: OpenNetwork | undefined;

  constructor(
    private readonly place: Place,
    { model, mayHaveExits }: Pick<Network, 'model' | 'mayHaveExits'>,
    /** The model's own, and those with weights of it. */
    private readonly files: readonly WeightFile[],
    /** Of each file, as in the model's entry. */
    private contents: readonly Content[],
    /** What was read: the entry, or the graph. */
    { weights, open }: { readonly weights?: readonly Weights[]; readonly open?: OpenNetwork },
  ) {
    this.model = model;
    this.mayHaveExits = mayHaveExits;
    this.#constants = new Constants(files);
    this.#weights = weights;
    this.#isWritten = weights !== undefined;
    this.#open = open;
  }

  *compiling(binding: Binding): Sliced<Program> {
    const name = this.#nameOf(binding);
    const known = name && this.#find(name);
    if (known) return known;
    const { location, reading } = this.place;
    const [own, ...others] = this.files;
    const external = new Map(this.model.external.map((path, i) => [path, others[i]!]));
    const opened = this.#open ?? (yield* reloadNetwork(location, own!, external, reading));
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
      if (of !== hexOf(this.contents)) return undefined;
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
    const kept: KeptProgram = { of: hexOf(this.contents), program: data };
    folder.write(name, encodeEntry({ data: kept, arrays }));
  }

  /** Writes the model's entry, unless it is there. Programs of another one are removed. */
  *#note({ own, mayHaveExits, unseen }: OpenNetwork): Sliced<void> {
    const left = unseen();
    const isLeft = (at: number) => (offset: number) => left.get(this.files[at]!)?.has(offset) === true;
    const isSame = (content: Content, at: number) => content.left.every(([offset]) => isLeft(at)(offset));
    if (this.#isWritten && this.contents.every(isSame)) return;
    const contents: Content[] = [];
    for (const [at, file] of this.files.entries())
      contents.push(yield* contentNow(file, this.contents[at]!, isLeft(at)));
    this.contents = contents;
    const { opset, metadata, inputs, outputs, batching, batchingReason, loweredItems, parameters } = own;
    const data: StoredModel = {
      contents,
      external: own.external,
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
}

/** The entry of a program. */
interface KeptProgram {
  /** What it was derived from: a digest of the content in the model's entry. */
  readonly of: string;
  readonly program: StoredProgram;
}
