/** What text classifiers and embedders have in common. */
import type { ModelFiles } from '../data/model-files.js';
import type { InferenceSession } from '../session/session.js';
import type { TensorMap } from '../skip/observer.js';
import type { Tensor } from '../tensor/tensor.js';
import type { TextInput } from './text-input.js';
import type { TextModel } from './text-model.js';

/** What a network of texts or images runs on. */
export interface ItemModel {
  readonly files: ModelFiles;
  readonly session: InferenceSession;
  prepare(text: TextInput): Tensor<'int32'>;
  feeds(prepared: readonly Tensor<'int32'>[]): TensorMap;
}

/** Over a model, which it names, prepares texts for and releases. */
export abstract class TextNetwork<Model extends ItemModel = TextModel> {
  /** @internal */
  protected readonly model: Model;

  protected constructor(model: Model) {
    this.model = model;
  }

  /** The ONNX file. */
  get file(): string {
    return this.model.files.model;
  }

  get session(): InferenceSession {
    return this.model.session;
  }

  /** Name of the model: that of its folder if the file is called model.onnx, otherwise that of the file. */
  get name(): string {
    return this.model.files.name;
  }

  /** The tokens of a text: int32 [3, tokens], rows of ids, of marks (1, or 0 where it is filled up), and of segments. */
  prepare(text: TextInput): Tensor<'int32'> {
    return this.model.prepare(text);
  }

  /** The feeds of `session.run` for a prepared text. */
  feeds(prepared: Tensor<'int32'>): TensorMap {
    return this.model.feeds([prepared]);
  }

  /** Releases the session once its current runs have ended. Idempotent. */
  release(): Promise<void> {
    return this.session.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}
