import { InferenceSession, type SkipTrace, Tensor } from 'residual-skip';

export async function classify(pixels: Float32Array): Promise<SkipTrace> {
  const session = await InferenceSession.create('model.onnx', { policy: 'model' });
  const input = new Tensor('float32', pixels, [1, 1, 28, 28]);
  const { outputs, trace } = await session.runTraced({ input });
  const dims: readonly number[] | undefined = outputs.logits?.dims;
  if (dims) await session.release();
  return trace;
}
