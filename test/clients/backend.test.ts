/** onnxruntime-common takes this package as one of its backends. */
import { join, resolve } from 'node:path';
import { InferenceSession, onnxruntimeBackend } from 'lib/index.js';
import * as ort from 'onnxruntime-common';
import { randomFloats } from '../helpers/random.js';

const MODEL = resolve(__dirname, '../../demo/model.onnx');
const PIXELS = randomFloats(2 * 784, 3);

// The types are checked here, too.
const backend: ort.Backend = onnxruntimeBackend;
ort.registerBackend('residual-skip', backend, 10);

it('creates sessions and runs them', async () => {
  const session = await ort.InferenceSession.create(MODEL, {
    executionProviders: ['residual-skip'],
    intraOpNumThreads: 1,
  });
  expect(session.inputNames).toEqual(['input']);
  expect(session.outputMetadata[0]).toMatchObject({ name: 'logits', type: 'float32', shape: ['batch', 10] });
  const input = new ort.Tensor('float32', PIXELS, [2, 1, 28, 28]);
  const { logits } = await session.run({ input });
  expect(logits).toBeInstanceOf(ort.Tensor);

  const own = await InferenceSession.create(MODEL);
  const expected = await own.run({ input });
  await own.release();
  expect(logits!.dims).toEqual([2, 10]);
  expect(logits!.data).toEqual(expected.logits!.data);

  const filled = new ort.Tensor('float32', new Float32Array(20), [2, 10]);
  await session.run({ input }, { logits: filled });
  expect(filled.data).toEqual(expected.logits!.data);

  session.startProfiling();
  session.endProfiling();
  await session.release();
  await expect(session.run({ input })).rejects.toMatchObject({ code: 'SESSION_RELEASED' });
});

it('creates sessions from bytes', async () => {
  const bytes = await (await import('node:fs/promises')).readFile(join(MODEL));
  const session = await ort.InferenceSession.create(new Uint8Array(bytes), {
    executionProviders: ['residual-skip'],
  });
  expect(session.inputNames).toEqual(['input']);
  await session.release();
});
