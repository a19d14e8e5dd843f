/** Models in the file system: where they are, and whether they have changed. */
import { readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { locateModel } from 'residual-skip';
import { ServerError } from './errors.js';

export interface FoundModel {
  readonly name: string;
  readonly version: string;
  readonly path: string;
}

const VERSION = /^[1-9]\d*$/;

/** The models in a folder, or the one that an ONNX file is; NOT_FOUND if there are none. */
export async function modelsIn(folder: string): Promise<FoundModel[]> {
  const own = await versionsIn(folder);
  if (own.length > 0) return own;
  const inner = await Promise.all((await foldersIn(folder)).map((name) => versionsIn(join(folder, name))));
  if (inner.flat().length > 0) return inner.flat();
  throw new ServerError(
    'NOT_FOUND',
    `folder ${folder}: it holds no model; name an .onnx file, a folder with one, or a folder of such folders`,
  );
}

/** The versions in a model's folder: the folder itself as version 1, or each numbered folder. An ONNX file is one, too. */
async function versionsIn(folder: string): Promise<FoundModel[]> {
  const name = basename(folder, '.onnx');
  if (await holdsModel(folder)) return [{ name, version: '1', path: folder }];
  const numbers = (await foldersIn(folder)).filter((inner) => VERSION.test(inner));
  const held = await Promise.all(numbers.map((version) => holdsModel(join(folder, version))));
  return numbers.filter((_, i) => held[i]).map((version) => ({ name, version, path: join(folder, version) }));
}

/** Also true for a folder with several models: loading it says so. */
async function holdsModel(path: string): Promise<boolean> {
  return locateModel(path).then(
    (found) => found !== undefined,
    ({ code }) => code === 'MODEL_NOT_FOUND',
  );
}

async function foldersIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const shown = entries.filter(({ name }) => !name.startsWith('.'));
  const folders = await Promise.all(
    shown.map(
      async (entry) =>
        entry.isDirectory() ||
        (entry.isSymbolicLink() && (await stat(join(folder, entry.name)).catch(() => null))?.isDirectory()),
    ),
  );
  return shown
    .filter((_, i) => folders[i])
    .map(({ name }) => name)
    .sort();
}

/** Changes when a file of a model's folder does. */
export async function stampOf(path: string): Promise<string> {
  const names = await readdir(path).catch(() => ['']);
  const files = names.map(async (name) => {
    const known = await stat(join(path, name)).catch(() => undefined);
    return known?.isFile() ? [name, known.size, known.mtimeMs] : [name];
  });
  return JSON.stringify(await Promise.all(files));
}
