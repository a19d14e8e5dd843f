import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { resolve } from 'node:path';
import { Tensor } from 'residual-skip';
import { Client } from 'residual-skip/client';
import { createServer, type RunningServer } from 'residual-skip-server';
import { JobQueue } from '../../server/src/inference/queue.js';
import { uniform } from '../helpers/random.js';

const MODEL = 'mnist-resnet20-gates';
const PATH = `/v2/models/${MODEL}/infer`;
const SHAPE = [1, 1, 28, 28];
/** FAULT_CASES=20000 npx jest test/server/faults */
const CASES = Number(process.env.FAULT_CASES ?? 400);
const BODY_LIMIT = 1 << 20;
const REQUEST_TIMEOUT_MS = 1500;

let server: RunningServer;
let port: number;
const failures: unknown[] = [];
beforeAll(async () => {
  server = await createServer({
    folders: [resolve('models', MODEL)],
    ...{ port: 0, grpcPort: null, threads: 1, maxItems: 1 },
    ...{ bodyLimit: BODY_LIMIT, requestTimeout: REQUEST_TIMEOUT_MS },
    log: (entry) => entry.event === 'failure' && failures.push(entry),
  });
  port = Number(new URL(server.url).port);
});
afterAll(() => server.close());

/** Nothing waits, nothing is held, no defect was logged, and the server answers. */
async function expectSound(): Promise<void> {
  const digit = new Tensor('float32', new Float32Array(784), SHAPE);
  const { outputs } = await new Client(server.url).infer(MODEL, { input: digit });
  expect(outputs.logits!.dims).toEqual([1, 10]);
  // Requests whose clients have left may still be on their way into the queue.
  const deadline = Date.now() + 5000;
  let metrics: string;
  do metrics = await (await fetch(`${server.url}/metrics`)).text();
  while (!/^residual_skip_queue_length 0$/m.test(metrics) && Date.now() < deadline);
  expect(metrics).toMatch(/^residual_skip_queue_length 0$/m);
  expect(failures).toEqual([]);
}

const pixels = Buffer.from(new Float32Array(784).buffer);
const input = { name: 'input', datatype: 'FP32', shape: SHAPE };
const image = readFileSync(resolve('demo/digit-3.png'));

/** Valid bodies, which mutations begin with. */
const VALID: readonly { readonly json: object; readonly tail: Buffer | null }[] = [
  {
    json: { id: 'a', inputs: [{ ...input, data: Array(784).fill(0.5) }], parameters: { trace: true } },
    tail: null,
  },
  {
    json: {
      inputs: [{ ...input, datatype: 'BYTES', shape: [1], data: [image.toString('base64')] }],
      outputs: [{ name: 'logits', parameters: { classification: 3 } }],
    },
    tail: null,
  },
  {
    json: {
      parameters: { binary_data_output: true, priority: 1, timeout: 5_000_000 },
      inputs: [{ ...input, parameters: { binary_data_size: pixels.length } }],
      outputs: [{ name: 'logits', parameters: { binary_data: true } }],
    },
    tail: pixels,
  },
];

interface Case {
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

function caseOf({ json, tail }: { json: unknown; tail: Buffer | null }): Case {
  const head = Buffer.from(JSON.stringify(json));
  if (!tail) return { headers: { 'content-type': 'application/json' }, body: head };
  return {
    headers: {
      'content-type': 'application/octet-stream',
      'inference-header-content-length': String(head.length),
    },
    body: Buffer.concat([head, tail]),
  };
}

/** Values that stand in the place of others. */
const STRANGE: readonly unknown[] = [
  ...[null, true, -1, 0, 1.5, 1e308, 2 ** 53, '', 'x', '\u0000', [], {}, [[[]]], [1e9, 1e9], [-1], [0]],
  ...['FP64', 'BYTES', 'BOOL', 'INT64', { binary_data_size: 1e12 }, { classification: 0 }, { timeout: -1 }],
  ...[{ policy: 'bold' }, { priority: 'x' }, '__proto__', 'constructor'],
];

/** A copy of `value` with one part of it replaced or left out. */
function mutateJson(value: unknown, next: () => number): unknown {
  const pick = <T>(from: readonly T[]) => from[Math.floor(next() * from.length)]!;
  if (next() < 0.25 || typeof value !== 'object' || value === null) return pick(STRANGE);
  if (Array.isArray(value)) {
    const at = Math.floor(next() * Math.min(3, value.length));
    const changed = mutateJson(value[at], next);
    return next() < 0.2 ? value.slice(1) : value.map((part, i) => (i === at ? changed : part));
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return { [String(pick(STRANGE))]: pick(STRANGE) };
  const at = Math.floor(next() * entries.length);
  if (next() < 0.15) return Object.fromEntries(entries.filter((_, i) => i !== at));
  return Object.fromEntries(entries.map(([key, part], i) => [key, i === at ? mutateJson(part, next) : part]));
}

/** The case with this number: a valid body with a fault in its JSON, its bytes, its length or its headers. */
function faulty(number: number): Case {
  const next = uniform(number);
  const valid = VALID[Math.floor(next() * VALID.length)]!;
  const kind = next();
  if (kind < 0.5) return caseOf({ ...valid, json: mutateJson(valid.json, next) });
  const { headers, body } = caseOf(valid);
  if (kind < 0.7) {
    const bytes = Buffer.from(body);
    for (let i = 0; i < 1 + next() * 8; i++)
      bytes[Math.floor(next() * bytes.length)] = Math.floor(next() * 256);
    return { headers, body: bytes };
  }
  if (kind < 0.8) return { headers, body: body.subarray(0, Math.floor(next() * body.length)) };
  if (kind < 0.9) return { headers, body: Buffer.concat([body, body.subarray(0, Math.floor(next() * 500))]) };
  const lengths = ['-1', '0', '1', '1e3', 'x', '', '99999999', `${body.length}`, `${2 ** 53}`];
  const length = lengths[Math.floor(next() * lengths.length)]!;
  return { headers: { ...headers, 'inference-header-content-length': length }, body };
}

const CODES = ['INVALID_ARGUMENT', 'TOO_LARGE', 'UNSUPPORTED', 'TIMEOUT', 'UNAVAILABLE'];

test(`${CASES} mutated bodies have an answer or a typed error each, and leave nothing behind`, async () => {
  const memory: number[] = [];
  const statuses = new Map<number, number>();
  const untyped: object[] = [];
  for (let number = 0; number < CASES; number++) {
    const { headers, body } = faulty(number);
    const response = await fetch(`${server.url}${PATH}`, {
      method: 'POST',
      headers,
      body: new Uint8Array(body),
    });
    const text = await response.text();
    statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
    if (response.status !== 200) {
      const { error, code } = JSON.parse(text) as { error: unknown; code: string };
      // The number finds the case again.
      if (typeof error !== 'string' || !CODES.includes(code)) untyped.push({ number, code, error });
    }
    if (number % Math.ceil(CASES / 20) === 0) memory.push(process.memoryUsage().arrayBuffers);
  }
  expect({ untyped, failures }).toEqual({ untyped: [], failures: [] });
  // Some mutations are harmless; most are not.
  expect(statuses.get(200)).toBeGreaterThan(0);
  expect(statuses.get(400)).toBeGreaterThan(CASES / 4);
  expect(memory.at(-1)! - memory[0]!).toBeLessThan(64 << 20);
  await expectSound();
});

/** A connection that sends what it is told to, and what it was answered until it was closed. */
function open(): { socket: Socket; answer: Promise<string> } {
  const socket = connect(port, '127.0.0.1');
  let text = '';
  socket.on('data', (part) => {
    text += part;
  });
  socket.on('error', () => {});
  return { socket, answer: new Promise((done) => socket.on('close', () => done(text))) };
}

const headOf = (length: number) =>
  `POST ${PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`;

test('a body that is too large is refused by its length, and cut off where it has none', async () => {
  const declared = open();
  declared.socket.write(headOf(1e9));
  expect(await declared.answer).toMatch(/^HTTP\/1.1 413 [\s\S]*"code":"TOO_LARGE"/);
  const chunked = open();
  chunked.socket.write(
    `POST ${PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n`,
  );
  const chunk = Buffer.from(`10000\r\n${' '.repeat(65_536)}\r\n`);
  for (let i = 0; i < 2 + BODY_LIMIT / 65_536; i++) chunked.socket.write(chunk);
  expect(await chunked.answer).toMatch(/^HTTP\/1.1 413 [\s\S]*"code":"TOO_LARGE"/);
  await expectSound();
});

test('a refused request leaves its connection usable, even if the rest of its body comes after the answer', async () => {
  const full = jest.spyOn(JobQueue.prototype, 'retryAfter').mockReturnValueOnce(7);
  const body = caseOf(VALID[0]!).body;
  const { socket, answer } = open();
  const refused = new Promise((done) => socket.once('data', done));
  socket.write(Buffer.concat([Buffer.from(headOf(body.length)), body.subarray(0, 100)]));
  await refused;
  expect(full).toHaveBeenCalledTimes(1);
  full.mockRestore();
  const closing = headOf(body.length).replace('host: a', 'host: a\r\nconnection: close');
  socket.write(Buffer.concat([body.subarray(100), Buffer.from(closing), body]));
  const [first, second] = (await answer).split(/(?=HTTP\/1.1 200)/);
  expect(first).toMatch(/^HTTP\/1.1 429 [\s\S]*\r\nretry-after: 7\r\n[\s\S]*"code":"BUSY"\}$/i);
  expect(second).toMatch(/"id":"a"/);
  await expectSound();
});

test('a request that finds the queue full waits for room before its body is read', async () => {
  const full = jest.spyOn(JobQueue.prototype, 'retryAfter').mockReturnValueOnce(7);
  const client = new Client(server.url);
  const feeds = { input: new Tensor('float32', new Float32Array(784), SHAPE) };
  const waiting = client.infer(MODEL, feeds);
  while (full.mock.calls.length === 0) await new Promise((done) => setTimeout(done, 1));
  // Its end makes room.
  await client.infer(MODEL, feeds);
  expect((await waiting).outputs.logits!.dims).toEqual([1, 10]);
  full.mockRestore();
});

test('a client that asks whether to send its body is refused at once, and asked for it only if it will be read', async () => {
  const body = caseOf(VALID[0]!).body;
  const asking = headOf(body.length).replace('host: a', 'host: a\r\nexpect: 100-continue');
  const full = jest.spyOn(JobQueue.prototype, 'retryAfter').mockReturnValueOnce(7);
  for (const [head, refusal] of [
    [asking, /^HTTP\/1.1 429 [\s\S]*"code":"BUSY"/],
    [asking.replace(String(body.length), '1000000000'), /^HTTP\/1.1 413 [\s\S]*"code":"TOO_LARGE"/],
  ] as const) {
    const { socket, answer } = open();
    socket.write(head);
    // The whole answer, and the end of the connection: no body is awaited.
    expect(await answer).toMatch(refusal);
    socket.destroy();
  }
  full.mockRestore();
  const { socket, answer } = open();
  const asked = new Promise((done) => socket.once('data', done));
  socket.write(asking);
  expect(String(await asked)).toBe('HTTP/1.1 100 Continue\r\n\r\n');
  // Its connection goes on.
  const closing = headOf(body.length).replace('host: a', 'host: a\r\nconnection: close');
  socket.write(Buffer.concat([body, Buffer.from(closing), body]));
  expect((await answer).match(/HTTP\/1.1 200 /g)).toHaveLength(2);
  await expectSound();
});

test.each([
  ['no request at all', 'GARBAGE\r\n\r\n', 400, 'INVALID_ARGUMENT'],
  ['long headers', `GET /v2 HTTP/1.1\r\nhost: a\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`, 431, 'TOO_LARGE'],
  [
    'two lengths',
    headOf(5).replace('host: a', 'host: a\r\ntransfer-encoding: chunked'),
    400,
    'INVALID_ARGUMENT',
  ],
  ['no host', 'GET /v2 HTTP/1.1\r\nconnection: close\r\n\r\n', 400, 'INVALID_ARGUMENT'],
  [
    'two hosts',
    'GET /v2 HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n',
    400,
    'INVALID_ARGUMENT',
  ],
])('%s: a typed answer, and it is counted', async (_what, bytes, status, code) => {
  const count = async () => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    return Number(
      new RegExp(`failures_total\\{protocol="rest",code="${code}"\\} (\\d+)`).exec(text)?.[1] ?? 0,
    );
  };
  const before = await count();
  const { socket, answer } = open();
  socket.write(bytes);
  expect(await answer).toMatch(
    new RegExp(`^HTTP/1.1 ${status} [^]*\r\n\r\n\\{"error":".+","code":"${code}"\\}$`),
  );
  expect(await count()).toBe(before + 1);
  await expectSound();
});

test('other expectations than that of 100 are ignored, and HTTP/1.0 needs no host', async () => {
  for (const head of [
    'GET /v2 HTTP/1.1\r\nhost: a\r\nexpect: much\r\nconnection: close',
    'GET /v2 HTTP/1.0',
  ]) {
    const { socket, answer } = open();
    socket.write(`${head}\r\n\r\n`);
    expect(await answer).toMatch(/^HTTP\/1.1 200 /);
  }
});

test('a client that sends too slowly is let go', async () => {
  const slow = open();
  slow.socket.write(headOf(1000));
  const drip = setInterval(() => slow.socket.write(' '), 100);
  const answer = await slow.answer;
  clearInterval(drip);
  expect(answer).toMatch(/^HTTP\/1.1 408 /);
  const headers = open();
  headers.socket.write('POST / HTTP/1.1\r\nx: ');
  expect(await headers.answer).toMatch(/^HTTP\/1.1 408 /);
  await expectSound();
});

test('a client may send 64 requests together on a connection', async () => {
  const answersOf = async (count: number, head: string) => {
    const socket = connect(port, '127.0.0.1');
    let text = '';
    socket.on('data', (part) => {
      text += part;
    });
    socket.on('error', () => {});
    socket.write(`${`${head}\r\n`.repeat(count - 1)}${head}connection: close\r\n\r\n`);
    await new Promise((done) => socket.once('close', done));
    return text.split('HTTP/1.1 ').length - 1;
  };
  for (const what of ['GET /v2/health/live', `POST ${PATH}`]) {
    const head = `${what} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n`;
    expect(await answersOf(64, head)).toBe(64);
    expect(await answersOf(65, head)).toBeLessThan(65);
  }
});

test('a connection that is closed by half or cut in the middle of a body harms nothing', async () => {
  const body = caseOf(VALID[0]!).body;
  const whole = Buffer.concat([Buffer.from(headOf(body.length)), body]);
  // Node takes the client for gone, as after a whole close; the answer may have been quicker.
  for (const bytes of [whole, whole.subarray(0, 300), whole.subarray(0, 20)]) {
    const half = open();
    half.socket.end(bytes);
    expect(await half.answer).toMatch(/^$|^HTTP\/1.1 (200|400) /);
  }
  for (let length = 1; length < body.length; length += 50) {
    const cut = open();
    cut.socket.write(Buffer.concat([Buffer.from(headOf(body.length)), body.subarray(0, length)]), () =>
      cut.socket.destroy(),
    );
    await cut.answer;
  }
  await expectSound();
});

test('no HTTP at all', async () => {
  for (const bytes of [
    '\x16\x03\x01\x02\x00',
    'GET',
    'POST / HTTP/9.9\r\n\r\n',
    '\0'.repeat(100),
    `GET /${'a'.repeat(1e5)}`,
  ]) {
    const { socket, answer } = open();
    socket.end(bytes);
    await answer;
  }
  await expectSound();
});

test('a request whose client has left is dropped from the queue', async () => {
  const digits = new Tensor('float32', new Float32Array(784 * 300), [300, 1, 28, 28]);
  const client = new Client(server.url);
  const valueOfMetric = async (pattern: RegExp) =>
    Number(pattern.exec(await (await fetch(`${server.url}/metrics`)).text())?.[1] ?? 0);
  const waiting = () => valueOfMetric(/^residual_skip_queue_length (\d+)$/m);
  const cancelled = () => valueOfMetric(/requests_total\{.*outcome="CANCELLED"\} (\d+)/);
  // A quick machine may have answered them all before they leave.
  do {
    const controller = new AbortController();
    const answers = Array.from({ length: 20 }, () =>
      client.infer(MODEL, { input: digits }, { signal: controller.signal }),
    );
    const settled = Promise.allSettled(answers);
    for (let i = 0; i < 100 && (await waiting()) < 5; i++);
    controller.abort();
    await settled;
    while ((await waiting()) > 0);
  } while ((await cancelled()) === 0);
  await expectSound();
});

test('closing leaves no handle and no connection', async () => {
  const short = await createServer({
    folders: [resolve('models', MODEL)],
    port: 0,
    grpcPort: 0,
    drainTimeout: 500,
  });
  const { port: own } = new URL(short.url) as unknown as AddressInfo;
  // One that sends nothing, one in the middle of a request, one that looks at the live page.
  const sockets = ['', headOf(1000), 'GET /events HTTP/1.1\r\nhost: a\r\n\r\n'].map((bytes) => {
    const socket = connect(Number(own), '127.0.0.1');
    socket.on('error', () => {});
    socket.resume();
    socket.write(bytes);
    return new Promise<void>((done) => socket.on('close', () => done()));
  });
  await new Promise((done) => setTimeout(done, 200));
  const handles = process.getActiveResourcesInfo().filter((name) => name === 'TCPServerWrap').length;
  await short.close();
  await Promise.all(sockets);
  const left = process.getActiveResourcesInfo().filter((name) => name === 'TCPServerWrap').length;
  expect(left).toBeLessThan(handles);
});
