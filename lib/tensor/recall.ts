/**
 * What can be read later of a model's file: its hash, and its weights. A backend packs copies of those, and reads them from the file for that:
 * large ones take no memory before, and give it back after. Who reads elements of a constant that may be large calls `recalled` before.
 */
import { createHash, type Hash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { ResidualSkipError } from '../errors.js';
import { atOnce, inTurns, type Sliced } from '../util/slices.js';
import type { TensorData } from './tensor-data.js';

/** Smaller arrays are not worth it, and vectors are read by many rules. */
const MIN_BYTES = 1 << 16;

/** What changes with a file's content. */
export interface Stamp {
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
}

/** Whether a file is what it was. */
export function isSameStamp(a: Stamp, b: Stamp): boolean {
  return a.ino === b.ino && a.size === b.size && a.mtimeNs === b.mtimeNs;
}

const closed = new FinalizationRegistry<number>(closeSync);

/** Bytes to hash at a time. */
const CHUNK = 1 << 20;

/** A file that stays open from when this first looks at it, so that it may be moved or replaced. */
export class WeightFile {
  #fd: number | undefined;

  constructor(
    private readonly path: string,
    private readonly stamp: Stamp,
  ) {}

  get size(): number {
    return Number(this.stamp.size);
  }

  get isOpen(): boolean {
    return this.#fd !== undefined;
  }

  /** Whether it is still what was read. */
  isSame(): boolean {
    try {
      if (this.#fd === undefined) {
        this.#fd = openSync(this.path, 'r');
        closed.register(this, this.#fd, this);
      }
      return isSameStamp(fstatSync(this.#fd, { bigint: true }), this.stamp);
    } catch {
      return false;
    }
  }

  /** From now on, it may not be replaced. A later look opens it again. */
  close(): void {
    if (this.#fd === undefined) return;
    closed.unregister(this);
    closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** @throws ResidualSkipError READ_FAILED when it has changed */
  requireSame(): void {
    if (!this.isSame()) this.#changed();
  }

  /**
   * Of the open file.
   * @throws ResidualSkipError READ_FAILED when it has changed
   */
  get descriptor(): number {
    this.requireSame();
    return this.#fd!;
  }

  /** @throws ResidualSkipError READ_FAILED when it has changed */
  read(data: TensorData, offset: number): void {
    this.#fill(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset);
    this.requireSame();
  }

  /**
   * Adds the file's bytes to a hash.
   * @throws ResidualSkipError READ_FAILED when it has changed
   */
  *addTo(hash: Hash): Sliced<void> {
    const { size } = this;
    const bytes = new Uint8Array(Math.min(CHUNK, size));
    for (let at = 0; at < size; at += CHUNK) {
      const chunk = bytes.subarray(0, size - at);
      this.#fill(chunk, at);
      hash.update(chunk);
      yield;
    }
    this.requireSame();
  }

  #fill(bytes: Uint8Array, offset: number): void {
    const fd = this.descriptor;
    for (let at = 0; at < bytes.length; ) {
      const read = readSync(fd, bytes, at, bytes.length - at, offset + at);
      if (read === 0) this.#changed();
      at += read;
    }
  }

  #changed(): never {
    throw new ResidualSkipError(
      'READ_FAILED',
      `model ${this.path}: it changed after it was loaded, and is needed again; create another session`,
    );
  }
}

/** The SHA-256 of a model's files: known from the start, or computed when it is first asked for. */
export class FileIdentity {
  readonly #files: readonly WeightFile[] = [];
  #known: string | undefined;
  #computing: Promise<string> | undefined;

  /** @param source the hash itself, or the files that are hashed, one behind the other: the model's own first */
  constructor(source: string | readonly WeightFile[]) {
    if (typeof source === 'string') this.#known = source;
    else this.#files = source;
  }

  /**
   * Hex; computed on the calling thread.
   * @throws ResidualSkipError READ_FAILED when the file has changed
   */
  get sha256(): string {
    this.#known ??= atOnce(hashing(this.#files));
    return this.#known;
  }

  /** The same, computed in turns with the event loop. */
  async identify(): Promise<string> {
    if (this.#known === undefined) {
      this.#computing ??= inTurns(hashing(this.#files));
      this.#known = await this.#computing;
    }
    return this.#known;
  }
}

function* hashing([own, ...others]: readonly WeightFile[]): Sliced<string> {
  const hash = createHash('sha256');
  yield* own!.addTo(hash);
  // There may be one for each weight, more than a process may have open.
  for (const file of others) {
    const stays = file.isOpen;
    yield* file.addTo(hash);
    if (!stays) file.close();
  }
  return hash.digest('hex');
}

/** Where the elements of an array are in a file. */
export interface Source {
  readonly file: WeightFile;
  readonly offset: number;
}

const sources = new WeakMap<TensorData, Source>();
const forgotten = new WeakSet<TensorData>();
/** Those whose elements nothing in this process has read. */
const unseen = new WeakSet<TensorData>();

/**
 * Says where the elements are in a file. Nothing but `recalled` may write to the array.
 * @param unread the array doesn't hold them yet
 */
export function rereadable(data: TensorData, source: Source, unread: boolean): void {
  sources.set(data, source);
  if (!unread) return;
  forgotten.add(data);
  unseen.add(data);
}

/** Where the elements are in a file, whether the array holds them or not; undefined if they aren't in one as they are. */
export function placeOf(data: TensorData): Source | undefined {
  return sources.get(data);
}

/** Whether nothing has looked at the elements, which are in the file alone; a backend may have packed them. */
export function isUnseen(data: TensorData): boolean {
  return unseen.has(data);
}

/** @param free gives back the memory of an array, whose elements are then lost; false if it can't */
export function forget(data: TensorData, free: (data: TensorData) => boolean): void {
  const source = data.byteLength < MIN_BYTES ? undefined : sources.get(data);
  if (source && !forgotten.has(data) && source.file.isSame() && free(data)) forgotten.add(data);
}

/** Where the elements are that the array doesn't hold; undefined if it holds them. */
export function sourceOf(data: TensorData): Source | undefined {
  return forgotten.has(data) ? sources.get(data) : undefined;
}

/**
 * The array, with its elements.
 * @throws ResidualSkipError READ_FAILED when they were given back, and the file has changed since
 */
export function recalled<T extends TensorData>(data: T): T {
  if (!forgotten.has(data)) return data;
  const { file, offset } = sources.get(data)!;
  file.read(data, offset);
  forgotten.delete(data);
  unseen.delete(data);
  return data;
}
