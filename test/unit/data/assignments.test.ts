import { join } from 'node:path';
import { readAssignments, valuesOf } from 'lib/data/assignments.js';
import { folderOf, removeFolders } from '../../helpers/files.js';

afterAll(removeFolders);

const folder = folderOf({
  'a.csv': '\uFEFFcats/1.jpg,night\n"dogs/2, old.jpg", day \r\n\n',
  'a.json': '{ "cats/1.jpg": "night", "dogs/2, old.jpg": 3 }',
  'wide.csv': 'a,b\nc,d,e\n',
  'broken.csv': 'a,"b',
  'list.json': '["a"]',
  'twice.csv': 'a.jpg,night\nb.jpg,day\na.jpg,night\n',
  'contrary.csv': 'a.jpg,night\nb.jpg,day\na.jpg,day\n',
});
const file = (name: string) => join(folder, name);

test('CSV and JSON give values by name', async () => {
  expect([...(await readAssignments(file('a.csv')))]).toEqual([
    ['cats/1.jpg', 'night'],
    ['dogs/2, old.jpg', 'day'],
  ]);
  expect((await readAssignments(file('a.json'))).get('dogs/2, old.jpg')).toBe(3);
});

test('a name may be there twice, but not with another value', async () => {
  expect((await readAssignments(file('twice.csv'))).size).toBe(2);
  await expect(readAssignments(file('contrary.csv'))).rejects.toMatchObject({
    message: expect.stringMatching(/row 3 gives "a\.jpg" the value "day", which had "night" before/),
  });
});

test.each(['wide.csv', 'broken.csv', 'list.json', 'none.csv', 'none.json'])(
  '%s is refused by name',
  async (name) => {
    await expect(readAssignments(file(name))).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringContaining(name),
    });
  },
);

test('an image without a value is named, and so are names that the file has', () => {
  const known = new Map([['x.jpg', 'night']]);
  expect(valuesOf(['x.jpg'], known, 'f.csv')).toEqual(['night']);
  expect(() => valuesOf(['x.jpg', 'y.jpg'], known, 'f.csv')).toThrow(
    /f\.csv: it has no value for 1 of 2 images, such as "y\.jpg"; its names are like "x\.jpg"/,
  );
  expect(() => valuesOf(['y.jpg'], new Map(), 'f.csv')).toThrow(/empty/);
});
