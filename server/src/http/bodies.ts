import type { IncomingMessage } from 'node:http';
import { ServerError } from '../errors.js';
import { ReusedMemory } from '../inference/reused-memory.js';
import { Turns } from '../inference/turns.js';
import { type Encoding, isEncoding, unpacked } from './encoding.js';

/** JSON of more bytes is parsed in a turn of the event loop of its own. */
const LONG_JSON = 64 << 10;
/** Of the event loop's time, while more of it waits. */
const JSON_SHARE = 1 / 3;
/** The JSON of longer bodies is checked before the rest is read. */
const LONG_BODY = 1 << 20;
/** A longer body gets its memory when more bytes than these have come: mapping it takes milliseconds, and announcing it nothing. */
const BEGUN = 64 << 10;
/** Unfinished bodies may take this many times the limit on one of them. */
const MAX_UNFINISHED = 2;
/**
 * Bytes of bodies that are read in one turn of the event loop: the others wait for the next, so that long ones leave time for what else
 * was received.
 */
const TURN_BYTES = 512 << 10;

/** Parts of a body that may be small. */
const SMALL_PARTS = 1024;
/** Bytes that further ones have at least, on average: reading a part takes as long as some hundred bytes. */
const PART_BYTES = 64;

/** Whether so many bytes of a body came in too many parts. */
export function isCrumbled(parts: number, bytes: number): boolean {
  return parts > SMALL_PARTS && bytes < PART_BYTES * parts;
}

/** The error of such a body. */
export function crumbled(parts: number, bytes: number): ServerError {
  return new ServerError(
    'TOO_LARGE',
    `body: ${bytes} bytes of it came in ${parts} parts; send parts of ${PART_BYTES} bytes or more`,
  );
}

/** Of requests whose clients wait to be asked for their bodies (`Expect: 100-continue`): what asks for them. */
export const awaitingContinue = new WeakMap<IncomingMessage, () => void>();

export interface BodyLimits {
  /** Maximum size of a body in bytes. */
  readonly bodyLimit: number;
  /** Maximum size of its JSON. */
  readonly jsonLimit: number;
  /** Milliseconds a client has to read its answer. */
  readonly requestTimeout: number;
}

/** What Node.js itself does with the body of a request that is answered. */
interface Dumped extends IncomingMessage {
  _dump?(): void;
}

/** A body to read. */
interface Expected {
  readonly client: string;
  /**
   * Length of the JSON at its start, behind which it will be aligned for elements of any type; undefined if the whole body is
   * JSON.
   */
  readonly json: number | undefined;
  /** Called with the JSON at the start of a long body as soon as it has arrived. If it throws, nothing more is read. */
  readonly checkHead?: (json: Uint8Array) => void;
}

/** A body that is being received, or whose JSON waits for its turn; or an answer that is being sent. */
interface Unfinished {
  readonly client: string;
  bytes: number;
  drop(error: ServerError): void;
}

/** Reads the bodies of requests into reused memory. */
export class Bodies {
  readonly memory = new ReusedMemory();
  readonly #limits: BodyLimits;
  /** By client; its bodies from the oldest to the newest. */
  readonly #unfinished = new Map<string, { bytes: number; readonly bodies: Set<Unfinished> }>();
  #unfinishedBytes = 0;
  readonly #turns = new Turns(JSON_SHARE);
  readonly #unpacking = new Turns();
  /** What is left of TURN_BYTES, and what waits for more. */
  #turnBytes = TURN_BYTES;
  readonly #paused: IncomingMessage[] = [];

  constructor(limits: BodyLimits) {
    this.#limits = limits;
  }

  /** Bytes of the bodies that are being received, and of the answers that are being sent. */
  get unfinishedBytes(): number {
    return this.#unfinishedBytes;
  }

  /**
   * Counts a body while it is received. When all of them together take too much, the oldest of the client with the most bytes is
   * dropped with BUSY: a client that means to finish is quicker than one that holds memory on purpose.
   */
  begin(
    client: string,
    drop: (error: ServerError) => void,
  ): {
    readonly add: (bytes: number) => void;
    readonly end: () => void;
  } {
    const body: Unfinished = { client, bytes: 0, drop };
    const own = this.#unfinished.get(client) ?? { bytes: 0, bodies: new Set() };
    own.bodies.add(body);
    this.#unfinished.set(client, own);
    const add = (bytes: number) => {
      if (!own.bodies.has(body)) return;
      body.bytes += bytes;
      own.bytes += bytes;
      this.#unfinishedBytes += bytes;
      while (this.#unfinishedBytes > MAX_UNFINISHED * this.#limits.bodyLimit) {
        const oldest = this.#oldestOfLargest();
        this.#end(oldest);
        const message = 'body: the server receives too many at a time; send it again later';
        oldest.drop(new ServerError('BUSY', message, { retryAfter: 1 }));
      }
    };
    return { add, end: () => this.#end(body) };
  }

  /**
   * Counts an answer of so many bytes until its client has read it, which it has to in time. Otherwise answers would be kept for clients that
   * don't read.
   * @returns ends this
   */
  answer(client: string, bytes: number, drop: () => void): () => void {
    const { add, end } = this.begin(client, drop);
    const timer = setTimeout(() => {
      end();
      drop();
    }, this.#limits.requestTimeout).unref();
    add(bytes);
    return () => {
      clearTimeout(timer);
      end();
    };
  }

  /** Resolves when JSON of so many bytes may be parsed; undefined for short JSON, at once. Throws BUSY. */
  turn(client: string, json: number): Promise<void> | undefined {
    if (json <= LONG_JSON) return undefined;
    return new Promise((resolve, reject) => {
      const { add, end } = this.begin(client, reject);
      this.#turns.wait(client, () => {
        end();
        resolve();
      });
      add(json);
    });
  }

  /** Maximum size of a body in bytes; `json` as for `read`. */
  #limitOf(json: number | undefined): number {
    const { bodyLimit, jsonLimit } = this.#limits;
    return json === undefined ? Math.min(jsonLimit, bodyLimit) : bodyLimit;
  }

  #oldestOfLargest(): Unfinished {
    const [largest] = [...this.#unfinished.values()].sort((one, other) => other.bytes - one.bytes);
    let oldest: Unfinished | undefined;
    for (const body of largest!.bodies) {
      oldest = body;
      if (body.bytes > 0) break;
    }
    return oldest!;
  }

  #end(body: Unfinished): void {
    const own = this.#unfinished.get(body.client);
    if (!own?.bodies.delete(body)) return;
    own.bytes -= body.bytes;
    this.#unfinishedBytes -= body.bytes;
    if (own.bodies.size === 0) this.#unfinished.delete(body.client);
  }

  /** Calls `done` with the body, or with TOO_LARGE, BUSY, CANCELLED or the error of `checkHead`. */
  read(
    message: IncomingMessage,
    { client, json, checkHead }: Expected,
    done: (error: Error | null, body?: Uint8Array) => void,
  ): void {
    const { bodyLimit, jsonLimit } = this.#limits;
    const limit = this.#limitOf(json);
    const length = Number(message.headers['content-length'] ?? Number.NaN);
    const tooLarge = () => tooLargeBody(limit, json === undefined && jsonLimit < bodyLimit);
    if ((json ?? 0) > jsonLimit) {
      done(tooLargeBody(jsonLimit, true));
      return;
    }
    if (length > limit) {
      done(tooLarge());
      return;
    }
    let whole: Uint8Array | undefined;
    let received = 0;
    let counted = 0;
    let parts = 0;
    let over = false;
    const isPacked = (message.headers['content-encoding'] ?? 'identity') !== 'identity';
    let check = isPacked || length <= LONG_BODY ? undefined : checkHead;
    const onData = (chunk: Buffer) => {
      if (over) return;
      received += chunk.length;
      parts++;
      if (received > limit) return end(tooLarge());
      if (!(length >= received) && isCrumbled(parts, received)) {
        // Node.js hands over all parts that it has read, at once; it takes less time for a body that nobody wants.
        (message as Dumped)._dump?.();
        return end(crumbled(parts, received));
      }
      // All of a body that has come ends in this turn.
      if (!(received >= length)) this.#count(message, chunk.length);
      if (!(whole && whole.length >= received)) {
        // Parts would be joined, which takes twice as much; and many that are tiny take far more than their bytes.
        const room = length >= received ? length : Math.min(2 * received, limit);
        unfinished.add(room - counted);
        if (over) return;
        counted = room;
        const larger = this.memory.take(received <= BEGUN ? Math.min(room, BEGUN) : room, json ?? 0);
        if (whole) {
          larger.set(whole);
          this.memory.giveBack(whole);
        }
        whole = larger;
      }
      whole.set(chunk, received - chunk.length);
      if (check && length >= received && received >= json!) {
        try {
          check(whole.subarray(0, json));
          check = undefined;
        } catch (error) {
          end(error as Error);
        }
      }
    };
    const onEnd = () => end(null);
    const onError = (cause: Error) =>
      end(new ServerError('CANCELLED', 'request: its client disconnected', { cause }));
    const end = (error: Error | null) => {
      // To take the listeners off would take longer than the rest of this.
      if (over) return;
      over = true;
      unfinished.end();
      if (!error) return done(null, whole?.subarray(0, received) ?? Buffer.alloc(0));
      whole = undefined;
      done(error);
    };
    const unfinished = this.begin(client, end);
    awaitingContinue.get(message)?.();
    message.on('data', onData);
    message.on('end', onEnd);
    message.on('error', onError);
  }

  /** The body, unpacked. Errors as `read` and `unpack`. */
  async receive(message: IncomingMessage, expected: Expected): Promise<Uint8Array> {
    const { 'content-encoding': encoding = 'identity' } = message.headers;
    if (encoding !== 'identity' && !isEncoding(encoding)) {
      throw new ServerError(
        'INVALID_ARGUMENT',
        `header Content-Encoding: ${encoding} isn't supported; send gzip, deflate or none`,
      );
    }
    const body = await new Promise<Uint8Array>((resolve, reject) => {
      this.read(message, expected, (error, received) => (error ? reject(error) : resolve(received!)));
    });
    if (encoding === 'identity') return body;
    return this.unpack(expected.client, body, encoding, this.#limitOf(expected.json));
  }

  /**
   * Unpacks what a client has sent. A few bytes may become many: one body is unpacked at a time, clients take turns, and what waits counts as
   * unfinished. Errors as `unpacked`, and BUSY.
   */
  unpack(client: string, packed: Uint8Array, encoding: Encoding, limit: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      let waiting: Uint8Array | undefined = packed;
      const { add, end } = this.begin(client, (error) => {
        waiting = undefined;
        reject(error);
      });
      this.#unpacking.wait(client, async () => {
        if (waiting) await unpacked(waiting, encoding, limit).then(resolve, reject);
        end();
      });
      add(packed.length);
    });
  }

  /** Counts what was read in this turn of the event loop. */
  #count(message: IncomingMessage, bytes: number): void {
    if (this.#turnBytes === TURN_BYTES) setImmediate(() => this.#beginTurn());
    this.#turnBytes -= bytes;
    if (this.#turnBytes > 0) return;
    message.pause();
    this.#paused.push(message);
  }

  #beginTurn(): void {
    this.#turnBytes = TURN_BYTES;
    for (const message of this.#paused.splice(0)) message.resume();
  }
}

function tooLargeBody(limit: number, json: boolean): ServerError {
  const wayOut = json
    ? 'send tensors and images in binary, behind a JSON of Inference-Header-Content-Length bytes'
    : 'send smaller batches';
  const what = json ? 'its JSON' : 'it';
  return new ServerError(
    'TOO_LARGE',
    `body: ${what} is longer than the ${limit} bytes that this server takes; ${wayOut}`,
  );
}
