import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { openDataset, type Sample, takeEvenly } from 'lib/data/dataset.js';
import { folderOf, png, removeFolders } from '../../helpers/files.js';

afterEach(removeFolders);

async function names(files: Record<string, string | Uint8Array>, labels: string[]) {
  const { samples } = await openDataset(folderOf(files), labels);
  return samples.map(({ name, label }) => [name, label]);
}

describe('openDataset on image folders', () => {
  test('labels by folder name, in code-unit order, subfolders after the files', async () => {
    const files = {
      'dog/b.png': '',
      'dog/B.PNG': '',
      'dog/a10.jpeg': '',
      'dog/a9.jpg': '',
      'dog/more/c.webp': '',
      'Sea-Lion/x.tif': '',
      'dog/notes.txt': '',
      'dog/.hidden.png': '',
      'README.md': '',
    };
    expect(await names(files, ['cat', 'dog', 'sea lion'])).toEqual([
      ['Sea-Lion/x.tif', 2],
      ['dog/B.PNG', 1],
      ['dog/a10.jpeg', 1],
      ['dog/a9.jpg', 1],
      ['dog/b.png', 1],
      ['dog/more/c.webp', 1],
    ]);
  });

  test('labels by order when no name is known and the numbers fit', async () => {
    const files = { 'n01/a.png': '', 'n02/a.png': '' };
    expect(await names(files, ['tench', 'goldfish'])).toEqual([
      ['n01/a.png', 0],
      ['n02/a.png', 1],
    ]);
  });

  test('notes that folders are matched by their order alone', async () => {
    const notes: string[] = [];
    const onOrder = (note: string) => notes.push(note);
    const labels = ['tench', 'hen', 'goldfish'];
    await openDataset(folderOf({ 'tench/a.png': '', 'hen/a.png': '' }), labels, { onOrder });
    expect(notes).toEqual([]);
    const folder = folderOf({ 'n01/a.png': '', 'n02/a.png': '', 'n03/a.png': '' });
    await openDataset(folder, labels, { onOrder });
    expect(notes).toEqual([
      expect.stringMatching(/in the order of the classes, "n01" for "tench" to "n03" for "goldfish"; if/),
    ]);
  });

  test('numbers that are no labels are in the order of their values', async () => {
    const labels = Array.from({ length: 11 }, (_, i) => `class ${String.fromCharCode(97 + i)}`);
    for (const from of [0, 1]) {
      const folders = labels.map((_, i) => `${i + from}`);
      const found = await names(Object.fromEntries(folders.map((name) => [`${name}/a.png`, ''])), labels);
      expect(found).toEqual(folders.map((name, i) => [`${name}/a.png`, i]));
    }
  });

  test('accents are the same whether they are letters of their own or not', async () => {
    expect(await names({ 'cafe\u0301/a.png': '', 'tea/a.png': '' }, ['tea', 'caf\u00e9'])).toEqual([
      ['cafe\u0301/a.png', 1],
      ['tea/a.png', 0],
    ]);
  });

  test('a label of several classes is refused', async () => {
    await expect(names({ 'crane/a.png': '' }, ['crane', 'hen', 'Crane'])).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/several classes of the model have the label of the folder "crane"/),
    });
    expect(await names({ 'hen/a.png': '' }, ['crane', 'hen', 'crane'])).toEqual([['hen/a.png', 1]]);
  });

  test('does not follow a folder that links to itself', async () => {
    const root = folderOf({ 'cat/a.png': '' });
    symlinkSync(join(root, 'cat'), join(root, 'cat', 'loop'));
    symlinkSync(root, join(root, 'root'));
    expect((await openDataset(root, ['cat'])).samples).toHaveLength(1);
  });

  test('reads folders that are linked, and ends where they link to each other', async () => {
    const root = folderOf({ 'cat/a.png': '' });
    const other = folderOf({ 'dogs/b.png': '', 'dogs/more/c.png': '', 'far/d.png': '' });
    symlinkSync(join(other, 'dogs'), join(root, 'dog'));
    symlinkSync(join(other, 'far'), join(other, 'dogs', 'far'));
    symlinkSync(join(other, 'dogs'), join(other, 'far', 'dogs'));
    const { samples } = await openDataset(root, ['cat', 'dog']);
    expect(samples.map(({ name, label }) => [name, label])).toEqual([
      ['cat/a.png', 0],
      ['dog/b.png', 1],
      ['dog/far/d.png', 1],
      ['dog/more/c.png', 1],
    ]);
  });

  test.each<[string, Record<string, string>, RegExp]>([
    [
      'some class is unknown',
      { 'cat/a.png': '', 'cow/a.png': '' },
      /no label for the class folder "cow"; its 2 labels are "cat", "dog"/,
    ],
    [
      'all are unknown and the numbers differ',
      { 'a/a.png': '', 'b/a.png': '', 'c/a.png': '' },
      /folders "a", "b", "c"/,
    ],
    ['no class has an image', { 'cat/a.txt': '', 'dog/b.txt': '' }, /none of its folders holds an image/],
    [
      'images lie beside each other',
      { 'a.png': '' },
      /its images lie beside each other, which gives them no label; expected a folder of images per class, IDX files/,
    ],
  ])('says so when %s', async (_, files, message) => {
    await expect(openDataset(folderOf(files), ['cat', 'dog'])).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(message),
    });
  });

  test('says so when the folder is empty or not there, or a file is no data set', async () => {
    const root = folderOf({ 'a.png': '' });
    mkdirSync(join(root, 'empty'));
    await expect(openDataset(join(root, 'empty'), ['cat'])).rejects.toThrow(/empty: it has no images/);
    await expect(openDataset(join(root, 'nowhere'), ['cat'])).rejects.toThrow(/nowhere: it doesn't exist/);
    await expect(openDataset(join(root, 'a.png'), ['cat'])).rejects.toThrow(/a\.png: it is not a data set/);
  });

  test('reads an image when asked, and names one that is broken', async () => {
    const root = folderOf({ 'cat/good.png': await png(3, 2, [1, 2, 3]), 'cat/torn.png': 'no image' });
    const [good, torn] = (await openDataset(root, ['cat'])).samples;
    expect([...(await good!.load()).data.subarray(0, 3)]).toEqual([1, 2, 3]);
    await expect(torn!.load()).rejects.toMatchObject({ code: 'INVALID_DATA' });
    await expect(torn!.load()).rejects.toThrow(join(root, 'cat', 'torn.png'));
  });
});

test('takeEvenly spreads over the whole set', () => {
  const samples = Array.from({ length: 10 }, (_, label) => ({ name: '', label }) as Sample);
  expect(takeEvenly(samples, 4).map(({ label }) => label)).toEqual([0, 2, 5, 7]);
  expect(takeEvenly(samples, 10)).toEqual(samples);
  expect(takeEvenly(samples, 99)).toEqual(samples);
});
