import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { credentials, Metadata } from '@grpc/grpc-js';
import { InferenceSession, readAudit, replayAudit, storedInputs } from 'residual-skip';
import { createServer, type ServerOptions } from 'residual-skip-server';
import { loadService } from '../../server/src/grpc/grpc.js';
import { cli } from '../helpers/cli.js';
import { describeBuilt } from '../helpers/dist.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { startServe } from '../helpers/served.js';

afterAll(removeFolders);

const MODEL = 'cifar10-resnet14-exits';
const FOLDER = resolve('models', MODEL);
const IMAGES = ['cat-0000', 'dog-0000', 'ship-0001'].map((name) =>
  readFileSync(resolve('examples/images', `${name}.jpg`)),
);

async function serving(options: Partial<ServerOptions> & { audit: { folder: string } }) {
  const server = await createServer({ folders: [FOLDER], port: 0, grpcPort: null, ...options });
  return { server, log: join(options.audit.folder, MODEL, '1') };
}

/** Sends images; the answer's id of the request. */
async function send(
  url: string,
  images: readonly Buffer[],
  headers: Record<string, string> = {},
  rest: object = {},
): Promise<string | null> {
  const data = images.map((image) => image.toString('base64'));
  const input = { name: 'input', datatype: 'BYTES', shape: [data.length], data };
  const answer = await fetch(`${url}/v2/models/${MODEL}/infer`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ ...rest, inputs: [input] }),
  });
  expect([answer.status, await answer.text()]).toEqual([200, expect.any(String)]);
  return answer.headers.get('x-request-id');
}

test('each item names who asked and in which request, over REST and gRPC, and nothing else is recorded', async () => {
  const folder = folderOf({ tokens: 'aaa name=camera-7\nbbb control\n' });
  const tokens = { tokenFile: join(folder, 'tokens'), grpcPort: 0, shadow: 0.9 };
  const { server, log } = await serving({ audit: { folder }, ...tokens });
  const as = (token: string) => ({ authorization: `Bearer ${token}` });
  await send(server.url, IMAGES, { ...as('aaa'), 'x-request-id': 'r-1' }, { id: 'frame 12' });
  const own = await send(server.url, [IMAGES[0]!], as('bbb'));
  const client = new (loadService())(server.grpcAddress!, credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set('authorization', 'Bearer bbb');
  metadata.set('x-request-id', 'g-1');
  const request = {
    model_name: MODEL,
    inputs: [{ name: 'input', datatype: 'BYTES', shape: [1], contents: { bytes_contents: [IMAGES[1]] } }],
  };
  await new Promise((done, fail) =>
    client.ModelInfer!(request, metadata, (error: Error | null) => (error ? fail(error) : done(null))),
  );
  client.close();
  await server.close();
  const { entries, problems } = await readAudit(log);
  expect(problems).toEqual([]);
  const asked = entries.map(({ record: { caller, request: id, clientRequest } }) => [
    caller,
    id,
    clientRequest,
  ]);
  expect(asked).toEqual([
    ...IMAGES.map(() => ['camera-7', 'r-1', 'frame 12']),
    ['token 1', own, undefined],
    ['token 1', 'g-1', undefined],
  ]);
});

test('a log goes on while its model is loaded again, with the policy of each item, and replays from stored inputs', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const folder = folderOf({
    'key.pem': privateKey.export({ type: 'pkcs8', format: 'pem' }),
    'public.pem': publicKey.export({ type: 'spki', format: 'pem' }),
  });
  const lines: Readonly<Record<string, unknown>>[] = [];
  const { server, log } = await serving({
    audit: { folder: join(folder, 'logs'), inputs: 'store', key: join(folder, 'key.pem'), maxBytes: 8192 },
    log: (line) => lines.push(line),
  });
  for (let i = 0; i < 8; i++) {
    const answers = IMAGES.map((image) =>
      send(server.url, [image], {}, { parameters: i % 2 === 0 ? {} : { policy: 'full' } }),
    );
    if (i === 4) await server.repository.load(MODEL);
    await Promise.all(answers);
  }
  await server.close();
  const { entries, problems, signed } = await readAudit(log, { key: join(folder, 'public.pem') });
  expect([entries.length, problems, signed?.itemsAfter]).toEqual([24, [], 0]);
  expect(new Set(entries.map(({ file }) => file)).size).toBeGreaterThan(1);
  expect(lines).toContainEqual(expect.objectContaining({ event: 'checkpoint', model: MODEL }));
  const policies = new Map(entries.map(({ header }) => [header.policy.sha256, header]));
  expect(policies.size).toBe(2);

  const session = await InferenceSession.create(FOLDER, { isa: 'scalar' });
  const hashes = new Set(entries.map(({ record }) => record.input!));
  expect(hashes.size).toBe(3);
  const own = entries.filter(({ header }) => header.policy.sha256 === session.context.policySha256);
  expect(own).toHaveLength(12);
  const report = await replayAudit(own, storedInputs(log, hashes), session);
  expect(report).toMatchObject({ replayed: 12, identical: 12, missing: 0, circumstances: [] });
  await session.release();
  const { code, out } = await cli('replay', log, '--json');
  expect(JSON.parse(out)).toMatchObject({ replayed: 24, identical: 24, missing: 0, circumstances: [] });
  expect(code).toBe(0);
  const named = await cli('replay', log, '--data', 'examples/images', '--json');
  expect(JSON.parse(named.out)).toMatchObject({ replayed: 24, identical: 24 });
});

test('the logs of all models stay below a size together, and a metric counts the files that were removed', async () => {
  const folder = folderOf({});
  const { server, log } = await serving({ audit: { folder, keepBytes: 16_384 } });
  for (let i = 0; i < 20; i++) await send(server.url, IMAGES);
  const removed = async () => {
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    return Number(/^residual_skip_audit_removed_total (\d+)/m.exec(metrics)![1]);
  };
  while ((await removed()) === 0) await new Promise((wait) => setTimeout(wait, 50));
  await server.close();
  const sizes = readdirSync(log).map((name) => statSync(join(log, name)).size);
  expect(sizes.reduce((a, b) => a + b)).toBeLessThan(16_384 + 2 * 4096);
  expect(await readAudit(log)).toMatchObject({ problems: [], hadEarlier: true });
});

test('a folder or a key that cannot be used is an error at the start', async () => {
  const folder = folderOf({ file: '' });
  const refused = (audit: object) => serving({ audit: { folder: join(folder, 'logs'), ...audit } });
  await expect(refused({ folder: join(folder, 'file') })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await expect(refused({ key: join(folder, 'file') })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('Ed25519'),
  });
});

describeBuilt('a server that is killed under load', () => {
  test('loses only the end of its log, which the reader names; the next one goes on', async () => {
    const folder = folderOf({});
    const log = join(folder, MODEL, '1');
    const answered: string[] = [];
    for (let round = 0; round < 2; round++) {
      const served = await startServe([FOLDER, '--audit', folder]);
      const before = answered.length;
      // Until the file has lines of this server: the last of them are on their way when it is killed.
      const size = () =>
        existsSync(join(log, 'trace.ndjson')) ? readFileSync(join(log, 'trace.ndjson')).length : 0;
      const begin = size();
      while (answered.length < before + 40 || size() === begin) {
        const id = `r-${answered.length}`;
        await send(served.url, [IMAGES[answered.length % 3]!], { 'x-request-id': id });
        answered.push(id);
      }
      process.kill(served.pid, 'SIGKILL');
      await served.stop();
      const { entries, problems } = await readAudit(log);
      const recorded = entries.map(({ record }) => record.request);
      const ofRound = recorded.filter((id) => answered.indexOf(id!) >= before);
      // One after another: what is there is everything up to some request.
      expect(ofRound).toEqual(answered.slice(before, before + ofRound.length));
      expect(ofRound.length).toBeGreaterThan(0);
      const last = entries.at(-1)!.record;
      expect(problems.filter(({ kind }) => kind !== 'truncated')).toHaveLength(round + 1);
      expect(problems.at(-1)).toMatchObject({
        kind: 'unfinished',
        message: expect.stringContaining(`after run ${last.run} of ${new Date(last.time).toISOString()}`),
      });
    }
    const replayed = await cli('replay', log, '--data', 'examples/images', '--json');
    expect(JSON.parse(replayed.out)).toMatchObject({ differences: [], missing: 0 });
  });
});
