// Helpers for pages of measurements: Markdown tables, parts between markers, standalone drawings.
import { readFileSync, writeFileSync } from 'node:fs';

/** A Markdown table; all columns but the first hold numbers. */
export function table(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n');
}

/** Replaces the parts between markers in a Markdown file; the prose around them is written by hand. */
export function fillPage(path, parts) {
  let page = readFileSync(path, 'utf8');
  for (const [name, text] of Object.entries(parts)) {
    const pattern = new RegExp(`(<!-- ${name} -->\\n)[\\s\\S]*?(<!-- /${name} -->)`);
    if (!pattern.test(page)) throw new Error(`${path} has no part '${name}'`);
    page = page.replace(pattern, (_, open, close) => `${open}${text}\n${close}`);
  }
  writeFileSync(path, page);
}

/** A chart for a separate file: there `currentColor` is undefined, and grey is readable on light and dark. */
export const standalone = (svg) => svg.replaceAll('currentColor', '#808890');
