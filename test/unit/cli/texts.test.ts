/** Networks of texts in `run`, `eval`, `record`, `replay` and `audit`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { evaluate, TextClassifier } from 'lib/index.js';
import { cli, cliJson } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { randomTexts, textNetwork } from '../../helpers/text-network.js';

const TEXTS = randomTexts(24, 1);
const SKIP = { blocks: { 1: 'skip' } };

const classes = textNetwork('classes');
const tokens = textNetwork('tokens', { files: { 'modules.json': [{ type: 'models.Normalize' }] } });
const folder = folderOf({ 'skip.json': JSON.stringify(SKIP), 'texts.tsv': TEXTS.join('\n') });
const at = (name: string) => join(folder, name);
let labels: readonly string[];

beforeAll(async () => {
  await using classifier = await TextClassifier.from(classes);
  const answers = await classifier.classify(TEXTS);
  labels = answers.map(({ label }) => label);
  const rows = TEXTS.map((text, i) => JSON.stringify({ text, label: labels[i] }));
  writeFileSync(at('texts.jsonl'), rows.join('\n'));
});
afterAll(removeFolders);

interface Ran {
  readonly input: string;
  readonly top: readonly { label: string }[];
  readonly blocks: { readonly skipped: number; readonly pattern: string };
  readonly cosineDistance?: number;
}

test('`run` takes texts and files of them', async () => {
  const ran = (await cliJson('run', classes, TEXTS[0]!, at('texts.tsv'))) as Ran[];
  expect(ran.map(({ input }) => input)).toEqual([TEXTS[0], ...TEXTS.map((_, i) => `texts.tsv:${i + 1}`)]);
  expect(ran.map(({ top }) => top[0]!.label)).toEqual([labels[0], ...labels]);
  expect(new Set(labels).size).toBeGreaterThan(1);
  const { code, out } = await cli(
    'run',
    classes,
    `${TEXTS[0]}\n and  ${'more '.repeat(20)}`,
    '--policy',
    at('skip.json'),
  );
  expect(code).toBe(0);
  expect(out).toMatch(/^text +class +blocks/m);
  expect(out).toMatch(/^word0 .*… +(bad|fair|good) \d/m);
});

test('`run` shows how far skipping moves the vectors of a network without classes', async () => {
  const [full] = (await cliJson('run', tokens, TEXTS[0]!, '--full')) as Ran[];
  expect(full).toMatchObject({ top: [], cosineDistance: 0 });
  const [skipped] = (await cliJson('run', tokens, TEXTS[0]!, '--policy', at('skip.json'))) as Ran[];
  expect(skipped!.blocks.pattern[1]).toBe('.');
  expect(skipped!.cosineDistance).toBeGreaterThan(1e-6);
  const { out } = await cli('run', tokens, TEXTS[0]!, '--policy', at('skip.json'));
  expect(out).toMatch(/^text +cosine distance +blocks/m);
});

test('a single number is shown, and labels that are numbers are no classes', async () => {
  const score = textNetwork('score', { files: { 'config.json': { id2label: { 0: 'LABEL_0' } } } });
  await using session = await TextClassifier.from(score);
  const { logits } = await session.session.run(session.feeds(session.prepare(TEXTS[0]!)));
  const [ran] = (await cliJson('run', score, TEXTS[0]!)) as (Ran & { numbers: number[] })[];
  expect(ran).toMatchObject({ top: [], numbers: [logits!.data[0]] });
  const data = join(folderOf({ 'a.csv': `text,label\n${TEXTS[0]},0.5\n${TEXTS[1]},1.5\n` }), 'a.csv');
  expect(await cliJson('eval', score, '--data', data)).toMatchObject({ items: 2, full: { accuracy: null } });
});

test('`eval` measures accuracy and agreement of classes', async () => {
  const full = await cliJson('eval', classes, '--data', at('texts.jsonl'), '--policy', 'full');
  expect(full).toMatchObject({ items: 24, full: { accuracy: 1 }, skip: { agreement: 1, distance: null } });
  const skipped = await evaluate(
    classes,
    TEXTS.map((text, i) => ({ text, label: labels[i] })),
    { policy: SKIP as never },
  );
  expect(skipped.skip.blocksSkipped).toBeCloseTo(0.25, 9);
  expect(skipped.skip.agreement).toBe(skipped.skip.accuracy);
  expect(await cliJson('eval', classes, '--data', at('texts.tsv'))).toMatchObject({
    full: { accuracy: null },
  });
});

test('`eval` measures the distance of vectors', async () => {
  const report = await cliJson(
    'eval',
    tokens,
    '--data',
    at('texts.jsonl'),
    '--policy',
    at('skip.json'),
    '--limit',
    '7',
  );
  expect(report).toMatchObject({
    items: 7,
    full: { accuracy: null },
    skip: { agreement: null, accuracy: null },
  });
  const { distance } = (report as { skip: { distance: { cosine: number; relative: number } } }).skip;
  expect(distance.cosine).toBeGreaterThan(1e-6);
  // Of unit vectors, |a - b|² is twice the cosine distance; by Jensen's inequality the mean of |a - b| is at most that of its root.
  expect(distance.relative).toBeLessThanOrEqual(Math.sqrt(2 * distance.cosine) + 1e-9);
  const { out } = await cli('eval', tokens, '--data', at('texts.tsv'), '--policy', at('skip.json'));
  expect(out).toMatch(/cosine distance/);
});

test('what `record` writes replays bit for bit, and is summarised', async () => {
  const log = at('audit.jsonl');
  const recorded = await cliJson(
    'record',
    classes,
    '--data',
    at('texts.jsonl'),
    '--policy',
    at('skip.json'),
    '-o',
    log,
  );
  expect(recorded).toMatchObject({ written: 24, lost: 0 });
  const replayed = await cliJson('replay', log, '--data', at('texts.tsv'), '--policy', at('skip.json'));
  expect(replayed).toMatchObject({ recorded: 24, replayed: 24, identical: 24, differences: [] });
  const summary = await cliJson('audit', log);
  expect(summary).toMatchObject({ items: 24, blocksSkipped: 0.25 });
  const other = await cli('replay', log, '--data', at('texts.tsv'), '--policy', 'full', '--json');
  expect(other.code).toBe(1);
  expect(JSON.parse(other.out)).toMatchObject({ identical: 0 });
});

test('a log that was recorded in bfloat16 says so, and replays in bfloat16', async () => {
  const [log, data] = [at('bfloat16.jsonl'), ['--data', at('texts.jsonl')]];
  await cliJson('record', classes, ...data, '--precision', 'bfloat16', '-o', log);
  expect(JSON.parse(readFileSync(log, 'utf8').split('\n')[0]!)).toMatchObject({ precision: 'bfloat16' });
  expect(await cliJson('replay', log, ...data)).toMatchObject({ replayed: 24, identical: 24 });
  const other = await cli('replay', log, ...data, '--precision', 'float32', '--json');
  expect(JSON.parse(other.out)).toMatchObject({
    identical: 0,
    circumstances: ['the log was recorded with the precision bfloat16, the replay ran with float32'],
  });
});

test.each<[string, readonly string[], RegExp]>([
  ['a file that is missing', ['run', classes, 'none.tsv'], /data none\.tsv: it doesn't exist.*INVALID_DATA/],
  [
    'a label that the model lacks',
    ['eval', classes, '--data', 'wrong.csv'],
    /wrong\.csv:2: its label "great" is not one/,
  ],
  [
    'labels from a file',
    ['eval', classes, '--data', 'texts.tsv', '--labels', 'x.csv'],
    /in the column 'label'.*INVALID_ARGUMENT/,
  ],
  [
    'a file of another kind, instead of its name as a text',
    ['run', classes, 'wrong.txt'],
    /data .*wrong\.txt: it is a file of another kind; texts are arguments themselves, or in files, \.jsonl/,
  ],
])('refuses %s', async (_, args, message) => {
  writeFileSync(at('wrong.txt'), 'a masterpiece\n');
  writeFileSync(at('wrong.csv'), 'text,label\nfine,great\n');
  const paths = args.map((arg) => (/^(texts|wrong)\./.test(arg) ? at(arg) : arg));
  const { code, err } = await cli(...paths);
  expect(code).toBe(1);
  expect(err).toMatch(message);
});
