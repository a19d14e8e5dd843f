/** Runs of images: the network runs on one batch while the next is prepared. */
import { availableParallelism } from 'node:os';
import { discard } from '../backends/addon.js';
import { prefetch } from '../data/prefetch.js';
import type { InferenceSession } from '../session/session.js';
import type { PolicySource } from '../skip/load-policy.js';
import type { TensorMap } from '../skip/observer.js';
import type { ItemTrace } from '../skip/trace.js';
import { Tensor } from '../tensor/tensor.js';
import { type ImageSource, nameOf } from './image-source.js';

/** Most images in one run. More would only take more memory: each takes its own path through the network anyway. */
const BATCH = 16;

/** A network of images, of which one output is read. */
export interface ImageNetwork {
  readonly session: InferenceSession;
  readonly output: string;
  prepareNamed(image: ImageSource, name: string, signal: AbortSignal | undefined): Promise<Tensor<'float32'>>;
  feeds(tensor: Tensor): TensorMap;
}

export interface ImageRunOptions {
  readonly trace?: boolean | undefined;
  readonly policy?: PolicySource | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What an image was answered. */
export interface ImageResult<T> {
  readonly answer: T;
  /** Null unless asked for. */
  readonly trace: ItemTrace | null;
}

/**
 * The answers, in the order of the images.
 * @param read the answers of some items in the network's outputs
 */
export async function runImages<T>(
  network: ImageNetwork,
  images: readonly ImageSource[],
  options: ImageRunOptions,
  read: (outputs: TensorMap, items: number) => readonly T[],
): Promise<ImageResult<T>[]> {
  const { signal } = options;
  const answers: ImageResult<T>[] = [];
  let waiting: Tensor<'float32'>[] = [];
  let running: Promise<ImageResult<T>[]> = Promise.resolve([]);
  const flush = async () => {
    answers.push(...(await running));
    running = waiting.length > 0 ? runBatch(network, waiting, options, read) : Promise.resolve([]);
    // An error is reported when the answers are due.
    running.catch(() => {});
    waiting = [];
  };
  const prepared = prefetch(
    images.entries(),
    ([index, image]) => network.prepareNamed(image, nameOf(image, index), signal),
    availableParallelism() + 1,
  );
  for await (const tensor of prepared) {
    const fits =
      waiting.length === 0 || tensor.dims.every((length, axis) => length === waiting[0]!.dims[axis]);
    if (!fits || waiting.length === BATCH) await flush();
    waiting.push(tensor);
  }
  await flush();
  answers.push(...(await running));
  return answers;
}

async function runBatch<T>(
  network: ImageNetwork,
  tensors: readonly Tensor<'float32'>[],
  options: ImageRunOptions,
  read: (outputs: TensorMap, items: number) => readonly T[],
): Promise<ImageResult<T>[]> {
  const { session, output } = network;
  const { trace: traced, ...rest } = options;
  const items = session.model.batching === 'item' ? tensors.length : 1;
  if (items < tensors.length) {
    const alone = tensors.map((tensor) => runBatch(network, [tensor], options, read));
    return (await Promise.all(alone)).flat();
  }
  const batch = joined(tensors);
  const feeds = network.feeds(batch);
  const { outputs, trace } = traced
    ? await session.runTraced(feeds, [output], rest)
    : { outputs: await session.run(feeds, [output], rest), trace: null };
  // Left to V8, arrays outside of its heap make it collect the whole heap after every few images.
  for (const { data } of [batch, ...tensors]) discard(data);
  return read(outputs, items).map((answer, i) => ({ answer, trace: trace?.items[i] ?? null }));
}

/** Joins tensors of one item each into a batch. */
function joined(tensors: readonly Tensor<'float32'>[]): Tensor<'float32'> {
  const [first] = tensors;
  if (tensors.length === 1) return first!;
  const data = new Float32Array(first!.size * tensors.length);
  for (const [i, tensor] of tensors.entries()) data.set(tensor.data, i * first!.size);
  return new Tensor('float32', data, [tensors.length, ...first!.dims.slice(1)]);
}
