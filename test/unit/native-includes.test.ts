import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

// A file includes files of its own layer and of those before it. Folders but for `ops`: its plain loops know nothing of
// programs, while the rules of operators draft parts of plans.
const LAYERS = [
  /^(simd|kernels)\//,
  /^hash\//,
  /^image\//,
  /^audit\//,
  /^ops\/(?!.*operators\.(cc|h)$)/,
  /^program\//,
  /^plan\//,
  /^ops\/.*operators\.(cc|h)$/,
  /^run\//,
  /^addon\//,
];
const layerOf = (file: string) => LAYERS.findIndex((layer) => layer.test(file));

const files = readdirSync('native', { recursive: true, encoding: 'utf8' }).filter((file) =>
  /\.(cc|h|def)$/.test(file),
);
const includes = new Map(
  files.map((file) => [
    file,
    [...readFileSync(join('native', file), 'utf8').matchAll(/^#include "(.*)"/gm)].map((match) => match[1]!),
  ]),
);

/** Files that include each other, if some are reached from `file`. */
function circle(file: string, above: string[], done: Set<string>): string[] | undefined {
  if (above.includes(file)) return [...above.slice(above.indexOf(file)), file];
  if (done.has(file)) return undefined;
  for (const included of includes.get(file)!) {
    const found = circle(included, [...above, file], done);
    if (found) return found;
  }
  done.add(file);
  return undefined;
}

test('includes of the native core run one way', () => {
  expect(files.length).toBeGreaterThan(100);
  expect(files.filter((file) => layerOf(file) < 0)).toEqual([]);
  const wrong = files.flatMap((file) =>
    includes
      .get(file)!
      .filter((included) => layerOf(included) > layerOf(file))
      .map((to) => `${file} -> ${to}`),
  );
  expect(wrong).toEqual([]);
  const done = new Set<string>();
  for (const file of files) expect(circle(file, [], done)).toBeUndefined();
});
