/** Levenshtein distance: insertions, deletions and replacements that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(replaced, previous[j]! + 1, current[j - 1]! + 1));
    }
    previous = current;
  }
  return previous[b.length]!;
}

/** Up to three of `names` that `given` may have been meant for, nearest first. */
export function nearNames(given: string, names: readonly string[]): readonly string[] {
  const key = given.toLowerCase().slice(0, 128);
  return names
    .map((name) => {
      const other = name.toLowerCase().slice(0, 128);
      const contained = key.length >= 3 && other.includes(key);
      return { name, distance: contained ? 1 : editDistance(key, other) };
    })
    .filter(({ distance }) => distance <= Math.min(key.length - 1, Math.max(2, key.length / 3)))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ name }) => name);
}

/** Most letters by which a misspelt key differs: more, and it may be another program's key. */
const MAX_TYPOS = 2;

/** The one of `names` that `given` almost is, in its letters or without the words before the last. */
export function misspelt(given: string, names: readonly string[]): string | undefined {
  const key = given.toLowerCase();
  const max = Math.min(MAX_TYPOS, Math.floor(key.length / 3));
  return names.find((name) => name.endsWith(`_${key}`) || editDistance(key, name.toLowerCase()) <= max);
}

/** Flags of earlier versions, which are options as well, and what they are called now. */
export const RENAMED_FLAGS: ReadonlyMap<string, string> = new Map([
  ['reference', 'original'],
  ['queue', 'max-waiting'],
]);

const RENAMED: ReadonlyMap<string, string> = new Map([
  ...RENAMED_FLAGS,
  ['profile', 'scores'],
  ['exitProfile', 'exitScores'],
]);

/** The one of `names` that an option of earlier versions is called now. */
export function renamedTo(given: string, names: readonly string[]): string | undefined {
  const renamed = RENAMED.get(given);
  return renamed !== undefined && names.includes(renamed) ? renamed : undefined;
}

/** "did you mean 'a' or 'b'?", or what there is to choose from when nothing is near. */
export function suggest(given: string, names: readonly string[]): string {
  const renamed = renamedTo(given, names);
  if (renamed !== undefined) return `it is called '${renamed}' now`;
  const near = nearNames(given, names);
  if (near.length > 0) return `did you mean ${near.map((name) => `'${name}'`).join(' or ')}?`;
  if (names.length === 0) return 'there are none';
  const shown = names.slice(0, 12).map((name) => `'${name}'`);
  return `expected one of ${shown.join(', ')}${names.length > shown.length ? `, … (${names.length} in all)` : ''}`;
}
