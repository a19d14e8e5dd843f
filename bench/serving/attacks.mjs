// The attacks of bench/attacks.mjs: requests with few bytes that take much time or memory of a server that doesn't bound them.
import { request } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';

export const MODEL = 'cifar10-resnet14-exits';
const INFER = `/v2/models/${MODEL}/infer`;
/** Their tokens. */
export const ATTACKERS = ['a', 'b', 'c'];
const MIB = 1 << 20;

/** An answer's status and, of a bad one, its code; 0 where the connection ended without. */
export function post(url, token, body, headers = {}, agent = undefined) {
  const all = { authorization: `Bearer ${token}`, 'content-length': body.length, ...headers };
  let sent;
  const answered = new Promise((resolve) => {
    sent = request(new URL(INFER, url), { method: 'POST', agent, headers: all }, (answer) => {
      answer.resume();
      answer.on('end', () => resolve(answer.statusCode));
      answer.on('error', () => resolve(0));
    });
    sent.on('error', () => resolve(0));
    sent.end(body);
  });
  return { sent, answered };
}
export const RAW = { 'inference-header-content-length': 0 };

/** Images of few bytes that take as long and as much memory as the server allows, and some beyond that. */
async function bombs() {
  const sharp = createRequire(import.meta.url)('sharp');
  const flat = (size) =>
    sharp({
      create: { width: size, height: size, channels: 4, background: { r: 128, g: 64, b: 32, alpha: 1 } },
    });
  return Promise.all([
    flat(6000).removeAlpha().png().toBuffer(),
    flat(8192).removeAlpha().png().toBuffer(),
    flat(3400).toColourspace('rgb16').png({ progressive: true }).toBuffer(),
    flat(2700).removeAlpha().avif({ effort: 0 }).toBuffer(),
    flat(3400).webp({ lossless: true, effort: 0 }).toBuffer(),
  ]);
}

const FILTER = '<filter id="f"><feTurbulence numOctaves="9"/></filter>';
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">${FILTER}<rect filter="url(#f)" width="64" height="64"/></svg>`;

const json = (fields) => {
  const input = { name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32], data: Array(3072).fill(0.5) };
  return JSON.stringify({ inputs: [{ ...input, ...fields }] });
};
const parameters = (count) => `{${Array.from({ length: count }, (_, i) => `"${i.toString(36)}":[]`).join()}}`;
const brackets = (count) =>
  json({ data: 0 }).replace('"data":0', `"data":${'['.repeat(count)}${']'.repeat(count)}`);

const batch = (items) => {
  const bytes = items * 3072 * 4;
  const input = { name: 'input', datatype: 'FP32', shape: [items, 3, 32, 32] };
  const head = Buffer.from(
    JSON.stringify({ inputs: [{ ...input, parameters: { binary_data_size: bytes } }] }),
  );
  const headers = { 'inference-header-content-length': head.length };
  return { body: Buffer.concat([head, Buffer.alloc(bytes)]), headers };
};

/** Sends all bodies from each attacker at once, again and again. */
const repeated = async (make) => {
  const all = await make();
  return (url, seen) =>
    Promise.all(
      ATTACKERS.flatMap((token) =>
        all.map(async ({ body, headers }) => seen(await post(url, token, body, headers).answered)),
      ),
    );
};
const plain = (text) => ({ body: Buffer.from(text) });

/** Of a message over gRPC. */
const head = (length, isPacked = false) => {
  const bytes = Buffer.alloc(5);
  bytes.writeUInt8(Number(isPacked));
  bytes.writeUInt32BE(length, 1);
  return bytes;
};

/** Makes a call, and leaves after two seconds if it has no answer. */
function call(address, token, bytes, headers = {}, method = 'ModelInfer') {
  const session = connectHttp2(`http://${address}`);
  return new Promise((ended) => {
    session.on('error', () => {});
    session.on('close', ended);
    const stream = session.request({
      ...{ ':method': 'POST', ':path': `/inference.GRPCInferenceService/${method}` },
      ...{ 'content-type': 'application/grpc', te: 'trailers', ...headers },
      ...(token && { authorization: `Bearer ${token}` }),
    });
    stream.on('error', () => {});
    stream.on('close', () => session.destroy());
    stream.write(bytes);
    setTimeout(() => session.destroy(), 2000).unref();
  });
}
const callers = (make) =>
  Promise.all(Array.from({ length: 24 }, (_, i) => make([undefined, ...ATTACKERS][i % 4])));

/** Sends bytes on a connection of their own. */
function raw(url, bytes) {
  const { port } = new URL(url);
  const socket = connect(Number(port));
  const ended = new Promise((done) => socket.on('close', done));
  socket.on('error', () => {});
  socket.resume();
  socket.write(bytes, () => socket.destroy());
  return ended;
}

const requestHead = (token, ...lines) =>
  [`POST ${INFER} HTTP/1.1`, 'host: localhost', `authorization: Bearer ${token}`, ...lines, '\r\n'].join(
    '\r\n',
  );

/** What each sends once; it is called again and again. `seen` takes a REST answer's status. */
export const ATTACKS = {
  images: () => repeated(async () => (await bombs()).map((body) => ({ body, headers: RAW }))),
  'images of clients that leave': async () => {
    const files = await bombs();
    return async (url) => {
      const sent = ATTACKERS.flatMap((token) => files.map((file) => post(url, token, file, RAW)));
      await sleep(100);
      for (const one of sent) one.sent.destroy();
      await Promise.all(sent.map(({ answered }) => answered));
    };
  },
  svg: () => repeated(() => Array(4).fill({ body: Buffer.from(SVG), headers: RAW })),
  json: () =>
    repeated(() => [
      plain(json({ parameters: 0 }).replace('"parameters":0', `"parameters":${parameters(90_000)}`)),
      plain(`{"parameters":${parameters(3_000_000)},"inputs":[]}`),
    ]),
  brackets: () =>
    repeated(() => [plain(brackets(0.45 * MIB)), plain('['.repeat(MIB)), plain('['.repeat(5 * MIB))]),
  batches: () => repeated(() => [batch(1024), batch(5400)]),
  grpc: () => {
    const half = Buffer.concat([head(60 * MIB), Buffer.alloc(30 * MIB)]);
    return (_url, _seen, address) => callers((token) => call(address, token, half));
  },
  packed: async () => {
    // 60 KiB that become 60 MiB.
    const body = gzipSync(Buffer.alloc(60 * MIB));
    const post = await repeated(() => [{ body, headers: { ...RAW, 'content-encoding': 'gzip' } }]);
    const message = Buffer.concat([head(body.length, true), body]);
    const headers = { 'grpc-encoding': 'gzip' };
    return (url, seen, address) =>
      Promise.all([
        post(url, seen),
        callers((token) => call(address, token, message, headers)),
        callers((token) => call(address, token, message, headers, 'ModelStreamInfer')),
      ]);
  },
  chunks: () => {
    const chunks = '1\r\nx\r\n'.repeat(MIB);
    const lines = ['inference-header-content-length: 10', 'transfer-encoding: chunked'];
    const bodies = [...ATTACKERS, ...ATTACKERS].map((token) => requestHead(token, ...lines) + chunks);
    return (url) => Promise.all(bodies.map((bytes) => raw(url, bytes)));
  },
  'requests in a row': () => {
    const all = ATTACKERS.map((token) => `${requestHead(token, 'content-length: 2')}{}`.repeat(10_000));
    return (url) => Promise.all(all.map((bytes) => raw(url, bytes)));
  },
  'gRPC messages of empty fields': () => {
    const message = Buffer.concat([head(MIB), Buffer.alloc(MIB, Buffer.from([0x2a, 0]))]);
    return (_url, _seen, address) => callers((token) => call(address, token, message));
  },
};
