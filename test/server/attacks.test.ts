import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Tensor } from 'residual-skip';
import { Client } from 'residual-skip/client';
import sharp from 'sharp';
import { folderOf, removeFolders } from '../helpers/files.js';
import { type Served, startServe } from '../helpers/served.js';

const MODEL = 'cifar10-resnet14-exits';
const CAT = readFileSync(resolve('examples/images/cat-0000.jpg'));
const MIB = 1 << 20;

const TOKENS = ['honest', 'a', 'b', 'c'];
let server: Served;
beforeAll(async () => {
  const folder = folderOf({ tokens: `honest\na\nb priority\nc\n` });
  server = await startServe([`models/${MODEL}`, '--token-file', `${folder}/tokens`]);
});
afterAll(async () => {
  await server.stop();
  removeFolders();
});

const clients = () => TOKENS.map((token) => new Client(server.url, { token }));

/** The most memory that the server ever had, in MiB. */
function peak(): number {
  const [, kib] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))!;
  return Number(kib) / 1024;
}

/** An honest client has its answers while `attack` goes on. */
async function besides(attack: Promise<unknown>): Promise<void> {
  const [honest] = clients();
  let done = false;
  const ended = attack.finally(() => {
    done = true;
  });
  do {
    const [[best] = []] = await honest!.classify(MODEL, [CAT]);
    expect(best).toMatchObject({ label: 'cat' });
  } while (!done);
  await ended;
}

const create = (size: number) =>
  sharp({
    create: { width: size, height: size, channels: 4, background: { r: 128, g: 64, b: 32, alpha: 1 } },
  });

test('images of few bytes and many pixels take less than 512 MiB', async () => {
  const files = await Promise.all([
    create(6000).removeAlpha().png().toBuffer(),
    create(3400).toColourspace('rgb16').png({ progressive: true }).toBuffer(),
    create(2700).removeAlpha().avif({ effort: 0 }).toBuffer(),
    create(3400).webp({ lossless: true, effort: 0 }).toBuffer(),
  ]);
  for (const file of files) expect(file.length).toBeLessThan(2 * MIB);
  const [, ...others] = clients();
  const answers = files.flatMap((file) => others.map((client) => client.classify(MODEL, [file])));
  await besides(Promise.all(answers));
  expect(peak()).toBeLessThan(512);
});

test('an image that would take more is refused', async () => {
  const [honest] = clients();
  const file = await create(4000).avif({ effort: 0 }).toBuffer();
  await expect(honest!.classify(MODEL, [file])).rejects.toThrow(
    /413.*images\[0\]: decoding it takes 2\d\d MiB/,
  );
});

test('large batches of several clients do not make one with single images wait', async () => {
  const [honest, ...others] = clients();
  const batch = new Tensor('float32', new Float32Array(1024 * 3072), [1024, 3, 32, 32]);
  const ended: string[] = [];
  const attacks = others.map((client) =>
    client.infer(MODEL, { input: batch }, { policy: 'full' }).then(() => ended.push('batch')),
  );
  const waits = async () => /queue_length [1-9]/.test(await metrics());
  // Batches wait for a moment only: then all of them have begun.
  for (const began = performance.now(); performance.now() - began < 500 && !(await waits()); );
  await honest!.classify(MODEL, [CAT]);
  ended.push('honest');
  await Promise.all(attacks);
  expect(ended).toEqual(['honest', 'batch', 'batch', 'batch']);
  expect(peak()).toBeLessThan(512);
});

const metrics = async () =>
  (await fetch(`${server.url}/metrics`, { headers: { authorization: 'Bearer honest' } })).text();

test('a request has at most 1024 items, and a priority only with a token that may', async () => {
  const [honest, , second] = clients();
  const of = (items: number) => ({
    input: new Tensor('float32', new Float32Array(items * 3072), [items, 3, 32, 32]),
  });
  await expect(honest!.infer(MODEL, of(1025))).rejects.toThrow(
    /413.*1025 items, and a request may have 1024/,
  );
  await expect(honest!.infer(MODEL, of(1), { priority: 1 })).rejects.toThrow(/403.*right 'priority'/);
  await second!.infer(MODEL, of(1), { priority: 1 });
});

test('a batch that runs in parts has the answers of its items', async () => {
  const [honest] = clients();
  const pixels = Float32Array.from({ length: 100 * 3072 }, (_, i) => ((i * 7919) % 509) / 509);
  const all = await honest!.infer(MODEL, { input: new Tensor('float32', pixels, [100, 3, 32, 32]) });
  expect(all.outputs.logits!.dims).toEqual([100, 10]);
  const last = new Tensor('float32', pixels.slice(99 * 3072), [1, 3, 32, 32]);
  const one = await honest!.infer(MODEL, { input: last });
  expect([...all.outputs.logits!.data.slice(990)]).toEqual([...one.outputs.logits!.data]);
});
