/** Reads an ONNX file without its large weights, which are read one after the other when they are packed. */

/** Of TensorProto.DataType: those whose bytes are used as they are in the file. */
export const [FLOAT, UINT8, INT8] = [1, 2, 3];

/** Fields of ModelProto, GraphProto and TensorProto. */
const GRAPH = 7;
const INITIALIZER = 5;
const [DATA_TYPE, RAW_DATA] = [2, 9];
/** Of the protobuf encoding. */
const [VARINT, FIXED64, LENGTH, FIXED32] = [0, 1, 2, 5];

/** Smaller weights are read with what is around them: finding out where they end takes as long. */
const LARGE = 1 << 18;
/** Bytes to read at a time: with fewer there are many reads, and more would be a part of the next large weight. */
const AHEAD = LARGE;
/** Bytes of a tag or of a number. */
const MAX_NUMBER_BYTES = 10;

/**
 * Fills `bytes` but for the large weights among the graph's initializers. What is no ONNX file is read as a whole: decoding finds its faults.
 * @param bytes of the file's length
 * @param read fills a range of `bytes` from the file
 * @returns the offsets of the weights that are left out
 */
export async function readWithoutWeights(
  bytes: Uint8Array,
  read: (from: number, end: number) => Promise<void>,
): Promise<Set<number>> {
  const unread = new Set<number>();
  /** Where the walk is, and up to where bytes are there or left out. */
  let [at, filled] = [0, 0];

  async function fill(end: number): Promise<void> {
    if (end <= filled) return;
    const ahead = Math.min(Math.max(end, filled + AHEAD), bytes.length);
    await read(filled, ahead);
    filled = ahead;
  }

  /** A number of at most 53 bits; NaN for any other, and beyond `end`. */
  async function number(end: number): Promise<number> {
    await fill(Math.min(at + MAX_NUMBER_BYTES, bytes.length));
    for (let value = 0, factor = 1; at < end && factor < 2 ** 49; factor *= 128) {
      const byte = bytes[at++]!;
      value += (byte % 128) * factor;
      if (byte < 128) return value;
    }
    return Number.NaN;
  }

  /**
   * Walks over a message up to `end`; false if it is none.
   * @param part is called with the field and length of each part, may walk over it, and returns false if it is no message
   */
  async function walk(
    end: number,
    part: (field: number, length: number) => Promise<boolean>,
    note: (field: number, value: number) => void = () => {},
  ): Promise<boolean> {
    while (at < end) {
      const tag = await number(end);
      const [field, kind] = [Math.floor(tag / 8), tag % 8];
      if (kind === VARINT) note(field, await number(end));
      else if (kind === FIXED64 || kind === FIXED32) at += kind === FIXED64 ? 8 : 4;
      else {
        const length = kind === LENGTH ? await number(end) : Number.NaN;
        const next = at + length;
        if (!(next <= end) || !(await part(field, length))) return false;
        at = next;
        if (filled < at) await fill(at);
      }
    }
    return at === end;
  }

  function tensor(end: number): Promise<boolean> {
    let type = 0;
    const weights = async (field: number, length: number) => {
      if (field === RAW_DATA && length >= LARGE && [FLOAT, UINT8, INT8].includes(type)) {
        unread.add(at);
        filled = Math.max(filled, at + length);
      }
      return true;
    };
    return walk(end, weights, (field, value) => {
      if (field === DATA_TYPE) type = value;
    });
  }

  const graph = (end: number) =>
    walk(end, async (field, length) => field !== INITIALIZER || tensor(at + length));
  const model = (end: number) => walk(end, async (field, length) => field !== GRAPH || graph(at + length));

  if (!(await model(bytes.length))) {
    unread.clear();
    await read(0, bytes.length);
  } else await fill(bytes.length);
  return unread;
}
