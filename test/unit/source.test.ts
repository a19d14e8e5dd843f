import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { InferenceSession } from 'lib/index.js';

const FOLDER = resolve('models/mnist-resnet20-gates');
const FILE = `${FOLDER}/model.onnx`;
const bytes = readFileSync(FILE);
const sha256 = (session: InferenceSession) => session.model.sha256;

async function hashOf(made: Promise<InferenceSession>): Promise<string> {
  const session = await made;
  await session.release();
  return sha256(session);
}

describe('create takes', () => {
  const padded = () => {
    const buffer = new ArrayBuffer(bytes.length + 100);
    new Uint8Array(buffer, 60, bytes.length).set(bytes);
    return buffer;
  };
  const sources: [string, () => Promise<InferenceSession>][] = [
    ['a path', () => InferenceSession.create(FILE)],
    ['a folder', () => InferenceSession.create(FOLDER)],
    ['a URL', () => InferenceSession.create(pathToFileURL(FILE))],
    ['a file: string', () => InferenceSession.create(pathToFileURL(FOLDER).href)],
    ['a Buffer', () => InferenceSession.create(bytes)],
    ['a Blob', () => InferenceSession.create(new Blob([bytes]))],
    ['an ArrayBuffer with offset and length', () => InferenceSession.create(padded(), 60, bytes.length)],
    ['the same with options', () => InferenceSession.create(padded(), 60, bytes.length, { threads: 1 })],
    [
      'an offset alone',
      () => InferenceSession.create(padded().slice(0, 60 + bytes.length), 60, undefined, { threads: 1 }),
    ],
  ];
  let expected: string;
  beforeAll(async () => {
    expected = await hashOf(InferenceSession.create(FILE));
  });
  test.each(sources)('%s', async (_kind, create) => {
    expect(await hashOf(create())).toBe(expected);
  });
});

describe('create refuses', () => {
  test.each<[string, () => Promise<InferenceSession>, string]>([
    [
      'an http: URL',
      () => InferenceSession.create(new URL('http://127.0.0.1/model.onnx')),
      'is not a file: URL',
    ],
    [
      'a range beyond the buffer',
      () => InferenceSession.create(new ArrayBuffer(8), 4, 8),
      'byteOffset 4 and byteLength 8',
    ],
    ['a negative offset', () => InferenceSession.create(new ArrayBuffer(8), -1), 'byteOffset -1'],
    ['a number', () => InferenceSession.create(1 as never), 'create: expected the path'],
  ])('%s', async (_what, create, message) => {
    await expect(create()).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining(message),
    });
  });
});

test('an aborted run ends with an AbortError', async () => {
  const session = await InferenceSession.create(FILE);
  const feeds = {
    [session.inputNames[0]!]: { type: 'float32', data: new Float32Array(784), dims: [1, 1, 28, 28] },
  };
  await expect(session.run(feeds, { signal: AbortSignal.abort() })).rejects.toMatchObject({
    name: 'AbortError',
    code: 'ABORTED',
  });
  await expect(session.run(feeds, { terminate: true })).rejects.toMatchObject({
    name: 'AbortError',
    code: 'ABORTED',
  });
  await session.release();
});
