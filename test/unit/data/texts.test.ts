import { join } from 'node:path';
import { readTexts } from 'lib/data/texts.js';
import { folderOf, removeFolders } from '../../helpers/files.js';

afterAll(removeFolders);

const fileOf = (name: string, content: string) => join(folderOf({ [name]: content }), name);

const LABELLED = [
  { name: 'a:2', text: 'a "good" film, twice', label: 'good' },
  { name: 'a:3', text: 'bad', label: '0' },
];

test.each([
  ['CSV', 'a.csv', '\uFEFFlabel,id,sentence\ngood,7,"a ""good"" film, twice"\r\n0,8,bad\n\n'],
  ['TSV, whose quotes are characters', 'a.tsv', 'text\tlabel\na "good" film, twice\tgood\nbad\t0\n'],
  [
    'JSON lines',
    'a.jsonl',
    '\n{"text": "a \\"good\\" film, twice", "label": "good"}\n{"sentence": "bad", "label": 0}\n',
  ],
  [
    'NDJSON',
    'a.ndjson',
    '\n{"text": "a \\"good\\" film, twice", "label": "good"}\n{"text": "bad", "label": 0}\n',
  ],
])('reads %s', async (_, name, content) => {
  const rows = await readTexts(fileOf(name, content));
  const typed = (label: string) => (/json/.test(name) && label === '0' ? 0 : label);
  expect(rows).toEqual(
    LABELLED.map((row) => ({ ...row, name: row.name.replace('a', name), label: typed(row.label) })),
  );
});

test('reads a header in capital letters', async () => {
  expect(await readTexts(fileOf('a.csv', 'Id,Sentence,LABEL\n1,one,good\n'))).toEqual([
    { name: 'a.csv:2', text: 'one', label: 'good' },
  ]);
});

test('reads files without a header by the number of their columns', async () => {
  expect(await readTexts(fileOf('a.tsv', 'one\ntwo'))).toEqual([
    { name: 'a.tsv:1', text: 'one' },
    { name: 'a.tsv:2', text: 'two' },
  ]);
  expect(await readTexts(fileOf('a.csv', 'one,1'))).toEqual([{ name: 'a.csv:1', text: 'one', label: '1' }]);
  expect(await readTexts(fileOf('a.csv', 'one,two,1'))).toEqual([
    { name: 'a.csv:1', text: 'one', pair: 'two', label: '1' },
  ]);
});

test.each(['text_pair', 'pair'])('reads pairs from the column %s, and groups', async (column) => {
  const file = fileOf('a.csv', `text,${column},source\none,two,web\n`);
  expect(await readTexts(file, { groups: 'source' })).toEqual([
    { name: 'a.csv:2', text: 'one', pair: 'two', group: 'web' },
  ]);
});

test.each<[string, string, string, RegExp]>([
  ['what is no JSON', 'a.jsonl', '{"text": "x"}\n{"text"', /a\.jsonl: row 2 is not valid JSON/],
  ['what is no object', 'a.jsonl', '["x"]', /row 1 is no JSON object/],
  [
    'a row without a text',
    'a.jsonl',
    '{"text": "x"}\n\n{"label": 1}',
    /row 3 has no text; its columns are label/,
  ],
  ['a text that is none', 'a.jsonl', '{"text": 5}', /row 1 has 5 as its text; expected a string/],
  ['a label that is none', 'a.jsonl', '{"text": "x", "label": [1]}', /row 1 has \[1\] as its label/],
  [
    'a row with another number of columns',
    'a.csv',
    'text,label\nx,1\ny\n',
    /row 3 has 1 columns, but 2 were/,
  ],
  ['a torn quote', 'a.csv', 'text\n"x\n', /row 2 is no CSV: Quoted field unterminated/],
  ['too many columns without names', 'a.tsv', 'a\tb\tc\td\n', /row 1 has 4 columns and names none/],
  ['a missing column of groups', 'a.csv', 'text\nx\n', /row 2 has no column source, which gives its group/],
  ['nothing', 'a.csv', '\n\n', /a\.csv: it holds no text/],
  ['another kind of file', 'a.txt', 'x', /a\.txt: .*texts are in a file, \.jsonl, \.ndjson, \.csv, \.tsv/],
])('refuses %s', async (_, name, content, message) => {
  const groups = message.source.includes('group') ? 'source' : undefined;
  await expect(readTexts(fileOf(name, content), { groups })).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringMatching(message),
  });
});

test('refuses a missing file, a folder, and one that is too large', async () => {
  const folder = folderOf({ 'a.csv': 'text\nx' });
  const code = 'INVALID_DATA';
  await expect(readTexts(join(folder, 'b.csv'))).rejects.toMatchObject({
    code,
    message: expect.stringMatching(/doesn't exist/),
  });
  await expect(readTexts(folder)).rejects.toMatchObject({
    code,
    message: expect.stringMatching(/it is a folder/),
  });
  await expect(readTexts(join(folder, 'a.csv'), { maxBytes: 5 })).rejects.toMatchObject({
    code,
    message: expect.stringMatching(/6 bytes, but at most 5/),
  });
});
