import { readFileSync } from 'node:fs';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
} from 'node:http2';
import { resolve } from 'node:path';
import { deflateSync, gzipSync } from 'node:zlib';
import { status } from '@grpc/grpc-js';
import { InferenceSession } from 'residual-skip';
import { createServer, type RunningServer } from 'residual-skip-server';
import { loadService } from '../../server/src/grpc/grpc.js';
import { watchUnfinished } from '../helpers/bodies.js';
import { folderOf, removeFolders } from '../helpers/files.js';

const MODEL = 'cifar10-resnet14-exits';
const CAT = readFileSync(resolve('examples/images/cat-0000.jpg'));
const MIB = 1 << 20;

const entries: object[] = [];
const options = {
  folders: [resolve('models', MODEL)],
  ...{ port: 0, grpcPort: 0, bodyLimit: 4 * MIB, maxStreams: 20, requestTimeout: 120_000 },
  log: (entry: object) => (entry as { event: string }).event === 'failure' && entries.push(entry),
};
let server: RunningServer;
beforeAll(async () => {
  server = await createServer(options);
});
afterAll(async () => {
  await server.close();
  await removeFolders();
});

const METHOD = '/inference.GRPCInferenceService/ModelInfer';
const sessions: ClientHttp2Session[] = [];
const open = (to: RunningServer = server) => {
  // With its usual limit, a client that has much to send drops the answer.
  const session = connectHttp2(`http://${to.grpcAddress}`, { maxSessionMemory: 1000 });
  session.on('error', () => {});
  sessions.push(session);
  return session;
};
afterEach(() => {
  jest.restoreAllMocks();
  for (const session of sessions.splice(0)) session.destroy();
});

/** Begins a call; `ended` has its status once the server has ended it. */
function begin(session: ClientHttp2Session, headers: Record<string, string> = {}, path = METHOD) {
  const stream: ClientHttp2Stream = session.request({
    ...{ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' },
    ...headers,
  });
  let code: number | undefined;
  let details = '';
  const parts: Buffer[] = [];
  const note = (fields: Record<string, unknown>) => {
    if (fields['grpc-status'] === undefined) return;
    code = Number(fields['grpc-status']);
    details = decodeURI(String(fields['grpc-message']));
  };
  stream.on('response', note);
  stream.on('trailers', note);
  stream.on('data', (part: Buffer) => parts.push(part));
  stream.on('error', () => {});
  // A stream with unsent bytes stays open here although the server has closed it.
  const ended = new Promise<{ code: number | undefined; details: string; body: Buffer }>((done) => {
    for (const event of ['end', 'close'])
      stream.on(event, () => done({ code, details, body: Buffer.concat(parts) }));
  });
  return { stream, ended };
}

const service = loadService().service;
/** A whole message. */
function messageOf(request: object): Buffer {
  const bytes = service.ModelInfer!.requestSerialize(request);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}
/** The beginning of a message of `length` bytes. */
function beginning(length: number, sent: number): Buffer {
  const bytes = Buffer.alloc(5 + sent);
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

const honest = messageOf({
  model_name: MODEL,
  inputs: [{ name: 'input', datatype: 'BYTES', shape: [1], contents: { bytes_contents: [CAT] } }],
  outputs: [{ name: 'logits', parameters: { classification: { int64_param: 1 } } }],
});
async function expectCallServed(to?: RunningServer, headers?: Record<string, string>) {
  const { stream, ended } = begin(open(to), headers);
  stream.end(honest);
  const { code, body } = await ended;
  expect({ code, text: body.toString('latin1') }).toEqual({
    code: status.OK,
    text: expect.stringContaining(':3:cat'),
  });
}

test('a call without a token ends before its message is read, and takes no more', async () => {
  const tokenFile = `${folderOf({ tokens: 'secret\n' })}/tokens`;
  const guarded = await createServer({ ...options, tokenFile });
  const { stream, ended } = begin(open(guarded));
  // The message never ends.
  stream.write(beginning(MIB, 1000));
  expect(await ended).toMatchObject({ code: status.UNAUTHENTICATED });
  const live = begin(open(guarded), {}, METHOD.replace('ModelInfer', 'ServerLive'));
  live.stream.end(Buffer.alloc(5));
  expect(await live.ended).toMatchObject({ code: status.OK });
  await expectCallServed(guarded, { authorization: 'Bearer secret' });
  await guarded.close();
});

test('a connection has so many calls at a time', async () => {
  const session = open();
  await new Promise((done) => session.once('remoteSettings', done));
  expect(session.remoteSettings.maxConcurrentStreams).toBe(20);
  const calls = Array.from({ length: 20 }, () => begin(session));
  for (const { stream } of calls) stream.write(beginning(1000, 10));
  await expectCallServed();
  for (const { stream } of calls) stream.close();
  await Promise.all(calls.map(({ ended }) => ended));
});

test.each<[string, Buffer]>([
  ['that never sends a message', Buffer.alloc(0)],
  ['whose message never ends', beginning(1000, 500)],
  ['that never says that it is complete', honest],
])('a call %s ends after the time for sending requests', async (_what, sent) => {
  const hasty = await createServer({ ...options, requestTimeout: 500 });
  const { stream, ended } = begin(open(hasty));
  if (sent.length > 0) stream.write(sent);
  expect(await ended).toMatchObject({ code: status.DEADLINE_EXCEEDED });
  await hasty.close();
});

test('calls that never send a message have the same limit, as if each had sent 32 KiB', async () => {
  const unfinished = watchUnfinished();
  const calls = Array.from({ length: 30 }, () => {
    const session = open();
    return Array.from({ length: 20 }, () => begin(session));
  }).flat();
  // 8 MiB are those of 256 calls.
  expect(await calls[0]!.ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
  expect(await calls[50]!.ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
  await expectCallServed();
  expect(unfinished.begun).toBeGreaterThanOrEqual(600);
  expect(unfinished.most).toBeLessThan(9 * MIB);
  for (const { stream } of calls) stream.close();
  await Promise.all(calls.map(({ ended }) => ended));
});

test('calls whose messages never end have a common limit in bytes: the oldest ends', async () => {
  const unfinished = watchUnfinished();
  const order: number[] = [];
  const session = open();
  const calls = Array.from({ length: 8 }, (_, i) => {
    const call = begin(session);
    void call.ended.then(() => order.push(i));
    return call;
  });
  for (const { stream } of calls) stream.write(beginning(4 * MIB, 3.9 * MIB));
  expect(await calls[0]!.ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
  expect(await calls[3]!.ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
  expect(order.slice(0, 4)).toEqual([0, 1, 2, 3]);
  await expectCallServed();
  for (const { stream } of calls) stream.close();
  await Promise.all(calls.map(({ ended }) => ended));
  expect(unfinished.most).toBeLessThan(8 * MIB + 65_537);
});

test('a client has so long to read an answer, and one that reads later has no part of it', async () => {
  const impatient = await createServer({ ...options, requestTimeout: 300 });
  const unfinished = watchUnfinished();
  const session = connectHttp2(`http://${impatient.grpcAddress}`, { settings: { initialWindowSize: 0 } });
  sessions.push(session);
  const { stream } = begin(session);
  stream.end(honest);
  await new Promise((done) => stream.once('close', done));
  expect(stream.rstCode).toBe(constants.NGHTTP2_CANCEL);
  expect(unfinished.last).toBe(0);
  await expectCallServed(impatient);
  await impatient.close();
});

test('streams that rest have a common limit, as if each had 32 KiB', async () => {
  const unfinished = watchUnfinished();
  const calls = Array.from({ length: 20 }, () => begin(open(), {}, '/grpc.health.v1.Health/Watch'));
  for (const { stream } of calls) stream.end(Buffer.alloc(5));
  await Promise.all(calls.map(({ stream }) => new Promise((done) => stream.once('response', done))));
  while (unfinished.last < 20 * 32 * 1024) await new Promise((done) => setTimeout(done, 10));
  for (const { stream } of calls) stream.close();
  while (unfinished.last > 0) await new Promise((done) => setTimeout(done, 10));
});

test('a message for which there is no data has the limit of JSON before it is complete', async () => {
  const { stream, ended } = begin(open(), {}, '/grpc.health.v1.Health/Check');
  stream.write(beginning(3 * MIB, 2 * MIB));
  expect(await ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
});

test('a message in many frames of a byte is refused', async () => {
  const { stream, ended } = begin(open());
  stream.write(beginning(100_000, 0));
  for (let sent = 0; sent < 3000 && !stream.destroyed; sent++)
    await new Promise((done) => stream.write(Buffer.of(1), done));
  expect(await ended).toMatchObject({
    code: status.RESOURCE_EXHAUSTED,
    details: expect.stringMatching(/^body: .*parts/),
  });
  await expectCallServed();
});

describe('packed messages', () => {
  const packed = (bytes: Buffer, encode = gzipSync) => {
    const body = encode(bytes.subarray(5));
    const head = Buffer.alloc(5, 1);
    head.writeUInt32BE(body.length, 1);
    return Buffer.concat([head, body]);
  };
  const send = async (message: Buffer, encoding: string, method = 'ModelInfer') => {
    const { stream, ended } = begin(
      open(),
      { 'grpc-encoding': encoding },
      METHOD.replace('ModelInfer', method),
    );
    stream.end(message);
    return ended;
  };

  test('are answered', async () => {
    for (const [encoding, encode] of [
      ['gzip', gzipSync],
      ['deflate', deflateSync],
    ] as const) {
      const { code, body } = await send(packed(honest, encode), encoding);
      expect({ code, text: body.toString('latin1') }).toEqual({
        code: status.OK,
        text: expect.stringContaining(':3:cat'),
      });
    }
  });

  test('are unpacked one at a time, and what they become counts as unfinished', async () => {
    const unfinished = watchUnfinished();
    const raw = { model_name: MODEL, raw_input_contents: [Buffer.alloc(3 * MIB)] };
    const bomb = packed(messageOf(raw));
    expect(bomb.length).toBeLessThan(4096);
    // None of the calls says that it is complete.
    const calls = Array.from({ length: 12 }, () => begin(open(), { 'grpc-encoding': 'gzip' }));
    for (const { stream } of calls) stream.write(bomb);
    await Promise.all(
      calls.slice(0, 9).map(async ({ ended }) => expect((await ended).code).toBe(status.RESOURCE_EXHAUSTED)),
    );
    for (const { stream } of calls) stream.end();
    await Promise.all(calls.map(({ ended }) => ended));
    expect(unfinished.most).toBeGreaterThan(6 * MIB);
    expect(unfinished.most).toBeLessThan(12 * MIB);
    await expectCallServed();
  });

  test('of calls that end meanwhile leave nothing behind', async () => {
    const unfinished = watchUnfinished();
    const bomb = packed(messageOf({ model_name: MODEL, raw_input_contents: [Buffer.alloc(3 * MIB)] }));
    for (const method of ['ModelInfer', 'ModelStreamInfer']) {
      const calls = Array.from({ length: 12 }, () =>
        begin(open(), { 'grpc-encoding': 'gzip' }, METHOD.replace('ModelInfer', method)),
      );
      await Promise.all(calls.map(({ stream }) => new Promise((done) => stream.write(bomb, done))));
      for (const { stream } of calls) stream.close();
      await Promise.all(calls.map(({ ended }) => ended));
    }
    await expectCallServed();
    // As long as anything is still to be unpacked.
    for (let turn = 0; turn < 1000 && unfinished.last > 0; turn++)
      await new Promise((done) => setTimeout(done, 10));
    await new Promise((done) => setTimeout(done, 200));
    expect(unfinished.last).toBe(0);
  });

  test('that are too long or damaged, or come in another encoding, are typed errors', async () => {
    const long = packed(messageOf({ raw_input_contents: [Buffer.alloc(5 * MIB)] }));
    expect(await send(long, 'gzip')).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    const name = packed(messageOf({ model_name: 'n'.repeat(2 * MIB) }));
    expect(await send(name, 'gzip', 'ModelReady')).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    expect(await send(packed(honest), 'deflate')).toMatchObject({
      code: status.INVALID_ARGUMENT,
      details: expect.stringMatching(/^body: /),
    });
    expect(await send(packed(honest), 'snappy')).toMatchObject({ code: status.UNIMPLEMENTED });
    await expectCallServed();
  });
});

describe('what a message holds beside data in binary form has the limit of JSON', () => {
  const send = async (bytes: Buffer, method = 'ModelInfer') => {
    const message = Buffer.concat([Buffer.alloc(5), bytes]);
    message.writeUInt32BE(bytes.length, 1);
    const { stream, ended } = begin(open(), {}, METHOD.replace('ModelInfer', method));
    stream.end(message);
    const [{ code, details }] = await Promise.all([ended, expectCallServed()]);
    return { code, details };
  };
  const encode = (request: object) => service.ModelInfer!.requestSerialize(request);
  const tooLarge = { code: status.RESOURCE_EXHAUSTED, details: expect.stringMatching(/^request: /) };
  /** A short message of many such fields. */
  const fields = (field: number, bytes: number[] = []) =>
    Buffer.concat(Array(1 << 15).fill(Buffer.from([8 * field + 2, bytes.length, ...bytes])));
  /** The same in one field. */
  const within = (field: number, bytes: Buffer) =>
    Buffer.concat([Buffer.from([8 * field + 2]), lengthOf(bytes), bytes]);
  const lengthOf = ({ length }: Buffer) =>
    Buffer.from([(length & 127) | 128, ((length >> 7) & 127) | 128, length >> 14]);

  test.each([
    ['inputs', fields(5)],
    ['outputs', fields(6)],
    ['raw contents', fields(7)],
    ['parameters', fields(4, [0x0a, 0])],
    ['parameters of an input', within(5, fields(4, [0x0a, 0]))],
    ['parameters of an output', within(6, fields(2, [0x0a, 0]))],
    ['files', within(5, within(5, fields(8)))],
    ['axes', encode({ inputs: [{ shape: Array(MIB / 32).fill(1) }] })],
    ['whole numbers', encode({ inputs: [{ contents: { int_contents: Array(MIB / 2).fill(1) } }] })],
    ['booleans', encode({ inputs: [{ contents: { bool_contents: Array(MIB / 2).fill(true) } }] })],
    ['typed contents', encode({ inputs: [{ contents: { fp32_contents: Array(MIB / 2).fill(1) } }] })],
  ])('too many %s', async (_what, bytes) => {
    expect(await send(bytes)).toEqual(tooLarge);
  });

  test('of other methods too', async () => {
    expect(await send(encode({ model_name: 'n'.repeat(MIB) }), 'ModelReady')).toEqual(tooLarge);
  });

  test('but data is data', async () => {
    const input = { name: 'input', datatype: 'FP32', shape: [200, 3, 32, 32] };
    const raw = encode({
      ...{ model_name: MODEL, inputs: [input] },
      raw_input_contents: [Buffer.alloc(200 * 12_288)],
    });
    expect(await send(raw)).toMatchObject({ code: status.OK });
    const padded = Buffer.concat([CAT, Buffer.alloc(2 * MIB)]);
    const files = { datatype: 'BYTES', shape: [1], contents: { bytes_contents: [padded] } };
    expect(await send(encode({ model_name: MODEL, inputs: [{ ...input, ...files }] }))).toMatchObject({
      code: status.OK,
    });
  });

  test.each([[[]], [[0xff]], [[0x2a, 0xff, 0xff, 0xff, 0xff, 0x0f]], [[0x2b, 0x08]]])(
    'bytes that are no message: %j',
    async (bytes) => {
      expect((await send(Buffer.from(bytes))).code).toBe(status.INVALID_ARGUMENT);
    },
  );
});

test('a name that is too long for a header is a typed error, and is cut between letters', async () => {
  const input = { name: 'input', datatype: 'FP32', shape: [0] };
  const { stream, ended } = begin(open());
  stream.end(messageOf({ model_name: `n${'\u{1f408}'.repeat(50_000)}`, inputs: [input] }));
  const { code, details } = await ended;
  expect({ code, details }).toEqual({ code: status.NOT_FOUND, details: expect.stringMatching(/^model /) });
  expect(details).toHaveLength(1000);
  expect(details.endsWith('\u{1f408}\ufffd')).toBe(true);
  await expectCallServed();
});

test('what fails in the server is logged with its cause', async () => {
  const failure = new Error('run failed', { cause: new Error('disk on fire') });
  jest.spyOn(InferenceSession.prototype, 'runTraced').mockRejectedValueOnce(failure);
  const { stream, ended } = begin(open());
  stream.end(honest);
  expect(await ended).toMatchObject({ code: status.INTERNAL });
  expect(entries).toEqual([
    {
      event: 'failure',
      request: METHOD,
      id: expect.any(String),
      code: 'INTERNAL',
      status: 500,
      error: expect.stringMatching(/run failed[\s\S]*disk on fire/),
    },
  ]);
});
