import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { writeResult } from 'lib/cli/files.js';
import { ERROR_CODES, InferenceSession, ResidualSkipError, Tensor } from 'lib/index.js';
import { Network } from '../helpers/networks.js';
import { withSession } from '../helpers/sessions.js';

const NETWORK = new Network('cifar10-resnet32-gates');
const BYTES = readFileSync(NETWORK.model);

/** The error of a `create` that is expected to fail, or undefined when it does not. */
async function failureOf(source: string | Uint8Array): Promise<ResidualSkipError | undefined> {
  try {
    await withSession(source, { backend: 'reference' }, async () => {});
    return undefined;
  } catch (error) {
    if (error instanceof ResidualSkipError) return error;
    throw error;
  }
}

describe('ResidualSkipError', () => {
  it('has a code, a message and a cause', () => {
    const cause = new Error('inner');
    const error = new ResidualSkipError('INTERNAL', 'text', { cause });
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ name: 'ResidualSkipError', code: 'INTERNAL', message: 'text', cause });
    expect(new Set(ERROR_CODES).size).toBe(ERROR_CODES.length);
  });

  const full = '/dev/full';
  (existsSync(full) ? it : it.skip)(
    'says that a disk is full, and blames a path for nothing else',
    async () => {
      await expect(writeResult(full, 'text')).rejects.toMatchObject({ code: 'WRITE_FAILED' });
      await expect(writeResult('/no/such/folder/file', 'text')).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
      });
    },
  );

  it('keeps code and message as JSON', () => {
    const error = new ResidualSkipError('INVALID_DATA', 'text', { cause: new Error('inner') });
    expect(JSON.parse(JSON.stringify({ error }))).toEqual({
      error: { name: 'ResidualSkipError', code: 'INVALID_DATA', message: 'text' },
    });
  });
});

describe('create', () => {
  const folder = mkdtempSync(join(tmpdir(), 'errors-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('names a file that is not there', async () => {
    const path = join(folder, 'missing.onnx');
    const error = await failureOf(path);
    expect(error).toMatchObject({ code: 'MODEL_NOT_FOUND', message: expect.stringContaining(path) });
  });

  it.each([
    ['nothing', new Uint8Array()],
    ['text', new TextEncoder().encode('this is no model')],
    ['a PNG', new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])],
  ])('refuses %s', async (_, bytes) => {
    expect(['MODEL_CORRUPT', 'MODEL_INVALID']).toContain((await failureOf(bytes))?.code);
    const path = join(folder, 'bad.onnx');
    writeFileSync(path, bytes);
    expect(['MODEL_CORRUPT', 'MODEL_INVALID']).toContain((await failureOf(path))?.code);
  });

  it.each([null, undefined, 3, {}, []])('refuses %p for a model', async (source) => {
    const create = InferenceSession.create as (source: unknown) => Promise<unknown>;
    await expect(create(source)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('refuses bytes whose buffer was transferred', async () => {
    const bytes = Uint8Array.from(BYTES);
    structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
    for (const source of [bytes, bytes.buffer]) {
      const create = InferenceSession.create(source);
      await expect(create).rejects.toMatchObject({
        code: expect.stringMatching(/INVALID_ARGUMENT|MODEL_CORRUPT/),
      });
    }
  });

  it('hashes the bytes that it decodes, whatever becomes of them meanwhile', async () => {
    const [before, after] = ['cifar10-resnet32-gates', 'cifar10-resnet32'].map(
      (name) => new Uint8Array(readFileSync(new Network(name).model)),
    );
    const x = new Tensor(
      'float32',
      Float32Array.from({ length: 3072 }, (_, i) => Math.sin(i)),
      [1, 3, 32, 32],
    );
    const expected = await withSession(before!, {}, (session) => session.run({ input: x }));
    const bytes = Uint8Array.from(before!);
    const creating = InferenceSession.create(bytes);
    bytes.set(after!.subarray(0, bytes.length));
    const session = await creating;
    expect(session.model.sha256).toBe(createHash('sha256').update(before!).digest('hex'));
    expect(await session.run({ input: x })).toEqual(expected);
    await session.release();
  });

  it('refuses every truncation of a model', async () => {
    for (let i = 1; i < 24; i++) {
      const length = Math.floor((BYTES.length * i) / 24);
      expect((await failureOf(BYTES.subarray(0, length)))?.code).toMatch(/^MODEL_(CORRUPT|INVALID)$/);
    }
  });

  it('refuses random bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 400 }), async (bytes) => {
        expect(ERROR_CODES).toContain((await failureOf(bytes))?.code);
      }),
      { numRuns: 300 },
    );
  });

  it('takes or refuses a model with changed bytes, and never fails otherwise', async () => {
    // Structure stands near the start of the file, weights near its end.
    const place = fc.oneof(fc.nat(30_000), fc.nat(BYTES.length - 1));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 4 }),
        async (changes) => {
          const bytes = Uint8Array.from(BYTES);
          for (const [position, value] of changes) bytes[position] = value;
          await failureOf(bytes);
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe('a session', () => {
  it.each(['native', 'reference'] as const)('still works after an error (%s)', async (backend) => {
    const input = (await NETWORK.images()).reshape([20, 3, 32, 32]);
    await withSession(NETWORK.model, { backend }, async (session) => {
      const before = await session.run({ input });
      const wrong = new Tensor('float32', new Float32Array(3 * 31 * 32), [1, 3, 31, 32]);
      await expect(session.run({ input: wrong })).rejects.toMatchObject({
        code: 'INVALID_SHAPE',
        message: "input 'input': expected float32[batch,3,32,32], received float32[1,3,31,32]",
      });
      await expect(session.run({ input }, { signal: AbortSignal.abort() })).rejects.toMatchObject({
        code: 'ABORTED',
      });
      expect((await session.run({ input })).logits!.data).toEqual(before.logits!.data);
    });
  });

  it.each(['native', 'reference'] as const)('can be aborted in mid-run (%s)', async (backend) => {
    const batch = new Tensor('float32', new Float32Array(64 * 3 * 32 * 32), [64, 3, 32, 32]);
    await withSession(NETWORK.model, { backend, threads: 1 }, async (session) => {
      const controller = new AbortController();
      const logits = new Tensor('float32', new Float32Array(640).fill(7), [64, 10]);
      const run = session.run({ input: batch }, { logits }, { signal: controller.signal });
      controller.abort();
      await expect(run).rejects.toMatchObject({ code: 'ABORTED' });
      expect(logits.data.every((value) => value === 7)).toBe(true);
    });
  });

  it.each(['native', 'reference'] as const)('takes NaN and infinities as they come (%s)', async (backend) => {
    const input = (value: number) =>
      new Tensor('float32', new Float32Array(3072).fill(value), [1, 3, 32, 32]);
    await withSession(NETWORK.model, { backend }, async (session) => {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3e38]) {
        const { outputs, trace } = await session.runTraced({ input: input(value) });
        expect(outputs.logits!.size).toBe(10);
        expect(trace.items[0]!.blocks).toHaveLength(15);
      }
    });
  });
});
