import { ImageClassifier, type Prediction } from '../classify/image-classifier.js';
import type { RawImage } from '../data/image.js';
import { prefetch } from '../data/prefetch.js';
import { type EnergyReport, measureEnergy } from '../measure/energy.js';
import type { InferenceSession } from '../session/session.js';
import type { BlockInfo } from '../skip/block-info.js';
import type { RunObserver, TensorMap } from '../skip/observer.js';
import type { ItemTrace } from '../skip/trace.js';
import type { Tensor } from '../tensor.js';
import type { Io } from './io.js';
import type { EngineOptions } from './options.js';
import { Unusable } from './unusable.js';

/** What one image did, and the totals that its trace is compared with. */
export interface Classification {
  readonly scores: Float32Array;
  readonly trace: ItemTrace;
  readonly multiplyAdds: number;
  readonly layers: number;
}

/** Pairs of runs before the first that is timed, and the time after which no further one is begun. */
const WARM_UP_PAIRS = 50;
const WARM_UP_MS = 200;
/** Items that stretches whose energy is measured consist of, at most. */
export const MOST_MEASURED = 100;

/** An ImageClassifier as the commands use it: bad images are noted and left out, and runs are timed. */
export class Classifier {
  readonly unusable = new Unusable();

  private constructor(private readonly images: ImageClassifier) {}

  /** @throws what ImageClassifier.from throws */
  static async open(
    path: string,
    { policy, backend, isa, threads }: EngineOptions,
    io: Io,
    observers: readonly RunObserver[] = [],
  ): Promise<Classifier> {
    const images = await ImageClassifier.from(path, { policy, backend, isa, threads, observers });
    if (!images.preprocessorKnown) {
      io.err(`note: there is no preprocessor_config.json beside ${images.file}; pixels are scaled to 0..1\n`);
    }
    return new Classifier(images);
  }

  get name(): string {
    return this.images.name;
  }

  get labels(): readonly string[] {
    return this.images.labels;
  }

  get session(): InferenceSession {
    return this.images.session;
  }

  /** The residual blocks; costs are those of the image classified last. */
  get blocks(): readonly BlockInfo[] {
    return this.session.blocks;
  }

  /** "native" or "reference". */
  get backend(): string {
    return this.session.backend;
  }

  /** Reads and prepares `images` in order, a few ahead of the consumer; without those that are noted in `unusable`. */
  async *prepare<T extends { readonly name: string; load(): Promise<RawImage> }>(
    images: Iterable<T>,
  ): AsyncGenerator<{ image: T; tensor: Tensor }> {
    const prepared = prefetch(images, async (image) => ({
      image,
      tensor: await this.prepareOne(image).catch((error: unknown) => this.unusable.note(error)),
    }));
    for await (const { image, tensor } of prepared) if (tensor) yield { image, tensor };
  }

  /** One image as the model takes it. */
  async prepareOne(image: { readonly name: string; load(): Promise<RawImage> }): Promise<Tensor<'float32'>> {
    return this.images.prepareRaw(await image.load(), image.name);
  }

  /** What `session.run` takes for one prepared image. */
  feeds(tensor: Tensor): { readonly [input: string]: Tensor } {
    return this.images.feeds(tensor);
  }

  /** Classifies with the session's policy. */
  classify(tensor: Tensor): Classification {
    const { outputs, trace } = this.session.runTracedSync(this.feeds(tensor), [this.images.output]);
    const { multiplyAdds, layers } = trace;
    return { scores: this.#scores(outputs), trace: trace.items[0]!, multiplyAdds, layers };
  }

  /** Classifies and takes the time; `full` runs every block, `skip` follows the session's policy. */
  time(tensor: Tensor, mode: 'full' | 'skip'): { scores: Float32Array; milliseconds: number } {
    const options = mode === 'full' ? { policy: 'full' } : {};
    const feeds = this.feeds(tensor);
    const start = performance.now();
    const outputs = this.session.runSync(feeds, [this.images.output], options);
    const milliseconds = performance.now() - start;
    return { scores: this.#scores(outputs), milliseconds };
  }

  /** Runs untimed for a moment: code, caches and clock rate reach their steady state. */
  warmUp(tensor: Tensor): void {
    const start = performance.now();
    for (let i = 0; i < WARM_UP_PAIRS && performance.now() - start < WARM_UP_MS; i++) {
      this.time(tensor, 'full');
      this.time(tensor, 'skip');
    }
  }

  /** What one item takes of the processor, over stretches of all `tensors`; observers of the session see these runs. */
  measureEnergy(tensors: readonly Tensor[]): EnergyReport {
    return measureEnergy(tensors.length, (mode) => {
      for (const tensor of tensors) this.time(tensor, mode);
    });
  }

  /** As ImageClassifier.predict. */
  predict(scores: Float32Array, count: number): Prediction[] {
    return this.images.predict(scores, count);
  }

  release(): Promise<void> {
    return this.session.release();
  }

  #scores(outputs: TensorMap): Float32Array {
    return this.images.scoresOf(outputs, 1)[0]!;
  }
}
