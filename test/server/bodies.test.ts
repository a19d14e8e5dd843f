import type { IncomingMessage } from 'node:http';
import { PassThrough } from 'node:stream';
import { deflateSync, gzipSync } from 'node:zlib';
import { Bodies } from '../../server/src/http/bodies.js';
import { unpacked } from '../../server/src/http/encoding.js';

const LIMIT = 100_000;
const LIMITS = { bodyLimit: LIMIT, jsonLimit: 1000, requestTimeout: 30_000 };
const LONG = { ...LIMITS, bodyLimit: 8 << 20, jsonLimit: 1 << 20 };
const CHUNK = 64 << 10;

interface Body {
  readonly json?: number;
  readonly length?: number;
  readonly checkHead?: (json: Uint8Array) => void;
  /** Is given the length of each part that is read. */
  readonly onRead?: (bytes: number) => void;
}

/** Reads a body that arrives in these chunks. */
function read(
  bodies: Bodies,
  chunks: readonly Uint8Array[],
  { json = 0, length, checkHead, onRead }: Body = {},
): Promise<Uint8Array> {
  const headers = length === undefined ? {} : { 'content-length': String(length) };
  const message = Object.assign(new PassThrough(), { headers });
  for (const chunk of chunks) message.write(chunk);
  message.end();
  return new Promise((resolve, reject) => {
    const expected = { client: 'client', json, ...(checkHead && { checkHead }) };
    bodies.read(message as unknown as IncomingMessage, expected, (error, body) =>
      error ? reject(error) : resolve(body!),
    );
    // The reader's own listener comes first.
    if (onRead) message.on('data', (chunk: Uint8Array) => onRead(chunk.length));
  });
}

const part = (value: number, length: number) => new Uint8Array(length).fill(value);

test('reads a body whose length is known, and one whose length is not', async () => {
  const chunks = [part(1, 5), part(2, 70_000)];
  const whole = Buffer.concat(chunks);
  const bodies = new Bodies(LIMITS);
  expect(Buffer.from(await read(bodies, chunks, { length: 70_005 })).equals(whole)).toBe(true);
  expect(Buffer.from(await read(bodies, chunks)).equals(whole)).toBe(true);
});

test('a body that is only announced counts, but gets no memory before more of it has come', async () => {
  const bodies = new Bodies(LONG);
  const take = jest.spyOn(bodies.memory, 'take');
  const headers = { 'content-length': String(6 << 20) };
  const message = Object.assign(new PassThrough(), { headers });
  const body = new Promise<Uint8Array>((resolve, reject) => {
    bodies.read(message as unknown as IncomingMessage, { client: 'client', json: 0 }, (error, read) =>
      error ? reject(error) : resolve(read!),
    );
  });
  const chunks = [part(1, 10), part(2, (6 << 20) - 10)];
  message.write(chunks[0]);
  await new Promise(setImmediate);
  expect(bodies.unfinishedBytes).toBe(6 << 20);
  expect(take.mock.calls.map(([length]) => length)).toEqual([64 << 10]);
  message.end(chunks[1]);
  expect(Buffer.from(await body).equals(Buffer.concat(chunks))).toBe(true);
  expect(take.mock.calls.map(([length]) => length)).toEqual([64 << 10, 6 << 20]);
  expect(bodies.unfinishedBytes).toBe(0);
});

test('memory is used again when it was given back, and not before', async () => {
  const bodies = new Bodies(LIMITS);
  const first = await read(bodies, [part(1, 1000)], { length: 1000 });
  const second = await read(bodies, [part(2, 1000)], { length: 1000 });
  expect(second.buffer).not.toBe(first.buffer);
  expect(first).toEqual(part(1, 1000));
  bodies.memory.giveBack(first);
  const third = await read(bodies, [part(3, 900)], { length: 900 });
  expect(third.buffer).toBe(first.buffer);
  expect(third).toEqual(part(3, 900));
  expect(second).toEqual(part(2, 1000));
});

test.each([0, 1, 8, 203])('what follows a JSON of %i bytes is aligned', async (json) => {
  const { byteOffset } = await read(new Bodies(LIMITS), [part(1, 300)], { json, length: 300 });
  expect((byteOffset + json) % 8).toBe(0);
});

test('bytes that are not aligned are copied into memory that is used again', () => {
  const bodies = new Bodies(LIMITS);
  const memory = part(1, 1000);
  expect(bodies.memory.aligned(memory)).toBe(memory);
  const copy = bodies.memory.aligned(memory.subarray(3));
  expect(copy.byteOffset % 8).toBe(0);
  expect(copy).toEqual(part(1, 997));
  bodies.memory.giveBack(copy);
  expect(bodies.memory.aligned(part(2, 900).subarray(1)).buffer).toBe(copy.buffer);
});

test.each([LIMIT + 1, undefined])('refuses what is too long, with length %s', async (length) => {
  const body = read(new Bodies(LIMITS), [part(1, LIMIT), part(1, 1)], length === undefined ? {} : { length });
  await expect(body).rejects.toMatchObject({ code: 'TOO_LARGE' });
});

test('long bodies are read over many turns of the event loop', async () => {
  const bodies = new Bodies(LONG);
  const chunks = Array.from({ length: 100 }, (_, i) => part(i, CHUNK));
  const length = 100 * CHUNK;
  let inTurn = 0;
  let most = 0;
  let turns = 0;
  const beginTurn = () => {
    turns++;
    inTurn = 0;
    if (turns < 1000) setImmediate(beginTurn);
  };
  beginTurn();
  const onRead = (bytes: number) => {
    inTurn += bytes;
    most = Math.max(most, inTurn);
  };
  const read2 = [read(bodies, chunks, { length, onRead }), read(bodies, chunks, { length, onRead })];
  for (const body of await Promise.all(read2)) expect(Buffer.concat(chunks).equals(body)).toBe(true);
  // Of each body, a part may be under way when it is paused.
  expect(most).toBeLessThanOrEqual(10 * CHUNK);
  expect(turns).toBeGreaterThan(20);
});

test('a long body can be refused for its JSON, which is seen once', async () => {
  const chunks = Array.from({ length: 100 }, (_, i) => part(i, CHUNK));
  const options = { json: CHUNK + 200, length: 100 * CHUNK };
  const seen: number[] = [];
  const checkHead = (json: Uint8Array) => void seen.push(json.length, json.at(-1)!);
  await read(new Bodies(LONG), chunks, { ...options, checkHead });
  expect(seen).toEqual([CHUNK + 200, 1]);
  const refused = read(new Bodies(LONG), chunks, {
    ...options,
    checkHead: () => {
      throw new Error('too many');
    },
  });
  await expect(refused).rejects.toThrow('too many');
});

test('a body in many small chunks takes about the memory of its bytes, and counts for that', async () => {
  const bodies = new Bodies(LONG);
  let most = 0;
  const chunks = Array.from({ length: 10_000 }, (_, i) => part(i, 64));
  const body = await read(bodies, chunks, {
    onRead: () => {
      most = Math.max(most, bodies.unfinishedBytes);
    },
  });
  expect(Buffer.concat(chunks).equals(body)).toBe(true);
  expect(body.buffer.byteLength).toBeLessThan(1_300_000);
  expect(most).toBeGreaterThanOrEqual(640_000);
  expect(most).toBeLessThan(1_300_000);
  expect(bodies.unfinishedBytes).toBe(0);
});

test('a body in many chunks of a few bytes is refused', async () => {
  const bodies = new Bodies(LONG);
  const chunks = Array.from({ length: 2000 }, () => part(1, 1));
  expect(await read(bodies, chunks.slice(0, 1024))).toHaveLength(1024);
  await expect(read(bodies, chunks)).rejects.toMatchObject({
    code: 'TOO_LARGE',
    message: expect.stringMatching(/1025 bytes of it came in 1025 parts/),
  });
  // Its length says that it is short, and so it may come as it likes.
  expect(await read(bodies, chunks, { length: 2000 })).toHaveLength(2000);
});

describe('packed bodies', () => {
  test.each([0, 1, 100, 70_000, LIMIT])('%i bytes are unpacked', async (length) => {
    for (const bytes of [part(7, length), Uint8Array.from({ length }, (_, i) => (i * i * 31) >> 3)]) {
      expect(Buffer.compare(await unpacked(gzipSync(bytes), 'gzip', LIMIT), bytes)).toBe(0);
      expect(Buffer.compare(await unpacked(deflateSync(bytes), 'deflate', LIMIT), bytes)).toBe(0);
    }
  });

  test('what is too long, damaged or cut off is an error', async () => {
    const packed = gzipSync(part(7, LIMIT + 1));
    await expect(unpacked(packed, 'gzip', LIMIT)).rejects.toMatchObject({ code: 'TOO_LARGE' });
    for (const [body, encoding] of [
      [packed.subarray(0, 50), 'gzip'],
      [packed, 'deflate'],
      [part(0, 0), 'gzip'],
    ] as const)
      await expect(unpacked(body, encoding, LIMIT)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('are unpacked one at a time, and clients take turns', async () => {
    const bodies = new Bodies(LONG);
    const packed = gzipSync(part(7, 1 << 20));
    const order: string[] = [];
    const all = [...Array<string>(5).fill('greedy'), 'small'].map(async (client) => {
      await bodies.unpack(client, packed, 'gzip', 1 << 20);
      order.push(client);
    });
    expect(bodies.unfinishedBytes).toBe(6 * packed.length);
    await Promise.all(all);
    expect(order.slice(0, 2)).toContain('small');
    expect(bodies.unfinishedBytes).toBe(0);
  });

  test('that wait count as unfinished: the oldest of the client with the most is dropped', async () => {
    const bodies = new Bodies(LIMITS);
    const packed = deflateSync(Uint8Array.from({ length: 60_000 }, (_, i) => (i * i * 31) >> 3));
    const settled = (client: string) =>
      bodies.unpack(client, packed, 'deflate', LIMIT).then(
        () => 'unpacked',
        ({ code }) => code,
      );
    const most = Math.floor((2 * LIMIT) / packed.length);
    const waiting = [settled('small'), ...Array.from({ length: most }, () => settled('greedy'))];
    expect(await Promise.all(waiting)).toEqual(['unpacked', 'BUSY', ...Array(most - 1).fill('unpacked')]);
  });
});
