/** Fields of a message that hold data (`true`), messages with such fields, or numbers, of which each byte counts as several. */
interface DataFields {
  readonly [field: number]: true | number | DataFields;
}

/** Of typed contents: a byte may become a number, which takes longer than one of JSON. */
const WHOLE_NUMBER = 4;
/** Shapes are short. */
const LENGTH = 64;
const CONTENTS = Object.fromEntries([1, 2, 3, 4, 5].map((field) => [field, WHOLE_NUMBER]));
/** Of ModelInferRequest: raw_input_contents, and bytes_contents in the contents of an input. Of other messages in it, the fields count. */
const INFER_DATA: DataFields = { 7: true, 5: { 3: LENGTH, 4: {}, 5: { ...CONTENTS, 8: true } }, 6: {} };

/** Methods whose messages have data. */
const INFERENCE = /\bModel(Stream)?Infer$/;

/** @param method its name or path */
export function hasData(method: string): boolean {
  return INFERENCE.test(method);
}

/** Fields of a message and of those in it; some take two bytes, and become objects of hundreds. */
export const MAX_FIELDS = 1 << 14;

/**
 * Bytes of an encoded protobuf message apart from data. They may become many numbers and objects when the message is decoded, whereas data
 * stays as it is.
 * @param method its name or path
 * @param limit counting may end above it
 * @returns infinity for a message with too many fields
 */
export function structureBytes(message: Uint8Array, method: string, limit: number): number {
  const left = { fields: MAX_FIELDS };
  const data = hasData(method) ? INFER_DATA : {};
  const bytes = count(new Reader(message, 0, message.length), data, limit, left);
  return left.fields < 0 ? Number.POSITIVE_INFINITY : bytes;
}

function count(reader: Reader, fields: DataFields, limit: number, left: { fields: number }): number {
  let bytes = 0;
  while (!reader.atEnd && bytes <= limit && --left.fields >= 0) {
    const start = reader.at;
    const tag = reader.varint();
    const type = tag & 7;
    let rest = 0;
    if (type === 0) reader.varint();
    else if (type === 1) reader.at += 8;
    else if (type === 5) reader.at += 4;
    else if (type === 2) rest = reader.varint();
    // Anything else is a group, of which the protocol has none.
    else return bytes + reader.end - start;
    bytes += reader.at - start;
    const inner = fields[tag >>> 3];
    const end = Math.min(reader.at + rest, reader.end);
    if (inner === undefined) bytes += rest;
    else if (typeof inner === 'number') bytes += inner * rest;
    else if (inner !== true) bytes += count(reader.until(end), inner, limit - bytes, left);
    reader.at = end;
  }
  return bytes;
}

/** Reads varints; those of a damaged message are any numbers, which the decoder will refuse. */
class Reader {
  constructor(
    private readonly bytes: Uint8Array,
    public at: number,
    readonly end: number,
  ) {}

  get atEnd(): boolean {
    return this.at >= this.end;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.bytes[this.at++] ?? 0;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  }

  until(end: number): Reader {
    return new Reader(this.bytes, this.at, end);
  }
}
