// Writes docs/api.md from the doc comments of what lib/index.ts exports.
//
//   node scripts/api-docs.mjs           writes the page
//   node scripts/api-docs.mjs --check   exits with 1 when the page isn't what would be written
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

/** Signatures say what is returned: a section that repeats the type alone is left out. */
function withoutBareReturns(page) {
  return page.replace(/^#+ Returns\n\n(?=`|readonly )[^\n]*\n\n(?=#|\*\*\*|$)/gm, '');
}

/** Links to all exports, by kind, in the place of the title. */
function withContents(page) {
  const body = page.slice(page.indexOf('## '));
  const contents = [];
  const seen = new Map();
  for (const [, { length: level }, title] of body.matchAll(/^(#+) (.*)$/gm)) {
    if (level === 2) contents.push(`**${title}**:`);
    const slug = title
      .toLowerCase()
      .replaceAll(' ', '-')
      .replaceAll(/[^\w-]/g, '');
    const repeats = seen.get(slug) ?? 0;
    seen.set(slug, repeats + 1);
    if (level === 3) contents.push(`[${title}](#${slug}${repeats > 0 ? `-${repeats}` : ''})`);
  }
  const text = contents.join(' ').replaceAll(' **', '\n\n**');
  return `# API\n\nWhat \`residual-skip\` exports, from its doc comments; \`npm run docs\` writes this page.\n\n${text}\n\n${body}`;
}

const page = withContents(withoutBareReturns(await generate()));
if (process.argv[2] !== '--check') writeFileSync(PAGE, page);
else if (readFileSync(PAGE, 'utf8') !== page) {
  console.error('docs/api.md is out of date: run `npm run docs` and commit the page');
  process.exitCode = 1;
}
