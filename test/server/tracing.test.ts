import { createServer as createHttpServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';
import { createServer } from 'residual-skip-server';
import { describeBuilt } from '../helpers/dist.js';
import { startServe } from '../helpers/served.js';

const MODEL = 'mnist-resnet20-gates';
const FOLDER = `models/${MODEL}`;
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
/** Two processes, and a monotonic clock and that of the wall, may differ by less than this. */
const CLOCKS_MS = 5000;
const CALLER = '00f067aa0ba902b7';

interface OtlpSpan {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly status?: { readonly code?: number };
  readonly attributes: readonly { readonly key: string; readonly value: object }[];
}

/** The exporter loads modules in a way that only processes of their own can. */
describeBuilt('spans', () => {
  /** A collector of OTLP over HTTP, in JSON. */
  const received: {
    url: string | undefined;
    resourceSpans: { resource: object; scopeSpans: { spans: OtlpSpan[] }[] }[];
  }[] = [];
  let collector: Server;
  beforeAll(async () => {
    collector = createHttpServer(async (request, response) => {
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(part as Buffer);
      const body = Buffer.concat(parts);
      const text = request.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body;
      received.push({ url: request.url, ...JSON.parse(text.toString()) });
      response.setHeader('content-type', 'application/json').end('{}');
    });
    await new Promise<void>((done) => collector.listen(0, '127.0.0.1', done));
  });
  afterAll(async () => {
    collector.closeAllConnections();
    await new Promise((done) => collector.close(done));
  });

  const infer = (url: string, shape: readonly number[]) =>
    fetch(`${url}/v2/models/${MODEL}/infer`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', traceparent: `00-${TRACE}-${CALLER}-01` },
      body: JSON.stringify({
        id: 'a',
        inputs: [{ name: 'input', datatype: 'FP32', shape, data: Array(784).fill(0) }],
      }),
    });

  test('a request is a span of its caller with the time of each of its parts, sent where the environment says', async () => {
    const { port } = collector.address() as AddressInfo;
    const server = await startServe([FOLDER], { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` });
    const before = Date.now();
    expect((await infer(server.url, [1, 1, 28, 28])).status).toBe(200);
    expect((await infer(server.url, [1, 28, 28])).status).toBe(400);
    expect(await server.stop()).toMatchObject({ code: 0 });
    const after = Date.now();

    expect(received.map(({ url }) => url)).toContain('/v1/traces');
    const [first] = received[0]!.resourceSpans;
    expect(first!.resource).toMatchObject({
      attributes: expect.arrayContaining([{ key: 'service.name', value: { stringValue: 'residual-skip' } }]),
    });
    const spans = received.flatMap(({ resourceSpans }) =>
      resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)),
    );
    const requests = spans.filter(({ name }) => name === `infer ${MODEL}`);
    expect(requests).toHaveLength(2);
    for (const span of requests) expect(span).toMatchObject({ traceId: TRACE, parentSpanId: CALLER });
    const [ok, failed] = requests as [OtlpSpan, OtlpSpan];
    const attribute = (span: OtlpSpan, key: string) => span.attributes.find((one) => one.key === key)?.value;
    expect(attribute(ok, 'residual_skip.setting')).toEqual({ stringValue: 'model' });
    expect(attribute(ok, 'residual_skip.items')).toEqual({ intValue: 1 });
    expect(attribute(ok, 'residual_skip.request_id')).toEqual({ stringValue: 'a' });
    expect(failed.status).toMatchObject({ code: 2 });
    expect(attribute(failed, 'error.type')).toEqual({ stringValue: 'INVALID_ARGUMENT' });

    const parts = spans.filter(({ parentSpanId }) => parentSpanId === ok.spanId);
    expect(parts.map(({ name }) => name)).toEqual(['prepare', 'queue', 'compute']);
    let at = BigInt(ok.startTimeUnixNano);
    expect(at).toBeGreaterThanOrEqual(BigInt(before - CLOCKS_MS) * 1_000_000n);
    for (const { startTimeUnixNano, endTimeUnixNano } of parts) {
      expect(BigInt(startTimeUnixNano)).toBe(at);
      expect(BigInt(endTimeUnixNano)).toBeGreaterThanOrEqual(at);
      at = BigInt(endTimeUnixNano);
    }
    expect(BigInt(ok.endTimeUnixNano)).toBe(at);
    expect(at).toBeLessThanOrEqual(BigInt(after + CLOCKS_MS) * 1_000_000n);
  });

  test('a collector that is away fails no request and no shutdown', async () => {
    const server = await startServe([FOLDER], {
      OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9',
      OTEL_EXPORTER_OTLP_TIMEOUT: '500',
    });
    expect((await infer(server.url, [1, 1, 28, 28])).status).toBe(200);
    expect(await server.stop()).toMatchObject({ code: 0 });
  });
});

test('the server says which packages are missing', async () => {
  jest.doMock('@opentelemetry/sdk-trace-base', () => {
    throw new Error('Cannot find module');
  });
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = 'http://127.0.0.1:9';
  await expect(createServer({ folders: [FOLDER], port: 0, grpcPort: null })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('npm install @opentelemetry/api'),
  });
  delete process.env.OTEL_EXPORTER_OTLP_ENDPOINT;
  jest.dontMock('@opentelemetry/sdk-trace-base');
});
