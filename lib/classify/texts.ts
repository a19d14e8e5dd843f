/** Sources of many texts: files, and iterables. */
import { kindOf } from '../data/files.js';
import { isTextFile, readTexts, TEXT_FORMATS } from '../data/texts.js';
import { ResidualSkipError } from '../errors.js';
import type { Tensor } from '../tensor/tensor.js';
import { type DataOptions, type Item, type Items, labelOf } from './images.js';
import { isTextInput, type TextInput } from './text-input.js';

/** A text with what is known about it. */
export interface LabelledText {
  readonly text: string;
  /** The second text of a pair. */
  readonly pair?: string | undefined;
  /** Its class: an index, or one of the model's labels. */
  readonly label?: number | string | undefined;
  /** Names of the groups that it belongs to. */
  readonly groups?: readonly string[] | undefined;
}

/** Many texts: the path of a file of JSON lines, CSV or TSV, or an iterable of texts. */
export type Texts = string | Iterable<TextInput | LabelledText> | AsyncIterable<TextInput | LabelledText>;

/** What reads texts for a network. */
export interface TextReader {
  /** Null where the network has no classes: labels are left out then. */
  readonly labels: readonly string[] | null;
  prepare(text: TextInput): Tensor<'int32'>;
}

/**
 * The texts of a source, in order.
 * @param labels default of the option `labelsFrom`; undefined to use labels if the data has any
 * @throws ResidualSkipError INVALID_ARGUMENT for a value that is no source, INVALID_DATA naming the file and its row
 */
export async function openTexts(
  texts: Texts,
  reader: TextReader,
  options: DataOptions,
  labels?: 'data' | 'none',
): Promise<Items<Tensor<'int32'>>> {
  const { labelsFrom = labels, groupsFrom, maxBytes } = options;
  if (labelsFrom !== undefined && labelsFrom !== 'data' && labelsFrom !== 'none') {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `labels: texts have theirs beside them, in the column 'label', not in the file ${labelsFrom}`,
    );
  }
  if (typeof texts !== 'string') {
    const count = Array.isArray(texts) ? texts.length : null;
    return { count, list: itemsOfIterable(texts, reader, labelsFrom !== 'none') };
  }
  const rows = await readTexts(texts, { maxBytes, groups: groupsFrom });
  const list = rows.map(({ name, text, pair, label, group }): Item<Tensor<'int32'>> => {
    if (labelsFrom === 'data' && label === undefined) {
      throw new ResidualSkipError('INVALID_DATA', `${name}: it has no label; give the data a column 'label'`);
    }
    return {
      ...{ name, load: undefined, groups: group === undefined ? undefined : [group] },
      label: labelsFrom === 'none' ? undefined : classOf(label, name, reader),
      prepare: async () => reader.prepare(pair === undefined ? text : { text, pair }),
    };
  });
  return { count: list.length, list };
}

/**
 * The texts that arguments of a command stand for: files are read, other arguments are texts themselves.
 * @throws ResidualSkipError INVALID_DATA as openTexts
 */
export async function textsOfArguments(
  given: readonly string[],
  reader: TextReader,
  options: DataOptions,
): Promise<readonly Item<Tensor<'int32'>>[]> {
  const items: Item<Tensor<'int32'>>[] = [];
  for (const one of given) {
    if (!isTextFile(one) && (await kindOf(one)) === 'file') {
      throw new ResidualSkipError(
        'INVALID_DATA',
        `data ${one}: it is a file of another kind; texts are arguments themselves, or in files, ${TEXT_FORMATS.join(', ')}`,
      );
    }
    const { list } = await openTexts(isTextFile(one) ? one : [one], reader, options, 'none');
    for await (const item of list) items.push(isTextFile(one) ? item : { ...item, name: one });
  }
  return items;
}

async function* itemsOfIterable(
  texts: Exclude<Texts, string>,
  reader: TextReader,
  labelled: boolean,
): AsyncGenerator<Item<Tensor<'int32'>>> {
  let index = 0;
  for await (const given of texts) {
    const name = `texts[${index++}]`;
    const { text, pair, label, groups } = labelledText(given, name);
    yield {
      ...{ name, load: undefined, groups },
      label: labelled ? classOf(label, name, reader) : undefined,
      prepare: async () => reader.prepare(pair === undefined ? text : { text, pair }),
    };
  }
}

function labelledText(given: TextInput | LabelledText, name: string): LabelledText {
  if (typeof given === 'string') return { text: given };
  if (typeof given === 'object' && given !== null) {
    const { pair = '' } = given;
    if (isTextInput({ text: given.text, pair })) return given;
  }
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${name}: expected a text, or { text, pair, label, groups }`,
  );
}

function classOf(
  label: number | string | undefined,
  name: string,
  { labels }: TextReader,
): number | undefined {
  if (labels === null) return undefined;
  const isIndex = typeof label === 'string' && !labels.includes(label) && /^\d+$/.test(label);
  return labelOf(isIndex ? Number(label) : label, name, labels);
}
