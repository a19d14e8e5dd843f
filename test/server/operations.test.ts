import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { get } from 'node:https';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { credentials, Metadata } from '@grpc/grpc-js';
import { createServer } from 'residual-skip-server';
import { loadService } from '../../server/src/grpc/grpc.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { GraphBuilder, modelBytes } from '../helpers/onnx-builder.js';
import { promising } from '../helpers/policies.js';

afterAll(removeFolders);

/** A network with one operator. */
function network(operator: string): Uint8Array {
  const graph = new GraphBuilder();
  const pooled = graph.node('GlobalAveragePool', [graph.input('input', ['batch', 3, 4, 4])]);
  graph.nodes(operator, [graph.node('Flatten', [pooled])], {}, { outputs: ['logits'] });
  return modelBytes(graph.output('logits', ['batch', 3]));
}
const tiedTo = (model: Uint8Array, limit: number) =>
  JSON.stringify(promising(limit, { model: { sha256: createHash('sha256').update(model).digest('hex') } }));

const ports = { port: 0, grpcPort: null };

test('a model that is loaded again has the policies as they are then', async () => {
  const [before, after] = [network('Neg'), network('Abs')];
  const folder = folderOf({ 'own/model.onnx': before, 'policy.json': tiedTo(before, 0.01) });
  const log: object[] = [];
  const server = await createServer({
    ...{ ...ports, folders: [join(folder, 'own')], policies: [join(folder, 'policy.json')] },
    log: (entry) => log.push(entry),
  });
  const setting = () => server.repository.get('own').setting.name;
  expect(setting()).toBe('0.01');
  writeFileSync(join(folder, 'own/model.onnx'), after);
  await server.repository.load('own');
  expect(setting()).toBe('full');
  expect(log.at(-1)).toMatchObject({ event: 'full', model: 'own' });
  writeFileSync(join(folder, 'policy.json'), tiedTo(after, 0.02));
  await server.repository.load('own');
  expect(setting()).toBe('0.02');
  await server.close();
});

test('a version that is broken or has vanished leaves the others alone', async () => {
  const own = network('Neg');
  const folder = folderOf({ 'own/1/model.onnx': own, 'own/2/model.onnx': own, 'own/3/model.onnx': 'broken' });
  const log: object[] = [];
  const server = await createServer({
    ...ports,
    folders: [join(folder, 'own')],
    log: (entry) => log.push(entry),
  });
  const states = () => server.repository.index().map(({ version, state }) => `${version} ${state}`);
  expect(states()).toEqual(['1 READY', '2 READY', '3 UNAVAILABLE']);
  expect(log).toMatchObject([{ event: 'load', model: 'own', error: expect.any(String) }]);
  rmSync(join(folder, 'own/2'), { recursive: true });
  mkdirSync(join(folder, 'own/4'));
  writeFileSync(join(folder, 'own/4/model.onnx'), own);
  await server.repository.load('own');
  expect(states()).toEqual(['1 READY', '3 UNAVAILABLE', '4 READY']);
  await server.close();
});

test('two folders of one name are an error; symbolic links are followed', async () => {
  const own = network('Neg');
  const folder = folderOf({ 'a/own/model.onnx': own, 'b/own/model.onnx': own, 'links/notes.txt': '' });
  await expect(
    createServer({ ...ports, folders: [join(folder, 'a'), join(folder, 'b')] }),
  ).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/^model own: both .*a\/own and .*b\/own/),
  });
  symlinkSync(join(folder, 'a/own'), join(folder, 'links/linked'));
  const server = await createServer({ ...ports, folders: [join(folder, 'links')] });
  expect(server.repository.loaded().map(({ name }) => name)).toEqual(['linked']);
  await server.close();
});

test('connections that send nothing do not hold up the end of a server', async () => {
  const folder = folderOf({ 'own/model.onnx': network('Neg') });
  const server = await createServer({
    ...ports,
    grpcPort: 0,
    folders: [join(folder, 'own')],
    drainTimeout: 600_000,
  });
  const silent: Socket[] = [];
  for (const [port, text] of [
    [new URL(server.url).port, ''],
    [new URL(server.url).port, 'POST /v2 HTTP/1.1\r\nhost:'],
    [server.grpcAddress!.split(':')[1], ''],
    [server.grpcAddress!.split(':')[1], 'PRI * HTTP/2.0'],
  ]) {
    const socket = connect(Number(port), '127.0.0.1');
    socket.on('error', () => {});
    await new Promise<void>((done) => socket.once('connect', () => done()));
    socket.write(text!);
    silent.push(socket);
  }
  // It would take ten minutes.
  await server.close();
  for (const socket of silent) socket.destroy();
});

test('a connection whose request ends while the server does is closed behind its answer', async () => {
  const folder = folderOf({ 'own/model.onnx': network('Neg') });
  const server = await createServer({ ...ports, folders: [join(folder, 'own')], drainTimeout: 600_000 });
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
  await new Promise<void>((done) => socket.once('connect', () => done()));
  // The end of its body is still to come.
  socket.write('POST /v2/models/own/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"inputs"');
  const wait = () => new Promise((done) => setTimeout(done, 200));
  await wait();
  const closed = server.close();
  await wait();
  let answer = '';
  socket.on('data', (part) => {
    answer += part;
  });
  const gone = new Promise((done) => socket.once('close', done));
  const began = performance.now();
  socket.write(' '.repeat(91));
  await Promise.all([closed, gone]);
  // Idle connections are kept for 72 seconds.
  expect(performance.now() - began).toBeLessThan(30_000);
  expect(answer).toMatch(/^HTTP\/1.1 [45]\d\d /);
});

const answerOf = (url: string, headers: Record<string, string> = {}) =>
  fetch(`${url}/v2/models/own/infer`, {
    method: 'POST',
    headers,
    body: JSON.stringify({
      inputs: [{ name: 'input', datatype: 'FP32', shape: [1, 3, 4, 4], data: Array(48).fill(1) }],
    }),
  });

test('a model that is unloaded while it is being loaded is not there afterwards', async () => {
  const folder = folderOf({ 'own/model.onnx': network('Neg') });
  const server = await createServer({ ...ports, folders: [join(folder, 'own')] });
  const { repository } = server;
  for (const before of ['READY', 'UNAVAILABLE']) {
    expect(repository.index()).toMatchObject([{ state: before }]);
    const loading = repository.load('own');
    await new Promise((done) => setImmediate(done));
    await repository.unload('own');
    await loading;
    expect(repository.index()).toMatchObject([{ state: 'UNAVAILABLE', reason: 'unloaded' }]);
  }
  await repository.load('own');
  expect((await answerOf(server.url)).status).toBe(200);
  await server.close();
});

test('folders are looked at again: what is new or changed is loaded, what is gone is unloaded', async () => {
  const folder = folderOf({ 'own/model.onnx': network('Neg') });
  const server = await createServer({ ...ports, folders: [folder], poll: 100 });
  const until = async (what: () => boolean) => {
    while (!what()) await new Promise((done) => setTimeout(done, 20));
  };
  const firstOf = async () => {
    const answer = await answerOf(server.url);
    const { outputs = [] } = (await answer.json()) as { outputs?: { data: number[] }[] };
    return outputs[0]?.data[0];
  };
  const { repository } = server;
  expect(await firstOf()).toBe(-1);
  const before = repository.get('own');
  writeFileSync(join(folder, 'own/model.onnx'), network('Abs'));
  await until(() => repository.find('own') !== before);
  expect(await firstOf()).toBe(1);
  mkdirSync(join(folder, 'new'));
  writeFileSync(join(folder, 'new/model.onnx'), network('Abs'));
  await until(() => repository.find('new') !== undefined);
  rmSync(join(folder, 'own'), { recursive: true });
  await until(() => repository.index().length === 1);
  expect(repository.index()).toMatchObject([{ name: 'new', state: 'READY' }]);
  // What somebody has unloaded stays so.
  await repository.unload('new');
  await new Promise((done) => setTimeout(done, 350));
  expect(repository.index()).toMatchObject([{ name: 'new', state: 'UNAVAILABLE', reason: 'unloaded' }]);
  await server.close();
});

test('a model is loaded again when a file in a folder of its folder, or beside its file, changes', async () => {
  const folder = folderOf({ 'own/onnx/model.onnx': network('Neg'), 'own/onnx/weights/w.bin': 'before' });
  symlinkSync('..', join(folder, 'own/onnx/up'));
  for (const path of [folder, join(folder, 'own/onnx/model.onnx')]) {
    const server = await createServer({ ...ports, folders: [path], poll: 100 });
    const { repository } = server;
    const [before] = repository.loaded();
    writeFileSync(join(folder, 'own/onnx/weights/w.bin'), `after ${path}`);
    while (repository.find(before!.name) === before) await new Promise((done) => setTimeout(done, 20));
    await server.close();
  }
});

test('each request is logged with its id, its caller and how it was answered, over REST and gRPC', async () => {
  const folder = folderOf({ 'own/model.onnx': network('Neg'), tokens: 'aaa name=camera-7' });
  const log: Readonly<Record<string, unknown>>[] = [];
  const server = await createServer({
    ...{ ...ports, grpcPort: 0, folders: [join(folder, 'own')], tokenFile: join(folder, 'tokens') },
    ...{ accessLog: true, log: (entry) => log.push(entry) },
  });
  const answer = await answerOf(server.url, { authorization: 'Bearer aaa', 'x-request-id': 'r-1' });
  expect(answer.headers.get('x-request-id')).toBe('r-1');
  await answerOf(server.url);
  const client = new (loadService())(server.grpcAddress!, credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set('authorization', 'Bearer aaa');
  const trailer = await new Promise<Metadata>((done) => {
    const call = client.ServerMetadata!({}, metadata, () => {});
    call.on('status', (status: { metadata: Metadata }) => done(status.metadata));
  });
  const refused = await new Promise<Metadata>((done) => {
    const call = client.ModelMetadata!({ name: 'own' }, () => {});
    call.on('status', (status: { metadata: Metadata }) => done(status.metadata));
  });
  client.close();
  await server.close();
  const ms = expect.any(Number);
  const path = '/v2/models/own/infer';
  const grpc = (method: string) => `/inference.GRPCInferenceService/${method}`;
  expect(log.filter(({ event }) => event === 'access')).toEqual([
    {
      event: 'access',
      protocol: 'rest',
      id: 'r-1',
      caller: 'camera-7',
      method: 'POST',
      path,
      status: 200,
      ms,
    },
    {
      ...{ event: 'access', protocol: 'rest', id: expect.any(String), caller: '127.0.0.1' },
      ...{ method: 'POST', path, status: 401, ms },
    },
    {
      ...{ event: 'access', protocol: 'grpc', id: trailer.get('x-request-id')[0], caller: 'camera-7' },
      ...{ path: grpc('ServerMetadata'), status: 0, ms },
    },
    {
      ...{ event: 'access', protocol: 'grpc', id: refused.get('x-request-id')[0], caller: '127.0.0.1' },
      ...{ path: grpc('ModelMetadata'), status: 16, ms },
    },
  ]);
  const ids = (event: string, status: number) =>
    log.filter((line) => line.event === event && line.status === status).map(({ id }) => id);
  expect(ids('refusal', 401)).toEqual([...ids('access', 401), ...ids('access', 16)]);
});

test('a connection beyond the limit takes the place of the oldest that waits for its client, if there is one', async () => {
  const folder = folderOf({ 'own/model.onnx': network('Neg') });
  const server = await createServer({
    ...{ ...ports, grpcPort: 0, folders: [join(folder, 'own')], maxConnections: 2 },
  });
  const stream = Buffer.from('GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n');
  const half = Buffer.from(
    'POST /v2/models/own/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n',
  );
  const port = Number(new URL(server.url).port);
  const sockets: Socket[] = [];
  const open = async (on: number, sent?: Buffer) => {
    const socket = connect(on, '127.0.0.1');
    sockets.push(socket);
    socket.on('error', () => {});
    await new Promise<void>((done) => socket.once('connect', () => done()));
    if (sent) socket.write(sent);
    return socket;
  };
  const closed = (socket: Socket) => new Promise<void>((done) => socket.on('close', () => done()).resume());
  const answered = (socket: Socket) => new Promise((done) => socket.once('data', done));
  const [silent, unfinished] = [await open(port), await open(port, half)];
  const watching = await open(port, stream);
  await Promise.all([closed(silent), answered(watching)]);
  const other = await open(port, stream);
  await Promise.all([closed(unfinished), answered(other)]);
  await closed(await open(port));
  const [first, second] = [watching, other].map(({ destroyed }) => destroyed);
  expect([first, second]).toEqual([false, false]);

  const grpcPort = Number(server.grpcAddress!.split(':')[1]);
  const oldest = await open(grpcPort);
  const sessions = ['a', 'b'].map(() => connectHttp2(`http://${server.grpcAddress}`));
  const responses = sessions.map(async (session) => {
    const headers = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' };
    const watch = session.request({ ...headers, ':path': '/grpc.health.v1.Health/Watch' });
    watch.end(Buffer.alloc(5));
    return new Promise((done) => watch.once('response', done));
  });
  await Promise.all([closed(oldest), ...responses]);
  await closed(await open(grpcPort));
  expect(sessions.map(({ destroyed }) => destroyed)).toEqual([false, false]);
  for (const one of [...sockets, ...sessions]) one.destroy();
  await server.close();
});

test('ids are kept short: logs and records repeat them', async () => {
  const folder = folderOf({ 'own/model.onnx': network('Neg') });
  const server = await createServer({ ...ports, grpcPort: 0, folders: [join(folder, 'own')] });
  const [long, longest] = ['x'.repeat(257), 'x'.repeat(256)];
  const idOf = async (id: string) =>
    (await answerOf(server.url, { 'x-request-id': id })).headers.get('x-request-id');
  expect(await idOf(longest)).toBe(longest);
  expect(await idOf(long)).toMatch(/^[-\da-f]{36}$/);
  const { headers } = await fetch(`${server.url}/v2`, { headers: { 'x-request-id': long } });
  expect(headers.get('x-request-id')).not.toBe(long);
  const body = JSON.stringify({
    id: long,
    inputs: [{ name: 'input', datatype: 'FP32', shape: [0], data: [] }],
  });
  const refused = await fetch(`${server.url}/v2/models/own/infer`, { method: 'POST', body });
  expect(await refused.json()).toMatchObject({ error: 'id: expected at most 256 characters' });
  await server.close();
});

const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

(hasOpenssl ? test : test.skip)(
  'certificates of clients are checked; tokens and certificates are read again',
  async () => {
    const folder = folderOf({ 'own/model.onnx': network('Neg'), tokens: 'aaa' });
    const at = (name: string) => join(folder, name);
    const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    /** A certificate of an authority of its own, or signed by one. */
    const certify = (name: string, authority?: string) =>
      openssl(
        ...['req', '-x509', ...key, '-keyout', `${name}.key`, '-out', `${name}.crt`, '-subj', `/CN=${name}`],
        ...(authority ? ['-CA', `${authority}.crt`, '-CAkey', `${authority}.key`] : []),
        ...['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
      );
    certify('authority');
    certify('server', 'authority');
    certify('client', 'authority');
    certify('stranger');
    const server = await createServer({
      ...{ ...ports, grpcPort: 0, folders: [at('own')], tokenFile: at('tokens') },
      tls: { cert: at('server.crt'), key: at('server.key'), clientCa: at('authority.crt') },
    });
    const pem = (name: string) => readFileSync(at(name));
    const status = (who: string | undefined, token: string, authority = 'authority') =>
      new Promise<number | string>((done) => {
        const own = who && { cert: pem(`${who}.crt`), key: pem(`${who}.key`) };
        const headers = { authorization: `Bearer ${token}` };
        get(`${server.url}/v2`, { ca: pem(`${authority}.crt`), ...own, headers, agent: false }, (answer) => {
          answer.resume();
          done(answer.statusCode!);
        }).on('error', () => done('refused'));
      });
    expect(await status('client', 'aaa')).toBe(200);
    expect(await status(undefined, 'aaa')).toBe('refused');
    expect(await status('stranger', 'aaa')).toBe('refused');
    const live = (who: string) =>
      new Promise<boolean>((done) => {
        const own = credentials.createSsl(pem('authority.crt'), pem(`${who}.key`), pem(`${who}.crt`));
        const client = new (loadService())(server.grpcAddress!, own);
        client.ServerLive!({}, { deadline: Date.now() + 2000 }, (error: Error | null) => {
          client.close();
          done(error === null);
        });
      });
    expect([await live('client'), await live('stranger')]).toEqual([true, false]);

    writeFileSync(at('tokens'), 'bbb');
    certify('renewed');
    for (const kind of ['crt', 'key']) writeFileSync(at(`server.${kind}`), pem(`renewed.${kind}`));
    await server.reload();
    expect(await status('client', 'bbb')).toBe('refused');
    expect(await status('client', 'bbb', 'renewed')).toBe(200);
    expect(await status('client', 'aaa', 'renewed')).toBe(401);
    expect(await live('client')).toBe(false);
    // What can't be used leaves what there was.
    writeFileSync(at('tokens'), '');
    await expect(server.reload()).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await status('client', 'bbb', 'renewed')).toBe(200);
    await server.close();
  },
);

test('metrics are pushed to a collector of OTLP, with what Prometheus is told', async () => {
  const received: { url: string | undefined; key: unknown; body: OtlpMetrics }[] = [];
  const collector = createHttpServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const { url, headers } = request;
    received.push({ url, key: headers['x-key'], body: JSON.parse(Buffer.concat(parts).toString()) });
    response.end('{}');
  });
  await new Promise<void>((done) => collector.listen(0, '127.0.0.1', done));
  const { port } = collector.address() as { port: number };
  const environment = {
    OTEL_METRICS_EXPORTER: 'otlp',
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: `http://127.0.0.1:${port}/v1/metrics`,
    OTEL_EXPORTER_OTLP_HEADERS: 'x-key=a%20b',
  };
  Object.assign(process.env, environment);
  const folder = folderOf({ 'own/model.onnx': network('Neg') });
  const server = await createServer({ ...ports, folders: [join(folder, 'own')] });
  for (const name of Object.keys(environment)) delete process.env[name];
  for (let i = 0; i < 3; i++) await answerOf(server.url);
  const prometheus = await (await fetch(`${server.url}/metrics`)).text();
  await server.close();
  collector.closeAllConnections();
  await new Promise((done) => collector.close(done));
  const [{ url, key, body }] = received as [(typeof received)[0]];
  expect([url, key]).toEqual(['/v1/metrics', 'a b']);
  const metrics = body.resourceMetrics[0]!.scopeMetrics[0]!.metrics;
  const called = (name: string) => metrics.find((metric) => metric.name === name)!;
  expect(called('residual_skip_requests_total').sum).toMatchObject({
    ...{ isMonotonic: true, aggregationTemporality: 2 },
    dataPoints: [
      { asDouble: 3, attributes: expect.arrayContaining([{ key: 'outcome', value: { stringValue: 'ok' } }]) },
    ],
  });
  expect(called('residual_skip_in_flight').gauge!.dataPoints).toMatchObject([{ asDouble: 0 }]);
  for (const name of ['request_seconds', 'input_seconds', 'queue_seconds']) {
    const { dataPoints } = called(`residual_skip_${name}`).histogram!;
    expect(dataPoints).toHaveLength(1);
    const { count, bucketCounts, explicitBounds } = dataPoints[0]!;
    expect(bucketCounts).toHaveLength(explicitBounds.length + 1);
    expect([count, bucketCounts.reduce((sum, one) => sum + Number(one), 0)]).toEqual(['3', 3]);
    expect(prometheus).toMatch(new RegExp(`^residual_skip_${name}_count\\{.*\\} 3$`, 'm'));
  }
  expect(prometheus).toMatch(/^residual_skip_build_info\{version=".+",node="\d+\..+"\} 1$/m);
});

interface OtlpMetrics {
  readonly resourceMetrics: readonly {
    readonly scopeMetrics: readonly {
      readonly metrics: readonly {
        readonly name: string;
        readonly sum?: object;
        readonly gauge?: { readonly dataPoints: readonly object[] };
        readonly histogram?: {
          readonly dataPoints: readonly {
            readonly count: string;
            readonly bucketCounts: readonly string[];
            readonly explicitBounds: readonly number[];
          }[];
        };
      }[];
    }[];
  }[];
}
