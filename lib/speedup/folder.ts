/** The folder of a ladder: its networks, its policy, and what lay beside the network or was given in its place. */
import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { findModel } from '../data/model-files.js';
import { codeOfWriting, ResidualSkipError } from '../errors.js';
import type { Speedup } from './speedup.js';

/** Files that belong to a network: preprocessing, labels, tokenizer and licence. */
const BESIDE = /^(preprocessor_config|config|tokenizer|tokenizer_config|special_tokens_map)\.json$|^LICENSE/;

/**
 * Writes the folder, which `InferenceSession.create`, the classifiers and all commands open. `policy.json` is written last.
 * @param model as given to `speedup`
 * @throws ResidualSkipError INVALID_ARGUMENT for a folder that holds something else already, or when no ladder was chosen; WRITE_FAILED
 */
export async function writeLadder(
  { calibration, files }: Speedup,
  model: string,
  folder: string,
): Promise<void> {
  if (!calibration) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      'writeLadder: no ladder was chosen, so there is none to write',
    );
  }
  await checkFolder(folder);
  const { folder: own } = await findModel(model);
  try {
    await mkdir(folder, { recursive: true });
    for (const name of await readdir(own))
      if (BESIDE.test(name)) await copyFile(join(own, name), join(folder, name));
    for (const [name, bytes] of files) {
      await mkdir(join(folder, dirname(name)), { recursive: true });
      await writeFile(join(folder, name), await bytes());
    }
    await writeFile(join(folder, 'policy.json'), `${JSON.stringify(calibration.policy, null, 2)}\n`);
  } catch (cause) {
    const message = `${folder} can't be written: ${(cause as Error).message}; give a folder that can`;
    throw new ResidualSkipError(codeOfWriting(cause), message, { cause });
  }
}

/**
 * Checks before long work that a ladder can be written to a folder: it is new, or empty.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export async function checkFolder(folder: string): Promise<void> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${folder} can't be used (${error.message}); give a new folder`,
    );
  });
  if (names.length === 0) return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${folder} holds files already (${names.slice(0, 3).join(', ')}); give a new folder`,
  );
}
