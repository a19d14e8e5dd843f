import { escapeHtml } from './charts.js';

/** One titled part of a report; `body` is HTML. */
export interface Section {
  readonly title: string;
  /** One or two sentences about what the section shows; plain text. */
  readonly lead?: string;
  readonly body: string;
}

/** A large figure with its meaning; plain text. */
export interface Figure {
  readonly value: string;
  readonly meaning: string;
}

const STYLE = `
:root { color-scheme: light dark; --ran: #3b82f6; --skipped: #f59e0b; --line: rgba(128,128,128,.3); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; }
.figure { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; max-width: 15rem; }
.figure b { display: block; font-size: 1.5rem; font-weight: 600; }
.figure span, .note { opacity: .75; font-size: .85rem; }
.group { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .9rem; } td, th { padding: .2rem .6rem; text-align: left;
  border-bottom: 1px solid var(--line); } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.path { display: inline-flex; flex-wrap: wrap; gap: 2px; max-width: 34rem; vertical-align: middle; }
.path i { width: .55rem; height: .9rem; border-radius: 2px; background: var(--ran); }
.path i.s { background: transparent; box-shadow: inset 0 0 0 1.5px var(--skipped); }
.examples { display: flex; flex-wrap: wrap; gap: 1rem 1.4rem; } .examples figure { margin: 0; max-width: 22rem; font-size: .8rem; }
.examples .path { margin: .3rem 0; }
.examples img { width: 64px; height: 64px; image-rendering: pixelated; border-radius: 4px; display: block; }
code { font-size: .85em; overflow-wrap: anywhere; }
`;

/** A whole page in one file: no script, no network. */
export function renderPage(page: {
  title: string;
  /** Plain text under the title. */
  subtitle: string;
  /** One or two sentences about the whole page; plain text. */
  summary?: string;
  figures: readonly Figure[];
  sections: readonly Section[];
}): string {
  const figures = page.figures
    .map(
      ({ value, meaning }) =>
        `<div class="figure"><b>${escapeHtml(value)}</b><span>${escapeHtml(meaning)}</span></div>`,
    )
    .join('');
  const sections = page.sections
    .map(
      ({ title, lead, body }) =>
        `<section><h2>${escapeHtml(title)}</h2>${lead ? `<p class="note">${escapeHtml(lead)}</p>` : ''}${body}</section>`,
    )
    .join('\n');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(page.title)}</title><style>${STYLE}</style></head>
<body><h1>${escapeHtml(page.title)}</h1><p class="note">${escapeHtml(page.subtitle)}</p>
${page.summary ? `<p>${escapeHtml(page.summary)}</p>` : ''}
<div class="figures">${figures}</div>
${sections}
</body></html>
`;
}

/** The path of one item through the blocks: a filled cell ran, a hollow one was skipped. */
export function renderPath(ran: string): string {
  const cells = [...ran].map((digit) => (digit === '1' ? '<i></i>' : '<i class="s"></i>')).join('');
  return `<span class="path" role="img" aria-label="${ran}">${cells}</span>`;
}

/** One item as an example. */
export interface DrawnExample {
  /** A data URI. */
  readonly image?: string;
  /** A digit for each block: 1 ran, 0 skipped. */
  readonly ran: string;
  /** Plain text. */
  readonly caption: string;
}

/** Items with their images and paths, under a title in plain text. */
export function renderExamples(title: string, examples: readonly DrawnExample[]): string {
  const figures = examples.map(
    ({ image, ran, caption }) =>
      `<figure>${image ? `<img alt="" src="${image}">` : ''}${renderPath(ran)}` +
      `<figcaption>${escapeHtml(caption)}</figcaption></figure>`,
  );
  return `<h3>${escapeHtml(title)}</h3><div class="examples">${figures.join('')}</div>`;
}

/** Charts and tables side by side where there is room. */
export function renderGroup(parts: readonly string[]): string {
  return `<div class="group">${parts.join('')}</div>`;
}

/** A table; columns whose title begins with '#' hold numbers. Cells are HTML. */
export function renderTable(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const numeric = columns.map((column) => column.startsWith('#'));
  const head = columns.map(
    (c, i) => `<th${numeric[i] ? ' class="n"' : ''}>${escapeHtml(c.replace('#', ''))}</th>`,
  );
  const body = rows.map(
    (row) => `<tr>${row.map((cell, i) => `<td${numeric[i] ? ' class="n"' : ''}>${cell}</td>`).join('')}</tr>`,
  );
  return `<table><thead><tr>${head.join('')}</tr></thead><tbody>${body.join('')}</tbody></table>`;
}

/** 0.1234 -> "12.3 %". */
export const percent = (fraction: number, digits = 1) => `${(100 * fraction).toFixed(digits)} %`;

/** A count with thousands separators. */
export const whole = (count: number) => count.toLocaleString('en');
