/** Reads an ONNX file without its large weights, which are read one after the other when they are packed. */

/** Of TensorProto.DataType: those whose bytes are used as they are in the file. */
export const [FLOAT, UINT8, INT8] = [1, 2, 3];
export const IN_PLACE: readonly (number | undefined)[] = [FLOAT, UINT8, INT8];

/** Fields of ModelProto, GraphProto and TensorProto. */
const GRAPH = 7;
const INITIALIZER = 5;
const [DATA_TYPE, RAW_DATA] = [2, 9];
/** Of the protobuf encoding. */
const [VARINT, FIXED64, LENGTH, FIXED32] = [0, 1, 2, 5];

/** Smaller weights are read with what is around them: to leave one out takes as long. */
export const LARGE = 1 << 18;
/** Bytes to read behind a large weight: another one may be next. Each read in a row is twice as long, up to the most. */
const [LEAST_AHEAD, MOST_AHEAD] = [1 << 13, 1 << 22];
/** Bytes of a tag and of a number. */
const MAX_HEAD_BYTES = 20;

type Range = readonly [from: number, end: number];

/**
 * Fills `bytes` but for the large weights among the graph's initializers. What is no ONNX file is read as a whole: decoding finds its faults.
 * @param bytes of the file's length
 * @param read fills a range of `bytes` from the file
 * @returns the weights that are left out: bytes by offset
 */
export async function readWithoutWeights(
  bytes: Uint8Array,
  read: (from: number, end: number) => Promise<void>,
): Promise<Map<number, number>> {
  const walk = new Walk(bytes);
  for (const range of walk.model()) await read(...range);
  return walk.unread;
}

/** The same at once. */
export function readWithoutWeightsSync(
  bytes: Uint8Array,
  read: (from: number, end: number) => void,
): Map<number, number> {
  const walk = new Walk(bytes);
  for (const range of walk.model()) read(...range);
  return walk.unread;
}

/** Walks over a file, and yields each range that must be read before it goes on. */
class Walk {
  readonly unread = new Map<number, number>();
  private at = 0;
  /** Up to where bytes are there or left out. */
  private filled = 0;
  private ahead = LEAST_AHEAD;

  constructor(private readonly bytes: Uint8Array) {}

  *model(): Generator<Range> {
    const { length } = this.bytes;
    if (yield* this.message(length, 'model')) return yield* this.fill(length);
    this.unread.clear();
    yield [0, length];
  }

  /** False if what is up to `end` is no message. */
  private *message(end: number, kind: 'model' | 'graph' | 'tensor'): Generator<Range, boolean> {
    let type = 0;
    while (this.at < end) {
      if (this.at + MAX_HEAD_BYTES > this.filled) yield* this.fill(this.at + MAX_HEAD_BYTES);
      const tag = this.bytes[this.at]! < 128 ? this.bytes[this.at++]! : this.number(end);
      const field = Math.floor(tag / 8);
      const wireType = tag % 8;
      if (wireType === VARINT) {
        const value = this.number(end);
        if (field === DATA_TYPE) type = value;
      } else if (wireType === FIXED64 || wireType === FIXED32) this.at += wireType === FIXED64 ? 8 : 4;
      else {
        const length = wireType === LENGTH ? this.number(end) : Number.NaN;
        const next = this.at + length;
        if (!(next <= end)) return false;
        if (length >= LARGE) {
          if (kind === 'model' && field === GRAPH && !(yield* this.message(next, 'graph'))) return false;
          if (kind === 'graph' && field === INITIALIZER && !(yield* this.message(next, 'tensor')))
            return false;
          if (kind === 'tensor' && field === RAW_DATA && IN_PLACE.includes(type)) this.leaveOut(next);
        }
        this.at = next;
        if (this.filled < next) yield* this.fill(next);
      }
    }
    return this.at === end;
  }

  private leaveOut(end: number): void {
    this.unread.set(this.at, end - this.at);
    if (this.filled < end) this.ahead = LEAST_AHEAD;
    this.filled = Math.max(this.filled, end);
  }

  private *fill(to: number): Generator<Range> {
    const end = Math.min(Math.max(to, this.filled + this.ahead), this.bytes.length);
    if (end <= this.filled) return;
    yield [this.filled, end];
    this.filled = end;
    this.ahead = Math.min(2 * this.ahead, MOST_AHEAD);
  }

  /** A number of at most 53 bits; NaN for any other, and beyond `end`. */
  private number(end: number): number {
    for (let value = 0, factor = 1; this.at < end && factor < 2 ** 49; factor *= 128) {
      const byte = this.bytes[this.at++]!;
      value += (byte % 128) * factor;
      if (byte < 128) return value;
    }
    return Number.NaN;
  }
}
