import { constants } from 'node:fs';
import { type FileHandle, open, realpath } from 'node:fs/promises';
import { isAbsolute, resolve, sep } from 'node:path';
import { codeOfReading, ResidualSkipError } from '../../errors.js';
import { isSameStamp, rereadable, type Source, type Stamp, WeightFile } from '../../tensor/recall.js';
import { allocate } from '../../tensor/tensor.js';
import type { Sliced } from '../../util/slices.js';
import type { Constant } from './graph.js';
import type { GraphProto, ModelProto, TensorProto } from './proto.js';
import { byteLengthOf } from './tensor-proto.js';
import { IN_PLACE, LARGE } from './without-weights.js';

const EXTERNAL = 1;

/** The bytes of tensors that are stored elsewhere than in the decoded model. */
export type ExternalData = ReadonlyMap<TensorProto, Uint8Array>;

/** What is stored in files beside the model. */
export interface External {
  readonly data: ExternalData;
  /** Parts that hold the elements of one array as they are used, by their memory. */
  readonly parts: ReadonlyMap<ArrayBufferLike, Part>;
  /** By their paths in the model's folder, in the order in which the model first names them. */
  readonly files: ReadonlyMap<string, WeightFile>;
  /** Whether different parts have bytes in common. */
  readonly overlap: boolean;
}

/** A part of a file that a tensor is. */
export interface Part extends Source {
  readonly bytes: Uint8Array;
  /** Element types of the tensors that it is. */
  readonly types: Set<number | undefined>;
  /** False if `bytes` is room for them. */
  isRead: boolean;
}

/** Parts of so many files may be left out: each stays open, and there may be one for each weight. */
const MOST_OPEN = 8;

/**
 * Reads the external tensor data of `model`. Files must lie in `folder`, the model's own; so must the targets of
 * symbolic links.
 * @param folder undefined when the model was given as bytes
 * @param leavesOut whether large weights are left in their files, as in the model's own, until `noteParts`
 * @throws ResidualSkipError EXTERNAL_DATA or READ_FAILED, naming tensor and file
 */
export async function readExternalData(
  model: ModelProto,
  folder: string | undefined,
  leavesOut = false,
): Promise<External> {
  const data = new Map<TensorProto, Uint8Array>();
  const files = new Map<string, OpenFile>();
  const parts = new Map<ArrayBufferLike, Part>();
  try {
    for (const tensor of tensorsOf(model.graph)) {
      if (tensor.dataLocation !== EXTERNAL) continue;
      const length = data.has(tensor) ? undefined : byteLengthOf(tensor);
      if (length === undefined) continue;
      const place = placeIn(tensor);
      const file = await openInside(tensor, place.location, folder, files);
      const part = partOf(tensor, length, place, file);
      const stays = addPart(tensor, part, data, parts) && leavesOut && file.number < MOST_OPEN;
      if (!stays && !part.isRead) await readPart(tensor, file, part);
    }
    for (const [location, file] of files) await requireWhole(location, file);
    // They may be moved or replaced from now on.
    const left = new Set([...parts.values()].flatMap(({ file, isRead }) => (isRead ? [] : [file])));
    for (const file of left) file.requireSame();
    const own = new Map([...files].map(([location, { file }]) => [location, file]));
    return { data, parts, files: own, overlap: [...files.values()].some(overlaps) };
  } finally {
    await Promise.all([...files.values()].map(({ handle }) => handle.close()));
  }
}

/**
 * The same of a model that was read before, on the calling thread. Large weights are left in their files.
 * @param files those of the model, by the paths that it names
 * @throws ResidualSkipError READ_FAILED when a file has changed since
 */
export function* readExternalAgain(
  model: ModelProto,
  files: ReadonlyMap<string, WeightFile>,
): Sliced<External> {
  const data = new Map<TensorProto, Uint8Array>();
  const parts = new Map<ArrayBufferLike, Part>();
  const known = new Map<string, PartsOfFile>();
  for (const tensor of tensorsOf(model.graph)) {
    if (tensor.dataLocation !== EXTERNAL) continue;
    const length = data.has(tensor) ? undefined : byteLengthOf(tensor);
    if (length === undefined) continue;
    const place = placeIn(tensor);
    const file = files.get(place.location) ?? fail(tensor, `'${place.location}' was no file of the model`);
    const own = known.get(place.location) ?? { file, size: file.size, parts: new Map(), taken: 0 };
    known.set(place.location, own);
    const part = partOf(tensor, length, place, own);
    const stays = addPart(tensor, part, data, parts);
    if (stays || part.isRead) continue;
    file.read(part.bytes, part.offset);
    part.isRead = true;
    yield;
  }
  return { data, parts, files, overlap: [...known.values()].some(overlaps) };
}

function overlaps({ parts }: PartsOfFile): boolean {
  const inOrder = [...parts.values()].sort((a, b) => a.offset - b.offset);
  return inOrder.some(({ offset, bytes }, i) => offset + bytes.length > (inOrder[i + 1]?.offset ?? Infinity));
}

/** @returns whether its elements may stay in the file */
function addPart(
  tensor: TensorProto,
  part: Part,
  data: Map<TensorProto, Uint8Array>,
  parts: Map<ArrayBufferLike, Part>,
): boolean {
  data.set(tensor, part.bytes);
  part.types.add(tensor.dataType);
  // Of several arrays in one memory, none may give it back.
  const alone = part.types.size === 1 && IN_PLACE.includes(tensor.dataType);
  if (alone) parts.set(part.bytes.buffer, part);
  else parts.delete(part.bytes.buffer);
  return alone && part.bytes.length >= LARGE;
}

/** What was read is one state of the file. */
async function requireWhole(location: string, { handle, stamp }: OpenFile): Promise<void> {
  if (isSameStamp(await handle.stat({ bigint: true }), stamp)) return;
  const problem = 'it changed while it was read; wait until it is written, and load the model again';
  throw new ResidualSkipError('READ_FAILED', `external data '${location}': ${problem}`);
}

interface PartsOfFile {
  readonly file: WeightFile;
  readonly size: number;
  /** By offset and length: several tensors may be the same part. */
  readonly parts: Map<string, Part>;
  /** Bytes of all parts. */
  taken: number;
}

interface OpenFile extends PartsOfFile {
  readonly handle: FileHandle;
  readonly stamp: Stamp;
  /** How many were opened before. */
  readonly number: number;
  readonly location: string;
}

/** Parts that overlap could take far more memory than the file has bytes: its bytes are taken this often at most. */
const MAX_TAKEN = 2;

export function tensorsOf({ initializer = [], node = [] }: GraphProto = {}): TensorProto[] {
  const found = [...initializer];
  for (let n = 0; n < node.length; n++) {
    const { attribute = [] } = node[n]!;
    for (let i = 0; i < attribute.length; i++) {
      const { t, g } = attribute[i]!;
      if (t) found.push(t);
      if (g) for (const tensor of tensorsOf(g)) found.push(tensor);
    }
  }
  return found;
}

function fail(tensor: TensorProto, problem: string, cause?: unknown): never {
  const message = `tensor '${tensor.name ?? ''}': ${problem}`;
  const options = cause === undefined ? undefined : { cause };
  throw new ResidualSkipError(codeOfReading(cause, 'EXTERNAL_DATA'), message, options);
}

/** Where a tensor says that its data is. */
interface Place {
  readonly location: string;
  readonly entries: ReadonlyMap<string, string>;
}

function placeIn(tensor: TensorProto): Place {
  const entries = new Map(tensor.externalData?.map(({ key = '', value = '' }) => [key, value]));
  const location = entries.get('location');
  return location ? { location, entries } : fail(tensor, 'its external data names no file (location)');
}

function partOf(tensor: TensorProto, needed: number, { location, entries }: Place, file: PartsOfFile): Part {
  const offset = integer(tensor, 'offset', entries.get('offset') ?? '0');
  const length = integer(tensor, 'length', entries.get('length') ?? String(needed));
  if (length !== needed) {
    fail(tensor, `its part of '${location}' has ${length} bytes; its shape and type need ${needed}`);
  }
  if (offset + length > file.size) {
    fail(
      tensor,
      `'${location}' has ${file.size} bytes; the tensor needs bytes ${offset} to ${offset + length}`,
    );
  }
  const key = `${offset} ${length}`;
  const known = file.parts.get(key);
  if (known) return known;
  file.taken += length;
  if (file.taken > MAX_TAKEN * file.size) {
    fail(
      tensor,
      `tensors overlap in '${location}': together they have more than twice its ${file.size} bytes`,
    );
  }
  const bytes = allocate('uint8', length) as Uint8Array;
  const part: Part = { file: file.file, offset, bytes, types: new Set(), isRead: false };
  file.parts.set(key, part);
  return part;
}

async function readPart(tensor: TensorProto, { handle, location }: OpenFile, part: Part): Promise<void> {
  const { bytes, offset } = part;
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await handle
      .read(bytes, done, bytes.length - done, offset + done)
      .catch((error) => unreadable(tensor, location, error));
    if (bytesRead === 0) fail(tensor, `'${location}' became shorter while it was read`);
    done += bytesRead;
  }
  part.isRead = true;
}

function integer(tensor: TensorProto, key: string, text: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value))
    fail(tensor, `its external data has the ${key} '${text}'; expected a non-negative integer`);
  return value;
}

async function openInside(
  tensor: TensorProto,
  location: string,
  folder: string | undefined,
  files: Map<string, OpenFile>,
): Promise<OpenFile> {
  const known = files.get(location);
  if (known) return known;
  if (folder === undefined) {
    fail(
      tensor,
      `its data is in the file '${location}', but the model was given as bytes; load the model by its path`,
    );
  }
  let handle: FileHandle | undefined;
  try {
    const path =
      (await pathInside(location, folder)) ??
      fail(tensor, `'${location}' lies outside the model's folder; external data must be inside it`);
    // Non-blocking, so that a named pipe can't stop the load.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stamp = await handle.stat({ bigint: true });
    if (!stamp.isFile()) fail(tensor, `'${location}' is not a regular file`);
    const opened = { handle, stamp, file: new WeightFile(path, stamp) };
    const about = { location, number: files.size, size: Number(stamp.size) };
    const file = { ...opened, ...about, parts: new Map<string, Part>(), taken: 0 };
    files.set(location, file);
    return file;
  } catch (error) {
    await handle?.close();
    if (error instanceof ResidualSkipError) throw error;
    unreadable(tensor, location, error);
  }
}

/** Where a path in a folder leads to; undefined if that is outside of the folder. Rejects if nothing is there. */
export async function pathInside(location: string, folder: string): Promise<string | undefined> {
  if (isAbsolute(location) || location.includes('\0')) return undefined;
  const within = (base: string, path: string) =>
    path.startsWith(base.endsWith(sep) ? base : base + sep) && path !== base;
  if (!within(resolve(folder), resolve(folder, location))) return undefined;
  const [base, path] = await Promise.all([realpath(folder), realpath(resolve(folder, location))]);
  return within(base, path) ? path : undefined;
}

function unreadable(tensor: TensorProto, location: string, cause: unknown): never {
  fail(tensor, `'${location}' can't be read from the model's folder: ${(cause as Error).message}`, cause);
}

/**
 * Notes where the constants are whose memory is that of parts, and reads what was left out and is none of them.
 * @throws ResidualSkipError READ_FAILED when a file has changed
 */
export function noteParts(constants: Iterable<Constant>, parts: External['parts']): void {
  const noted = new Set<Part>();
  for (const { data } of constants) {
    const part = parts.get(data.buffer);
    if (!part || data.byteLength !== part.bytes.byteLength) continue;
    rereadable(data, part, !part.isRead);
    noted.add(part);
  }
  for (const part of parts.values()) {
    if (part.isRead || noted.has(part)) continue;
    part.file.read(part.bytes, part.offset);
    part.isRead = true;
  }
}
