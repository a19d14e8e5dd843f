import { stripVTControlCharacters } from 'node:util';
import { type Io, paint, printable } from './io.js';

export { percent } from '../report/page.js';

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

/** Columns of numbers, by their titles. */
export const numbers = (...titles: readonly string[]): Column[] =>
  titles.map((title) => ({ title, align: 'right' }));

/** Characters of a long text that are shown. */
const MAX_SHOWN = 48;

/** A text on one line, the beginning of a long one. */
export function shortened(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > MAX_SHOWN ? `${line.slice(0, MAX_SHOWN - 1)}…` : line;
}

/** Number of visible characters; colours take no space. */
function widthOf(text: string): number {
  return [...stripVTControlCharacters(text)].length;
}

/** Rows under titles, columns two spaces apart, no space at the end of a line. */
export function formatTable(
  io: Pick<Io, 'color'>,
  columns: readonly Column[],
  cells: readonly (readonly string[])[],
): string {
  // Widths are those of the printed text: escaped, and each cell on one line.
  const rows = cells.map((row) => row.map((cell) => printable(cell.replaceAll('\n', '\\n'))));
  const widths = columns.map(({ title }, i) =>
    Math.max(widthOf(title), ...rows.map((row) => widthOf(row[i] ?? ''))),
  );
  const line = (cells: readonly string[]) =>
    columns
      .map(({ align = 'left' }, i) => {
        const cell = cells[i] ?? '';
        const space = ' '.repeat(widths[i]! - widthOf(cell));
        return align === 'left' ? cell + space : space + cell;
      })
      .join('  ')
      .trimEnd();
  const titles = line(columns.map(({ title }) => title));
  return `${[paint(io, 'dim', titles), ...rows.map(line)].join('\n')}\n`;
}

/** How fast something is whose rival takes `ratio` times as long. */
export function speedup(ratio: number): string {
  const [factor, than] = ratio < 1 ? [1 / ratio, 'slower'] : [ratio, 'faster'];
  const text = factor.toFixed(2);
  return text === '1.00' ? 'as fast' : `${text}x ${than}`;
}

/** About three significant digits, without an exponent. */
export function milliseconds(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(3);
}

/** 69124608 -> "69.1 M". */
export function count(value: number): string {
  for (const [unit, size] of [
    ['T', 1e12],
    ['G', 1e9],
    ['M', 1e6],
    ['k', 1e3],
  ] as const) {
    // Rounded before it is divided: 999,600 is 1.00 M.
    if (Number(value.toPrecision(3)) >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  }
  return String(value);
}

/** "1 block", "2 blocks". */
export function plural(value: number, noun: string): string {
  return `${value.toLocaleString('en')} ${noun}${value === 1 ? '' : 's'}`;
}
