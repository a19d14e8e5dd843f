/** The bytes of an entry: a digest of what follows, the length of a text, the text, and arrays. The text is JSON. */
import type { TensorData } from '../../tensor/tensor.js';
import { digestOf } from './digest.js';

/** Plain data, and arrays that it counts. */
export interface Entry {
  readonly data: unknown;
  readonly arrays: readonly TensorData[];
}

/** One that was read: the bytes of each array, at a multiple of 8. */
export interface ReadEntry {
  readonly data: unknown;
  readonly arrays: readonly Uint8Array[];
}

interface Text {
  readonly data: unknown;
  /** Numbers that JSON doesn't have: where they are, and what they are. */
  readonly odd: readonly (readonly [path: readonly (string | number)[], number: string])[];
  /** Bytes of each array. */
  readonly bytes: readonly number[];
}

const DIGEST_BYTES = 32;
const HEAD_BYTES = DIGEST_BYTES + 8;

const padded = (bytes: number) => Math.ceil(bytes / 8) * 8;

export function encodeEntry({ data, arrays }: Entry): Uint8Array {
  const bytes = arrays.map(({ byteLength }) => byteLength);
  const text = Buffer.from(JSON.stringify({ data, odd: oddNumbers(data), bytes } satisfies Text));
  const size = HEAD_BYTES + padded(text.length) + bytes.reduce((sum, length) => sum + padded(length), 0);
  const encoded = new Uint8Array(size);
  new DataView(encoded.buffer).setUint32(DIGEST_BYTES, text.length, true);
  encoded.set(text, HEAD_BYTES);
  let at = HEAD_BYTES + padded(text.length);
  for (const { buffer, byteOffset, byteLength } of arrays) {
    encoded.set(new Uint8Array(buffer, byteOffset, byteLength), at);
    at += padded(byteLength);
  }
  encoded.set(digestOf(encoded.subarray(DIGEST_BYTES)));
  return encoded;
}

/** Undefined for bytes that aren't those of an entry, or not all of them. */
export function decodeEntry(encoded: Uint8Array): ReadEntry | undefined {
  if (encoded.length < HEAD_BYTES) return undefined;
  if (!digestOf(encoded.subarray(DIGEST_BYTES)).equals(encoded.subarray(0, DIGEST_BYTES))) return undefined;
  const { buffer, byteOffset } = encoded;
  const length = new DataView(buffer, byteOffset).getUint32(DIGEST_BYTES, true);
  const { data, odd, bytes } = JSON.parse(
    Buffer.from(buffer, byteOffset + HEAD_BYTES, length).toString(),
  ) as Text;
  for (const [path, number] of odd) putNumber(data, path, Number(number));
  let at = HEAD_BYTES + padded(length);
  const arrays = bytes.map((one) => {
    const array = encoded.subarray(at, at + one);
    at += padded(one);
    return array;
  });
  return { data, arrays };
}

function oddNumbers(data: unknown, path: readonly (string | number)[] = []): [typeof path, string][] {
  if (typeof data === 'number') {
    if (Object.is(data, -0)) return [[path, '-0']];
    return Number.isFinite(data) ? [] : [[path, String(data)]];
  }
  if (typeof data !== 'object' || data === null) return [];
  return Object.entries(data).flatMap(([key, value]) => oddNumbers(value, [...path, key]));
}

function putNumber(data: unknown, path: readonly (string | number)[], number: number): void {
  let at = data as Record<string | number, unknown>;
  for (const key of path.slice(0, -1)) at = at[key] as typeof at;
  at[path.at(-1)!] = number;
}
