/** Files of texts: JSON lines, CSV and TSV. */
import { readFile, stat } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import Papa from 'papaparse';
import { ResidualSkipError } from '../errors.js';
import { kindOf } from './files.js';
import { type DataLimits, MAX_BYTES } from './limits.js';

/** One text of a file, or a pair of texts. */
export interface TextRow {
  /** The file and the number of the row, from 1: `reviews.tsv:12`. */
  readonly name: string;
  readonly text: string;
  /** The second text of a pair. */
  readonly pair?: string;
  /** A label of the model, or the index of a class; a number is always an index. */
  readonly label?: string | number;
  /** The row's value in the column `groups` of the options. */
  readonly group?: string;
}

export interface TextOptions extends Pick<DataLimits, 'maxBytes'> {
  /** Column with the group of each text. */
  readonly groups?: string | undefined;
}

/** Names of a column, in the order of preference. */
const NAMES = { text: ['text', 'sentence'], pair: ['text_pair', 'pair'], label: ['label'] } as const;
/** Columns of a file without a header, by their number. */
const WITHOUT_HEADER: readonly (readonly string[])[] = [
  ['text'],
  ['text', 'label'],
  ['text', 'text_pair', 'label'],
];

export const TEXT_FORMATS = ['.jsonl', '.ndjson', '.csv', '.tsv'];

/** Judged by the extension. */
export function isTextFile(name: string): boolean {
  return TEXT_FORMATS.includes(extname(name).toLowerCase());
}

/** A row with the names of its columns. */
interface Row {
  /** From 1; a header counts. */
  readonly number: number;
  readonly values: ReadonlyMap<string, unknown>;
}

/**
 * Reads the texts of a file. Columns are `text` or `sentence`, `text_pair` or `pair`, and `label`; others are ignored. CSV and TSV have them in a
 * header; a file without one has a text, a text and a label, or two texts and a label in each row. TSV knows no quotes. Blank lines are
 * left out.
 * @throws ResidualSkipError INVALID_DATA naming the file, and the row where one is wrong
 */
export async function readTexts(file: string, options: TextOptions = {}): Promise<readonly TextRow[]> {
  const { maxBytes = MAX_BYTES, groups } = options;
  const kind = await kindOf(file);
  if (kind !== 'file' || !isTextFile(file)) {
    const why =
      kind === undefined
        ? "it doesn't exist"
        : `it is ${kind === 'folder' ? 'a folder' : 'a file of another kind'}`;
    throw new ResidualSkipError(
      'INVALID_DATA',
      `data ${file}: ${why}; texts are in a file, ${TEXT_FORMATS.join(', ')}`,
    );
  }
  const { size } = await stat(file);
  if (size > maxBytes) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `file ${file}: it has ${size} bytes, but at most ${maxBytes} are read`,
    );
  }
  const content = (await readFile(file, 'utf8')).replace(/^\uFEFF/, '');
  const isJson = ['.jsonl', '.ndjson'].includes(extname(file).toLowerCase());
  const rows = isJson ? jsonRows(content, file) : tableRows(content, file);
  if (rows.length === 0) throw new ResidualSkipError('INVALID_DATA', `file ${file}: it holds no text`);
  return rows.map((row) => textRow(row, file, groups));
}

function problem(file: string, row: number, why: string, cause?: unknown): ResidualSkipError {
  return new ResidualSkipError('INVALID_DATA', `file ${file}: row ${row} ${why}`, { cause });
}

function jsonRows(content: string, file: string): Row[] {
  return content.split(/\r?\n/).flatMap((line, i): Row[] => {
    if (line.trim() === '') return [];
    const number = i + 1;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      throw problem(file, number, 'is not valid JSON', cause);
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw problem(
        file,
        number,
        'is no JSON object, such as {"text": "a masterpiece", "label": "positive"}',
      );
    }
    return [{ number, values: new Map(Object.entries(value)) }];
  });
}

function tableRows(content: string, file: string): Row[] {
  const cells = extname(file).toLowerCase() === '.tsv' ? tabbed(content) : commaSeparated(content, file);
  const rows = cells.flatMap((row, i) =>
    row.every((cell) => cell.trim() === '') ? [] : [{ number: i + 1, row }],
  );
  const [first] = rows;
  if (!first) return [];
  const known = new Set<string>(Object.values(NAMES).flat());
  const header = first.row.map((cell) => {
    const name = cell.trim();
    return known.has(name.toLowerCase()) ? name.toLowerCase() : name;
  });
  const named = header.some((name) => known.has(name));
  const columns = named ? header : WITHOUT_HEADER[header.length - 1];
  if (!columns) {
    throw problem(
      file,
      first.number,
      `has ${header.length} columns and names none of them; a header has text or sentence, text_pair, label`,
    );
  }
  return rows.slice(named ? 1 : 0).map(({ number, row }) => {
    if (row.length !== columns.length) {
      throw problem(file, number, `has ${row.length} columns, but ${columns.length} were expected`);
    }
    return { number, values: new Map(columns.map((name, i) => [name, row[i]!])) };
  });
}

function tabbed(content: string): string[][] {
  return content.split(/\r?\n/).map((line) => line.split('\t'));
}

function commaSeparated(content: string, file: string): string[][] {
  const { data, errors } = Papa.parse<string[]>(content, { delimiter: ',' });
  const [first] = errors;
  if (first) throw problem(file, (first.row ?? 0) + 1, `is no CSV: ${first.message}`);
  return data;
}

function textRow({ number, values }: Row, file: string, groups: string | undefined): TextRow {
  const cell = (names: readonly string[], kinds: readonly string[]) => {
    const name = names.find((candidate) => values.has(candidate));
    const value = name === undefined ? undefined : values.get(name);
    if (value === undefined || value === null) return undefined;
    if (kinds.includes(typeof value)) return value as string | number;
    throw problem(file, number, `has ${JSON.stringify(value)} as its ${name}; expected a ${kinds[0]}`);
  };
  const text = cell(NAMES.text, ['string']) as string | undefined;
  if (text === undefined)
    throw problem(file, number, `has no text; its columns are ${[...values.keys()].join(', ')}`);
  const pair = cell(NAMES.pair, ['string']) as string | undefined;
  const given = cell(NAMES.label, ['string', 'number']);
  const label = typeof given === 'string' ? given.trim() : given;
  const group = groups === undefined ? undefined : cell([groups], ['string', 'number']);
  if (groups !== undefined && group === undefined)
    throw problem(file, number, `has no column ${groups}, which gives its group`);
  return {
    name: `${basename(file)}:${number}`,
    text,
    ...(pair !== undefined && { pair }),
    ...(label !== undefined && label !== '' && { label }),
    ...(group !== undefined && { group: String(group) }),
  };
}
