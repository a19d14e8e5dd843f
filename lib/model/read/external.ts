import { constants } from 'node:fs';
import { type FileHandle, open, realpath } from 'node:fs/promises';
import { isAbsolute, resolve, sep } from 'node:path';
import { codeOfReading, ResidualSkipError } from '../../errors.js';
import { isSameStamp, type Stamp, WeightFile } from '../../tensor/recall.js';
import { allocate } from '../../tensor/tensor.js';
import type { GraphProto, ModelProto, TensorProto } from './proto.js';
import { byteLengthOf } from './tensor-proto.js';

const EXTERNAL = 1;

/** The bytes of tensors that are stored elsewhere than in the decoded model. */
export type ExternalData = ReadonlyMap<TensorProto, Uint8Array>;

/** What is stored in files beside the model. */
export interface External {
  readonly data: ExternalData;
  /** By their paths in the model's folder, in the order in which the model first names them. */
  readonly files: ReadonlyMap<string, WeightFile>;
}

/**
 * Reads the external tensor data of `model`. Files must lie in `folder`, the model's own; so must the targets of
 * symbolic links.
 * @param folder undefined when the model was given as bytes
 * @throws ResidualSkipError EXTERNAL_DATA or READ_FAILED, naming tensor and file
 */
export async function readExternalData(model: ModelProto, folder: string | undefined): Promise<External> {
  const data = new Map<TensorProto, Uint8Array>();
  const files = new Map<string, OpenFile>();
  try {
    for (const tensor of tensorsOf(model.graph)) {
      if (tensor.dataLocation !== EXTERNAL) continue;
      const length = data.has(tensor) ? undefined : byteLengthOf(tensor);
      if (length !== undefined) data.set(tensor, await readTensor(tensor, length, folder, files));
    }
    for (const [location, file] of files) await requireWhole(location, file);
    return { data, files: new Map([...files].map(([location, { file }]) => [location, file])) };
  } finally {
    await Promise.all([...files.values()].map(({ handle }) => handle.close()));
  }
}

/** What was read is one state of the file. */
async function requireWhole(location: string, { handle, stamp }: OpenFile): Promise<void> {
  if (isSameStamp(await handle.stat({ bigint: true }), stamp)) return;
  const problem = 'it changed while it was read; wait until it is written, and load the model again';
  throw new ResidualSkipError('READ_FAILED', `external data '${location}': ${problem}`);
}

interface OpenFile {
  readonly handle: FileHandle;
  readonly file: WeightFile;
  readonly stamp: Stamp;
  readonly size: number;
  /** What was read of it, by offset and length: several tensors may be the same part. */
  readonly parts: Map<string, Uint8Array>;
  /** Bytes of all parts. */
  read: number;
}

/** Parts that overlap could take far more memory than the file has bytes: a file is read this often at most. */
const MAX_READS = 2;

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

async function readTensor(
  tensor: TensorProto,
  needed: number,
  folder: string | undefined,
  files: Map<string, OpenFile>,
): Promise<Uint8Array> {
  const entries = new Map(tensor.externalData?.map(({ key = '', value = '' }) => [key, value]));
  const location = entries.get('location');
  if (!location) fail(tensor, 'its external data names no file (location)');
  if (folder === undefined) {
    fail(
      tensor,
      `its data is in the file '${location}', but the model was given as bytes; load the model by its path`,
    );
  }
  const file = await openInside(tensor, location, folder, files);
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
  const part = `${offset} ${length}`;
  const known = file.parts.get(part);
  if (known) return known;
  file.read += length;
  if (file.read > MAX_READS * file.size) {
    fail(
      tensor,
      `tensors overlap in '${location}': together they have more than twice its ${file.size} bytes`,
    );
  }
  const bytes = allocate('uint8', length) as Uint8Array;
  file.parts.set(part, bytes);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.handle
      .read(bytes, done, length - done, offset + done)
      .catch((error) => unreadable(tensor, location, error));
    if (bytesRead === 0) fail(tensor, `'${location}' became shorter while it was read`);
    done += bytesRead;
  }
  return bytes;
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
  folder: string,
  files: Map<string, OpenFile>,
): Promise<OpenFile> {
  const known = files.get(location);
  if (known) return known;
  const outside = `'${location}' lies outside the model's folder; external data must be inside it`;
  if (isAbsolute(location) || location.includes('\0')) fail(tensor, outside);
  const within = (base: string, path: string) =>
    path.startsWith(base.endsWith(sep) ? base : base + sep) && path !== base;
  if (!within(resolve(folder), resolve(folder, location))) fail(tensor, outside);
  let handle: FileHandle | undefined;
  try {
    const [base, path] = await Promise.all([realpath(folder), realpath(resolve(folder, location))]);
    if (!within(base, path)) fail(tensor, outside);
    // Non-blocking, so that a named pipe can't stop the load.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stamp = await handle.stat({ bigint: true });
    if (!stamp.isFile()) fail(tensor, `'${location}' is not a regular file`);
    const opened = { handle, stamp, file: new WeightFile(path, stamp) };
    const file = { ...opened, size: Number(stamp.size), parts: new Map(), read: 0 };
    files.set(location, file);
    return file;
  } catch (error) {
    await handle?.close();
    if (error instanceof ResidualSkipError) throw error;
    unreadable(tensor, location, error);
  }
}

function unreadable(tensor: TensorProto, location: string, cause: unknown): never {
  fail(tensor, `'${location}' can't be read from the model's folder: ${(cause as Error).message}`, cause);
}
