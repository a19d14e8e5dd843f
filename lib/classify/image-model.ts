/** Images for an embedder: a session, their preprocessing, and runs of them. */
import type { ModelFiles } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import type { InferenceSession } from '../session/session.js';
import type { TensorMap } from '../skip/observer.js';
import { isFloat, type Tensor, toFloat32 } from '../tensor/tensor.js';
import type { answerOutput } from './class-scores.js';
import { ImageClassifier } from './image-classifier.js';
import type { ImageClassifierOptions } from './image-options.js';
import { runImages } from './image-runs.js';
import { type ImageSource, isImageSource } from './image-source.js';
import type { TextOutput, TextResult, TextRunOptions } from './text-model.js';
import type { ItemModel } from './text-network.js';

export class ImageModel implements ItemModel {
  private constructor(
    readonly files: ModelFiles,
    private readonly images: ImageClassifier,
  ) {}

  /**
   * Over a session, which is released if this fails.
   * @throws ResidualSkipError as ImageClassifier.from
   */
  static async over(
    session: InferenceSession,
    files: ModelFiles,
    options: ImageClassifierOptions,
    outputOf: typeof answerOutput,
  ): Promise<ImageModel> {
    return new ImageModel(files, await ImageClassifier.over(session, files, options, outputOf));
  }

  get session(): InferenceSession {
    return this.images.session;
  }

  /** A hash of what is made of pixels, as a policy keeps it. */
  preparation(): string {
    return this.images.preprocessor.id;
  }

  prepare(): never {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `prepare: ${this.files.name} takes images; ImageClassifier prepares those, and embed takes them as they are`,
    );
  }

  feeds([prepared]: readonly Tensor[]): TensorMap {
    return this.images.feeds(prepared!);
  }

  /** The images of a call, and whether it had one or several. */
  listOf(value: unknown): { readonly list: readonly ImageSource[]; readonly one: boolean } {
    if (isImageSource(value)) return { list: [value as ImageSource], one: true };
    if (Array.isArray(value)) return { list: value, one: false };
    throw new ResidualSkipError('INVALID_ARGUMENT', 'embed: expected an image or an array of images');
  }

  async run(images: readonly ImageSource[], output: string, options: TextRunOptions): Promise<TextResult[]> {
    const read = (outputs: TensorMap, items: number) => partsOf(outputs[output]!, items);
    const results = await runImages(this.images, images, options, read);
    return results.map(({ answer, trace }) => ({ ...answer, trace, multiplyAdds: null }));
  }

  resultOf(output: Tensor): TextOutput {
    return partsOf(output, 1)[0]!;
  }
}

/** Each image's part of an output. The positions of a map are taken for tokens. */
function partsOf(output: Tensor, items: number): TextOutput[] {
  const { data, dims } = isFloat(output) ? toFloat32(output) : output;
  const size = data.length / items;
  const [, ...shape] = dims;
  const tokens = shape.length === 1 ? 1 : size / (shape.length === 3 ? shape[0]! : shape.at(-1)!);
  return Array.from({ length: items }, (_, i) => {
    const own = (data as Float32Array).slice(i * size, (i + 1) * size);
    const width = size / tokens;
    if (shape.length !== 3) return { data: own, dims: [tokens, width], tokens, first: 0 };
    const turned = own.map((_value, at) => own[(at % width) * tokens + Math.floor(at / width)]!);
    return { data: turned, dims: [tokens, width], tokens, first: 0 };
  });
}
