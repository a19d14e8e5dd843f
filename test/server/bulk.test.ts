import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, cp, open, readFile, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { IdTable } from '../../server/src/bulk/id-table.js';
import { type BulkQueue, enqueue } from '../../server/src/bulk/index.js';
import type { BulkResult, DeadLetter } from '../../server/src/bulk/job.js';
import { cli, cliJson } from '../helpers/cli.js';
import { DIST, describeBuilt, ROOT } from '../helpers/dist.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { uniform } from '../helpers/random.js';
import { describeValkey, VALKEY, Valkey } from '../helpers/valkey.js';

const MODEL = join(ROOT, 'demo');
const DIGITS = ['digit-3.png', 'digit-5.png', 'digit-7.png'].map((name) => join(MODEL, name));

let valkey: Valkey;
let queues = 0;

/** Options of a command for a queue that nobody has used. */
async function freshQueue(kind: 'folder' | 'server'): Promise<string[]> {
  queues++;
  if (kind === 'server') return ['--queue', valkey.url, '--name', `queue-${queues}`];
  return ['--queue', await folderOf({})];
}

const lines = <T>(text: string) =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T);

async function resultsOf(queue: readonly string[]): Promise<BulkResult[]> {
  return lines<BulkResult>((await cli('queue', 'results', ...queue)).out);
}

async function lettersOf(queue: readonly string[]): Promise<DeadLetter[]> {
  return lines<DeadLetter>((await cli('queue', 'failed', ...queue)).out);
}

const work = (queue: readonly string[], ...options: string[]) =>
  cliJson('work', MODEL, ...queue, '--until-empty', '--private-urls', '--backoff', '10ms', ...options);

/** A list of `count` images that differ in their names. */
function listOf(count: number): string {
  const images = Array.from({ length: count }, (_, i) => ({ image: DIGITS[i % 3]!, name: `image ${i}` }));
  return images.map((image) => `${JSON.stringify(image)}\n`).join('');
}

/** The commands as a process of its own. */
function start(...args: string[]): ChildProcess {
  return spawn(process.execPath, [join(DIST, 'cli/main.js'), ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

async function answered(queue: readonly string[]): Promise<number> {
  return ((await cliJson('queue', 'status', ...queue)) as { answered: number }).answered;
}

afterAll(removeFolders);

function behavesAsAQueue(kind: 'folder' | 'server') {
  test('answers images by path, by URL and inline, each once, with what was skipped and promised', async () => {
    const queue = await freshQueue(kind);
    const server = await imageServer(() => 200);
    const inline = `data:image/png;base64,${await readFile(DIGITS[0]!, 'base64')}`;
    const list = join(
      await folderOf({
        'list.ndjson': [
          JSON.stringify({ image: inline, name: 'inline' }),
          JSON.stringify(`${server.url}/7.png`),
        ].join('\n'),
      }),
      'list.ndjson',
    );
    expect(await cliJson('enqueue', MODEL, list, ...queue)).toEqual({ read: 5, added: 5, unusable: 0 });
    expect(await cliJson('enqueue', list, MODEL, ...queue)).toEqual({ read: 5, added: 0, unusable: 0 });
    expect(await work(queue)).toEqual({ waiting: 0, running: 0, answered: 5, failed: 0 });
    await server.close();
    const results = await resultsOf(queue);
    const labels = results.map(({ name, label }) => [name, label]).sort();
    const digits = DIGITS.map((path) => [path, /digit-(\d)/.exec(path)![1]]);
    expect(labels).toEqual([...digits, [`${server.url}/7.png`, '7'], ['inline', '3']].sort());
    const [first] = results;
    expect(first).toEqual({
      ...{ id: expect.stringMatching(/^[0-9a-f]{32}$/), sha256: expect.stringMatching(/^[0-9a-f]{64}$/) },
      ...{ name: expect.any(String), label: expect.any(String), index: expect.any(Number) },
      ...{ probability: expect.any(Number), blocksSkipped: expect.any(Number), blocks: expect.any(Number) },
      ...{ setting: 'model', promise: null, model: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    // Answered once means that nothing is answered again, whoever asks.
    expect(await work(queue)).toEqual({ waiting: 0, running: 0, answered: 5, failed: 0 });
    expect(await resultsOf(queue)).toHaveLength(5);
  });

  test('collects each answer once into a file, and still knows what was answered', async () => {
    const queue = await freshQueue(kind);
    const file = join(await folderOf({}), 'results.ndjson');
    await cliJson('enqueue', ...DIGITS.slice(0, 2), ...queue);
    await work(queue);
    expect(await cliJson('queue', 'results', '-o', file, ...queue)).toEqual({ added: 2 });
    expect(await cliJson('queue', 'results', '-o', file, ...queue)).toEqual({ added: 0 });
    expect(await cliJson('enqueue', ...DIGITS, ...queue)).toEqual({ read: 3, added: 1, unusable: 0 });
    // What a killed process left of its last line.
    await appendFile(file, '{"id":"0123');
    await work(queue);
    expect(await cliJson('queue', 'results', '-o', file, '--follow', ...queue)).toEqual({ added: 1 });
    const names = lines<BulkResult>(await readFile(file, 'utf8')).map(({ name }) => name);
    expect(names.sort()).toEqual(DIGITS);
    expect(await answered(queue)).toBe(3);
  });

  test('tries again what may pass, gives up the rest, and takes it back on request', async () => {
    const queue = await freshQueue(kind);
    const asked = new Map<string, number>();
    let repaired = false;
    const server = await imageServer((path) => {
      const times = (asked.get(path) ?? 0) + 1;
      asked.set(path, times);
      if (path === '/gone.png') return 404;
      if (path === '/down.png' && !repaired) return 503;
      return times < 3 ? 503 : 200;
    });
    const folder = await folderOf({ 'changed.png': '', 'text.png': 'no image' });
    await cp(DIGITS[0]!, join(folder, 'changed.png'));
    const urls = ['late', 'gone', 'down'].map((name) => `${server.url}/${name}.png`);
    await cliJson('enqueue', folder, ...urls, ...queue);
    await cp(DIGITS[1]!, join(folder, 'changed.png'));
    expect(await work(queue, '--attempts', '3')).toEqual({ waiting: 0, running: 0, answered: 1, failed: 4 });
    const letters = (await lettersOf(queue)).map(({ name, attempts, error }) => [
      name.split('/').at(-1),
      ...[attempts, error.code, error.message.replace(/^.*: /, '')],
    ]);
    expect(letters.sort()).toEqual([
      ['changed.png', 1, 'INVALID_DATA', 'it has changed; enqueue it again'],
      ['down.png', 3, 'INVALID_DATA', 'the server answered 503'],
      ['gone.png', 1, 'INVALID_DATA', 'the server answered 404'],
      ['text.png', 1, 'INVALID_DATA', expect.stringContaining('unsupported image format')],
    ]);
    expect(asked.get('/late.png')).toBe(3);
    repaired = true;
    expect(await cliJson('queue', 'retry', ...queue)).toEqual({ jobs: 4 });
    expect(await cliJson('queue', 'status', ...queue)).toMatchObject({ waiting: 4, failed: 0 });
    expect(await work(queue, '--attempts', '3')).toMatchObject({ answered: 2, failed: 3 });
    // The new content is a new job.
    expect(await cliJson('enqueue', join(folder, 'changed.png'), ...queue)).toMatchObject({ added: 1 });
    expect(await work(queue)).toMatchObject({ answered: 3 });
    await server.close();
  });

  test('is answered by one model with one policy', async () => {
    const queue = await freshQueue(kind);
    await cliJson('enqueue', DIGITS[0]!, ...queue);
    await work(queue);
    for (const args of [[join(ROOT, 'models/mnist-resnet20-gates')], [MODEL, '--policy', 'full']]) {
      const { code, err } = await cli('work', ...args, ...queue, '--until-empty');
      expect({ code, err }).toEqual({
        code: 1,
        err: expect.stringMatching(/take another queue \[INVALID_ARGUMENT\]/),
      });
    }
  });
}

describe('a queue in a folder', () => {
  behavesAsAQueue('folder');

  test('skips what killed processes left of lines', async () => {
    const [option, folder] = await freshQueue('folder');
    const queue = [option!, folder!];
    await cliJson('enqueue', DIGITS[0]!, ...queue);
    await appendFile(join(folder!, 'jobs.ndjson'), '{"id":"00');
    await cliJson('enqueue', DIGITS[1]!, ...queue);
    await writeFile(join(folder!, 'results.ndjson'), '{"id":"11');
    expect(await work(queue)).toEqual({ waiting: 0, running: 0, answered: 2, failed: 0 });
    expect(await resultsOf(queue)).toHaveLength(2);
  });

  test('a full disk has a code of its own', async () => {
    const queue = await freshQueue('folder');
    const file = await open(MODEL, 'r');
    const handles = Object.getPrototypeOf(file) as typeof file;
    await file.close();
    const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    const append = jest.spyOn(handles, 'appendFile').mockRejectedValue(full);
    const { code, err } = await cli('enqueue', DIGITS[0]!, ...queue);
    append.mockRestore();
    expect([code, err]).toEqual([
      1,
      expect.stringMatching(/jobs\.ndjson: ENOSPC.*make room.*\[WRITE_FAILED\]/),
    ]);
    expect(await cliJson('enqueue', DIGITS[0]!, ...queue)).toMatchObject({ added: 1 });
  });

  test('has one worker at a time', async () => {
    const queue = await freshQueue('folder');
    await cliJson('enqueue', DIGITS[0]!, ...queue);
    const first = cli('work', MODEL, ...queue);
    while ((await answered(queue)) < 1) await sleep(20);
    const second = await cli('work', MODEL, ...queue, '--until-empty');
    expect(second).toMatchObject({ code: 1, err: expect.stringMatching(/it has another worker.*\[BUSY\]/) });
    process.emit('SIGTERM', 'SIGTERM');
    expect((await first).code).toBe(0);
  });
});

describeValkey(`a queue on a server (${VALKEY})`, () => {
  beforeAll(async () => {
    valkey = await Valkey.start(await folderOf({}));
  });
  afterAll(() => valkey.stop());

  behavesAsAQueue('server');

  test('survives a restart of the server in mid-run', async () => {
    const queue = await freshQueue('server');
    const list = join(await folderOf({ 'list.ndjson': listOf(300) }), 'list.ndjson');
    await cliJson('enqueue', list, ...queue);
    const working = cli('work', MODEL, ...queue, '--until-empty');
    while ((await answered(queue)) < 20) await sleep(5);
    await valkey.stop();
    await sleep(200);
    await valkey.start();
    expect((await working).code).toBe(0);
    expect(new Set((await resultsOf(queue)).map(({ name }) => name)).size).toBe(300);
    expect(await answered(queue)).toBe(300);
  });
});

describe('what no command of ours has written', () => {
  const damaged = { code: 1, err: expect.stringMatching(/damaged; take another queue \[INVALID_DATA\]/) };

  test('in a folder: jobs, answers and dead letters are skipped, a binding is a typed error', async () => {
    const queue = await freshQueue('folder');
    const folder = queue[1]!;
    const file = join(await folderOf({}), 'results.ndjson');
    await cliJson('enqueue', DIGITS[0]!, ...queue);
    await work(queue);
    for (const name of ['jobs', 'results', 'failed'])
      await appendFile(join(folder, `${name}.ndjson`), '{"id":"1"}\nnull\n{"id":\n');
    expect(await resultsOf(queue)).toHaveLength(1);
    expect(await lettersOf(queue)).toEqual([]);
    expect(await cliJson('queue', 'results', '-o', file, ...queue)).toEqual({ added: 1 });
    const { code, err } = await cli('work', MODEL, ...queue, '--until-empty', '--json');
    expect({ code, err }).toEqual({ code: 0, err: expect.stringMatching(/jobs\.ndjson: .* is no job/) });
    await writeFile(join(folder, 'binding.json'), 'garbage');
    expect(await cli('work', MODEL, ...queue, '--until-empty')).toMatchObject(damaged);
  });

  (VALKEY.includes('installed') ? test.skip : test)(
    `on a server (${VALKEY}): jobs are given up, answers are skipped, a binding is a typed error`,
    async () => {
      const here = await Valkey.start(await folderOf({}));
      const name = 'foreign';
      const queue = ['--queue', here.url, '--name', name];
      const redis = new Redis(here.url, { maxRetriesPerRequest: null });
      const bull = new Queue(name, { connection: redis });
      const file = join(await folderOf({}), 'results.ndjson');
      try {
        await cliJson('enqueue', DIGITS[0]!, ...queue);
        const image = { name: 'digit', image: DIGITS[1]!, sha256: null };
        await bull.add('image', image, { jobId: 'x1' });
        await bull.add('image', null, { jobId: 'x2' });
        await bull.add('image', 'text', { jobId: 'f'.repeat(32) });
        expect(await work(queue)).toEqual({ waiting: 0, running: 0, answered: 1, failed: 3 });
        expect((await lettersOf(queue)).map(({ id, name, error }) => [id, name, error.code]).sort()).toEqual([
          ['f'.repeat(32), 'f'.repeat(32), 'INVALID_DATA'],
          ['x1', 'digit', 'INVALID_DATA'],
          ['x2', 'x2', 'INVALID_DATA'],
        ]);
        // A worker of another program answers one as it likes.
        expect(await cliJson('queue', 'retry', ...queue)).toEqual({ jobs: 3 });
        const answers = [undefined, null, { id: 'x1' }];
        const worker = new Worker(name, async () => answers.pop(), { connection: redis });
        while ((await bull.getCompletedCount()) < 4) await sleep(20);
        await worker.close();
        expect(await resultsOf(queue)).toHaveLength(1);
        expect(await cliJson('queue', 'results', '-o', file, ...queue)).toEqual({ added: 1 });
        expect(await cliJson('queue', 'results', '-o', file, ...queue)).toEqual({ added: 0 });
        await cliJson('enqueue', DIGITS[2]!, ...queue);
        await work(queue);
        expect(await cliJson('queue', 'results', '-o', file, ...queue)).toEqual({ added: 1 });
        await redis.hset(bull.toKey('x1'), 'data', '{');
        const { err } = await cli('queue', 'results', ...queue);
        expect(err).toMatch(/the record of a job is no JSON.*\[INVALID_DATA\]/);
        for (const binding of ['garbage', '{"model":1}', '']) {
          await redis.set(`residual-skip:${name}:binding`, binding);
          expect(await cli('work', MODEL, ...queue, '--until-empty')).toMatchObject(damaged);
        }
      } finally {
        await bull.close();
        redis.disconnect();
        await here.stop();
      }
    },
  );
});

test('a queue whose server is away or whose URL is none is a typed error', async () => {
  for (const [url, code] of [
    ['redis://127.0.0.1:1', 'UNAVAILABLE'],
    ['amqp://127.0.0.1', 'INVALID_ARGUMENT'],
    [join(MODEL, 'model.onnx'), 'INVALID_ARGUMENT'],
  ]) {
    const { err } = await cli('queue', 'status', '--queue', url!, '--json');
    expect(JSON.parse(err)).toEqual({ error: { code, message: expect.stringMatching(/^queue .*: /) } });
  }
});

test('answers are not appended to a file that holds something else', async () => {
  const queue = await freshQueue('folder');
  const folder = folderOf({ 'notes.txt': 'first line\nhalf a line' });
  const file = join(folder, 'notes.txt');
  for (const path of [file, join(folder, 'nowhere', 'results.ndjson')]) {
    const { err } = await cli('queue', 'results', '-o', path, ...queue, '--json');
    expect(JSON.parse(err).error.code).toBe('INVALID_ARGUMENT');
  }
  expect(await readFile(file, 'utf8')).toBe('first line\nhalf a line');
});

test('names a source that is not there', async () => {
  const { err } = await cli('enqueue', 'nowhere', ...(await freshQueue('folder')));
  expect(err).toMatch(/source nowhere: ENOENT.*\[INVALID_DATA\]/);
});

test('names what is no image and enqueues the others', async () => {
  const list = '{"image": 3}\n{"image": "nowhere.png"}\n{"image": "data:,x"}\nnot JSON\n\n';
  const folder = await folderOf({ 'list.ndjson': list });
  const queue = await freshQueue('folder');
  const { code, out, err } = await cli(
    'enqueue',
    join(folder, 'list.ndjson'),
    DIGITS[0]!,
    ...queue,
    '--json',
  );
  expect({ code, out: JSON.parse(out) }).toEqual({ code: 1, out: { read: 1, added: 1, unusable: 4 } });
  expect(JSON.parse(err).error.code).toBe('INVALID_DATA');
});

test('reads no further while too many jobs wait', async () => {
  let waiting = 0;
  let lineNumber = 0;
  async function* endless() {
    for (;;) yield `${JSON.stringify({ image: 'http://localhost/a.png', name: `${lineNumber++}` })}\n`;
  }
  const stopped = new AbortController();
  const queue: Partial<BulkQueue> = {
    counts: async () => ({ waiting, running: 0, answered: 0, failed: 0 }),
    add: async (jobs) => {
      waiting += jobs.length;
      return jobs.length;
    },
  };
  const enqueued = enqueue(queue as BulkQueue, ['-'], {
    stdin: Readable.from(endless()),
    maxWaiting: 500,
    onProblem: (error) => {
      throw error;
    },
    signal: stopped.signal,
  });
  const settled = async () => {
    while (waiting < 600) await sleep(10);
    // Whether more come.
    await sleep(400);
    return waiting;
  };
  expect(await settled()).toBe(600);
  const read = lineNumber;
  expect(read).toBeLessThan(2000);
  for (let drained = 0; drained < 3; drained++) {
    waiting = 0;
    expect(await settled()).toBe(600);
  }
  expect(lineNumber).toBeGreaterThan(read);
  stopped.abort();
  await enqueued;
});

test('a table of ids is a set', () => {
  const random = uniform(7);
  // Few different words, so that ids collide in part.
  const id = () =>
    Array.from({ length: 4 }, () =>
      Math.floor(8 * random())
        .toString(16)
        .padStart(8, '0'),
    ).join('');
  const table = new IdTable();
  const set = new Set<string>();
  for (let i = 0; i < 2000; i++) {
    // A first word of 0 and of 1 is the same to the table.
    const next = id().replace(/^00000000/, '00000001');
    expect(table.add(next)).toBe(!set.has(next));
    set.add(next);
    const other = id().replace(/^00000000/, '00000001');
    expect(table.has(other)).toBe(set.has(other));
  }
  expect(table.size).toBe(set.size);
});

describeBuilt('a worker that is a process', () => {
  const IMAGES = 600;

  async function filled(): Promise<string[]> {
    const queue = await freshQueue('folder');
    const list = join(await folderOf({ 'list.ndjson': listOf(IMAGES) }), 'list.ndjson');
    await cliJson('enqueue', list, ...queue);
    return queue;
  }

  test('may be killed: nothing is lost, nothing is answered twice, every answer is the same', async () => {
    const [queue, calm] = [await filled(), await filled()];
    await work(calm);
    const child = start('work', MODEL, ...queue, '--json');
    const ended = once(child, 'exit');
    while ((await answered(queue)) < 0.3 * IMAGES) await sleep(2);
    child.kill('SIGKILL');
    expect(await ended).toEqual([null, 'SIGKILL']);
    expect(await answered(queue)).toBeLessThan(IMAGES);
    await work(queue);
    const sorted = async (of: string[]) =>
      (await readFile(join(of[1]!, 'results.ndjson'), 'utf8')).trim().split('\n').sort();
    expect(await sorted(queue)).toEqual(await sorted(calm));
    expect(new Set((await resultsOf(queue)).map(({ id }) => id)).size).toBe(IMAGES);
  });

  test('finishes the running jobs on SIGTERM, and the next one does the rest', async () => {
    const queue = await filled();
    const child = start('work', MODEL, ...queue, '--json');
    const ended = once(child, 'exit');
    while ((await answered(queue)) < 20) await sleep(2);
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
    expect(await answered(queue)).toBeLessThan(IMAGES);
    expect(await work(queue)).toEqual({ waiting: 0, running: 0, answered: IMAGES, failed: 0 });
  });
});

/** Serves one image, with the status that `statusOf` gives its path. */
async function imageServer(
  statusOf: (path: string) => number,
): Promise<{ url: string; close(): Promise<void> }> {
  const image = await readFile(DIGITS[2]!);
  const server: Server = createServer((request, response) => {
    const status = statusOf(request.url!);
    response.writeHead(status).end(status === 200 ? image : '');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };
  return { url: `http://127.0.0.1:${port}`, close };
}
