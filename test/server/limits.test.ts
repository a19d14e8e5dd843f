import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ImageClassifier, InferenceSession } from 'residual-skip';
import { createServer, type RunningServer } from 'residual-skip-server';
import sharp from 'sharp';
import { Caller } from '../../server/src/caller.js';
import { ServerError } from '../../server/src/errors.js';
import { Decodes, decodes } from '../../server/src/inference/decodes.js';
import { feedsOf } from '../../server/src/inference/request.js';
import { Turns } from '../../server/src/inference/turns.js';
import type { ServedModel } from '../../server/src/models/model.js';
import { Failures } from '../../server/src/observe/failures.js';
import { watchUnfinished } from '../helpers/bodies.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { GraphBuilder, modelBytes } from '../helpers/onnx-builder.js';

const MODEL = 'cifar10-resnet14-exits';
const PATH = `/v2/models/${MODEL}/infer`;
const CAT = readFileSync(resolve('examples/images/cat-0000.jpg'));
const MIB = 1 << 20;

const entries: Record<string, unknown>[] = [];
const options = {
  folders: [resolve('models', MODEL)],
  ...{ port: 0, grpcPort: null, bodyLimit: 4 * MIB, inputLimit: 8 * MIB },
  log: (entry: object) => entries.push(entry as Record<string, unknown>),
};
let server: RunningServer;
beforeAll(async () => {
  server = await createServer(options);
});
afterAll(() => server.close());
beforeEach(() => entries.splice(0));
afterEach(() => jest.restoreAllMocks());

interface Answer {
  readonly status: number;
  readonly code?: string;
  readonly error?: string;
  readonly outputs?: readonly { readonly data: readonly string[] }[];
}

async function post(
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
  signal: AbortSignal | null = null,
): Promise<Answer> {
  const type = { 'content-type': 'application/json' };
  const init = { method: 'POST', headers: { ...type, ...headers }, body, signal };
  const response = await fetch(`${server.url}${PATH}`, init);
  return { status: response.status, ...((await response.json()) as object) };
}

/** Sends JSON with binary tensors behind it. */
function postBinary(json: object, tail: Uint8Array, signal: AbortSignal | null = null): Promise<Answer> {
  const head = Buffer.from(JSON.stringify(json));
  const headers = { 'inference-header-content-length': `${head.length}` };
  return post(Buffer.concat([head, tail]), headers, signal);
}

/** Sends image files in binary. */
function classify(files: readonly Uint8Array[], signal: AbortSignal | null = null): Promise<Answer> {
  const parts = files.flatMap((file) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(file.length);
    return [length, file];
  });
  const tail = Buffer.concat(parts);
  const input = { name: 'input', datatype: 'BYTES', shape: [files.length] };
  const inputs = [{ ...input, parameters: { binary_data_size: tail.length } }];
  return postBinary(
    { inputs, outputs: [{ name: 'logits', parameters: { classification: 1 } }] },
    tail,
    signal,
  );
}

/** A client that means no harm has its answer. */
async function expectServed(): Promise<void> {
  const { outputs } = await classify([CAT]);
  expect(outputs![0]!.data[0]).toMatch(/:3:cat$/);
}

const flat = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background: '#804020' } })
    .png()
    .toBuffer();

describe('images', () => {
  test('SVG is refused, whatever it would take to render', async () => {
    const turbulence = '<filter id="f"><feTurbulence numOctaves="9"/></filter><rect filter="url(#f)"';
    const svg = Buffer.from(
      `<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">${turbulence} width="64" height="64"/></svg>`,
    );
    const prepare = jest.spyOn(ImageClassifier.prototype, 'prepare');
    const answers = await Promise.all([svg, svg, svg, svg].map((file) => classify([file])));
    for (const answer of answers) expect(answer).toMatchObject({ status: 400, code: 'INVALID_ARGUMENT' });
    expect(prepare).not.toHaveBeenCalled();
    await expectServed();
  });

  test('at most two are decoded at a time, and a small one overtakes those that are large', async () => {
    const original = ImageClassifier.prototype.prepare;
    let running = 0;
    let most = 0;
    jest.spyOn(ImageClassifier.prototype, 'prepare').mockImplementation(async function (
      this: ImageClassifier,
      image,
    ) {
      running++;
      most = Math.max(most, running);
      try {
        return await original.call(this, image);
      } finally {
        running--;
      }
    });
    const large = await flat(2048, 2048);
    const completed: string[] = [];
    const sent = (name: string, files: readonly Uint8Array[]) =>
      classify(files).then(({ status }) => completed.push(`${name} ${status}`));
    const attacks = Array.from({ length: 4 }, () => sent('large', [large, large, large]));
    while (decodes.length === 0) await sleep(1);
    await Promise.all([...attacks, sent('cat', [CAT])]);
    expect(completed).toEqual(['cat 200', ...Array(4).fill('large 200')]);
    expect(most).toBe(2);
  });

  test('those that still wait are dropped when their client leaves', async () => {
    const begun: (() => void)[] = [];
    const original = ImageClassifier.prototype.prepare;
    const prepare = jest.spyOn(ImageClassifier.prototype, 'prepare');
    prepare.mockImplementation(async function (this: ImageClassifier, image) {
      await new Promise<void>((go) => begun.push(go));
      return original.call(this, image);
    });
    const leaving = new AbortController();
    const left = classify(Array(8).fill(CAT), leaving.signal).catch(({ name }: Error) => name);
    while (begun.length < 2) await sleep(1);
    const stays = classify([CAT]);
    const leavesToo = classify(Array(8).fill(CAT), leaving.signal).catch(({ name }: Error) => name);
    while (decodes.length < 3) await sleep(1);
    leaving.abort();
    expect(await Promise.all([left, leavesToo])).toEqual(['AbortError', 'AbortError']);
    while (decodes.length > 1) await sleep(1);
    for (const go of begun.splice(0)) go();
    while (begun.length < 1) await sleep(1);
    begun[0]!();
    expect((await stays).status).toBe(200);
    expect(prepare).toHaveBeenCalledTimes(3);
    expect({ running: decodes.running, bytes: decodes.bytes }).toEqual({ running: 0, bytes: 0 });
  });

  test('a request has at most 1024 of them, and as many as their tensors have room', async () => {
    for (const [count, message] of [
      [1025, /1025 images/],
      [700, /more than the 8388608/],
    ] as const) {
      const answer = await classify(Array(count).fill(CAT));
      expect(answer).toMatchObject({
        status: 413,
        code: 'TOO_LARGE',
        error: expect.stringMatching(message),
      });
    }
    await expectServed();
  });
});

describe('Decodes', () => {
  /** Decodes that end when they are told to; each has a name, the bytes that it takes, and a client. */
  function started(
    gate: Decodes,
    ...given: readonly (readonly [name: string, bytes: number, client?: string])[]
  ) {
    const running = new Map<string, () => void>();
    const order: string[] = [];
    const all = given.map(([name, bytes, client = '']) =>
      gate.run(name, bytes, new Caller({ client, group: '', rights: new Set() }), () => {
        order.push(name);
        return new Promise<void>((end) => running.set(name, end));
      }),
    );
    const end = async (name: string) => {
      running.get(name)!();
      running.delete(name);
      await sleep(0);
    };
    return { order, running, end, all };
  }

  test('one large image is decoded at a time; small ones come beside it, and too large ones not at all', async () => {
    const gate = new Decodes(2, 800);
    const { order, running, end, all } = started(gate, ['a', 600], ['b', 700], ['small', 100]);
    await expect(gate.run('c', 701, new Caller(), async () => {})).rejects.toMatchObject({
      code: 'TOO_LARGE',
      message: expect.stringMatching(/^image c: /),
    });
    await sleep(0);
    expect([...running.keys()]).toEqual(['a', 'small']);
    expect(gate.bytes).toBe(700);
    await end('small');
    expect([...running.keys()]).toEqual(['a']);
    await end('a');
    expect([...running.keys()]).toEqual(['b']);
    await end('b');
    await Promise.all(all);
    expect(order).toEqual(['a', 'small', 'b']);
    expect(gate.bytes).toBe(0);
  });

  test('small ones overtake a large one of their client for as many bytes as it has', async () => {
    const gate = new Decodes(1, 1000);
    const first = started(gate, ['first', 10], ['large', 100]);
    const order: string[] = [];
    const small = (i: number): Promise<unknown> =>
      gate.run(`${i}`, 30, new Caller(), async () => {
        order.push(`small ${i}`);
        if (i < 10) void small(i + 1);
      });
    const begun = small(1);
    await sleep(0);
    await first.end('first');
    await begun;
    while (!first.running.has('large')) await sleep(1);
    expect(order).toEqual(['small 1', 'small 2', 'small 3']);
    await first.end('large');
    await Promise.all(first.all);
  });

  test('a client with one image waits for one of each other client, however many these have', async () => {
    const gate = new Decodes(1, 1000);
    const greedy = ['a', 'b', 'c'].flatMap((client) =>
      Array.from({ length: 20 }, (_, i) => [`${client}${i}`, 50, client] as const),
    );
    const { order, end, all } = started(gate, ...greedy, ['honest', 50, 'd']);
    await sleep(0);
    while (!order.includes('honest')) await end(order.at(-1)!);
    expect(order).toEqual(['a0', 'b0', 'c0', 'honest']);
    while (order.length < 61) await end(order.at(-1)!);
    await end(order.at(-1)!);
    await Promise.all(all);
  });

  test('one that is being decoded learns that its caller has left, and keeps its room until it ends', async () => {
    const gate = new Decodes(1, 1000);
    const caller = new Caller();
    let end = () => {};
    const left = gate.run('a', 10, caller, async (signal) => {
      await new Promise<void>((resolve) => {
        end = resolve;
      });
      signal.throwIfAborted();
    });
    const next = gate.run('b', 10, new Caller(), async (signal) => signal.aborted);
    await sleep(0);
    const reason = new ServerError('TIMEOUT', 'request: it took too long');
    caller.leave(reason);
    expect({ running: gate.running, waiting: gate.length }).toEqual({ running: 1, waiting: 1 });
    end();
    await expect(left).rejects.toBe(reason);
    expect(await next).toBe(false);
    expect({ running: gate.running, bytes: gate.bytes }).toEqual({ running: 0, bytes: 0 });
  });

  test('room is given back when decoding fails', async () => {
    const gate = new Decodes(1, 10);
    const failing = gate.run('a', 5, new Caller(), () => Promise.reject(new Error('torn')));
    await expect(failing).rejects.toThrow('torn');
    expect(await gate.run('b', 5, new Caller(), async () => 'decoded')).toBe('decoded');
    const gone = new Caller();
    gone.disconnect();
    await expect(gate.run('c', 5, gone, async () => 'decoded')).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});

describe('JSON', () => {
  const input = { name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32] };
  const pixels = Array<number>(3072).fill(0.5);
  const request = (fields: object) => JSON.stringify({ inputs: [{ ...input, data: pixels }], ...fields });
  /** As many copies of `text`, which commas separate, as fit. */
  const many = (text: string, bytes = 0.9 * MIB) => Array(Math.floor(bytes / (text.length + 1))).fill(text);
  const names = () => many('"0000000":1').map((_, i) => `"${i.toString(36).padStart(7, '0')}":1`);

  test('has at most 1 MiB; what is sent in binary does not count', async () => {
    const long = request({ id: 'x'.repeat(MIB) });
    const header = { 'inference-header-content-length': `${Buffer.byteLength(long)}` };
    for (const headers of [undefined, header]) {
      const answer = await post(long, headers);
      expect(answer).toMatchObject({
        ...{ status: 413, code: 'TOO_LARGE' },
        error: expect.stringMatching(/JSON.*binary/),
      });
    }
    const tail = Buffer.alloc(100 * 3072 * 4);
    const inputs = [{ ...input, shape: [100, 3, 32, 32], parameters: { binary_data_size: tail.length } }];
    expect((await postBinary({ inputs }, tail)).status).toBe(200);
  });

  test('the limit is an option', async () => {
    const small = await createServer({ ...options, jsonLimit: 1000 });
    const { url } = small;
    const send = (body: string) =>
      fetch(`${url}/v2/repository/index`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      });
    expect((await send('{}'.padEnd(1000))).status).toBe(200);
    expect((await send('{}'.padEnd(1001))).status).toBe(413);
    await small.close();
  });

  const nested = Math.floor(0.45 * MIB);
  const but = (field: string, text: string) => {
    const whole = request({ outputs: [], parameters: {} });
    return whole.replace(new RegExp(`"${field}":(\\[[^\\]]*\\]|\\{\\}|"\\w*")`), `"${field}":${text}`);
  };
  test.each<[string, string, RegExp]>([
    [
      'parameters that are none',
      but('parameters', `{${names().join().replaceAll(':1', ':[]')}}`),
      /^body: its JSON has more than 16384 names/,
    ],
    ['a parameter that is none', but('parameters', `{"policy":[]}`), /^parameters\.policy: expected text/],
    [
      'brackets that nest',
      but('data', '['.repeat(nested) + ']'.repeat(nested)),
      /^body: its JSON has more than 64 lists and objects in each other/,
    ],
    ['brackets that never close', '['.repeat(MIB), /^body: its JSON has more than 64 lists/],
    ['a text that never closes', `{"id":"${'['.repeat(0.9 * MIB)}`, /^body: it is not JSON/],
    ['inputs that are none', `{"inputs":[${many('{}').join()}]}`, /more than 65536 lists and objects/],
    ['many inputs that are none', `{"inputs":[${many('{}', 100_000).join()}]}`, /^inputs: .*1024/],
    ['outputs that are none', but('outputs', `[${many('1').join()}]`), /^outputs: .*1024/],
    ['a shape that is none', but('shape', `[${many('""').join()}]`), /^inputs.0.shape: .*32/],
    [
      'empty files',
      but('data', `[${many('""').join()}]`)
        .replace('FP32', 'BYTES')
        .replace('[1,3,32,32]', '[3]'),
      /^input 'input': .* is for 3 images/,
    ],
    ['a long name', but('name', `"${'n'.repeat(0.9 * MIB)}"`), /n{500}/],
  ])('%s: the answer is typed and short, and another client has its own', async (_what, body, message) => {
    expect(Buffer.byteLength(body)).toBeLessThanOrEqual(MIB);
    const [{ status, code, error }] = await Promise.all([post(body), expectServed()]);
    expect({ status, code, error }).toEqual({
      ...{ status: 400, code: 'INVALID_ARGUMENT' },
      error: expect.stringMatching(message),
    });
    expect(error!.length).toBeLessThanOrEqual(1000);
    // Of one code, ten lines a second are logged.
    for (const entry of entries)
      expect(entry).toMatchObject({ event: 'refusal', request: `POST ${PATH}`, code, status, error });
  });

  test('what is in texts does not count as structure', async () => {
    const text = (count: number) => `${'[{:'.repeat(count)}\\"${'[{:'.repeat(count)}`;
    expect(await post(request({ id: text(20) }))).toMatchObject({ status: 200 });
    const long = await post(request({ id: text(30_000) }));
    expect(long).toMatchObject({ status: 400, error: expect.stringMatching(/^id: expected at most/) });
  });

  test('rows of a tensor may be lists', async () => {
    const list = (length: number, each: unknown) => Array<unknown>(length).fill(each);
    const image = list(1, list(3, list(32, list(32, 0.5))));
    expect(await post(but('data', JSON.stringify(image)))).toMatchObject({ status: 200 });
  });

  test('long JSON is parsed in turns, in which a client with little of it comes before others with much', async () => {
    const turns = new Turns();
    const order: string[] = [];
    const rest = [...Array<string>(3).fill('greedy'), 'small'];
    for (const client of rest) turns.wait(client, () => void order.push(client));
    expect(order).toEqual([]);
    let polled = 0;
    while (order.length < 4) {
      // An immediate runs once in each turn of the event loop.
      await new Promise(setImmediate);
      polled++;
    }
    expect(order.slice(0, 2)).toContain('small');
    expect(polled).toBeGreaterThanOrEqual(4);
  });

  test('turns with a share of the time rest between pieces for as long as that takes', async () => {
    const [pieceMs, restMs] = [20, 40];
    const turns = new Turns(pieceMs / (pieceMs + restMs));
    const begun: number[] = [];
    const work = () => {
      const start = performance.now();
      begun.push(start);
      while (performance.now() < start + pieceMs);
    };
    await Promise.all(
      Array.from({ length: 3 }, () => new Promise<void>((done) => turns.wait('a', () => done(work())))),
    );
    const gaps = begun.slice(1).map((start, i) => start - begun[i]!);
    // A timer may fire a millisecond early.
    for (const gap of gaps) expect(gap).toBeGreaterThanOrEqual(pieceMs + restMs - 1);
  });

  test('many parameters are refused at the first that is unknown', async () => {
    const some = names().slice(0, 10_000);
    expect(await post(but('parameters', `{${some.join()}}`))).toMatchObject({
      status: 400,
      error: expect.stringMatching(/^parameters.0000000: /),
    });
  });

  test('other types of content have the same limit', async () => {
    const type = { 'content-type': 'text/plain' };
    expect(await post(request({ id: 'x'.repeat(MIB) }), type)).toMatchObject({ status: 413 });
    expect(await post(request({}), type)).toMatchObject({ status: 200 });
  });
});

/** The head of a request whose body follows. */
const headOf = (length: number) =>
  `POST ${PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\n` +
  `inference-header-content-length: 0\r\ncontent-length: ${length}\r\n\r\n`;

test('bodies that are being received have a common limit: the oldest is dropped', async () => {
  const unfinished = watchUnfinished();
  const closed: number[] = [];
  const answers: string[] = [];
  const sockets: { socket: Socket; gone: Promise<void> }[] = [];
  for (let i = 0; i < 6; i++) {
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
    socket.on('error', () => {});
    socket.on('data', (part) => answers.push(String(part)));
    const gone = new Promise<void>((done) => socket.on('close', () => done(void closed.push(i))));
    sockets.push({ socket, gone });
    socket.write(headOf(4 * MIB));
    while (unfinished.begun === i) await sleep(1);
  }
  for (const { socket } of sockets) socket.write(Buffer.alloc(3.9 * MIB));
  await Promise.all(sockets.slice(0, 4).map(({ gone }) => gone));
  expect(closed.sort()).toEqual([0, 1, 2, 3]);
  for (const answer of answers) expect(answer).toMatch(/^HTTP\/1.1 429 [\s\S]*"code":"BUSY"/);
  await expectServed();
  for (const { socket } of sockets) socket.destroy();
  await Promise.all(sockets.map(({ gone }) => gone));
  // What their heads announce counts as soon as a part of it is there.
  expect(unfinished.most).toBe(8 * MIB);
});

test('a long body is refused for what its JSON announces, before the rest is sent, which is skipped', async () => {
  const port = Number(new URL(server.url).port);
  const [items, length] = [1025, 1025 * 3072];
  const shape = [items, 3, 32, 32];
  const parameters = { binary_data_size: length };
  const json = JSON.stringify({ inputs: [{ name: 'input', datatype: 'UINT8', shape, parameters }] });
  const socket = connect(port, '127.0.0.1');
  const answer = () => new Promise<string>((done) => socket.once('data', (part) => done(String(part))));
  socket.write(
    `POST ${PATH} HTTP/1.1\r\nhost: a\r\ninference-header-content-length: ${json.length}\r\n` +
      `content-length: ${json.length + length}\r\n\r\n${json}`,
  );
  expect(await answer()).toMatch(/^HTTP\/1.1 413 [\s\S]*1025 items/i);
  expect(entries).toContainEqual(expect.objectContaining({ event: 'refusal', code: 'TOO_LARGE' }));
  socket.write(Buffer.alloc(length));
  socket.write('GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n');
  expect(await answer()).toMatch(/^HTTP\/1.1 200 /);
  socket.destroy();
  await expectServed();
});

describe('what fails in the server is logged with its cause', () => {
  const broken = () =>
    jest
      .spyOn(InferenceSession.prototype, 'runTraced')
      .mockRejectedValueOnce(new Error('run failed', { cause: new Error('disk on fire') }));

  test('REST: of inference, and of any other path', async () => {
    broken();
    expect(await classify([CAT])).toMatchObject({ status: 500, code: 'INTERNAL' });
    const failures = () => entries.filter(({ event }) => event === 'failure');
    expect(failures()).toMatchObject([
      { event: 'failure', request: `POST ${PATH}`, code: 'INTERNAL', status: 500, error: expect.any(String) },
    ]);
    expect(failures()[0]!.error).toMatch(/^Error: run failed\n {4}at [\s\S]*disk on fire/);
    jest.spyOn(server.repository, 'versionsOf').mockImplementation(() => {
      throw new TypeError('no versions');
    });
    expect((await fetch(`${server.url}/v2/models/${MODEL}/stats`)).status).toBe(500);
    expect(failures()[1]).toMatchObject({
      request: `GET /v2/models/${MODEL}/stats`,
      error: expect.stringMatching(/^TypeError: no versions\n {4}at /),
    });
  });

  test('what a client or the state of the server causes is logged as a refusal, with its id, and counted', async () => {
    const missing = await fetch(`${server.url}/v2/models/none`, { headers: { 'x-request-id': 'mine' } });
    expect([missing.status, missing.headers.get('x-request-id')]).toEqual([404, 'mine']);
    jest.spyOn(server.repository, 'get').mockImplementationOnce(() => {
      throw new ServerError('UNAVAILABLE', 'model: it is not loaded');
    });
    expect((await fetch(`${server.url}/v2/models/${MODEL}`)).status).toBe(503);
    expect((await fetch(`${server.url}/nowhere`)).status).toBe(404);
    const refusal = { event: 'refusal', error: expect.any(String) };
    expect(entries).toMatchObject([
      { ...refusal, request: 'GET /v2/models/none', id: 'mine', code: 'NOT_FOUND', status: 404 },
      { ...refusal, request: `GET /v2/models/${MODEL}`, code: 'UNAVAILABLE', status: 503 },
      { ...refusal, request: 'GET /nowhere', code: 'NOT_FOUND', status: 404 },
    ]);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toMatch(/residual_skip_failures_total\{protocol="rest",code="UNAVAILABLE"\} [1-9]/);
  });

  test('a flood of them takes ten lines a second; those left out are counted', () => {
    const lines: Record<string, unknown>[] = [];
    const failures = new Failures((entry) => lines.push(entry as Record<string, unknown>));
    const clock = jest.spyOn(performance, 'now').mockReturnValue(5000);
    const error = new ServerError('BUSY', 'queue: it is full');
    for (let i = 0; i < 100; i++) failures.report({ protocol: 'rest', error, request: 'POST /' });
    expect(lines).toHaveLength(10);
    clock.mockReturnValue(6000);
    failures.report({ protocol: 'rest', error, request: 'POST /' });
    expect(lines[10]).toMatchObject({ left: 90 });
    expect([...failures.counts.values()]).toEqual([
      { labels: { protocol: 'rest', code: 'BUSY' }, count: 101 },
    ]);
  });
});

test('a client has so long to read an answer', async () => {
  const graph = new GraphBuilder();
  const input = graph.input('input', [1, MIB / 4]);
  const copies = 48;
  graph.nodes('Concat', Array(copies).fill(input), { axis: 1 }, { outputs: ['output'] });
  const model = modelBytes(graph.output('output', [1, (copies * MIB) / 4]));
  const folder = folderOf({ 'own/model.onnx': model });
  const impatient = await createServer({
    ...{ folders: [`${folder}/own`], port: 0, grpcPort: null, requestTimeout: 1000 },
  });
  const unfinished = watchUnfinished();
  const given = { name: 'input', datatype: 'FP32', shape: [1, MIB / 4] };
  const head = JSON.stringify({
    inputs: [{ ...given, parameters: { binary_data_size: MIB } }],
    parameters: { binary_data_output: true },
  });
  const socket = connect(Number(new URL(impatient.url).port), '127.0.0.1').pause();
  socket.on('error', () => {});
  socket.write(
    `POST /v2/models/own/infer HTTP/1.1\r\nhost: a\r\ninference-header-content-length: ${head.length}\r\n` +
      `content-length: ${head.length + MIB}\r\n\r\n${head}`,
  );
  socket.write(Buffer.alloc(MIB));
  while (unfinished.begun < 2) await sleep(10);
  expect(unfinished.last).toBeGreaterThan(copies * MIB);
  while (unfinished.last > 0) await sleep(10);
  let received = 0;
  socket.on('data', ({ length }) => {
    received += length;
  });
  await new Promise((done) => socket.once('close', done).resume());
  expect(received).toBeLessThan(copies * MIB);
  await impatient.close();
  removeFolders();
}, 60_000);

test('long texts become tokens in turns of the event loop, and short ones at once', async () => {
  let turn = 0;
  let turns: number[] = [];
  const model = {
    text: true,
    tokens: () => {
      turns.push(turn);
      return {};
    },
  } as unknown as ServedModel;
  const feeds = (content: string[]) => {
    turns = [];
    const inputs = [{ name: 'text', shape: [content.length], content }];
    const request = { model: '', version: '', id: '', parameters: {}, inputs, outputs: [] };
    return feedsOf(model, request, new Caller(), () => {});
  };
  expect(feeds(Array(10).fill('short'))).toHaveLength(10);
  for (const texts of [Array<string>(8).fill('x'.repeat(8192)), Array<string>(512).fill('short')]) {
    let over = false;
    const given = feeds(texts) as Promise<unknown[]>;
    const counting = (async () => {
      for (; !over; turn++) await new Promise(setImmediate);
    })();
    expect(await given).toHaveLength(texts.length);
    over = true;
    await counting;
    expect(new Set(turns).size).toBeGreaterThanOrEqual(8);
  }
});
