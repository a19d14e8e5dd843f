import type { RawImage } from '../data/image.js';
import { findModel } from '../data/model-files.js';
import { prefetch } from '../data/prefetch.js';
import { Preprocessor } from '../data/preprocess.js';
import { ResidualSkipError } from '../errors.js';
import { type EnergyReport, measureEnergy } from '../measure/energy.js';
import type { TensorMetadata } from '../session/metadata.js';
import { InferenceSession } from '../session/session.js';
import type { BlockInfo } from '../skip/block-info.js';
import type { RunObserver } from '../skip/observer.js';
import { topClasses } from '../skip/scores.js';
import type { ItemTrace } from '../skip/trace.js';
import { Tensor } from '../tensor.js';
import type { Io } from './io.js';
import type { EngineOptions } from './options.js';
import { Unusable } from './unusable.js';

/** One class of an answer. */
export interface Prediction {
  readonly index: number;
  readonly label: string;
  readonly probability: number;
}

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

/** A model that takes one image and gives one score per class, with its preprocessing and labels. */
export class Classifier {
  readonly unusable = new Unusable();

  private constructor(
    readonly name: string,
    readonly labels: readonly string[],
    readonly session: InferenceSession,
    private readonly preprocessor: Preprocessor,
    private readonly input: string,
    private readonly output: string,
  ) {}

  /** @throws INVALID_ARGUMENT when the model takes no image or gives no class scores, and what create throws */
  static async open(
    path: string,
    { policy, backend, isa, threads }: EngineOptions,
    io: Io,
    observersFor: (labels: readonly string[] | undefined) => readonly RunObserver[] = () => [],
  ): Promise<Classifier> {
    const files = await findModel(path);
    const observers = observersFor(files.labels);
    const session = await InferenceSession.create(files.model, { policy, backend, isa, threads, observers });
    try {
      const input = imageInput(session.inputMetadata, files.name);
      const { output, classes } = classOutput(session.outputMetadata, files.labels?.length, files.name);
      if (files.preprocessor === undefined) {
        io.err(
          `note: there is no preprocessor_config.json beside ${files.model}; pixels are scaled to 0..1\n`,
        );
      }
      const size = { height: input.height, width: input.width };
      const whole = size.height !== undefined && size.width !== undefined;
      const { config, source } = files.preprocessor ?? {
        config: whole ? { size: { height: size.height!, width: size.width! } } : {},
        source: 'preprocessing by default',
      };
      const labels = files.labels ?? Array.from({ length: classes }, (_, index) => String(index));
      return new Classifier(
        files.name,
        labels,
        session,
        new Preprocessor(config, input, source),
        input.name,
        output,
      );
    } catch (error) {
      await session.release();
      throw error;
    }
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
    const { data, shape } = await this.preprocessor.apply(await image.load(), image.name);
    return new Tensor('float32', data, shape);
  }

  /** What `session.run` takes for one prepared image. */
  feeds(tensor: Tensor): { readonly [input: string]: Tensor } {
    return { [this.input]: tensor };
  }

  /** Classifies with the session's policy. */
  classify(tensor: Tensor): Classification {
    const { outputs, trace } = this.session.runTracedSync({ [this.input]: tensor }, [this.output]);
    const { multiplyAdds, layers } = trace;
    return { scores: this.#scores(outputs), trace: trace.items[0]!, multiplyAdds, layers };
  }

  /** Classifies and takes the time; `full` runs every block, `skip` follows the session's policy. */
  time(tensor: Tensor, mode: 'full' | 'skip'): { scores: Float32Array; milliseconds: number } {
    const options = mode === 'full' ? { policy: 'full' } : {};
    const start = performance.now();
    const outputs = this.session.runSync({ [this.input]: tensor }, [this.output], options);
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

  /** The `count` most probable classes of an image's scores, most probable first; equals in order of index. */
  predict(scores: Float32Array, count: number): Prediction[] {
    const { classScores } = this.session.context;
    if (classScores?.name !== this.output) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        `${this.name}: output '${this.output}' holds no class scores, float32 [batch, classes] with two classes at least`,
      );
    }
    return topClasses(scores, classScores.meaning, count).map(([index, probability]) => ({
      index,
      label: this.labels[index]!,
      probability,
    }));
  }

  release(): Promise<void> {
    return this.session.release();
  }

  #scores(outputs: { readonly [name: string]: Tensor }): Float32Array {
    const { data } = outputs[this.output]!;
    if (data instanceof Float32Array && data.length === this.labels.length) return data;
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${this.name}: output '${this.output}' holds ${data.length} values, but there are ${this.labels.length} labels`,
    );
  }
}

interface NamedImageInput {
  readonly name: string;
  readonly channels: number;
  readonly height?: number;
  readonly width?: number;
}

function imageInput(inputs: readonly TensorMetadata[], model: string): NamedImageInput {
  const [first] = inputs;
  if (inputs.length !== 1 || first === undefined || first.shape.length !== 4 || first.type !== 'float32') {
    const found = inputs.map(({ name, type, shape }) => `${name}: ${type}[${shape.join(', ')}]`).join('; ');
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${model} takes ${found || 'nothing'}; images need one float32 input [batch, channels, height, width]`,
    );
  }
  const [, channels, height, width] = first.shape;
  const known = (length: string | number | undefined) => (typeof length === 'number' ? length : undefined);
  return { name: first.name, channels: known(channels) ?? 3, height: known(height), width: known(width) };
}

/** The output with a score per class: `logits`, or else the first that is float32 of [batch, classes]. */
function classOutput(
  outputs: readonly TensorMetadata[],
  labels: number | undefined,
  model: string,
): { output: string; classes: number } {
  const fitting = outputs.filter(({ type, shape }) => type === 'float32' && shape.length >= 2);
  const chosen = fitting.find(({ name }) => name === 'logits') ?? fitting[0];
  const declared = chosen?.shape[1];
  const classes = typeof declared === 'number' ? declared : labels;
  if (chosen === undefined || classes === undefined) {
    throw new ResidualSkipError('INVALID_ARGUMENT', `${model} has no float32 output [batch, classes]`);
  }
  if (labels !== undefined && labels !== classes) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `${model}: config.json has ${labels} labels, but output '${chosen.name}' has ${classes} classes`,
    );
  }
  return { output: chosen.name, classes };
}
