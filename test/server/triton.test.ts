import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { resolve } from 'node:path';
import { deflateSync, gunzipSync, gzipSync, inflateSync } from 'node:zlib';
import { credentials, type ServiceClientConstructor } from '@grpc/grpc-js';
import { TextClassifier } from 'residual-skip';
import { createServer, type RunningServer } from 'residual-skip-server';
import { loadService } from '../../server/src/grpc/grpc.js';
import { loadHealth } from '../../server/src/grpc/grpc-health.js';

const IMAGES = 'cifar10-resnet14-exits';
const DIGITS = 'mnist-resnet20-gates';
const TEXTS = 'sst2-encoder-exits';
const CAT = readFileSync(resolve('examples/images/cat-0000.jpg'));

let server: RunningServer;
const folder = (name: string) => resolve('models', name);
beforeAll(async () => {
  server = await createServer({
    folders: [IMAGES, DIGITS, TEXTS].map(folder),
    ...{ port: 0, grpcPort: 0, bodyLimit: 1 << 20 },
  });
});
afterAll(async () => {
  await server.close();
});

interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: Buffer;
}

/** Sends exactly these headers, as Triton's client does; fetch() would add some. */
function post(
  path: string,
  body: Uint8Array | string,
  headers: Record<string, string | number> = {},
): Promise<Answer> {
  return new Promise((done, failed) => {
    const { hostname, port } = new URL(server.url);
    const length = { 'Content-Length': Buffer.byteLength(body) };
    const sent = request(
      { hostname, port, path, method: 'POST', headers: { ...length, ...headers } },
      (answer) => {
        const parts: Buffer[] = [];
        answer.on('data', (part) => parts.push(part));
        answer.on('end', () => {
          const { statusCode, headers: own } = answer;
          done({ status: statusCode!, headers: own, body: Buffer.concat(parts) });
        });
      },
    );
    sent.on('error', failed);
    sent.end(body);
  });
}
const json = ({ body }: Answer) => JSON.parse(body.toString());
const get = async (path: string) => (await fetch(`${server.url}${path}`)).json();
const infer = (model: string) => `/v2/models/${model}/infer`;

const pixels = Float32Array.from({ length: 784 }, (_, i) => (i % 9) / 9);
/** The body and headers of tritonclient.http's infer(): its JSON has no spaces and ends where the tensors begin. */
const head =
  '{"inputs":[{"name":"input","shape":[1,1,28,28],"datatype":"FP32","parameters":{"binary_data_size":3136}}],' +
  '"outputs":[{"name":"logits","parameters":{"binary_data":true}}]}';
const tritonBody = Buffer.concat([Buffer.from(head), Buffer.from(pixels.buffer)]);
const tritonHeaders = { 'Inference-Header-Content-Length': head.length };

/** The JSON and the logits of an answer in binary. */
function parse({ body, headers }: Answer) {
  const length = Number(headers['inference-header-content-length']);
  const tail = body.subarray(length);
  return {
    head: JSON.parse(body.toString('utf8', 0, length)),
    logits: new Float32Array(new Uint8Array(tail).buffer),
  };
}

describe('tritonclient.http', () => {
  test('sends no Content-Type', async () => {
    const answer = await post(infer(DIGITS), tritonBody, tritonHeaders);
    expect(answer.status).toBe(200);
    const { head: found, logits } = parse(answer);
    expect(found).toMatchObject({ model_name: DIGITS, outputs: [{ name: 'logits', shape: [1, 10] }] });
    expect(logits).toHaveLength(10);
  });

  test.each([
    ['gzip', gzipSync, gunzipSync],
    ['deflate', deflateSync, inflateSync],
  ] as const)('packs requests and answers with %s', async (encoding, pack, unpack) => {
    const plain = await post(infer(DIGITS), tritonBody, tritonHeaders);
    const answer = await post(infer(DIGITS), pack(tritonBody), {
      'Content-Encoding': encoding,
      'Accept-Encoding': encoding,
      ...tritonHeaders,
    });
    expect(answer.headers['content-encoding']).toBe(encoding);
    expect(parse({ ...answer, body: unpack(answer.body) }).logits).toEqual(parse(plain).logits);
  });

  test('what unpacks to more than a body may have is refused, as is what is not packed', async () => {
    const bomb = gzipSync(Buffer.alloc(64 << 20));
    expect(bomb.length).toBeLessThan(100_000);
    const sent = await Promise.all(
      Array.from({ length: 8 }, () => post(infer(DIGITS), bomb, { 'Content-Encoding': 'gzip' })),
    );
    for (const answer of sent) expect(json(answer)).toMatchObject({ code: 'TOO_LARGE' });
    expect((await post(infer(DIGITS), tritonBody, { 'Content-Encoding': 'gzip' })).status).toBe(400);
    expect((await post(infer(DIGITS), tritonBody, { 'Content-Encoding': 'br' })).status).toBe(400);
  });

  test('sends the input alone, as raw bytes', async () => {
    const raw = { 'Inference-Header-Content-Length': 0 };
    const plain = await post(infer(DIGITS), tritonBody, tritonHeaders);
    const answer = await post(infer(DIGITS), Buffer.from(pixels.buffer), raw);
    expect(parse(answer).logits).toEqual(parse(plain).logits);
    const image = parse(await post(infer(IMAGES), CAT, raw));
    expect(image.logits.indexOf(Math.max(...image.logits))).toBe(3);
    expect(json(await post(infer(DIGITS), Buffer.alloc(3132), raw)).code).toBe('INVALID_ARGUMENT');
  });

  test('asks for the configuration and for statistics', async () => {
    expect(await get(`/v2/models/${DIGITS}/config`)).toMatchObject({
      ...{ name: DIGITS, platform: 'onnx_onnxv1', max_batch_size: 1024 },
      input: [{ name: 'input', data_type: 'TYPE_FP32', dims: [1, 28, 28] }],
      output: [{ name: 'logits', data_type: 'TYPE_FP32', dims: [10] }],
    });
    await post(infer(IMAGES), CAT, { 'Inference-Header-Content-Length': 0 });
    const { model_stats: stats } = (await get(`/v2/models/${IMAGES}/stats`)) as {
      model_stats: { inference_stats: Record<string, { count: number; ns: number }> }[];
    };
    const { inference_stats: found } = stats[0]!;
    const parts = ['success', 'fail', 'queue', 'compute_input', 'compute_infer', 'compute_output'];
    expect(Object.keys(found).slice(0, 6)).toEqual(parts);
    expect(found.compute_input!.ns).toBeGreaterThan(0);
    const sum = found.queue!.ns + found.compute_input!.ns + found.compute_infer!.ns;
    expect(Math.abs(found.success!.ns - sum)).toBeLessThan(10);
  });

  test('loads and unloads: what cannot be applied is refused', async () => {
    const control = (what: string, body: string) => post(`/v2/repository/models/${DIGITS}/${what}`, body);
    const config = await control('load', '{"parameters":{"config":"{}"}}');
    expect(json(config)).toMatchObject({ code: 'INVALID_ARGUMENT', error: expect.stringMatching(/config/) });
    expect((await control('load', '{}')).status).toBe(200);
    expect((await control('unload', '{"parameters":{"unload_dependents":false}}')).status).toBe(200);
    expect((await control('load', '')).status).toBe(200);
  });

  test.each([
    ['parameters', { parameters: { sequence_id: 5 } }],
    ['input', { inputs: [{ parameters: { shared_memory_region: 'a' } }] }],
    ['output', { outputs: [{ name: 'logits', parameters: { shared_memory_region: 'a' } }] }],
  ])('unknown %s are refused', async (_what, fields) => {
    const [over] = (fields as { inputs?: object[] }).inputs ?? [{}];
    const inputs = [{ name: 'input', shape: [1, 1, 28, 28], datatype: 'FP32', data: [...pixels], ...over }];
    const answer = await post(infer(DIGITS), JSON.stringify({ ...fields, inputs }));
    expect([answer.status, json(answer).error]).toEqual([
      400,
      expect.stringMatching(/sequence_id|shared_memory/),
    ]);
  });
});

describe('texts', () => {
  const texts = ['a masterpiece of quiet power', 'dull, loud and far too long to bear'];
  const output = { name: 'logits', parameters: { classification: 1 } };
  let expected: string[];
  beforeAll(async () => {
    const classifier = await TextClassifier.from(folder(TEXTS));
    expected = (await classifier.classify(texts)).map(({ label }) => label);
    await classifier.release();
    expect(new Set(expected).size).toBe(2);
  });
  const labels = (data: readonly string[]) => data.map((one) => one.split(':')[2]);

  test('go through the tokenizer: as JSON, in binary, and alone', async () => {
    const input = { name: 'text', datatype: 'BYTES', shape: [2] };
    const plain = await post(
      infer(TEXTS),
      JSON.stringify({ inputs: [{ ...input, data: texts }], outputs: [output] }),
    );
    expect(labels(json(plain).outputs[0].data)).toEqual(expected);
    const parts = texts.flatMap((text) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(Buffer.byteLength(text));
      return [length, Buffer.from(text)];
    });
    const tail = Buffer.concat(parts);
    const parameters = { binary_data_size: tail.length };
    const start = JSON.stringify({ inputs: [{ ...input, parameters }], outputs: [output] });
    const binary = await post(infer(TEXTS), Buffer.concat([Buffer.from(start), tail]), {
      'Inference-Header-Content-Length': start.length,
    });
    expect(labels(json(binary).outputs[0].data)).toEqual(expected);
    const alone = parse(await post(infer(TEXTS), texts[0]!, { 'Inference-Header-Content-Length': 0 }));
    expect(alone.logits).toHaveLength(2);
  });

  test('are at least one', async () => {
    const input = { name: 'text', datatype: 'BYTES', shape: [0], data: [] };
    const answer = await post(infer(TEXTS), JSON.stringify({ inputs: [input] }));
    expect(json(answer)).toMatchObject({
      code: 'INVALID_ARGUMENT',
      error: expect.stringMatching(/no texts/),
    });
  });

  test('are UTF-8', async () => {
    const bytes = Buffer.concat([Buffer.from('caf'), Buffer.of(0xe9)]);
    const answer = await post(infer(TEXTS), bytes, { 'Inference-Header-Content-Length': 0 });
    expect([answer.status, json(answer)]).toMatchObject([
      400,
      { code: 'INVALID_ARGUMENT', error: expect.stringMatching(/^texts\[0\]: it isn't UTF-8/) },
    ]);
    // Half a character, as JSON can name it; a whole one is a text.
    const named = (data: string) =>
      post(
        infer(TEXTS),
        `{"inputs":[{"name":"text","datatype":"BYTES","shape":[2],"data":["so","${data}"]}]}`,
      );
    expect(json(await named('\\ud83d'))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      error: expect.stringMatching(/^texts\[1\]: it isn't UTF-8/),
    });
    expect((await named('\\ud83d\\ude00')).status).toBe(200);
  });

  test('have a limit', async () => {
    const input = { name: 'text', datatype: 'BYTES', shape: [1], data: ['so '.repeat(20_000)] };
    const answer = await post(infer(TEXTS), JSON.stringify({ inputs: [input] }));
    expect(json(answer)).toMatchObject({ code: 'TOO_LARGE', error: expect.stringMatching(/^texts\[0\]: /) });
  });
});

describe('gRPC', () => {
  const client = (Service: ServiceClientConstructor) =>
    new Service(server.grpcAddress!, credentials.createInsecure());
  type Unary = (
    request: object,
    done: (error: Error | null, answer: Record<string, unknown>) => void,
  ) => void;
  const call = (of: object, method: string, sent: object) =>
    new Promise<Record<string, unknown>>((done, failed) => {
      const unary = (of as Record<string, Unary>)[method]!;
      unary.call(of, sent, (error, answer) => (error ? failed(error) : done(answer)));
    });

  test('the configuration', async () => {
    const inference = client(loadService());
    const { config } = await call(inference, 'ModelConfig', { name: DIGITS });
    expect(config).toMatchObject({
      ...{ name: DIGITS, platform: 'onnx_onnxv1', max_batch_size: 1024 },
      input: [{ name: 'input', data_type: 11, dims: [1, 28, 28] }],
    });
    inference.close();
  });

  test('gRPC health: of the server and of its service, and no other', async () => {
    const health = client(loadHealth());
    for (const service of ['', 'inference.GRPCInferenceService'])
      expect(await call(health, 'Check', { service })).toEqual({ status: 'SERVING' });
    await expect(call(health, 'Check', { service: 'other' })).rejects.toMatchObject({ code: 5 });
    health.close();
  });

  test('a stream of requests has an answer for each, in order; an error is one, too', async () => {
    const inference = client(loadService());
    const stream = (
      inference as unknown as { ModelStreamInfer(): NodeJS.ReadWriteStream }
    ).ModelStreamInfer();
    const answers: { error_message: string; infer_response: { id: string } }[] = [];
    const ended = new Promise((done, failed) => {
      stream.on('error', failed);
      stream.on('data', (answer) => answers.push(answer));
      stream.on('end', done);
    });
    const input = { name: 'input', datatype: 'FP32', shape: [1, 1, 28, 28] };
    for (let i = 0; i < 30; i++) {
      const model_name = i === 7 ? 'missing' : DIGITS;
      const raw_input_contents = [Buffer.from(pixels.buffer)];
      stream.write({ model_name, id: `${i}`, inputs: [input], raw_input_contents } as never);
    }
    stream.end();
    await ended;
    expect(answers.map(({ infer_response }) => infer_response.id)).toEqual(
      Array.from({ length: 30 }, (_, i) => `${i}`),
    );
    const failed = answers.filter(({ error_message }) => error_message !== '');
    expect(failed).toMatchObject([
      { error_message: expect.stringMatching(/^model missing/), infer_response: { id: '7' } },
    ]);
    inference.close();
  });
});

test('a server whose models are all unloaded is not ready', async () => {
  const lone = await createServer({ folders: [folder(DIGITS)], port: 0, grpcPort: null });
  const ready = async () => (await fetch(`${lone.url}/v2/health/ready`)).status;
  expect(await ready()).toBe(200);
  await lone.repository.unload(DIGITS);
  expect(await ready()).toBe(503);
  await lone.close();
});
