import { request } from 'node:http';
import { join, resolve } from 'node:path';
import { credentials, Metadata } from '@grpc/grpc-js';
import { createServer, type RunningServer } from 'residual-skip-server';
import { addressOf } from '../../server/src/auth.js';
import { loadService } from '../../server/src/grpc/grpc.js';
import { folderOf, removeFolders } from '../helpers/files.js';

const MODEL = 'mnist-resnet20-gates';
const options = { folders: [resolve('models', MODEL)], port: 0, grpcPort: null };
const UNLOAD = `/v2/repository/models/${MODEL}/unload`;
afterAll(removeFolders);

/** fetch doesn't let its caller choose Host and Origin. */
function post(url: string, path: string, headers: Record<string, string>): Promise<number> {
  return new Promise((done, failed) => {
    const { hostname, port } = new URL(url);
    const sent = request({ hostname, port, path, method: 'POST', headers }, (answer) => {
      answer.resume();
      done(answer.statusCode!);
    });
    sent.on('error', failed);
    sent.end();
  });
}

describe('models are loaded and unloaded', () => {
  let server: RunningServer;
  beforeAll(async () => {
    server = await createServer(options);
  });
  afterAll(() => server.close());
  const states = () => server.repository.index().map(({ state }) => state);

  test.each([
    ['a page of another origin', { origin: 'https://pages.example' }],
    ['a page in a sandbox', { origin: 'null' }],
    ['a page whose own name leads to this machine', { host: 'pages.example:8000' }],
    ['the same, with its origin', { host: 'pages.example:8000', origin: 'http://pages.example:8000' }],
  ])('not by %s', async (_who, headers) => {
    expect(await post(server.url, UNLOAD, headers as Record<string, string>)).toBe(403);
    expect(states()).toEqual(['READY']);
  });

  test('by whoever is on the machine, and by its own pages', async () => {
    const { host } = new URL(server.url);
    expect(await post(server.url, UNLOAD, { host, origin: server.url })).toBe(200);
    expect(states()).toEqual(['UNAVAILABLE']);
    expect(await post(server.url, UNLOAD.replace('unload', 'load'), { host: 'localhost:1' })).toBe(200);
    expect(states()).toEqual(['READY']);
  });
});

describe('beyond loopback', () => {
  test('a server needs tokens, unless it is told to be insecure', async () => {
    await expect(createServer({ ...options, host: '0.0.0.0' })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(/^host 0.0.0.0: .*--token-file.*--insecure/),
    });
    const open = await createServer({ ...options, host: '0.0.0.0', insecure: true });
    const { port } = new URL(open.url);
    expect(await post(`http://127.0.0.1:${port}`, UNLOAD, {})).toBe(403);
    expect(open.repository.index()[0]!.state).toBe('READY');
    await open.close();
  });

  test('tokens say who may load models', async () => {
    const tokenFile = join(folderOf({ tokens: 'user\noperator control\n' }), 'tokens');
    const server = await createServer({ ...options, tokenFile });
    const as = (token: string) => post(server.url, UNLOAD, { authorization: `Bearer ${token}` });
    expect([await as('nobody'), await as('user'), await as('operator')]).toEqual([401, 403, 200]);
    await server.close();
  });

  test('a token file that grants what does not exist is an error', async () => {
    const tokenFile = join(folderOf({ tokens: 'user admin\n' }), 'tokens');
    await expect(createServer({ ...options, tokenFile })).rejects.toThrow(/line 1 grants something unknown/);
  });
});

test.each([
  ['127.0.0.1', '127.0.0.1'],
  ['::ffff:10.1.2.3', '10.1.2.3'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
  ['2001:db8::7', '2001:db8:0:0'],
])('a client at %s counts as %s', (address, client) => {
  expect(addressOf(address)).toBe(client);
});

test('with a port of its own, the control plane is there alone, and without tokens', async () => {
  const folder = folderOf({ tokens: 'aaa control' });
  const server = await createServer({
    ...{ ...options, grpcPort: 0, controlPort: 0, tokenFile: join(folder, 'tokens') },
  });
  const { url, controlUrl } = server;
  const headers = { authorization: 'Bearer aaa' };
  const status = async (at: string, path: string, method = 'GET') =>
    (await fetch(`${at}${path}`, { method, headers: at === url ? headers : {} })).status;
  for (const [path, method] of [
    ['/metrics', 'GET'],
    ['/', 'GET'],
    [UNLOAD, 'POST'],
    [UNLOAD.replace('unload', 'load'), 'POST'],
  ] as const) {
    expect([path, await status(url, path, method)]).toEqual([path, 403]);
    expect([path, await status(controlUrl!, path, method)]).toEqual([path, 200]);
  }
  expect(await status(url, `/v2/models/${MODEL}`)).toBe(200);
  // A page of another origin is no more welcome there.
  expect(await post(controlUrl!, UNLOAD, { origin: 'https://pages.example' })).toBe(403);
  const client = new (loadService())(server.grpcAddress!, credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set('authorization', 'Bearer aaa');
  const refused = await new Promise<{ code?: number } | null>((done) =>
    client.RepositoryModelUnload!({ model_name: MODEL }, metadata, done),
  );
  expect(refused).toMatchObject({ code: 7 });
  client.close();
  await server.close();
});
