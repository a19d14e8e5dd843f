import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { createGunzip } from 'node:zlib';
import { ResidualSkipError } from '../errors.js';
import { sizeOf } from '../numeric/shapes.js';
import { type DataLimits, MAX_BYTES } from './limits.js';

const UNSIGNED_BYTE = 0x08;
const GZIP = [0x1f, 0x8b];

/** An array of unsigned bytes from an IDX file. */
export interface IdxArray {
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/**
 * Reads an IDX file (the format of MNIST: two zero bytes, element type, rank, big-endian lengths, elements), plain or
 * gzipped, which its first bytes decide. Unpacking stops at the length that the header declares.
 * @throws INVALID_DATA unless the file holds exactly the unsigned bytes that its header declares, within the limit
 */
export async function readIdx(file: string, { maxBytes = MAX_BYTES }: DataLimits = {}): Promise<IdxArray> {
  const invalid = (why: string) => new ResidualSkipError('INVALID_DATA', `IDX file ${file}: it ${why}`);
  let head = Buffer.alloc(0);
  let array: (IdxArray & { filled: number }) | undefined;
  try {
    for await (const chunk of chunksOf(file)) {
      let rest = chunk;
      if (!array) {
        head = Buffer.concat([head, chunk]);
        const header = readHeader(head, invalid);
        if (!header) continue;
        const elements = sizeOf(header.shape);
        if (elements > maxBytes) {
          const promised = `${header.shape.join('x')} = ${elements} elements`;
          throw invalid(
            `declares ${promised}, more than the limit of ${maxBytes} bytes (maxBytes, --max-bytes)`,
          );
        }
        array = { shape: header.shape, data: new Uint8Array(elements), filled: 0 };
        rest = head.subarray(header.bytes);
      }
      const { data, shape, filled } = array;
      if (filled + rest.length > data.length) {
        throw invalid(`declares ${shape.join('x')} = ${data.length} elements but holds more`);
      }
      data.set(rest, filled);
      array.filled += rest.length;
    }
  } catch (cause) {
    if (cause instanceof ResidualSkipError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ResidualSkipError('INVALID_DATA', `IDX file ${file}: it can't be read (${reason})`, { cause });
  }
  if (!array) throw invalid(head.length < 4 ? "doesn't begin with an IDX header" : 'ends within its header');
  const { shape, data, filled } = array;
  if (filled < data.length) {
    throw invalid(`declares ${shape.join('x')} = ${data.length} elements but holds ${filled}`);
  }
  return { shape, data };
}

/** The shape, and the length of the header; undefined if `head` doesn't hold the whole header yet. */
function readHeader(
  head: Buffer,
  invalid: (why: string) => Error,
): { readonly shape: readonly number[]; readonly bytes: number } | undefined {
  if (head.length < 4) return undefined;
  if (head[0] !== 0 || head[1] !== 0) throw invalid("doesn't begin with an IDX header");
  if (head[2] !== UNSIGNED_BYTE) {
    const type = head[2]!.toString(16).padStart(2, '0');
    throw invalid(`has elements of type 0x${type}; expected unsigned bytes (0x08)`);
  }
  const rank = head[3]!;
  if (rank === 0) throw invalid('ends within its header');
  const bytes = 4 + 4 * rank;
  if (head.length < bytes) return undefined;
  return { bytes, shape: Array.from({ length: rank }, (_, axis) => head.readUInt32BE(4 + 4 * axis)) };
}

async function* chunksOf(file: string): AsyncGenerator<Buffer> {
  const handle = await open(file);
  let gzipped: boolean;
  try {
    const { buffer } = await handle.read({ buffer: Buffer.alloc(2), position: 0 });
    gzipped = GZIP.every((byte, i) => buffer[i] === byte);
  } finally {
    await handle.close();
  }
  const stream = createReadStream(file);
  if (!gzipped) {
    yield* stream;
    return;
  }
  const unzipped = createGunzip();
  stream.on('error', (error) => unzipped.destroy(error));
  try {
    yield* stream.pipe(unzipped);
  } finally {
    stream.destroy();
  }
}
