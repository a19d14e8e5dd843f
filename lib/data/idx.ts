import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { ResidualSkipError } from '../errors.js';

const unzip = promisify(gunzip);
const MAX_BYTES = 2 ** 31 - 1;
const UNSIGNED_BYTE = 0x08;

/** An array of unsigned bytes from an IDX file. */
export interface IdxArray {
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/**
 * Reads an IDX file (the format of MNIST: two zero bytes, element type, rank, big-endian lengths, elements),
 * plain or gzipped; which of the two is told from its first bytes.
 * @throws INVALID_DATA unless the file holds exactly the unsigned bytes that its header promises
 */
export async function readIdx(file: string): Promise<IdxArray> {
  const bytes = await readBytes(file);
  const invalid = (why: string) => new ResidualSkipError('INVALID_DATA', `The IDX file ${file} ${why}`);
  if (bytes.length < 4 || bytes[0] !== 0 || bytes[1] !== 0) throw invalid("doesn't begin with an IDX header");
  if (bytes[2] !== UNSIGNED_BYTE) {
    throw invalid(
      `has elements of type 0x${bytes[2]!.toString(16).padStart(2, '0')}; unsigned bytes (0x08) are read`,
    );
  }
  const rank = bytes[3]!;
  const start = 4 + 4 * rank;
  if (rank === 0 || bytes.length < start) throw invalid('ends within its header');
  const shape = Array.from({ length: rank }, (_, axis) => bytes.readUInt32BE(4 + 4 * axis));
  const elements = shape.reduce((product, length) => product * length, 1);
  if (elements !== bytes.length - start) {
    throw invalid(`promises ${shape.join('x')} = ${elements} elements but holds ${bytes.length - start}`);
  }
  return { shape, data: bytes.subarray(start) };
}

async function readBytes(file: string): Promise<Buffer> {
  try {
    const bytes = await readFile(file);
    const gzipped = bytes[0] === 0x1f && bytes[1] === 0x8b;
    return gzipped ? await unzip(bytes, { maxOutputLength: MAX_BYTES }) : bytes;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ResidualSkipError('INVALID_DATA', `The IDX file ${file} can't be read: ${reason}`, { cause });
  }
}
