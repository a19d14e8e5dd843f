// What pages of measurements are made of: Markdown tables, parts between markers, drawings that stand alone.
import { readFileSync, writeFileSync } from 'node:fs';

/** A Markdown table; all columns but the first hold numbers. */
export function table(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n');
}

/** Puts each part between its markers in a Markdown file; the prose around them is written by hand. */
export function fillPage(path, parts) {
  let page = readFileSync(path, 'utf8');
  for (const [name, text] of Object.entries(parts)) {
    const pattern = new RegExp(`(<!-- ${name} -->\\n)[\\s\\S]*?(<!-- /${name} -->)`);
    if (!pattern.test(page)) throw new Error(`${path} has no part '${name}'`);
    page = page.replace(pattern, (_, open, close) => `${open}${text}\n${close}`);
  }
  writeFileSync(path, page);
}

/** A chart for a file of its own: outside a page nothing gives `currentColor` a value; grey reads on light and dark. */
export const standalone = (svg) => svg.replaceAll('currentColor', '#808890');
