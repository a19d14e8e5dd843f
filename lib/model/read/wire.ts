/** Reads and writes messages in the encoding of protocol buffers, by tables of their fields. */
import { isAscii } from 'node:buffer';
import { BinaryReader, BinaryWriter, type IBinaryWriter } from '@protobuf-ts/runtime';
import { ResidualSkipError } from '../../errors.js';
import { isDue, type Sliced } from '../../util/slices.js';
import { type Layout, layoutOf, nativeDecoder } from './native-messages.js';

/** An int64 on the wire: a number if it is a safe integer, otherwise two halves. */
export type Int64 = number | { readonly low: number; readonly high: number };

type Scalar = 'string' | 'bytes' | 'int32' | 'int64' | 'uint64' | 'float' | 'double';

interface Field {
  readonly name: string;
  /** A scalar, or the fields of a message: a function, as messages contain each other. */
  readonly type: Scalar | (() => Message);
  readonly wireType: number;
  readonly repeated: boolean;
  readonly read: Read;
}

/** Reads one value of a message that ends at `end`. */
type Read = (reader: Reader, end: number, depth: number) => unknown;
/** By field number. */
export type Message = Readonly<Record<number, Field>>;

/** Wire type of each scalar: 0 is a varint, 1 eight bytes, 2 length-delimited, 5 four bytes. */
const WIRE_TYPES = { string: 2, bytes: 2, int32: 0, int64: 0, uint64: 0, float: 5, double: 1 } as const;
const DELIMITED = 2;

const fieldOf = (name: string, type: Field['type'], repeated: boolean): Field => {
  if (typeof type === 'string') return { name, type, wireType: WIRE_TYPES[type], repeated, read: READ[type] };
  const read: Read = (reader, end, depth) => decodeInside(reader, type(), end, depth);
  return { name, type, wireType: DELIMITED, repeated, read };
};
export const one = (name: string, type: Field['type']) => fieldOf(name, type, false);
export const many = (name: string, type: Field['type']) => fieldOf(name, type, true);

/** A byte of a number is at least this if another one follows. */
const MORE = 0x80;

/** Deeper nesting is refused: no real model comes near this depth, and the stack suffices for it. */
const MAX_DEPTH = 100;

type Decoded = Record<string, unknown>;

/** A reader whose strings and integers take no more time than they must: a file has thousands. */
class Reader extends BinaryReader {
  readonly #bytes: Buffer;
  readonly #decodeFields = nativeDecoder();
  readonly #layout: Layout | undefined;

  constructor({ buffer, byteOffset, byteLength }: Uint8Array, root: Message) {
    super(new Uint8Array(buffer, byteOffset, byteLength));
    this.#bytes = Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);
    this.#layout = this.#decodeFields && layoutOf(root);
  }

  /** Fields of a message up to `end`, or fewer. */
  fieldsAtOnce(fields: Message, end: number, message: Decoded): void {
    if (!this.#layout || this.pos >= end) return;
    const { table, names, numbers } = this.#layout;
    const number = numbers.get(fields)!;
    this.pos = this.#decodeFields!(table, names, number, this.#bytes, this.pos, end, AT_ONCE_BYTES, message);
  }

  /** Text that isn't UTF-8 is read with replacement characters: names only need to differ. */
  override string(): string {
    const length = this.uint32();
    const start = this.pos;
    this.pos += length;
    if (this.pos > this.len) throw new RangeError(TOO_EARLY);
    return this.#bytes.toString('utf8', start, this.pos);
  }

  /** A packed list whose bytes are its numbers: of floats, or of integers below 128. Undefined for any other. */
  wholeList(type: Field['type'], end: number): Float32Array | Uint8Array | undefined {
    const { pos } = this;
    const isFloats = type === 'float' && (end - pos) % Float32Array.BYTES_PER_ELEMENT === 0;
    if (!isFloats && !(type === 'int32' && isAscii(this.#bytes.subarray(pos, end)))) return undefined;
    this.pos = end;
    const bytes = new Uint8Array(this.#bytes.subarray(pos, end));
    return isFloats ? new Float32Array(bytes.buffer) : bytes;
  }

  integer(): Int64 {
    const byte = this.#bytes[this.pos]!;
    if (byte < MORE) {
      this.pos++;
      return byte;
    }
    const [low, high] = this.varint64();
    const value = (high | 0) * 2 ** 32 + (low >>> 0);
    return Number.isSafeInteger(value) ? value : { low: low | 0, high: high | 0 };
  }
}

const READ: Readonly<Record<Scalar, (reader: Reader) => unknown>> = {
  string: (reader) => reader.string(),
  bytes: (reader) => reader.bytes(),
  int32: (reader) => reader.int32(),
  int64: (reader) => reader.integer(),
  uint64: (reader) => reader.integer(),
  float: (reader) => reader.float(),
  double: (reader) => reader.double(),
};

const bigint = (value: Int64) =>
  typeof value === 'number' ? BigInt(value) : (BigInt(value.high) << 32n) | BigInt(value.low >>> 0);

const WRITE: Readonly<Record<Scalar, (writer: IBinaryWriter, value: never) => unknown>> = {
  string: (writer, value) => writer.string(value),
  bytes: (writer, value) => writer.bytes(value),
  int32: (writer, value) => writer.int32(value),
  int64: (writer, value) => writer.int64(BigInt.asIntN(64, bigint(value))),
  uint64: (writer, value) => writer.uint64(BigInt.asUintN(64, bigint(value))),
  float: (writer, value) => writer.float(value),
  double: (writer, value) => writer.double(value),
};

const TOO_LONG = 'a message is longer than the one around it';
const TOO_EARLY = 'the bytes end too early';
const FIELD_TOO_LONG = 'a field is longer than the message around it';

/** Messages and lists of fewer bytes are decoded in one go. */
const AT_ONCE_BYTES = 1 << 16;

function corrupt(problem: string, cause?: unknown): never {
  throw new ResidualSkipError('MODEL_CORRUPT', problem, { cause });
}

/** What the reader throws where bytes end too early or are no message; any other error is a defect. */
const OF_READER: readonly unknown[] = ['Error', 'RangeError'];

/**
 * Decodes a message. Byte fields are views into `bytes`; absent fields are undefined.
 * @throws ResidualSkipError MODEL_CORRUPT when the bytes are not such a message
 */
export function* decodeAll(bytes: Uint8Array, fields: Message): Sliced<Decoded> {
  try {
    return yield* decoding(new Reader(bytes, fields), fields, bytes.length, 0);
  } catch (error) {
    const { name, message } = error as Error;
    if (!OF_READER.includes(name)) throw error;
    corrupt(name === 'RangeError' ? TOO_EARLY : message, error);
  }
}

/** Decodes a message that may be large: its large parts in slices, as it is. */
function* decoding(reader: Reader, fields: Message, end: number, depth: number): Sliced<Decoded> {
  const message: Decoded = {};
  for (;;) {
    reader.fieldsAtOnce(fields, end, message);
    if (isDue()) yield;
    const start = reader.pos;
    if (start >= end) return ended(reader, message, end);
    const tag = reader.uint32();
    const field = fields[tag >>> 3];
    const parted = field && (tag & 7) === DELIMITED && (isMessage(field) || isPacked(field));
    const last = parted ? delimitedEnd(reader, end) : start;
    if (!parted || last - start < AT_ONCE_BYTES) {
      reader.pos = start;
      decode(reader, fields, end, depth, message, start + 1);
    } else if (isMessage(field)) {
      put(message, field, yield* decoding(reader, field.type(), last, checkedDepth(depth + 1)));
    } else {
      while (reader.pos < last) {
        decodeList(reader, message, field, Math.min(reader.pos + AT_ONCE_BYTES, last));
        if (isDue()) yield;
      }
      ended(reader, message, last);
    }
  }
}

/**
 * Decodes the fields that begin before `until`. V8 counts the bytes of a loop for each round, and optimises the function after some,
 * which takes longer than it runs: what few fields need is elsewhere.
 */
function decode(
  reader: Reader,
  fields: Message,
  end: number,
  depth: number,
  message: Decoded = {},
  until = end,
): Decoded {
  while (reader.pos < until) {
    const tag = reader.uint32();
    const field = fields[tag >>> 3];
    if (field === undefined || (tag & 7) !== field.wireType)
      decodeOther(reader, message, field, tag & 7, end);
    else {
      const { name, read, repeated } = field;
      const value = read(reader, end, depth);
      if (!repeated) message[name] = value;
      else listOf(message, field).push(value);
    }
  }
  return message;
}

function decodeInside(reader: Reader, fields: Message, limit: number, depth: number): Decoded {
  const end = delimitedEnd(reader, limit);
  return ended(reader, decode(reader, fields, end, checkedDepth(depth + 1)), end);
}

/** A packed list, or what isn't part of the message. */
function decodeOther(
  reader: Reader,
  message: Decoded,
  field: Field | undefined,
  wireType: number,
  end: number,
): void {
  if (wireType !== DELIMITED) reader.skip(wireType);
  else if (field && isPacked(field)) {
    const last = delimitedEnd(reader, end);
    decodeList(reader, message, field, last);
    ended(reader, message, last);
  } else reader.pos = delimitedEnd(reader, end);
}

/** Numbers of a packed list, up to `end` or beyond it by a part of the last. */
function decodeList(reader: Reader, message: Decoded, field: Field, end: number): void {
  message[field.name] ??= reader.wholeList(field.type, end);
  if (reader.pos === end && message[field.name] !== undefined) return;
  const values = listOf(message, field);
  while (reader.pos < end) values.push(field.read(reader, end, 0));
}

const isMessage = (field: Field): field is Field & { readonly type: () => Message } =>
  typeof field.type === 'function';

/** Whether the field may be a list of numbers without tags between them. */
const isPacked = (field: Field) => field.repeated && field.wireType !== DELIMITED;

function checkedDepth(depth: number): number {
  if (depth > MAX_DEPTH) corrupt(`messages are nested beyond a depth of ${MAX_DEPTH}`);
  return depth;
}

function ended(reader: Reader, message: Decoded, end: number): Decoded {
  if (reader.pos !== end) corrupt(FIELD_TOO_LONG);
  return message;
}

function delimitedEnd(reader: Reader, limit: number): number {
  const length = reader.uint32();
  if (length > limit - reader.pos) corrupt(TOO_LONG);
  return reader.pos + length;
}

function put(message: Decoded, field: Field, value: unknown): void {
  if (field.repeated) listOf(message, field).push(value);
  else message[field.name] = value;
}

function listOf(message: Decoded, { name }: Field): unknown[] {
  const known = message[name];
  if (Array.isArray(known)) return known;
  const list = Array.from((known as Iterable<unknown> | undefined) ?? []);
  message[name] = list;
  return list;
}

function encode(writer: IBinaryWriter, fields: Message, message: Decoded): IBinaryWriter {
  for (const [number, { name, type, repeated }] of Object.entries(fields)) {
    const given = message[name];
    if (given === undefined) continue;
    for (const value of (repeated ? given : [given]) as never[]) {
      if (typeof type === 'string') WRITE[type](writer.tag(Number(number), WIRE_TYPES[type]), value);
      else encode(writer.tag(Number(number), DELIMITED).fork(), type(), value).join();
    }
  }
  return writer;
}

/** The bytes of a message. */
export function encodeAll(fields: Message, message: Decoded): Uint8Array {
  return encode(new BinaryWriter(), fields, message).finish();
}
