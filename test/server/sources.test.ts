import { execFileSync } from 'node:child_process';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, BlockList } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { lock } from 'proper-lockfile';
import { openQueue } from 'residual-skip-server';
import { download, isPrivate } from '../../server/src/bulk/download.js';
import { bytesOfDataUrl, fileBytes } from '../../server/src/bulk/image-bytes.js';
import { lockFs } from '../../server/src/bulk/lock-fs.js';
import { jobsFrom } from '../../server/src/bulk/sources.js';
import { folderOf, removeFolders } from '../helpers/files.js';

// Spies need the modules themselves.
const dns: typeof import('node:dns') = require('node:dns');
const fs: typeof import('node:fs/promises') = require('node:fs/promises');

afterAll(removeFolders);
afterEach(() => jest.restoreAllMocks());

const TOO_LARGE = { code: 'INVALID_DATA', message: expect.stringContaining('larger than 64 MiB') };

describe('files', () => {
  test('that never end, or that are too large, are refused', async () => {
    const folder = folderOf({ 'large.png': '' });
    execFileSync('mkfifo', [join(folder, 'pipe.png')]);
    const irregular = {
      code: 'INVALID_DATA',
      retry: false,
      message: expect.stringContaining('no regular file'),
    };
    await expect(fileBytes(join(folder, 'pipe.png'), 'pipe')).rejects.toMatchObject(irregular);
    await expect(fileBytes('/dev/zero', 'zero')).rejects.toMatchObject(irregular);
    await fs.truncate(join(folder, 'large.png'), (64 << 20) + 1);
    await expect(fileBytes(join(folder, 'large.png'), 'large')).rejects.toMatchObject(TOO_LARGE);
    const problems: Error[] = [];
    for await (const _ of jobsFrom([folder], Readable.from([]), (error) => problems.push(error)));
    expect(problems.map(({ message }) => message).sort()).toEqual([
      expect.stringMatching(/large.png: it is larger/),
      expect.stringMatching(/pipe.png: it is no regular file/),
    ]);
  });

  test('on storage that does not answer are tried again later', async () => {
    jest.spyOn(fs, 'open').mockReturnValue(new Promise(() => {}));
    await expect(fileBytes('/mount/cat.png', 'cat', 20)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      retry: true,
      message: expect.stringContaining("can't be read within"),
    });
  });
});

test('data: URLs and lines of lists have limits', async () => {
  expect(() => bytesOfDataUrl(`data:image/png;base64,${'A'.repeat(90 << 20)}`)).toThrow(
    expect.objectContaining(TOO_LARGE),
  );
  let sent = 0;
  const endless = Readable.from(
    (function* () {
      for (;;) {
        sent++;
        yield Buffer.alloc(8 << 20, 'x');
      }
    })(),
  );
  const jobs = jobsFrom(['-'], endless, () => {});
  await expect(jobs.next()).rejects.toThrow(/stdin: it has a line of more than 128 MiB/);
  expect(sent).toBeLessThan(30);
});

test('lists may begin and end anywhere in what is read', async () => {
  const pixel = 'data:image/png;base64,AAAA';
  const text = `"${pixel}"\r\n\n{"image":"${pixel}","name":"\u{1f408}"}\n"http://a.example/é.png"`;
  const bytes = Buffer.from(text);
  const parts = Array.from({ length: Math.ceil(bytes.length / 3) }, (_, i) =>
    bytes.subarray(3 * i, 3 * i + 3),
  );
  const names: string[] = [];
  for await (const jobs of jobsFrom(['-'], Readable.from(parts), (error) => names.push(error.message)))
    names.push(...jobs.map(({ name }) => name));
  expect(names).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/), '\u{1f408}', 'http://a.example/é.png']);
});

describe('URLs', () => {
  let server: Server;
  let port: number;
  let asked: string[];
  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.url!);
      const to = new URL(request.url!, 'http://a').searchParams.get('to');
      if (to) response.writeHead(302, { location: to }).end();
      else if (request.url === '/large') {
        response.writeHead(200);
        const more = () => {
          while (response.write(Buffer.alloc(1 << 20))) {}
        };
        response.on('drain', more);
        more();
      } else response.end('pixels');
    });
    await new Promise<void>((done) => server.listen(0, '0.0.0.0', done));
    ({ port } = server.address() as AddressInfo);
  });
  beforeEach(() => {
    asked = [];
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  const url = (host: string, path = '/cat.png') => `http://${host}:${port}${path}`;
  const load = (from: string, privateUrls = false) => download(from, 'cat', { privateUrls });
  const refused = { code: 'INVALID_DATA', retry: false, message: expect.stringContaining('not public') };
  /** Names have these addresses, and only 127.0.0.2 counts as private. */
  function fakeNetwork(addresses: Record<string, string[]>) {
    jest.spyOn(BlockList.prototype, 'check').mockImplementation((address) => address === '127.0.0.2');
    jest.spyOn(dns, 'lookup').mockImplementation(((
      host: string,
      _options: object,
      done: (...found: unknown[]) => void,
    ) =>
      done(
        null,
        addresses[host]!.map((address) => ({ address, family: 4 })),
      )) as never);
  }

  test('lead to no private address, by number or by name, unless that is allowed', async () => {
    for (const host of ['127.0.0.1', 'localhost', '[::ffff:127.0.0.1]', '0x7f.1', '2130706433'])
      await expect(load(url(host))).rejects.toMatchObject(refused);
    expect(asked).toEqual([]);
    expect(Buffer.from(await load(url('127.0.0.1'), true)).toString()).toBe('pixels');
  });

  test('nor by a redirect, or by one of several addresses', async () => {
    fakeNetwork({ 'public.example': ['127.0.0.1'], 'mixed.example': ['127.0.0.1', '127.0.0.2'] });
    const to = (target: string) => url('public.example', `/?to=${encodeURIComponent(target)}`);
    await expect(load(to(url('127.0.0.2', '/secret')))).rejects.toMatchObject(refused);
    await expect(load(url('mixed.example', '/secret'))).rejects.toMatchObject(refused);
    await expect(load(to('file:///etc/passwd'))).rejects.toMatchObject({ retry: false });
    expect(asked.filter((path) => path === '/secret')).toEqual([]);
    expect(Buffer.from(await load(to(url('public.example')))).toString()).toBe('pixels');
  });

  test('are looked up once: the address that was checked is the one that is reached', async () => {
    fakeNetwork({ 'public.example': ['127.0.0.1'] });
    await load(url('public.example'));
    expect(dns.lookup).toHaveBeenCalledTimes(1);
    expect(asked).toEqual(['/cat.png']);
  });

  test('end after some redirects, and with an image that is too large', async () => {
    const around = url('127.0.0.1', `/?to=${encodeURIComponent('/?to=%2F')}`);
    await expect(load(url('127.0.0.1', '/large'), true)).rejects.toMatchObject(TOO_LARGE);
    expect(Buffer.from(await load(around, true)).toString()).toBe('pixels');
    let endless = '/';
    for (let i = 0; i < 7; i++) endless = `/?to=${encodeURIComponent(endless)}`;
    await expect(load(url('127.0.0.1', endless), true)).rejects.toThrow(/redirected more than 5 times/);
  });

  test.each([
    ...['10.1.2.3', '127.9.9.9', '169.254.169.254', '172.31.0.1', '192.168.0.1', '100.64.0.1', '0.0.0.0'],
    ...['::1', '::', 'fe80::1', 'fec0::1', 'fd00::1', '::ffff:10.0.0.1', '64:ff9b::a00:1', '2002:a00:1::'],
  ])('%s is private', (address) => {
    expect(isPrivate(address)).toBe(true);
  });

  test.each(['8.8.8.8', '172.32.0.1', '2606:4700::1111', '::ffff:8.8.8.8'])('%s is public', (address) => {
    expect(isPrivate(address)).toBe(false);
  });
});

test.each(['redis://user:secret@host:port', 'redis://:se:cr@et@host:99999', 'http://user:secret@host'])(
  'the password in %s is not printed',
  async (url) => {
    const error = await openQueue(url, 'name').catch((thrown: unknown) => thrown);
    const { message } = error as Error;
    expect(message).toMatch(/^queue [a-z]+:\/\/\*\*\*@host/);
    expect(message).not.toMatch(/secret|se:cr/);
  },
);

test('the password of a server that cannot be reached is not printed', async () => {
  const queue = openQueue('redis://user:secret@127.0.0.1:1', 'name');
  await expect(queue).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.not.stringContaining('secret'),
  });
});

test('a lock is held as long as its process renews it, whatever the time on its clock', async () => {
  const folder = folderOf({ results: '' });
  const held = join(folder, 'results.lock');
  const options = { realpath: false, stale: 2000, retries: { retries: 3, factor: 1, minTimeout: 1000 } };
  await fs.mkdir(held);
  // The clock of the process that renews it is an hour behind.
  let behind = Date.now() / 1000 - 3600;
  const renew = () => fs.utimes(held, behind, behind++);
  await renew();
  const timer = setInterval(() => void renew(), 500);
  await expect(lock(join(folder, 'results'), { ...options, fs: lockFs() })).rejects.toMatchObject({
    code: 'ELOCKED',
  });
  clearInterval(timer);
  const release = await lock(join(folder, 'results'), { ...options, fs: lockFs() });
  await release();
});
