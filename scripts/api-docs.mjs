// Writes docs/api.md from the doc comments of the exports of lib/index.ts.
//
//   node scripts/api-docs.mjs           writes the page
//   node scripts/api-docs.mjs --check   exits with 1 if the page is out of date
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Application } from 'typedoc';

const PAGE = resolve(import.meta.dirname, '../docs/api.md');

async function generate() {
  const folder = mkdtempSync(join(tmpdir(), 'api-docs-'));
  try {
    const app = await Application.bootstrapWithPlugins({ out: folder });
    const project = await app.convert();
    if (!project) throw new Error('lib/index.ts does not compile');
    await app.generateOutputs(project);
    return readFileSync(join(folder, 'api.md'), 'utf8');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Removes "Returns" sections that only repeat the type of the signature. */
function withoutBareReturns(page) {
  return page.replace(/^#+ Returns\n\n(?=`|readonly )[^\n]*\n\n(?=#|\*\*\*|$)/gm, '');
}

/** All exports: kind, title, and GitHub's anchor. */
function exportsOf(body) {
  const found = [];
  const seen = new Map();
  let kind;
  for (const [, { length: level }, title] of body.matchAll(/^(#+) (.*)$/gm)) {
    if (level === 2) kind = title;
    const slug = title
      .toLowerCase()
      .replaceAll(' ', '-')
      .replaceAll(/[^\w-]/g, '');
    const repeats = seen.get(slug) ?? 0;
    seen.set(slug, repeats + 1);
    if (level === 3) found.push({ kind, title, anchor: repeats > 0 ? `${slug}-${repeats}` : slug });
  }
  return found;
}

/** Removes the list of namespaces. It links to separate pages, which aren't kept since they only alias exported types. */
function withoutNamespaces(page) {
  return page.replace(/^## Namespaces\n[\s\S]*?(?=^## )/m, '');
}

/** Replaces the title by links to all exports. TypeDoc's own anchors count headings that were removed. */
function withLinks(page) {
  const body = page.slice(page.indexOf('## '));
  const found = exportsOf(body);
  const kinds = [...new Set(found.map(({ kind }) => kind))].map((kind) => {
    const links = found
      .filter((one) => one.kind === kind)
      .map(({ title, anchor }) => `[${title}](#${anchor})`);
    return `**${kind}**: ${links.join(' · ')}\n`;
  });
  const types = new Map(found.map(({ title, anchor }) => [title, anchor]).reverse());
  const linked = body.replace(/\[`(\w+)`\]\(#[\w-]+\)/g, (link, name) =>
    types.has(name) ? `[\`${name}\`](#${types.get(name)})` : link,
  );
  const head = 'What `residual-skip` exports, from its doc comments; `npm run docs` writes this page.';
  return ['# API\n', `${head}\n`, ...kinds, linked].join('\n');
}

const page = withLinks(withoutNamespaces(withoutBareReturns(await generate())));
if (process.argv[2] !== '--check') writeFileSync(PAGE, page);
else if (readFileSync(PAGE, 'utf8') !== page) {
  console.error('docs/api.md is out of date: run `npm run docs` and commit the page');
  process.exitCode = 1;
}
