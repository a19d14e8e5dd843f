import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(__dirname, '../..');

/** The pages for users. */
export const DOCUMENTATION = [
  'README.md',
  'demo/README.md',
  'examples/README.md',
  ...['docs', 'docs/lab'].flatMap((folder) =>
    readdirSync(join(ROOT, folder))
      .filter((name) => name.endsWith('.md'))
      .map((name) => `${folder}/${name}`),
  ),
];

/** Pages whose commands train or measure for hours; .ci/run tests short versions of some. */
export const MEASURING = [
  'adapt',
  'performance',
  ...['calibration', 'protocol', 'quantization', 'reproduction'].map((name) => `lab/${name}`),
].map((name) => `docs/${name}.md`);

/** A fenced block of a Markdown page. */
export interface Snippet {
  readonly page: string;
  /** Number of its first line, from 1. */
  readonly line: number;
  /** The info string of the fence; empty for a program's output. */
  readonly language: string;
  readonly code: string;
}

/** The fenced blocks of a page, in order. */
export function snippetsOf(page: string): Snippet[] {
  const snippets: Snippet[] = [];
  let open: { line: number; language: string; code: string[] } | undefined;
  for (const [index, text] of readFileSync(join(ROOT, page), 'utf8').split('\n').entries()) {
    const fence = /^```(\w*)/.exec(text);
    if (!fence) open?.code.push(text);
    else if (!open) open = { line: index + 2, language: fence[1]!, code: [] };
    else {
      snippets.push({ page, line: open.line, language: open.language, code: open.code.join('\n') });
      open = undefined;
    }
  }
  return snippets;
}

/** The commands of a shell block: one per line, unless a quoted text spans several lines. */
export function commandsOf({ code }: Snippet): string[] {
  const commands: string[] = [];
  let pending = '';
  for (const line of code.split('\n')) {
    pending += pending ? `\n${line}` : line;
    const goesOn = pending.endsWith('\\') || (pending.replaceAll('\\"', '').split('"').length - 1) % 2 === 1;
    if (goesOn) continue;
    if (pending.trim()) commands.push(pending.replace(/\s+#[^"']*$/, '').trim());
    pending = '';
  }
  return commands;
}

export const inLanguage = (language: string) => (snippet: Snippet) => snippet.language === language;

/** The cells, without backquotes, of the table whose heading row begins with `first`. */
export function tableOf(page: string, first: string): string[][] {
  const [, rows] = readFileSync(join(ROOT, page), 'utf8').split(`\n| ${first} |`);
  const cellsOf = (row: string) => row.split('|').slice(1, -1);
  return rows!
    .split('\n\n')[0]!
    .split('\n')
    .slice(2)
    .map((row) => cellsOf(row).map((cell) => cell.trim().replaceAll('`', '')));
}
