import { constants } from 'node:fs';
import { access, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { kindOf } from '../data/files.js';
import { ResidualSkipError } from '../errors.js';

function unwritable(path: string, why: string, cause?: unknown): ResidualSkipError {
  return new ResidualSkipError('INVALID_ARGUMENT', `${path} can't be written: ${why}`, { cause });
}

/**
 * Refuses, before long work, what could not be written after it.
 * @throws INVALID_ARGUMENT when `path` is a folder, or lies in none that can be written
 */
export async function checkWritable(path: string): Promise<void> {
  if ((await kindOf(path)) === 'folder') throw unwritable(path, 'it is a folder');
  await access(dirname(path), constants.W_OK).catch((cause: unknown) => {
    throw unwritable(path, (cause as Error).message, cause);
  });
}

/** @throws INVALID_ARGUMENT */
export async function writeResult(path: string, text: string): Promise<void> {
  await writeFile(path, text).catch((cause: unknown) => {
    throw unwritable(path, (cause as Error).message, cause);
  });
}
