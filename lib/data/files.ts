import { readdir, readFile, realpath, stat } from 'node:fs/promises';
import { extname, isAbsolute, join, relative, sep } from 'node:path';
import type { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { parseStrict } from '../util/validation.js';

const IMAGE_EXTENSIONS = new Set(['.jpg', '.jpeg', '.png', '.webp', '.gif', '.tif', '.tiff', '.avif']);

/** `folder`, `file`, or undefined when nothing is there. */
export async function kindOf(path: string): Promise<'folder' | 'file' | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return undefined;
  return found.isDirectory() ? 'folder' : 'file';
}

/**
 * Names in a folder, ordered by UTF-16 code units, so that the order is the same on every machine. Names with a leading
 * dot are left out. Symbolic links count as what they lead to, but one to this folder, or to one that it is in, is left out.
 */
export async function listFolder(folder: string): Promise<{ folders: string[]; files: string[] }> {
  const folders: string[] = [];
  const files: string[] = [];
  try {
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (entry.name.startsWith('.')) continue;
      const path = join(folder, entry.name);
      const kind = entry.isSymbolicLink() ? await kindOf(path) : undefined;
      if (entry.isDirectory() || (kind === 'folder' && !(await isInside(folder, path))))
        folders.push(entry.name);
      else if (entry.isFile() || kind === 'file') files.push(entry.name);
    }
  } catch (cause) {
    throw new ResidualSkipError('INVALID_DATA', `folder ${folder}: it can't be read`, { cause });
  }
  return { folders: folders.sort(), files: files.sort() };
}

/** Whether a folder is another one, or in it. */
async function isInside(folder: string, other: string): Promise<boolean> {
  const [path, of] = await Promise.all([realpath(folder), realpath(other)]);
  const way = relative(of, path);
  return way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

/** Judged by the extension. */
export function isImageFile(name: string): boolean {
  return IMAGE_EXTENSIONS.has(extname(name).toLowerCase());
}

/**
 * Full paths of the image files (by extension) in `folder`, in order; those of its subfolders follow.
 * @param around the real paths of folders that it was reached through: links may lead back to one of them
 */
export async function listImagesBelow(folder: string, around: readonly string[] = []): Promise<string[]> {
  const { files, folders } = await listFolder(folder);
  const real = await realpath(folder);
  if (around.includes(real)) return [];
  const images = files.filter(isImageFile);
  const paths = images.map((name) => join(folder, name));
  for (const inner of folders) paths.push(...(await listImagesBelow(join(folder, inner), [...around, real])));
  return paths;
}

/**
 * Reads a JSON file and checks it against `schema`; undefined when there is no such file.
 * @throws INVALID_DATA naming the file and the field
 */
export async function readJson<T>(file: string, schema: z.ZodType<T>): Promise<T | undefined> {
  if ((await kindOf(file)) !== 'file') return undefined;
  let json: unknown;
  try {
    json = JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    throw new ResidualSkipError('INVALID_DATA', `file ${file}: it is not valid JSON`, { cause });
  }
  return parseStrict(schema, json, { code: 'INVALID_DATA', subject: file });
}
