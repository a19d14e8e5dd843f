import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { ImageClassifier, InferenceSession, Tensor } from 'residual-skip';
import { Client } from 'residual-skip/client';
import { createServer, type RunningServer } from 'residual-skip-server';

const MODEL = 'mnist-resnet20-gates';
const FOLDER = resolve('models', MODEL);
const CIFAR = 'cifar10-resnet14-exits';
const IMAGES = resolve('examples/images');

const folder = mkdtempSync(join(tmpdir(), 'residual-skip-'));
const tokenFile = join(folder, 'tokens');
writeFileSync(tokenFile, 'first-token\nsecond-token priority control\n');

let server: RunningServer;
let client: Client;
beforeAll(async () => {
  const folders = [FOLDER, resolve('models', CIFAR)];
  server = await createServer({ folders, port: 0, grpcPort: null, tokenFile });
  client = new Client(server.url, { token: 'second-token' });
});
afterAll(() => server.close());

function batch(items: number): Tensor<'float32'> {
  const data = Float32Array.from({ length: items * 784 }, (_, i) => Math.sin(i * 0.37));
  return new Tensor('float32', data, [items, 1, 28, 28]);
}

test('runs tensors as a session does, and says what was skipped', async () => {
  const session = await InferenceSession.create(FOLDER);
  const [input] = session.inputNames;
  const expected = await session.runTraced({ [input!]: batch(3) });
  const answer = await client.infer(MODEL, { [input!]: batch(3) }, { trace: true });
  await session.release();
  expect(answer.outputs).toEqual(expected.outputs);
  expect(answer.trace).toEqual(JSON.parse(JSON.stringify(expected.trace.items)));
  expect(answer.policy).toBe('model');
  const full = await client.infer(MODEL, { [input!]: batch(3) }, { policy: 'full' });
  expect(full).toMatchObject({ policy: 'full', promise: { limit: 0 }, blocksSkipped: 0, trace: null });
});

test('classifies images', async () => {
  const files = ['cat-0000.jpg', 'ship-0000.jpg'].map((name) => join(IMAGES, name));
  const classifier = await ImageClassifier.from(resolve('models', CIFAR));
  const expected = await classifier.classify(files, { topK: 2 });
  await classifier.release();
  const answers = await client.classify(
    CIFAR,
    files.map((file) => readFileSync(file)),
    { topK: 2 },
  );
  expect(answers.map((one) => one.map(({ label }) => label))).toEqual(
    expected.map(({ top }) => top.map(({ label }) => label)),
  );
});

test('needs a valid token, but for probes', async () => {
  expect(await new Client(server.url).ready()).toBe(true);
  for (const stranger of [new Client(server.url), new Client(server.url, { token: 'third' })]) {
    await expect(stranger.models()).rejects.toThrow('401');
  }
  const basic = { authorization: `Basic ${Buffer.from('any:first-token').toString('base64')}` };
  expect((await fetch(server.url, { headers: basic })).status).toBe(200);
  expect((await fetch(`${server.url}/metrics`)).status).toBe(401);
});

test('unloads and loads; every error has its code', async () => {
  const feeds = { input: batch(1) };
  await client.unload(MODEL);
  expect(await client.models()).toContainEqual({
    name: MODEL,
    version: '1',
    state: 'UNAVAILABLE',
    reason: 'unloaded',
  });
  await expect(client.infer(MODEL, feeds)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await client.load(MODEL);
  await expect(client.infer('none', feeds)).rejects.toMatchObject({ code: 'MODEL_NOT_FOUND' });
  await expect(client.infer(MODEL, { nonsense: batch(1) })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
  });
  await expect(client.infer(MODEL, feeds, { signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: 'ABORTED',
  });
  await expect(new Client('http://127.0.0.1:9').infer(MODEL, feeds)).rejects.toMatchObject({
    code: 'UNAVAILABLE',
  });
});

test('a full queue answers 429 with Retry-After, and nothing is lost', async () => {
  const small = await createServer({
    folders: [FOLDER],
    port: 0,
    grpcPort: null,
    capacity: 4,
    threads: 1,
    maxItems: 1,
  });
  const busy = new Client(small.url);
  const outcomes = await Promise.all(
    Array.from({ length: 200 }, () =>
      busy.infer(MODEL, { input: batch(64) }).then(
        () => 'ok',
        (error: { code: string }) => error.code,
      ),
    ),
  );
  const count = (what: string) => outcomes.filter((outcome) => outcome === what).length;
  expect(count('ok') + count('BUSY')).toBe(200);
  expect(count('ok')).toBeGreaterThanOrEqual(4);
  expect(count('BUSY')).toBeGreaterThan(0);
  await small.close();
});

test('draining lets requests under way end and refuses new ones', async () => {
  const draining = await createServer({ folders: [FOLDER], port: 0, grpcPort: null, threads: 1 });
  const caller = new Client(draining.url);
  const running = Array.from({ length: 20 }, () => caller.infer(MODEL, { input: batch(8) }));
  await running[0];
  await Promise.all([
    draining.close(),
    ...running.map((one) => one.catch((error) => expect(error.code).toBe('UNAVAILABLE'))),
  ]);
  await expect(caller.infer(MODEL, { input: batch(1) })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});
