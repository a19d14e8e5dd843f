import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '../..');
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');

const sources = ['lib', 'native']
  .flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true }).map((file) => join(folder, file as string)),
  )
  .filter((file) => /\.(ts|cc|h)$/.test(file));

test('each search that CONTRIBUTING names finds the places that it names, and no others', () => {
  const answers = read('CONTRIBUTING.md').split(/\n\* /);
  const found = answers.flatMap((answer) =>
    [...answer.matchAll(/`git grep '([^']+)'`/g)].map(([, text]) => ({
      answer,
      places: sources.filter((file) => read(file).includes(text!)),
    })),
  );
  expect(found.map(({ places }) => places.length)).toEqual([2, 2, 1]);
  for (const { answer, places } of found) for (const place of places) expect(answer).toContain(place);
});
