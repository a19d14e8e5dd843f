import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(__dirname, '../..');

/** The pages that users read. */
export const DOCUMENTATION = [
  'README.md',
  'demo/README.md',
  'examples/README.md',
  ...readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** Pages whose commands train or measure for hours; .ci/run has some of them in short. */
export const MEASURING = ['adapt', 'calibration', 'performance', 'protocol', 'reproduction'].map(
  (name) => `docs/${name}.md`,
);

/** A fenced block of a Markdown page. */
export interface Snippet {
  readonly page: string;
  /** Of its first line, from 1. */
  readonly line: number;
  /** What stands behind the fence; empty for what a program prints. */
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

/** The commands of a block for the shell: a line each, unless a quoted text goes on. */
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
