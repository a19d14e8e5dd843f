/**
 * Requests as clients of the field send them, byte for byte, written from what their sources say: tritonclient.grpc (Python),
 * perf_analyzer (the C++ client of Triton), and KServe's SDK. Messages of gRPC are encoded here by the field numbers of the protocol.
 */

import { request } from 'node:http';
import { type ClientHttp2Session, connect } from 'node:http2';
import { resolve } from 'node:path';
import { deflateSync, gzipSync } from 'node:zlib';
import { InferenceSession, Tensor } from 'residual-skip';
import { createServer, type RunningServer } from 'residual-skip-server';

const MODEL = 'mnist-resnet20-gates';
const PIXELS = Float32Array.from({ length: 784 }, (_, i) => (i % 9) / 9);
const RAW = Buffer.from(PIXELS.buffer);

let server: RunningServer;
let http2: ClientHttp2Session;
let expected: number[];
beforeAll(async () => {
  server = await createServer({ folders: [resolve('models', MODEL)], port: 0, grpcPort: 0 });
  http2 = connect(`http://${server.grpcAddress}`);
  const session = await InferenceSession.create(resolve('models', MODEL));
  const { logits } = await session.run({ input: new Tensor('float32', PIXELS, [1, 1, 28, 28]) });
  expected = [...(logits!.data as Float32Array)];
  await session.release();
});
afterAll(async () => {
  http2.close();
  await server.close();
});

// The wire format of protocol buffers: a field's number and kind, then its value.
function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
}
const number = (field: number, value: number) => Buffer.concat([varint(8 * field), varint(value)]);
const bytes = (field: number, value: Uint8Array | string) => {
  const content = Buffer.from(value as string);
  return Buffer.concat([varint(8 * field + 2), varint(content.length), content]);
};
const message = (field: number, ...parts: Buffer[]) => bytes(field, Buffer.concat(parts));
/** An entry of the map `parameters`. */
const parameter = (field: number, name: string, value: Buffer) =>
  message(field, bytes(1, name), message(2, value));
const shape = (field: number, dims: readonly number[]) => message(field, ...dims.map(varint));

/** Of an answer, the field's contents, one for each time that it is there. */
function fieldsOf(buffer: Buffer, wanted: number): Buffer[] {
  const found: Buffer[] = [];
  let at = 0;
  const read = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = buffer[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < buffer.length) {
    const key = read();
    const kind = key % 8;
    const length = kind === 2 ? read() : kind === 1 ? 8 : kind === 5 ? 4 : 0;
    if (kind === 0) read();
    if (Math.floor(key / 8) === wanted) found.push(buffer.subarray(at, at + length));
    at += length;
  }
  return found;
}

/** Calls a method as gRPC's Python and C++ libraries do. */
function call(
  method: string,
  sent: Buffer,
  encoding?: 'gzip' | 'deflate',
): Promise<{ status: string; answer: Buffer }> {
  const packed = encoding === 'gzip' ? gzipSync(sent) : encoding === 'deflate' ? deflateSync(sent) : sent;
  const head = Buffer.alloc(5);
  head[0] = encoding ? 1 : 0;
  head.writeUInt32BE(packed.length, 1);
  return new Promise((done, failed) => {
    const stream = http2.request({
      ':method': 'POST',
      ':path': `/inference.GRPCInferenceService/${method}`,
      te: 'trailers',
      'content-type': 'application/grpc',
      'user-agent': 'grpc-python/1.62.1 grpc-c/39.0.0 (linux; chttp2)',
      'grpc-accept-encoding': 'identity, deflate, gzip',
      ...(encoding && { 'grpc-encoding': encoding }),
    });
    const parts: Buffer[] = [];
    let status = '';
    stream.on('error', failed);
    stream.on('response', (headers) => {
      status = String(headers['grpc-status'] ?? status);
    });
    stream.on('trailers', (trailers) => {
      status = String(trailers['grpc-status']);
    });
    stream.on('data', (part) => parts.push(part));
    stream.on('end', () => done({ status, answer: Buffer.concat(parts).subarray(5) }));
    stream.end(Buffer.concat([head, packed]));
  });
}

const floatsOf = (raw: Buffer) => [...new Float32Array(Uint8Array.from(raw).buffer)];
/** `raw_output_contents` of ModelInferResponse. */
const RAW_OUTPUT = 6;

describe('tritonclient.grpc', () => {
  /** In the order of fields, as Python writes them; the version is empty, so it isn't written. */
  const infer = (...options: Buffer[]) =>
    Buffer.concat([
      bytes(1, MODEL),
      ...options,
      message(5, bytes(1, 'input'), bytes(2, 'FP32'), shape(3, [1, 1, 28, 28])),
      message(6, bytes(1, 'logits')),
      bytes(7, RAW),
    ]);

  test('infers, with a request id, a priority as uint64 and a timeout', async () => {
    const options = [
      bytes(3, 'my request'),
      parameter(4, 'priority', number(5, 3)),
      parameter(4, 'timeout', number(2, 10_000_000)),
    ];
    const { status, answer } = await call('ModelInfer', infer(...options));
    expect([status, String(fieldsOf(answer, 3)[0])]).toEqual(['0', 'my request']);
    expect(floatsOf(fieldsOf(answer, RAW_OUTPUT)[0]!)).toEqual(expected);
  });

  test.each(['gzip', 'deflate'] as const)('packs its messages with %s', async (encoding) => {
    const { status, answer } = await call('ModelInfer', infer(), encoding);
    expect(status).toBe('0');
    expect(floatsOf(fieldsOf(answer, RAW_OUTPUT)[0]!)).toEqual(expected);
  });

  test('asks for the best classes', async () => {
    const output = message(6, bytes(1, 'logits'), parameter(2, 'classification', number(2, 2)));
    const input = message(5, bytes(1, 'input'), bytes(2, 'FP32'), shape(3, [1, 1, 28, 28]));
    const { answer } = await call(
      'ModelInfer',
      Buffer.concat([bytes(1, MODEL), input, output, bytes(7, RAW)]),
    );
    // Each string has its length in front, as BYTES have.
    const [raw] = fieldsOf(answer, RAW_OUTPUT);
    const first = raw!.toString('utf8', 4, 4 + raw!.readUInt32LE(0)).split(':');
    expect(Number(first[1])).toBe(expected.indexOf(Math.max(...expected)));
  });

  test('sends a sequence: the server has none, so it says so', async () => {
    const { status } = await call('ModelInfer', infer(parameter(4, 'sequence_id', number(2, 7))));
    expect(status).toBe('3');
  });
});

/** A request with exactly these headers. */
function post(path: string, body: Buffer, headers: Record<string, string>) {
  return new Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; body: Buffer }>(
    (done, failed) => {
      const { hostname, port } = new URL(server.url);
      const length = { 'content-length': String(body.length) };
      const sent = request(
        { hostname, port, path, method: 'POST', headers: { ...headers, ...length } },
        (answer) => {
          const parts: Buffer[] = [];
          answer.on('data', (part) => parts.push(part));
          answer.on('end', () =>
            done({ status: answer.statusCode!, headers: answer.headers, body: Buffer.concat(parts) }),
          );
        },
      );
      sent.on('error', failed);
      sent.end(body);
    },
  );
}

describe('perf_analyzer', () => {
  const path = `/v2/models/${MODEL}`;
  /** What it reads of the statistics before and after each window; it ends where one is missing or negative. */
  const DURATIONS = [
    'success',
    'queue',
    'compute_input',
    'compute_infer',
    'compute_output',
    'cache_hit',
    'cache_miss',
  ];

  test('reads metadata, configuration and statistics, and infers in binary over REST', async () => {
    const get = async (of: string) => (await fetch(`${server.url}${of}`)).json() as Promise<never>;
    expect(await get(path)).toMatchObject({ inputs: [{ name: 'input', shape: [-1, 1, 28, 28] }] });
    expect(await get(`${path}/config`)).toMatchObject({ max_batch_size: 1024 });
    const json =
      '{"id":"0","inputs":[{"name":"input","shape":[1,1,28,28],"datatype":"FP32","parameters":{"binary_data_size":3136}}],' +
      '"outputs":[{"name":"logits","parameters":{"binary_data":true}}]}';
    const answer = await post(`${path}/infer`, Buffer.concat([Buffer.from(json), RAW]), {
      'user-agent': 'libcurl-agent/1.0',
      'inference-header-content-length': String(json.length),
      'content-type': 'application/octet-stream',
    });
    expect(answer.status).toBe(200);
    const length = Number(answer.headers['inference-header-content-length']);
    expect(floatsOf(answer.body.subarray(length))).toEqual(expected);
    const [stats] = ((await get(`${path}/stats`)) as { model_stats: Record<string, unknown>[] }).model_stats;
    for (const name of ['inference_count', 'execution_count']) expect(stats![name]).toBeGreaterThanOrEqual(1);
    for (const name of DURATIONS) {
      const { count, ns } = (stats!.inference_stats as Record<string, { count: number; ns: number }>)[name]!;
      for (const value of [count, ns])
        expect([name, Number.isSafeInteger(value) && value >= 0]).toEqual([name, true]);
    }
  });

  test('over gRPC it infers in a stream, with an id for each request', async () => {
    const one = Buffer.concat([
      bytes(1, MODEL),
      bytes(3, '17'),
      message(5, bytes(1, 'input'), bytes(2, 'FP32'), shape(3, [1, 1, 28, 28])),
      message(6, bytes(1, 'logits')),
      bytes(7, RAW),
    ]);
    const { status, answer } = await call('ModelStreamInfer', one);
    const [response] = fieldsOf(answer, 2);
    expect([status, String(fieldsOf(response!, 3)[0])]).toEqual(['0', '17']);
    expect(floatsOf(fieldsOf(response!, RAW_OUTPUT)[0]!)).toEqual(expected);
    const statistics = await call('ModelStatistics', bytes(1, MODEL));
    const [inference] = fieldsOf(fieldsOf(statistics.answer, 1)[0]!, 6);
    // Success, and the times of its parts.
    for (const field of [1, 3, 4, 5, 6, 7, 8]) expect(fieldsOf(inference!, field)).toHaveLength(1);
  });
});

describe("KServe's SDK", () => {
  test('sends JSON without a Content-Type, with the name of the model and flat data', async () => {
    const body = JSON.stringify({
      id: '0b4e1c0a-7b1e-4b0e-8f0c-2f9f1c1d2e3f',
      model_name: MODEL,
      inputs: [{ name: 'input', shape: [1, 1, 28, 28], datatype: 'FP32', data: [...PIXELS] }],
    });
    const headers = {
      accept: '*/*',
      'accept-encoding': 'gzip, deflate',
      'user-agent': 'python-httpx/0.27.2',
    };
    const answer = await post(`/v2/models/${MODEL}/infer`, Buffer.from(body), headers);
    expect([answer.status, answer.headers['content-encoding']]).toEqual([200, undefined]);
    const { id, outputs } = JSON.parse(String(answer.body));
    expect([id, outputs[0].data]).toEqual(['0b4e1c0a-7b1e-4b0e-8f0c-2f9f1c1d2e3f', expected]);
  });

  test('sends arrays in binary behind the JSON, and reads outputs of JSON', async () => {
    const json = JSON.stringify({
      id: 'a',
      model_name: MODEL,
      inputs: [
        { name: 'input', shape: [1, 1, 28, 28], datatype: 'FP32', parameters: { binary_data_size: 3136 } },
      ],
    });
    const answer = await post(`/v2/models/${MODEL}/infer`, Buffer.concat([Buffer.from(json), RAW]), {
      'inference-header-content-length': String(json.length),
      'content-type': 'application/octet-stream',
    });
    expect([answer.status, answer.headers['inference-header-content-length']]).toEqual([200, undefined]);
    expect(JSON.parse(String(answer.body)).outputs[0].data).toEqual(expected);
  });

  test('over gRPC, sends raw data with its size, or lists in fields of their types', async () => {
    const input = [bytes(1, 'input'), bytes(2, 'FP32'), shape(3, [1, 1, 28, 28])];
    const raw = message(5, ...input, parameter(4, 'binary_data_size', number(2, 3136)));
    // Field 6 of the contents holds packed floats.
    const list = message(5, ...input, message(5, bytes(6, RAW)));
    for (const parts of [[raw, bytes(7, RAW)], [list]]) {
      const { status, answer } = await call(
        'ModelInfer',
        Buffer.concat([bytes(1, MODEL), bytes(3, 'a'), ...parts]),
      );
      expect(status).toBe('0');
      expect(floatsOf(fieldsOf(answer, RAW_OUTPUT)[0]!)).toEqual(expected);
    }
    expect((await call('ModelReady', bytes(1, MODEL))).answer).toEqual(number(1, 1));
  });
});
