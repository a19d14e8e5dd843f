/** A model on disk: where it is, its bytes, their hash, and its large weights without copies. */
import { createHash } from 'node:crypto';
import { close, fstat, open, read, readdir, stat } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { codeOfReading, ResidualSkipError } from '../../errors.js';
import { rereadable, WeightFile } from '../../tensor/recall.js';
import type { Sliced } from '../../util/slices.js';
import { nearNames } from '../../util/suggest.js';
import { parseStrict } from '../../util/validation.js';
import { type ExternalData, tensorsOf } from './external.js';
import type { Constant } from './graph.js';
import type { ModelProto, TensorProto } from './proto.js';
import { FLOAT, INT8, readWithoutWeights, readWithoutWeightsSync, UINT8 } from './without-weights.js';

/** Of `node:fs/promises`, which takes 1.5 ms to load, these are enough. */
export const files = {
  open: promisify(open),
  stat: promisify(stat),
  fstat: promisify(fstat),
  read: promisify(read),
  readdir: promisify(readdir),
  close: promisify(close),
};

/** Where a model and the files beside it are. */
export interface ModelLocation {
  /** The ONNX file. */
  readonly model: string;
  /** Where the files beside it are: its folder, or the one above if that is called onnx. */
  readonly folder: string;
  /** The policy that runs where no other is asked for: `policy.json`, if the model was named by its folder. */
  readonly policy?: string;
}

export interface ModelFile {
  readonly bytes: Uint8Array;
  /** Hex SHA-256 of the bytes; undefined if it wasn't asked for. */
  readonly sha256: string | undefined;
  readonly location: ModelLocation;
  readonly file: WeightFile;
  /** Large weights that `bytes` has room for, but doesn't hold: bytes by offset. */
  readonly unread: ReadonlyMap<number, number>;
}

/** Bytes to read and hash at a time: small enough for the event loop and the cache. */
const CHUNK = 4 << 20;

/** Smaller files are read as a whole: finding their weights takes longer than reading them. */
const LARGE_FILE = 1 << 22;

/**
 * Finds the model that a path names: the file itself, or of a folder its `model.onnx`, its `onnx/model.onnx` or its only
 * `.onnx` file. A folder's `policy.json` is part of the model; an ONNX file has no policy.
 * @returns undefined if nothing is there, or no ONNX file is in the folder
 * @throws ResidualSkipError MODEL_NOT_FOUND for a folder with several models, READ_FAILED
 */
export async function locateModel(path: string): Promise<ModelLocation | undefined> {
  const kind = await kindOf(path);
  if (kind === undefined) return undefined;
  const model = kind === 'file' ? path : await modelIn(path);
  if (model === undefined) return undefined;
  const own = dirname(model);
  const folder = basename(own) === 'onnx' ? dirname(own) : own;
  const policy = join(folder, 'policy.json');
  const hasPolicy = kind === 'folder' && (await kindOf(policy)) === 'file';
  return { model, folder, ...(hasPolicy && { policy }) };
}

/**
 * The same for a model that must be there.
 * @throws ResidualSkipError MODEL_NOT_FOUND, READ_FAILED, INVALID_ARGUMENT for what is no path
 */
export async function requireModel(path: string): Promise<ModelLocation> {
  if (typeof path !== 'string') parseStrict(z.string(), path, { subject: 'model' });
  const found = await locateModel(path);
  if (found) return found;
  const isFolder = (await kindOf(path)) === 'folder';
  const remote = isFolder ? undefined : await remoteWay(path);
  if (remote) throw new ResidualSkipError('MODEL_NOT_FOUND', remote);
  const problem = isFolder ? `folder ${path}: it holds no .onnx file` : `model ${path}: it doesn't exist`;
  const near = isFolder ? '' : await nearPath(path);
  const message = `${problem}; ${near}give the path of an ONNX file, or of a folder with one`;
  throw new ResidualSkipError('MODEL_NOT_FOUND', message);
}

/** What to do about a path that names something on the web; undefined for any other. */
async function remoteWay(path: string): Promise<string | undefined> {
  if (/^[a-z][a-z\d+.-]+:\/\//i.test(path)) {
    return `model ${path}: it is a URL, and models are read from files; download it (curl -LO ${path}) and give the path of the file`;
  }
  const isId = /^[\w.-]+\/[\w.-]+$/.test(path) && extname(path) !== '.onnx' && !path.startsWith('.');
  if (!isId || (await kindOf(dirname(path))) !== undefined) return undefined;
  return (
    `model ${path}: it doesn't exist; give the path of an ONNX file, or of a folder with one: if that is the name of a model on the ` +
    `Hugging Face hub, 'hf download ${path} --local-dir FOLDER' gets its files`
  );
}

/** "did you mean 'a'? " for a path whose folder has something of nearly that name; empty if it has nothing like it. */
async function nearPath(path: string): Promise<string> {
  const folder = dirname(path);
  const names = await files.readdir(folder).catch(() => []);
  const [near] = nearNames(basename(path), names);
  return near === undefined ? '' : `did you mean '${join(folder, near)}'? `;
}

async function modelIn(folder: string): Promise<string | undefined> {
  for (const candidate of [join(folder, 'model.onnx'), join(folder, 'onnx', 'model.onnx')]) {
    if ((await kindOf(candidate)) === 'file') return candidate;
  }
  const names = await files.readdir(folder).catch((error) => unreadable(`folder ${folder}`, error));
  const models: string[] = [];
  for (const name of names.sort()) {
    if (extname(name) === '.onnx' && (await kindOf(join(folder, name))) === 'file') models.push(name);
  }
  if (models.length > 1) {
    const message = `folder ${folder}: it holds several models (${models.join(', ')}); name one`;
    throw new ResidualSkipError('MODEL_NOT_FOUND', message);
  }
  return models[0] && join(folder, models[0]);
}

async function kindOf(path: string): Promise<'file' | 'folder' | undefined> {
  try {
    return (await files.stat(path)).isDirectory() ? 'folder' : 'file';
  } catch (error) {
    if (codeOfReading(error, 'MODEL_NOT_FOUND') === 'READ_FAILED') unreadable(`model ${path}`, error);
    return undefined;
  }
}

function unreadable(what: string, cause: unknown): never {
  const way = 'check the path, its permissions and how many files are open';
  const message = `${what}: it can't be read (${(cause as Error).message}); ${way}`;
  throw new ResidualSkipError(codeOfReading(cause, 'MODEL_NOT_FOUND'), message, { cause });
}

/**
 * Reads the model that `path` names, see `locateModel`. Reading and hashing overlap.
 * @param identified whether its hash is needed: it takes 0.8 ms for each MB, a quarter of the time of loading many networks
 * @throws ResidualSkipError MODEL_NOT_FOUND, READ_FAILED, OUT_OF_MEMORY
 */
export async function readModelFile(
  path: string,
  identified: (location: ModelLocation) => boolean = () => true,
): Promise<ModelFile> {
  const location = await requireModel(path);
  const { model } = location;
  try {
    // Not opened before that is known: opening a named pipe would wait for a writer.
    if (!(await files.stat(model)).isFile()) {
      const message = `model ${model}: it is not a regular file; give the path of an ONNX file, or of a folder with one`;
      throw new ResidualSkipError('MODEL_NOT_FOUND', message);
    }
    const descriptor = await files.open(model, 'r');
    try {
      return { ...(await readAll(descriptor, model, identified(location))), location };
    } finally {
      await files.close(descriptor);
    }
  } catch (error) {
    if (error instanceof ResidualSkipError || !isOfSystem(error)) throw error;
    return unreadable(`model ${model}`, error);
  }
}

/** Whether the operating system refused something. */
function isOfSystem(error: unknown): boolean {
  return typeof (error as NodeJS.ErrnoException).syscall === 'string';
}

async function readAll(
  descriptor: number,
  path: string,
  hashed: boolean,
): Promise<Omit<ModelFile, 'location'>> {
  const stamp = await files.fstat(descriptor, { bigint: true });
  const size = Number(stamp.size);
  const bytes = memoryFor(size, path);
  const file = new WeightFile(path, stamp);
  if (hashed) return { bytes, sha256: await readHashed(descriptor, bytes), file, unread: new Map() };
  const read = (from: number, end: number) => readRange(descriptor, bytes, from, end);
  const unread = size < LARGE_FILE ? new Map<number, number>() : await readWithoutWeights(bytes, read);
  if (size < LARGE_FILE) await read(0, size);
  if (!file.isSame()) {
    throw new ResidualSkipError(
      'READ_FAILED',
      `model ${path}: it changed while it was read; wait until it is written, and load it again`,
    );
  }
  return { bytes, sha256: undefined, file, unread };
}

/**
 * A file that was read before, on the calling thread.
 * @throws ResidualSkipError READ_FAILED when it has changed since
 */
export function readAgain(location: ModelLocation, file: WeightFile): ModelFile {
  const bytes = memoryFor(file.size, location.model);
  const read = (from: number, end: number) => file.read(bytes.subarray(from, end), from);
  const unread = file.size < LARGE_FILE ? new Map<number, number>() : readWithoutWeightsSync(bytes, read);
  if (file.size < LARGE_FILE) read(0, file.size);
  return { bytes, sha256: undefined, location, file, unread };
}

/** All bytes, and their hash. */
async function readHashed(descriptor: number, bytes: Uint8Array): Promise<string> {
  const hash = createHash('sha256');
  const read = async (from: number) => {
    const end = Math.min(from + CHUNK, bytes.length);
    await readRange(descriptor, bytes, from, end);
    return bytes.subarray(from, end);
  };
  let next = read(0);
  for (let at = 0; at < bytes.length; at += CHUNK) {
    const chunk = await next;
    next = read(at + CHUNK);
    hash.update(chunk);
  }
  return hash.digest('hex');
}

/** Not from Buffer's pool: weights stay in this memory, which is freed as a whole. */
function memoryFor(size: number, path: string): Uint8Array {
  try {
    return Buffer.allocUnsafeSlow(size);
  } catch (cause) {
    const message = `model ${path}: there is no memory for its ${size} bytes; store its weights as external data`;
    throw new ResidualSkipError('OUT_OF_MEMORY', message, { cause });
  }
}

/**
 * Memory for a whole file, with some ranges of its bytes.
 * @throws ResidualSkipError READ_FAILED, OUT_OF_MEMORY
 */
export async function readRanges(
  descriptor: number,
  path: string,
  size: number,
  ranges: readonly (readonly [from: number, end: number])[],
): Promise<Uint8Array> {
  const bytes = memoryFor(size, path);
  for (const [from, end] of ranges) await readRange(descriptor, bytes, from, end);
  return bytes;
}

async function readRange(descriptor: number, bytes: Uint8Array, from: number, end: number): Promise<void> {
  for (let at = from; at < end; ) {
    const { bytesRead } = await files.read(descriptor, bytes, at, Math.min(end - at, CHUNK), at);
    if (bytesRead === 0) {
      const problem = 'the file became shorter while it was read; wait until it is written';
      throw new ResidualSkipError('READ_FAILED', `model: ${problem}, and load it again`);
    }
    at += bytesRead;
  }
}

/** Hex SHA-256 of a file's bytes. */
export function* hashed(bytes: Uint8Array): Sliced<string> {
  const hash = createHash('sha256');
  for (let at = 0; at < bytes.length; at += CHUNK) {
    hash.update(bytes.subarray(at, at + CHUNK));
    yield;
  }
  return hash.digest('hex');
}

/**
 * Smaller tensors are copied, which costs no more. A larger tensor is preceded by at least 3 bytes of its own: a tag
 * and a length.
 */
const IN_PLACE_BYTES = 1 << 12;

/**
 * Makes the large tensors of float32 and of bytes usable in place: moves the former by up to 3 bytes each, so that a
 * Float32Array can view it. This changes the file's bytes. Weights that weren't read stay so; what is none is read now.
 * @param model decoded from bytes that nothing else uses
 * @returns the tensors in place
 */
export function* alignInPlace(model: ModelProto, file?: ModelFile): Sliced<ExternalData> {
  const placed = new Map<TensorProto, Uint8Array>();
  for (const tensor of tensorsOf(model.graph)) {
    const { rawData, dataType } = tensor;
    if (!rawData || rawData.byteLength < IN_PLACE_BYTES) continue;
    const offset = file ? rawData.byteOffset - file.bytes.byteOffset : 0;
    const unread = file?.unread.has(offset);
    if (dataType === UINT8 || dataType === INT8) placed.set(tensor, rawData);
    else if (dataType !== FLOAT && unread) file!.file.read(rawData, offset);
    if (dataType !== FLOAT) continue;
    // Each call of a function holds the same tensors: what was moved once stays there.
    if (placed.has(tensor)) continue;
    const { buffer, byteOffset, byteLength } = rawData;
    const start = byteOffset - (byteOffset % Float32Array.BYTES_PER_ELEMENT);
    const aligned = new Uint8Array(buffer, start, byteLength);
    if (!unread) {
      aligned.set(rawData);
      yield;
    }
    placed.set(tensor, aligned);
  }
  return placed;
}

/**
 * Notes where in the file the constants are whose memory is the file's.
 * @param aligned what alignInPlace returned
 */
export function noteOffsets(
  constants: Iterable<Constant>,
  aligned: ExternalData,
  { bytes, file, unread }: ModelFile,
): void {
  const offsets = new Map<number, number>();
  for (const [{ rawData }, { byteOffset }] of aligned)
    offsets.set(byteOffset, rawData!.byteOffset - bytes.byteOffset);
  for (const { data } of constants) {
    const offset = data.buffer === bytes.buffer ? offsets.get(data.byteOffset) : undefined;
    if (offset !== undefined) rereadable(data, { file, offset }, unread.has(offset));
  }
}
