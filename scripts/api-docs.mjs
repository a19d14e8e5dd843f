// Writes docs/api/, a page for each topic and a list of all exports, from the doc comments of the exports of lib/index.ts.
//
//   node scripts/api-docs.mjs           writes the pages
//   node scripts/api-docs.mjs --check   exits with 1 if they are out of date
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Application } from 'typedoc';

const ROOT = resolve(import.meta.dirname, '..');
const PAGES = join(ROOT, 'docs/api');

/** Topics by the folders of lib/ that their exports come from, in the order of the list. */
const TOPICS = [
  ['sessions', 'Sessions and tensors', ['session', 'tensor', 'model']],
  ['classify', 'Images and texts', ['classify', 'data']],
  ['policies', 'Policies, traces and observers', ['skip']],
  ['calibrate', 'Calibration, 8 bits and measurements', ['calibrate', 'quantize', 'inspect', 'measure']],
  ['audit', 'Audit and monitoring', ['audit']],
  ['errors', 'Errors', ['errors']],
];

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

/** Removes "Returns" sections that only repeat the type of the signature, and which base class has a member: none is exported. */
function withoutBareSections(page) {
  return page
    .replace(/^#+ Returns\n\n(?=`|readonly )[^\n]*\n\n(?=#|\*\*\*|$)/gm, '')
    .replace(/^#+ (?:Inherited from|Extends)\n\n(?:- )?`TextNetwork[^\n]*\n\n/gm, '');
}

/** The topic of each export, by its name: that of the folder from which lib/index.ts takes it. */
function topicsOfExports() {
  const topics = new Map();
  const index = readFileSync(join(ROOT, 'lib/index.ts'), 'utf8');
  for (const [, names, folder] of index.matchAll(/\{([^}]*)\} from '\.\/([\w-]+)/g)) {
    const topic = TOPICS.find(([, , folders]) => folders.includes(folder.replace(/\.js$/, '')));
    for (const name of names.match(/\w+(?=\s*(,|$))/g) ?? []) topics.set(name, topic?.[0]);
  }
  return topics;
}

/** Removes the list of namespaces. It links to separate pages, which aren't kept since they only alias exported types. */
function withoutNamespaces(page) {
  return page.replace(/^## Namespaces\n[\s\S]*?(?=^## )/m, '');
}

/** The exports on TypeDoc's one page: title, name, and text with headings one level higher. */
function sectionsOf(page) {
  return page.split(/^### /m).flatMap((part, i) => {
    if (i === 0) return [];
    const [title] = part.split('\n', 1);
    const text = `## ${part.replace(/^## [\s\S]*/m, '').replace(/^##(#+) /gm, '#$1 ')}`;
    return [{ title, name: title.replace(/\(\)|\\/g, ''), text: `${text.trimEnd()}\n` }];
  });
}

/** GitHub's anchors of the sections of a page. */
function anchorsOf(sections) {
  const seen = new Map();
  const anchors = new Map();
  for (const { title, text } of sections) {
    for (const [, heading] of text.matchAll(/^#+ (.*)$/gm)) {
      const slug = heading
        .toLowerCase()
        .replaceAll(' ', '-')
        .replaceAll(/[^\w-]/g, '');
      const repeats = seen.get(slug) ?? 0;
      seen.set(slug, repeats + 1);
      if (heading === title && !anchors.has(title))
        anchors.set(title, repeats > 0 ? `${slug}-${repeats}` : slug);
    }
  }
  return anchors;
}

/** All pages by file name. TypeDoc's own anchors are those of one page, so links are made again. */
function pagesOf(page) {
  const topics = topicsOfExports();
  const sections = sectionsOf(page);
  const of = (topic) => sections.filter(({ name }) => (topics.get(name) ?? TOPICS[0][0]) === topic);
  const links = new Map();
  for (const [topic] of TOPICS) {
    for (const [title, anchor] of anchorsOf(of(topic))) links.set(title, { topic, anchor });
  }
  const pages = new Map();
  for (const [topic, title] of TOPICS) {
    const linked = of(topic).map(({ text }) =>
      text.replace(/\[`(\w+)`\]\(#[\w-]+\)/g, (_, name) => {
        const to = links.get(name) ?? links.get(`${name}()`);
        if (!to) return `\`${name}\``;
        return `[\`${name}\`](${to.topic === topic ? '' : `${to.topic}.md`}#${to.anchor})`;
      }),
    );
    pages.set(
      `${topic}.md`,
      [`# API: ${title}\n`, 'From the doc comments; `npm run docs` writes this page.\n', ...linked].join(
        '\n',
      ),
    );
  }
  const lists = TOPICS.map(([topic, title]) => {
    const names = of(topic).map(
      (section) => `[${section.title}](${topic}.md#${links.get(section.title).anchor})`,
    );
    return `## [${title}](${topic}.md)\n\n${[...new Set(names)].join(' · ')}\n`;
  });
  const head =
    'What `residual-skip` exports, by topic. `npm run docs` writes these pages from the doc comments.\n';
  return pages.set('README.md', ['# API\n', head, ...lists].join('\n'));
}

const pages = pagesOf(withoutNamespaces(withoutBareSections(await generate())));
if (process.argv[2] !== '--check') {
  rmSync(PAGES, { recursive: true, force: true });
  mkdirSync(PAGES);
  for (const [file, text] of pages) writeFileSync(join(PAGES, file), text);
} else {
  const written = existsSync(PAGES) ? readdirSync(PAGES) : [];
  const same = (file) =>
    written.includes(file) && readFileSync(join(PAGES, file), 'utf8') === pages.get(file);
  if (written.length !== pages.size || ![...pages.keys()].every(same)) {
    console.error('docs/api is out of date: run `npm run docs` and commit the pages');
    process.exitCode = 1;
  }
}
