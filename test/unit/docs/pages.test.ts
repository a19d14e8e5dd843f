/** The documentation agrees with itself and with the code, as far as that can be read. test/package runs what it shows. */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ERROR_CODES } from 'lib/errors.js';
import { findOperator } from 'lib/model/lower/operators/index.js';
import { SKIP_REASONS } from 'lib/skip/trace.js';
import { cli } from '../../helpers/cli.js';
import { commandsOf, DOCUMENTATION, inLanguage, MEASURING, snippetsOf } from '../../helpers/snippets.js';

const ROOT = resolve(__dirname, '../../..');
const textOf = (page: string) => readFileSync(join(ROOT, page), 'utf8');

/** What the rows of a page's tables begin with, from the heading on. */
function firstColumn(page: string, heading: string): string[] {
  const [, text] = `\n${textOf(page)}`.split(`\n${heading}\n`);
  return [...text!.matchAll(/^\| `([^`|]+)` \|/gm)].map(([, cell]) => cell!);
}

/** The anchors of a page's headings, as GitHub and npm make them. */
function anchorsOf(file: string): string[] {
  const seen = new Map<string, number>();
  return [...readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading]) => {
    const slug = heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
    const repeats = seen.get(slug) ?? 0;
    seen.set(slug, repeats + 1);
    return repeats > 0 ? `${slug}-${repeats}` : slug;
  });
}

describe('links', () => {
  it.each(DOCUMENTATION)('of %s are to what exists', (page) => {
    const targets = [...textOf(page).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!);
    for (const target of targets.filter((name) => !/^https?:/.test(name))) {
      const [path, anchor] = target.split('#') as [string, string | undefined];
      const file = path === '' ? join(ROOT, page) : resolve(ROOT, page, '..', path);
      expect([target, existsSync(file)]).toEqual([target, true]);
      if (anchor) expect([target, anchorsOf(file)]).toEqual([target, expect.arrayContaining([anchor])]);
    }
  });
});

describe('pages on how to use it', () => {
  it.each(DOCUMENTATION.filter((page) => /^docs\/(?!lab\/|api\/)/.test(page)))(
    '%s has at most 150 lines',
    (page) => {
      expect(textOf(page).trimEnd().split('\n').length).toBeLessThanOrEqual(150);
    },
  );
});

describe('commands that take hours', () => {
  it.each(MEASURING)('%s names scripts that exist', (page) => {
    const { scripts } = JSON.parse(textOf('package.json'));
    const commands = snippetsOf(page).filter(inLanguage('sh')).flatMap(commandsOf);
    expect(commands.length).toBeGreaterThan(0);
    for (const command of commands) {
      const script = /\bnpm run ([\w:-]+)/.exec(command)?.[1];
      if (script) expect(Object.keys(scripts)).toContain(script);
      const file = /\b(?:node|python3) (?:--[\w-]+ )*(\S+\.(?:mjs|py))/.exec(command)?.[1];
      if (file) expect([file, existsSync(join(ROOT, file))]).toEqual([file, true]);
    }
  });
});

describe('lists', () => {
  it('docs/errors.md has every code once', () => {
    expect(firstColumn('docs/errors.md', '# Errors').sort()).toEqual([...ERROR_CODES].sort());
  });

  it('docs/policies.md has every reason once', () => {
    expect(firstColumn('docs/policies.md', '## Traces').sort()).toEqual([...SKIP_REASONS].sort());
  });

  it('docs/models.md has operators that are implemented', () => {
    const [, list] = /^Operators: ([\s\S]*?)\./m.exec(textOf('docs/models.md'))!;
    const names = list!.split(/,\s+/);
    expect(textOf('README.md')).toContain(`[${names.length} operators]`);
    expect(names.filter((name) => name !== 'Constant' && !findOperator(name))).toEqual([]);
  });

  it('docs/cli.md has every option of every command', async () => {
    const page = textOf('docs/cli.md');
    const { out } = await cli('--help');
    const commands = [...out.matchAll(/^ {2}(\w+) \[options\]/gm)].map(([, name]) => name!);
    expect(commands.length).toBeGreaterThan(8);
    for (const command of commands) {
      const help = (await cli(command, '--help')).out;
      const options = [...help.matchAll(/^ {2}(?:-\w, )?(--[\w-]+)/gm)].map(([, name]) => name!);
      const missing = options.filter((name) => name !== '--help' && !page.includes(`\`${name}`));
      expect({ command, missing }).toEqual({ command, missing: [] });
    }
  });
});

describe('figures of the README', () => {
  const readme = textOf('README.md');

  /** The cells of the row of a page's table that begins with `name`. */
  function row(page: string, name: string): string[] {
    const line = textOf(page)
      .split('\n')
      .find((text) => text.replaceAll('*', '').startsWith(`| ${name} |`));
    return line!
      .replaceAll('*', '')
      .split('|')
      .slice(2, -1)
      .map((cell) => cell.trim());
  }

  it('are those of docs/performance.md', () => {
    const [, , ratio] = row('docs/performance.md', 'ResNet-32 (CIFAR)');
    expect(readme).toContain(`[${ratio!.replace('x', '')} times as fast as on onnxruntime-node]`);
  });

  it('are those of docs/lab/protocol.md, whose first section is that of CIFAR-10', () => {
    const claim = 'CIFAR-10 | the mean latency is cut by at least 35 %';
    expect(readme).toContain(`the mean latency [by ${row('docs/lab/protocol.md', claim)[1]}]`);
    // Without the smallest and the largest of several seeds.
    const accuracy = (name: string) => row('docs/lab/protocol.md', name)[2]!.replace(/ \(.*/, '');
    expect(readme).toContain(`an accuracy of ${accuracy('gated')} instead of ${accuracy('twin')}`);
    for (const rival of ['plain-thin', 'plain-1-1-1-2'])
      expect(readme).toContain(`is right on ${accuracy(rival)}`);
  });
});
