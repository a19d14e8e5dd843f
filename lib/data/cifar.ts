import { readFile, stat } from 'node:fs/promises';
import { ResidualSkipError } from '../errors.js';
import type { RawImage } from './image.js';
import { type DataLimits, MAX_BYTES } from './limits.js';

const SIDE = 32;
const PIXELS = SIDE * SIDE;
const CHANNELS = 3;
/** Bytes of a record: a label, then the red, green and blue planes, row by row. */
const RECORD = 1 + CHANNELS * PIXELS;

/** Names of CIFAR-10's binary batches. */
export const CIFAR_BATCH = /^(data_batch_\d+|test_batch)\.bin$/;

/** One labelled image of a batch. */
export interface CifarImage {
  readonly label: number;
  decode(): RawImage;
}

/**
 * Reads one of CIFAR-10's binary batches (Krizhevsky 2009; records of a label and 3x32x32 bytes).
 * @throws INVALID_DATA unless the file holds whole records, at least one
 */
export async function readCifarBatch(
  file: string,
  { maxBytes = MAX_BYTES }: DataLimits = {},
): Promise<readonly CifarImage[]> {
  const size = (await stat(file).catch(() => undefined))?.size ?? 0;
  if (size > maxBytes) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `CIFAR-10 batch ${file}: it has ${size} bytes, more than the limit of ${maxBytes} (maxBytes, --max-bytes)`,
    );
  }
  const bytes = await readFile(file).catch((cause: unknown) => {
    throw new ResidualSkipError('INVALID_DATA', `CIFAR-10 batch ${file}: it can't be read`, { cause });
  });
  if (bytes.length === 0 || bytes.length % RECORD !== 0) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `CIFAR-10 batch ${file}: it has ${bytes.length} bytes, which is not a multiple of the ${RECORD} bytes of a record`,
    );
  }
  return Array.from({ length: bytes.length / RECORD }, (_, i) => {
    const record = bytes.subarray(i * RECORD, (i + 1) * RECORD);
    return { label: record[0]!, decode: () => interleave(record.subarray(1)) };
  });
}

function interleave(planes: Uint8Array): RawImage {
  const data = new Uint8Array(planes.length);
  for (let channel = 0; channel < CHANNELS; channel++) {
    for (let i = 0; i < PIXELS; i++) data[i * CHANNELS + channel] = planes[channel * PIXELS + i]!;
  }
  return { width: SIDE, height: SIDE, channels: CHANNELS, data };
}
