/** Messages of protocol buffers that native code decodes, see native/addon/messages.h. What it leaves, and all without it, wire.ts decodes. */
import { loadBinding } from '../../util/binding.js';

interface FieldLike {
  readonly name: string;
  readonly type: string | (() => MessageLike);
  readonly repeated: boolean;
}
type MessageLike = Readonly<Record<number, FieldLike>>;

/** Scalars in the order in which native code numbers them. A message has the next number. */
const SCALARS: readonly string[] = ['string', 'bytes', 'int32', 'int64', 'uint64', 'float', 'double'];

/** The fields of messages as numbers, their names, and the number of each message. */
export interface Layout {
  readonly table: Int32Array;
  readonly names: readonly string[];
  readonly numbers: ReadonlyMap<object, number>;
}

/** The layout of a message and of all that it may contain. */
export function layoutOf(root: MessageLike): Layout {
  const numbers = new Map<MessageLike, number>();
  const names = new Map<string, number>();
  const begins: number[] = [];
  const words: number[] = [];
  numbered(numbers, root);
  // The map grows meanwhile.
  for (const message of numbers.keys()) {
    begins.push(words.length);
    const last = Math.max(...Object.keys(message).map(Number));
    for (let number = 0; number <= last; number++) {
      const field = message[number];
      if (!field) words.push(-1, 0, 0, 0);
      else {
        const { name, type, repeated } = field;
        const kind = typeof type === 'string' ? SCALARS.indexOf(type) : SCALARS.length;
        const inner = typeof type === 'string' ? 0 : numbered(numbers, type());
        words.push(numbered(names, name), kind, Number(repeated), inner);
      }
    }
  }
  begins.push(words.length);
  const table = Int32Array.from([...begins.map((begin) => begins.length + begin), ...words]);
  return { table, names: [...names.keys()], numbers };
}

function numbered<T>(known: Map<T, number>, key: T): number {
  const number = known.get(key) ?? known.size;
  known.set(key, number);
  return number;
}

type DecodeFields = (
  table: Int32Array,
  names: readonly string[],
  message: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  piece: number,
  target: object,
) => number;

export function nativeDecoder(): DecodeFields | undefined {
  const loaded = loadBinding();
  return 'problem' in loaded ? undefined : (loaded.exports as { decodeFields?: DecodeFields }).decodeFields;
}
