import {
  auditLog,
  calibrate,
  evaluate,
  ImageClassifier,
  InferenceSession,
  type SkipTrace,
  Tensor,
  watch,
} from 'residual-skip';
import { Client } from 'residual-skip/client';

/** Options that may be left out are handed on as they are. */
export async function classify(pixels: Float32Array, policy?: string, threads?: number): Promise<SkipTrace> {
  const session = await InferenceSession.create('model.onnx', { policy, threads });
  const input = new Tensor('float32', pixels, [1, 1, 28, 28]);
  const { outputs, trace } = await session.runTraced({ input });
  const dims: readonly number[] | undefined = outputs.logits?.dims;
  if (dims) await session.release();
  return trace;
}

export async function label(image: Uint8Array, signal?: AbortSignal): Promise<string | undefined> {
  const observers = [auditLog({ path: 'trace.ndjson' }), watch()];
  await using classifier = await ImageClassifier.from('folder', { observers });
  const { top } = await classifier.classify(image, { topK: 2, signal });
  const checks: number | undefined = classifier.session.stats().watch?.checks;
  return checks === 0 ? top[0]?.label : undefined;
}

export async function gain(images: AsyncIterable<Tensor<'float32'>>, signal?: AbortSignal): Promise<number> {
  const { policy } = await calibrate('folder', 'images', { maxDisagreement: 0.01, signal });
  const { latencyReduction } = await evaluate('folder', images, { policy, signal });
  return latencyReduction;
}

export const client = new Client('http://127.0.0.1:8000');
