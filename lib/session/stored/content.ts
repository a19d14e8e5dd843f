/** The bytes of a model's files that its programs were derived from: all but large weights that were only packed. */
import { files, readRanges } from '../../model/read/file.js';
import { WeightFile } from '../../tensor/recall.js';
import { inTurns, type Sliced } from '../../util/slices.js';
import type { Weights } from './constants.js';
import { digesting, PIECE } from './digest.js';

/** Large weights by offset: bytes. */
type Ranges = readonly (readonly [offset: number, bytes: number])[];

/** The bytes of a file that a model's programs were derived from. */
export interface Content {
  readonly size: number;
  /** Digest of all bytes outside of large weights. */
  readonly kept: string;
  /** Weights that were only packed. */
  readonly left: Ranges;
  /** Weights that lowering has looked at, and their digest. */
  readonly seen: Ranges;
  readonly ofSeen: string;
}

/** The file's bytes but for weights that are left there; undefined if they aren't those of the entry. */
export async function weightsOf(path: string, content: Content): Promise<Weights | undefined> {
  const { size, left, seen } = content;
  if (!(await files.stat(path)).isFile()) return undefined;
  const descriptor = await files.open(path, 'r');
  try {
    const stamp = await files.fstat(descriptor, { bigint: true });
    if (Number(stamp.size) !== size) return undefined;
    const file = new WeightFile(path, stamp);
    const bytes = await readRanges(descriptor, path, size, between(left, size));
    const same =
      (await inTurns(keptOf(bytes, [...left, ...seen]))) === content.kept &&
      (await inTurns(seenOf(bytes, seen))) === content.ofSeen;
    return same && file.isSame() ? { file, bytes, left: new Set(left.map(([offset]) => offset)) } : undefined;
  } finally {
    await files.close(descriptor);
  }
}

/** What is not in `ranges`, as beginnings and ends. */
function between(ranges: Ranges, size: number): [from: number, end: number][] {
  const found: [number, number][] = [];
  let from = 0;
  for (const [offset, bytes] of ranges.toSorted(([a], [b]) => a - b)) {
    found.push([from, offset]);
    from = offset + bytes;
  }
  return [...found, [from, size]];
}

export const keptOf = (bytes: Uint8Array, large: Ranges) =>
  digesting(between(large, bytes.length).map(([from, end]) => bytes.subarray(from, end)));

const seenOf = (bytes: Uint8Array, seen: Ranges) =>
  digesting(seen.map(([offset, length]) => bytes.subarray(offset, offset + length)));

/** The content of a file, in which so far nothing has looked at some weights: their bytes by offset. */
export function* contentOf(
  file: WeightFile,
  unseen: ReadonlyMap<number, number> = new Map(),
): Sliced<Content> {
  const { size } = file;
  const left = [...unseen];
  const kept = yield* digesting(piecesOf(file, between(left, size)));
  return { size, kept, left, seen: [], ofSeen: '' };
}

/** The content when nothing has looked yet at what `isLeft` says, and something at all other weights. */
export function* contentNow(
  file: WeightFile,
  { left, seen, ...rest }: Content,
  isLeft: (offset: number) => boolean,
): Sliced<Content> {
  const seenNow = [...seen, ...left.filter(([offset]) => !isLeft(offset))];
  const ranges = seenNow.map(([offset, bytes]) => [offset, offset + bytes] as const);
  const ofSeen = yield* digesting(piecesOf(file, ranges));
  return { ...rest, left: left.filter(([offset]) => isLeft(offset)), seen: seenNow, ofSeen };
}

/** The pieces of ranges that `digesting` digests, read one after the other. */
function* piecesOf(
  file: WeightFile,
  ranges: readonly (readonly [from: number, end: number])[],
): Generator<Uint8Array> {
  for (const [from, end] of ranges) {
    for (let at = from; at < end; at += PIECE) {
      const bytes = new Uint8Array(Math.min(PIECE, end - at));
      file.read(bytes, at);
      yield bytes;
    }
  }
}
