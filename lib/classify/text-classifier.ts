import { z } from 'zod';
import type { TensorMap } from '../skip/observer.js';
import type { ItemTrace } from '../skip/trace.js';
import type { Tensor } from '../tensor/tensor.js';
import { late } from '../util/late.js';
import { checkOptions, parseStrict } from '../util/validation.js';
import { classOutput, labelsSchema, type Prediction, predictions } from './class-scores.js';
import { type TextInput, textsOf } from './text-input.js';
import {
  resultsOf,
  TextModel,
  type TextModelOptions,
  type TextRunOptions,
  textRunShape,
} from './text-model.js';
import { TextNetwork } from './text-network.js';

/** Options of `TextClassifier.from`: those of a session, and labels. */
export interface TextClassifierOptions extends TextModelOptions {
  /** Labels by class index. When left out, those of config.json beside the model, or else the indices. */
  labels?: readonly string[] | undefined;
}

/** Options of `TextClassifier.classify`. */
export interface ClassifyTextOptions extends TextRunOptions {
  /** Classes to return, most probable first; 5 when left out. */
  topK?: number | undefined;
}

/** The answer for one text. */
export interface TextClassification extends Prediction {
  /** The `topK` most probable classes; the first is this answer. */
  readonly top: readonly Prediction[];
  /** What the text ran and skipped; null unless `trace` was asked for. */
  readonly trace: ItemTrace | null;
}

const TOP_K = 5;
const classifySchema = late(() => z.strictObject({ topK: z.int().positive().optional(), ...textRunShape() }));

/**
 * A text classifier: a network that takes tokens and has one score per class, its tokenizer.json and its labels. Needs the package
 * `@huggingface/tokenizers`.
 *
 * ```ts
 * const classifier = await TextClassifier.from('models/sst2-encoder-exits');
 * const { label, probability } = await classifier.classify('a masterpiece');
 * ```
 */
export class TextClassifier extends TextNetwork {
  private constructor(
    model: TextModel,
    readonly labels: readonly string[],
    /** False if the labels are only the class indices. */
    readonly labelsKnown: boolean,
    /** Name of the output that holds the scores. */
    readonly output: string,
  ) {
    super(model);
  }

  /**
   * Loads a model, with `tokenizer.json`, `tokenizer_config.json` and `config.json` beside it.
   * @param path folder or ONNX file; a folder's `policy.json` is the policy unless `options.policy` names another
   * @throws ResidualSkipError INVALID_ARGUMENT when the model takes no tokens or has no class scores, INVALID_DATA for a file that
   * can't be used, MISSING_DEPENDENCY, and what InferenceSession.create throws
   */
  static async from(path: string, options: TextClassifierOptions = {}): Promise<TextClassifier> {
    checkOptions(options);
    const { labels: own, ...sessionOptions } = options;
    parseStrict(labelsSchema(), own, { subject: 'options.labels' });
    return TextModel.use(path, sessionOptions, (model) => TextClassifier.over(model, own));
  }

  /** @internal */
  static async over(model: TextModel, own: readonly string[] | undefined): Promise<TextClassifier> {
    const { files, session } = model;
    const known = own ?? files.labels;
    const labelsFrom = own ? 'options.labels' : 'config.json';
    const { output, classes } = classOutput(session.outputMetadata, known?.length, files.name, {
      labelsFrom,
    });
    const labels = known ?? Array.from({ length: classes }, (_, index) => String(index));
    await model.notePreparation(known);
    return new TextClassifier(model, labels, known !== undefined, output);
  }

  /**
   * Classifies one text, or several. Each runs at its own length; longer ones than the network takes are cut. The answers are in the
   * order of the texts.
   * @throws ResidualSkipError INVALID_ARGUMENT, ABORTED, SESSION_RELEASED, and the errors of a policy that can't be used
   */
  classify(text: TextInput, options?: ClassifyTextOptions): Promise<TextClassification>;
  classify(texts: readonly TextInput[], options?: ClassifyTextOptions): Promise<TextClassification[]>;
  async classify(
    texts: TextInput | readonly TextInput[],
    options: ClassifyTextOptions = {},
  ): Promise<TextClassification | TextClassification[]> {
    const { topK = TOP_K, ...rest } = parseStrict(classifySchema(), options);
    const { list, one } = textsOf('classify', texts);
    const answers = (await this.model.run(list, this.output, rest)).map(({ data, trace }) => {
      const top = this.predict(data, topK);
      return { ...top[0]!, top, trace };
    });
    return one ? answers[0]! : answers;
  }

  /**
   * A hash of all that decides which tokens a text becomes, as a policy keeps it.
   * @internal
   */
  preparation(): Promise<string> {
    return this.model.preparation();
  }

  /** The scores of a prepared text in the outputs of `session.run`. */
  scoresOf(outputs: TensorMap, prepared: Tensor<'int32'>): Float32Array {
    return resultsOf(outputs[this.output]!, [prepared])[0]!.data;
  }

  /**
   * The `count` most probable classes by a text's scores, most probable first; ties are in the order of their indices.
   * @throws ResidualSkipError INVALID_ARGUMENT when the model's output holds no class scores
   */
  predict(scores: Float32Array, count: number): Prediction[] {
    return predictions(this, scores, count, this.model.files.problem);
  }
}
