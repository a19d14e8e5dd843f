/** Fields of a message that hold data (`true`), or messages with such fields. */
interface DataFields {
  readonly [field: number]: true | DataFields;
}

/** Of ModelInferRequest: raw_input_contents, and bytes_contents in the contents of an input. */
export const INFER_DATA: DataFields = { 7: true, 5: { 5: { 8: true } } };

/**
 * Bytes of an encoded protobuf message apart from data. Each of them may become an object of a hundred bytes when the message is
 * decoded, whereas data stays as it is.
 * @param limit counting may end above it
 */
export function structureBytes(message: Uint8Array, fields: DataFields, limit: number): number {
  return count(new Reader(message, 0, message.length), fields, limit);
}

function count(reader: Reader, fields: DataFields, limit: number): number {
  let bytes = 0;
  while (!reader.atEnd && bytes <= limit) {
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
    else if (inner !== true) bytes += count(reader.until(end), inner, limit - bytes);
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
