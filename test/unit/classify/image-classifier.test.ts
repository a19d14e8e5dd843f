import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ImageClassifier, type ImageSource, ResidualSkipError } from 'lib/index.js';
import sharp from 'sharp';

const MODEL = resolve('models/cifar10-resnet14-exits');
const IMAGES = resolve('examples/images');
const CAT = join(IMAGES, 'cat-0000.jpg');

let classifier: ImageClassifier;
beforeAll(async () => {
  classifier = await ImageClassifier.from(MODEL);
});
afterAll(() => classifier.release());

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no error',
    (error: unknown) => (error instanceof ResidualSkipError ? error.code : error),
  );

describe('classify', () => {
  test('gives labels, probabilities that sum to 1, and the classes in order', async () => {
    const { label, index, probability, top, trace } = await classifier.classify(CAT, { topK: 10 });
    expect(classifier.labels[index]).toBe(label);
    expect(top[0]).toEqual({ label, index, probability });
    expect(top.map((one) => one.probability)).toEqual(
      top.map((one) => one.probability).sort((a, b) => b - a),
    );
    expect(top.reduce((sum, one) => sum + one.probability, 0)).toBeCloseTo(1, 6);
    expect(trace).toBeNull();
  });

  test('traces what an image skipped', async () => {
    const { trace } = await classifier.classify(CAT, { trace: true });
    expect(trace!.blocks.map(({ block }) => block)).toEqual(
      classifier.session.blocks.map(({ name }) => name),
    );
    const full = await classifier.classify(CAT, { trace: true, policy: 'full' });
    expect(full.trace!.blocks.every(({ ran }) => ran)).toBe(true);
  });

  test('answers for several images in their order, as for each alone', async () => {
    const names = ['cat', 'dog', 'ship', 'airplane', 'frog'].flatMap((name) => [
      `${name}-0000.jpg`,
      `${name}-0001.jpg`,
    ]);
    const paths = [...names, ...names].map((name) => join(IMAGES, name));
    const together = await classifier.classify(paths);
    const alone = await Promise.all(paths.map((path) => classifier.classify(path)));
    expect(together).toEqual(alone);
  });

  test('the next images are prepared while the network runs', async () => {
    const prepared = jest.spyOn(classifier.preprocessor, 'apply');
    const run = jest.spyOn(classifier.session, 'run');
    const behind: number[] = [];
    run.mockImplementation(async (...args) => {
      // Images in memory take a few turns of the event loop.
      for (let turn = 0; turn < 1000; turn++) await new Promise(setImmediate);
      behind.push(prepared.mock.calls.length);
      const [feeds, fetches, rest] = args as Parameters<typeof classifier.session.run>;
      return (await classifier.session.runTraced(feeds, fetches as string[], rest)).outputs;
    });
    const pixels = { width: 32, height: 32, channels: 3, data: new Uint8Array(32 * 32 * 3) };
    const answers = await classifier.classify(Array(48).fill(pixels));
    for (const mock of [prepared, run]) mock.mockRestore();
    expect(answers).toHaveLength(48);
    // Of three batches of 16: with the first, the second is prepared as well.
    expect(behind).toHaveLength(3);
    expect(behind[0]).toBeGreaterThanOrEqual(32);
    expect(behind[1]).toBe(48);
  });

  test('pixels may be changed and transferred while they are prepared', async () => {
    const pixels = () => ({
      width: 200,
      height: 200,
      channels: 3 as const,
      data: new Uint8Array(120_000).fill(77),
    });
    const expected = await classifier.prepare(pixels());
    const changed = pixels();
    const preparing = classifier.prepare(changed);
    changed.data.fill(0);
    structuredClone(changed.data.buffer, { transfer: [changed.data.buffer] });
    expect(
      Buffer.compare(Buffer.from((await preparing).data.buffer), Buffer.from(expected.data.buffer)),
    ).toBe(0);
  });

  test('the pixels of a decoded image are freed as soon as the image is prepared, also if that fails', async () => {
    const create = { width: 1000, height: 800, channels: 3 as const, background: '#a05030' };
    const file = await sharp({ create }).png().toBuffer();
    const prepareRaw = jest.spyOn(classifier, 'prepareRaw');
    await classifier.prepare(file);
    prepareRaw.mockImplementationOnce(() => Promise.reject(new Error('torn')));
    await expect(classifier.prepare(file)).rejects.toThrow('torn');
    const decoded = prepareRaw.mock.calls.map(([image]) => image);
    prepareRaw.mockRestore();
    expect(decoded).toMatchObject(Array(2).fill({ width: 1000, height: 800, channels: 3 }));
    for (const { data } of decoded) expect(data.buffer.byteLength).toBe(0);
  });

  test('prepared images are freed after their run, and not the bytes that were given', async () => {
    const apply = jest.spyOn(classifier.preprocessor, 'apply');
    const file = new Uint8Array(readFileSync(join(IMAGES, 'cat-0000.jpg')));
    await classifier.classify([file, file]);
    const prepared = await Promise.all(apply.mock.results.map(({ value }) => value));
    apply.mockRestore();
    expect(prepared).toHaveLength(2);
    for (const { data } of prepared) expect(data.buffer.byteLength).toBe(0);
    expect(file[0]).toBe(0xff);
  });

  test('answers for no images with no answers', async () => {
    expect(await classifier.classify([])).toEqual([]);
  });
});

describe('an image may be', () => {
  const bytes = readFileSync(CAT);
  let server: Server;
  let url: URL;
  beforeAll(async () => {
    server = createServer((request, response) => {
      if (request.url === '/cat.jpg') response.end(bytes);
      else response.writeHead(404).end();
    });
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
    url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/cat.jpg`);
  });
  afterAll(() => server.close());

  const pixels = async (channels: 3 | 4) => {
    const image = channels === 4 ? sharp(bytes).ensureAlpha() : sharp(bytes);
    const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
    return { data, width: info.width, height: info.height };
  };
  const kinds: [string, () => ImageSource | Promise<ImageSource>][] = [
    ['a file: URL', () => pathToFileURL(CAT)],
    ['a data: URL', () => new URL(`data:image/jpeg;base64,${bytes.toString('base64')}`)],
    ['an http: URL', () => url],
    ['a Buffer', () => bytes],
    ['an ArrayBuffer', () => new Uint8Array(bytes).buffer],
    ['a Blob', () => new Blob([bytes])],
    ['a sharp instance', () => sharp(bytes)],
    ['RGB pixels', async () => ({ ...(await pixels(3)), channels: 3 })],
    [
      'RGBA pixels, as a canvas has them',
      async () => {
        const { data, ...size } = await pixels(4);
        return { ...size, data: new Uint8ClampedArray(data) };
      },
    ],
  ];
  test.each(kinds)('%s', async (_kind, make) => {
    expect(await classifier.classify(await make())).toEqual(await classifier.classify(CAT));
  });

  test.each<[string, ImageSource, string]>([
    ['a path without a file', join(IMAGES, 'missing.jpg'), 'INVALID_DATA'],
    ['bytes that are no image', new Uint8Array(100), 'INVALID_DATA'],
    [
      'pixels of another number',
      { width: 3, height: 3, channels: 3, data: new Uint8Array(5) },
      'INVALID_ARGUMENT',
    ],
    ['an ftp: URL', new URL('ftp://127.0.0.1/cat.jpg'), 'INVALID_ARGUMENT'],
    ['null', null as never, 'INVALID_ARGUMENT'],
    ['an object', {} as never, 'INVALID_ARGUMENT'],
  ])('not %s', async (_kind, image, code) => {
    expect(await codeOf(classifier.classify(image))).toBe(code);
  });

  test('not a URL that answers with 404; the message names it', async () => {
    const missing = new URL('/missing.jpg', url);
    await expect(classifier.classify(missing)).rejects.toThrow(missing.href);
    expect(await codeOf(classifier.classify(missing))).toBe('INVALID_DATA');
  });
});

describe('from', () => {
  test('takes labels and preprocessing as options', async () => {
    const labels = Array.from({ length: 10 }, (_, i) => `class ${i}`);
    const own = await ImageClassifier.from(MODEL, {
      labels,
      preprocessor: { size: { height: 32, width: 32 } },
    });
    const { label } = await own.classify(CAT);
    expect(labels).toContain(label);
    await own.release();
    expect(await codeOf(own.classify(CAT))).toBe('SESSION_RELEASED');
  });

  test.each<[string, Promise<unknown> | (() => Promise<unknown>), string]>([
    ['a folder without a model', () => ImageClassifier.from(IMAGES), 'MODEL_NOT_FOUND'],
    ['labels of another number', () => ImageClassifier.from(MODEL, { labels: ['cat'] }), 'INVALID_DATA'],
    ['an unknown option', () => ImageClassifier.from(MODEL, { thread: 1 } as never), 'INVALID_ARGUMENT'],
    [
      'a preprocessor that says nonsense',
      () => ImageClassifier.from(MODEL, { preprocessor: { size: -1 } as never }),
      'INVALID_ARGUMENT',
    ],
  ])('refuses %s', async (_what, make, code) => {
    expect(await codeOf((make as () => Promise<unknown>)())).toBe(code);
  });

  test('refuses unknown options of classify', async () => {
    expect(await codeOf(classifier.classify(CAT, { topk: 1 } as never))).toBe('INVALID_ARGUMENT');
  });

  test('aborts', async () => {
    expect(await codeOf(classifier.classify(CAT, { signal: AbortSignal.abort() }))).toBe('ABORTED');
  });

  test('an image whose signal is aborted while it is decoded is not prepared any further', async () => {
    const { preprocessor } = classifier;
    const apply = jest.spyOn(preprocessor, 'apply');
    const controller = new AbortController();
    const prepared = classifier.prepare(CAT, { signal: controller.signal });
    controller.abort();
    expect(await codeOf(prepared)).toBe('ABORTED');
    expect(apply).not.toHaveBeenCalled();
    apply.mockRestore();
  });
});
