/**
 * Inputs of recorded items, stored beside their log: inputs/DAY/HASH, a line of JSON that describes the tensors, and then their bytes.
 * An input that comes again the same day is stored once.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { mkdir, opendir, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { TensorMap } from '../skip/observer.js';
import { Tensor } from '../tensor/tensor.js';
import { ARRAY_OF, checkType, type TensorData } from '../tensor/tensor-data.js';
import { late } from '../util/late.js';
import { hashItem } from './hash.js';
import type { ReplayItem } from './replay.js';
import { INPUTS } from './rotated.js';

/** Most bytes that may wait for a slow disk; further inputs are lost instead of filling the memory. */
const MAX_WAITING = 2 ** 26;
/** Writes at a time. */
const WRITERS = 4;
/** Most hashes of stored inputs to remember. */
const KNOWN = 2 ** 16;

/** An input to store: the data of its tensors, in name order, and what they were in their batch. */
export interface StoredInput {
  readonly hash: string;
  readonly inputs: TensorMap;
  readonly items: number;
  readonly data: readonly TensorData[];
}

interface Waiting {
  readonly day: string;
  readonly hash: string;
  readonly bytes: Uint8Array;
}

export class InputStore {
  readonly #folder: string;
  #waiting: Waiting[] = [];
  readonly #underway = new Set<Waiting>();
  #bytes = 0;
  #idle: (() => void)[] = [];
  readonly #stored = new Set<string>();
  #day = '';

  /**
   * @param log path of the log
   * @param failed called with each input that could not be stored
   */
  constructor(
    log: string,
    private readonly failed: (error: Error) => void,
  ) {
    this.#folder = folderOf(log);
  }

  save(input: StoredInput): void {
    const day = new Date().toISOString().slice(0, 10);
    if (day !== this.#day || this.#stored.size >= KNOWN) this.#stored.clear();
    this.#day = day;
    const { hash } = input;
    if (this.#stored.has(hash)) return;
    if (this.#bytes > MAX_WAITING) {
      this.failed(new Error('the disk is slower than the stream'));
      return;
    }
    this.#stored.add(hash);
    const bytes = encode(input);
    this.#bytes += bytes.length;
    this.#waiting.push({ day, hash, bytes });
    if (this.#underway.size < WRITERS) void this.#write();
  }

  /** Resolves when everything is written. */
  async settled(): Promise<void> {
    while (this.#underway.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Writes what waits, for a process that ends: without the event loop. */
  saveNow(): void {
    for (const { day, hash, bytes } of [...this.#underway, ...this.#waiting.splice(0)]) {
      const name = join(this.#folder, day, hash);
      try {
        mkdirSync(dirname(name), { recursive: true });
        writeFileSync(`${name}.tmp`, bytes);
        renameSync(`${name}.tmp`, name);
      } catch (error) {
        this.failed(error as Error);
      }
    }
  }

  async #write(): Promise<void> {
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      const { day, hash, bytes } = next;
      this.#underway.add(next);
      const name = join(this.#folder, day, hash);
      try {
        await mkdir(dirname(name), { recursive: true });
        await writeFile(`${name}.tmp`, bytes);
        await rename(`${name}.tmp`, name);
      } catch (error) {
        this.#stored.delete(hash);
        this.failed(error as Error);
        await rm(`${name}.tmp`, { force: true }).catch(() => {});
      }
      this.#bytes -= bytes.length;
      this.#underway.delete(next);
    }
    if (this.#underway.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }
}

/** Where the inputs of a log are. */
function folderOf(log: string): string {
  return join(dirname(log), INPUTS);
}

/**
 * Removes the inputs of a log that were stored on days that ended before `time`, in milliseconds since 1970. One file at a time: a day may
 * have so many that the event loop, or the threads that files and images have in common, would be held up for seconds.
 */
export async function removeInputs(log: string, time: number): Promise<void> {
  const folder = folderOf(log);
  const last = new Date(time).toISOString().slice(0, 10);
  for (const day of daysIn(folder)) {
    if (day >= last) return;
    for await (const { name } of await opendir(join(folder, day)))
      await rm(join(folder, day, name), { force: true });
    await rmdir(join(folder, day));
  }
}

function daysIn(folder: string): string[] {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  return names.filter((name) => /^\d{4}-\d{2}-\d{2}$/.test(name)).sort();
}

function encode({ inputs, items, data }: StoredInput): Uint8Array {
  const ports = Object.keys(inputs)
    .sort()
    .map((name) => {
      const { type, dims } = inputs[name]!;
      return { name, type, dims: items > 1 && dims[0] === items ? [1, ...dims.slice(1)] : dims };
    });
  const bytes = data.map((part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  return Buffer.concat([Buffer.from(`${JSON.stringify(ports)}\n`), ...bytes]);
}

const portsSchema = late(() =>
  z.array(z.object({ name: z.string(), type: z.string(), dims: z.array(z.int().min(0)) })),
);

/** Reads stored inputs, of the log in a folder, by their hashes. Those that aren't there, or were changed, are left out. */
export function* storedInputs(folder: string, hashes: Iterable<string>): Generator<ReplayItem> {
  const inner = join(folder, INPUTS);
  const days = daysIn(inner).reverse();
  for (const hash of hashes) {
    for (const day of days) {
      const feeds = decode(join(inner, day, hash));
      if (!feeds || hashItem(feeds, 0, 1) !== hash) continue;
      yield { name: hash, feeds };
      break;
    }
  }
}

function decode(path: string): TensorMap | undefined {
  if (!existsSync(path)) return undefined;
  const bytes = readFileSync(path);
  const end = bytes.indexOf(10);
  try {
    let at = end + 1;
    const ports = portsSchema().parse(JSON.parse(bytes.toString('utf8', 0, end)));
    const tensors = ports.map(({ name, type, dims }): [string, Tensor] => {
      const TypedArray = ARRAY_OF[checkType(type)];
      const byteLength = TypedArray.BYTES_PER_ELEMENT * dims.reduce((product, length) => product * length, 1);
      // A copy, whose address fits any type.
      const data = new TypedArray(Uint8Array.prototype.slice.call(bytes, at, at + byteLength).buffer);
      at += byteLength;
      return [name, new Tensor(type as 'float32', data as Float32Array, dims)];
    });
    return Object.fromEntries(tensors);
  } catch {
    return undefined;
  }
}
