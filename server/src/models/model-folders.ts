/** Models in the file system: where they are, and whether they have changed. */
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import { locateModel } from 'residual-skip';
import { ServerError } from '../errors.js';

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

/** Files of a model that are looked at; others in its folder are data of something else. */
const MAX_FILES = 1024;

/** Changes when a file of a model's folder, or below, does. Of an ONNX file's folder, other models don't count. */
export async function stampOf(path: string): Promise<string> {
  const isFolder = (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  const files: unknown[] = [];
  const seen = new Set<number>();
  const look = async (folder: string) => {
    for (const name of (await readdir(folder).catch(() => [])).sort()) {
      const file = join(folder, name);
      const known = await stat(file).catch(() => undefined);
      if (files.length >= MAX_FILES || (!isFolder && file !== path && extname(name) === '.onnx')) continue;
      if (known?.isFile()) files.push([file, known.size, known.mtimeMs]);
      // A link may lead back to a folder above.
      if (!known?.isDirectory() || seen.has(known.ino)) continue;
      seen.add(known.ino);
      await look(file);
    }
  };
  await look(isFolder ? path : dirname(path));
  return JSON.stringify(files);
}
