/** Files that give each image a value by its name: its class or its group. */
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import Papa from 'papaparse';
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { late } from '../util/late.js';
import { readJson } from './files.js';

const jsonSchema = late(() => z.record(z.string(), z.union([z.string(), z.int()])));

/**
 * Reads a JSON object `{ "cats/1.jpg": "night" }`, or lines `name,value` of CSV (RFC 4180, no header).
 * @returns values by image name, which is its path below the data set's folder
 * @throws INVALID_DATA naming the file, and the line or field
 */
export async function readAssignments(file: string): Promise<ReadonlyMap<string, string | number>> {
  if (extname(file).toLowerCase() === '.json') {
    const known = await readJson(file, jsonSchema());
    if (known === undefined) throw new ResidualSkipError('INVALID_DATA', `file ${file}: it doesn't exist`);
    return new Map(Object.entries(known));
  }
  try {
    const text = await readFile(file, 'utf8');
    const { data, errors } = Papa.parse<string[]>(text, { delimiter: ',', skipEmptyLines: true });
    if (errors[0]) throw new Error(`row ${(errors[0].row ?? 0) + 1}: ${errors[0].message}`);
    const rows = data.map((row) => row.map((field) => field.trim()));
    const wrong = rows.findIndex((row) => row.length !== 2);
    if (wrong >= 0) throw new Error(`row ${wrong + 1} has ${rows[wrong]!.length} columns`);
    const known = new Map<string, string>();
    for (const [i, [name, value]] of rows.entries()) {
      const before = known.get(name!);
      if (before !== undefined && before !== value)
        throw new Error(`row ${i + 1} gives "${name}" the value "${value}", which had "${before}" before`);
      known.set(name!, value!);
    }
    return known;
  } catch (cause) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `file ${file}: it can't be read (${(cause as Error).message}); expected CSV with two columns, the name of an image and its value`,
      { cause },
    );
  }
}

/**
 * The value of each image.
 * @throws INVALID_DATA when an image has none
 */
export function valuesOf(
  names: readonly string[],
  assignments: ReadonlyMap<string, string | number>,
  file: string,
): (string | number)[] {
  const missing = names.filter((name) => !assignments.has(name));
  if (missing.length === 0) return names.map((name) => assignments.get(name)!);
  const some = [...assignments.keys()].slice(0, 2).map((name) => `"${name}"`);
  throw new ResidualSkipError(
    'INVALID_DATA',
    `file ${file}: it has no value for ${missing.length} of ${names.length} images, such as "${missing[0]}"; its names are like ` +
      `${some.join(', ') || 'nothing: it is empty'}; names are paths below the folder of the data`,
  );
}
