/** A model file: its bytes, their hash, and its large weights without copies. */
import { createHash } from 'node:crypto';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ResidualSkipError } from '../../errors.js';
import type { Sliced } from '../../util/slices.js';
import { type ExternalData, tensorsOf } from './external.js';
import type { ModelProto, TensorProto } from './proto.js';

export interface ModelFile {
  readonly bytes: Uint8Array;
  /** Hex SHA-256 of the bytes. */
  readonly sha256: string;
  readonly path: string;
  readonly folder: string;
}

/** Bytes to read and hash at a time: small enough for the event loop and the cache. */
const CHUNK = 4 << 20;

/**
 * Reads the file at `path`, or the `model.onnx` of the folder there. Reading and hashing overlap.
 * @throws ResidualSkipError MODEL_NOT_FOUND
 */
export async function readModelFile(path: string): Promise<ModelFile> {
  try {
    const isFolder = (await stat(path)).isDirectory();
    const file = isFolder ? join(path, 'model.onnx') : path;
    if (!(await stat(file)).isFile()) throw new Error(`${file} is not a regular file`);
    const handle = await open(file);
    try {
      return { ...(await readHashed(handle)), path: file, folder: dirname(file) };
    } finally {
      await handle.close();
    }
  } catch (error) {
    const hint = 'give the path of an ONNX file or of the folder with its model.onnx';
    const message = `model '${path}': it can't be read (${(error as Error).message}); ${hint}`;
    throw new ResidualSkipError('MODEL_NOT_FOUND', message, { cause: error });
  }
}

async function readHashed(handle: FileHandle): Promise<{ bytes: Uint8Array; sha256: string }> {
  const { size } = await handle.stat();
  // Not from Buffer's pool: weights stay in this memory, which is freed as a whole.
  const bytes = Buffer.allocUnsafeSlow(size);
  const hash = createHash('sha256');
  let next = readChunk(handle, bytes, 0);
  for (let at = 0; at < size; at += CHUNK) {
    const chunk = await next;
    next = readChunk(handle, bytes, at + CHUNK);
    hash.update(chunk);
  }
  return { bytes, sha256: hash.digest('hex') };
}

async function readChunk(handle: FileHandle, bytes: Uint8Array, from: number): Promise<Uint8Array> {
  const end = Math.min(from + CHUNK, bytes.length);
  for (let at = from; at < end; ) {
    const { bytesRead } = await handle.read(bytes, at, end - at, at);
    if (bytesRead === 0) throw new Error('it became shorter while it was read');
    at += bytesRead;
  }
  return bytes.subarray(from, end);
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

const FLOAT = 1;
/**
 * Smaller tensors are copied, which costs no more. A larger tensor is preceded by at least 3 bytes of its own: a tag
 * and a length.
 */
const IN_PLACE_BYTES = 1 << 12;

/**
 * Makes the large float32 tensors of a decoded file usable in place: moves each by up to 3 bytes, so that a
 * Float32Array can view it. This changes the file's bytes.
 * @param model decoded from bytes that nothing else uses
 * @returns the tensors in place
 */
export function* alignInPlace(model: ModelProto): Sliced<ExternalData> {
  const placed = new Map<TensorProto, Uint8Array>();
  for (const tensor of tensorsOf(model.graph)) {
    const { rawData, dataType } = tensor;
    if (!rawData || dataType !== FLOAT || rawData.byteLength < IN_PLACE_BYTES) continue;
    // Each call of a function holds the same tensors: what was moved once stays there.
    if (placed.has(tensor)) continue;
    const { buffer, byteOffset, byteLength } = rawData;
    const start = byteOffset - (byteOffset % Float32Array.BYTES_PER_ELEMENT);
    const aligned = new Uint8Array(buffer, start, byteLength);
    aligned.set(rawData);
    yield;
    placed.set(tensor, aligned);
  }
  return placed;
}
