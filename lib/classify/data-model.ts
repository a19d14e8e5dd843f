/** What commands need from a network, whether it takes images or texts. */
import { join } from 'node:path';
import { kindOf } from '../data/files.js';
import { findModel } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import type { InferenceSession } from '../session/session.js';
import type { TensorMap } from '../skip/observer.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Prediction, TaskOptions } from './class-scores.js';
import { Embedder } from './embedder.js';
import { ImageClassifier, type ImageClassifierOptions } from './image-classifier.js';
import { type DataOptions, type Images, type Items, openItems } from './images.js';
import { TextClassifier } from './text-classifier.js';
import { TextModel } from './text-model.js';
import { openTexts, type TextReader, type Texts } from './texts.js';
import type { Work } from './work.js';

/** Images for a network of images, texts for one of texts. */
export type Data = Images | Texts;

/** A network with its preprocessing, which turns each item into one tensor. */
export interface DataModel {
  readonly what: 'image' | 'text';
  readonly name: string;
  /** The ONNX file. */
  readonly file: string;
  readonly session: InferenceSession;
  /** Name of the output with the answer. */
  readonly output: string;
  /** Null for a network without classes: its answers are vectors. */
  readonly labels: readonly string[] | null;
  /** False if the labels are only the class indices. */
  readonly labelsKnown: boolean;
  /** What the caller says of the answers. */
  readonly task: TaskOptions['task'];
  /** What the network was trained for, if config.json beside it says so. */
  readonly problem: string | undefined;
  /** Set for a network of texts. */
  readonly reader: TextReader | undefined;
  /** Set for a network of images. */
  readonly images: ImageClassifier | undefined;
  /** Throws the errors of `openItems` or `openTexts`. */
  open(data: Data, options: DataOptions, work: Work, labels?: 'data' | 'none'): Promise<Items<Tensor>>;
  /** What `session.run` takes for one prepared item. */
  feeds(prepared: Tensor): TensorMap;
  /** The class scores, or the vector, of one prepared item in the outputs of `session.run`. */
  answerOf(outputs: TensorMap, prepared: Tensor): Float32Array;
  /** The most probable classes; none for a network without classes. */
  predict(answer: Float32Array, count: number): Prediction[];
}

/**
 * Loads a network: one of texts if `tokenizer.json` is beside it and no `preprocessor_config.json`, otherwise one of images. A network
 * of texts has classes if config.json beside it has labels, or its output is called logits, or by the caller's word, `task`.
 * The policy is that of the options alone, not that of the model's folder: callers such as `calibrate` run no policy.
 * @throws ResidualSkipError what ImageClassifier.from, TextClassifier.from or Embedder.from throws
 */
export async function openDataModel(
  path: string,
  options: ImageClassifierOptions,
  task?: TaskOptions['task'],
): Promise<DataModel> {
  const { model: file, folder, preprocessor, problem } = await findModel(path);
  const about = { task, problem };
  const isText = !preprocessor && (await kindOf(join(folder, 'tokenizer.json'))) === 'file';
  if (!isText) return ofImages(await ImageClassifier.from(file, options), about);
  const { preprocessor: _, maxPixels: __, labels: own, ...rest } = options;
  if (options.preprocessor) {
    throw new ResidualSkipError('INVALID_ARGUMENT', `options.preprocessor: ${path} is a network of texts`);
  }
  return TextModel.use(file, rest, async (model) =>
    hasClasses(model, (own ?? task) !== undefined)
      ? ofTexts(TextClassifier.over(model, own), about)
      : ofVectors(await Embedder.over(model), about),
  );
}

function hasClasses({ files, session }: TextModel, labelled: boolean): boolean {
  const flat = session.outputMetadata.filter(({ shape }) => shape.length === 2).map(({ name }) => name);
  if (flat.includes('sentence_embedding')) return false;
  return flat.includes('logits') || (flat.length > 0 && (labelled || files.labels !== undefined));
}

type About = Pick<DataModel, 'task' | 'problem'>;

function ofImages(images: ImageClassifier, about: About): DataModel {
  const { name, file, session, output, labels, labelsKnown } = images;
  return {
    ...{ what: 'image', name, file, session, output, labels, labelsKnown, images, reader: undefined },
    ...about,
    open: (data, options, work, from) => openItems(data as Images, images, options, work, from),
    feeds: (prepared) => images.feeds(prepared),
    answerOf: (outputs) => images.scoresOf(outputs, 1)[0]!,
    predict: (answer, count) => images.predict(answer, count),
  };
}

function ofTexts(texts: TextClassifier, about: About): DataModel {
  const { name, file, session, output, labels, labelsKnown } = texts;
  return {
    ...{ what: 'text', name, file, session, output, labels, labelsKnown, images: undefined, reader: texts },
    ...about,
    open: (data, options, _, from) => openTexts(data as Texts, texts, options, from),
    feeds: (prepared) => texts.feeds(prepared as Tensor<'int32'>),
    answerOf: (outputs, prepared) => texts.scoresOf(outputs, prepared as Tensor<'int32'>),
    predict: (answer, count) => texts.predict(answer, count),
  };
}

function ofVectors(embedder: Embedder, about: About): DataModel {
  const { name, file, session, output } = embedder;
  const reader: TextReader = { labels: null, prepare: (text) => embedder.prepare(text) };
  return {
    ...{
      what: 'text',
      name,
      file,
      session,
      output,
      labels: null,
      labelsKnown: false,
      images: undefined,
      reader,
    },
    ...about,
    open: (data, options, _, from) => openTexts(data as Texts, reader, options, from),
    feeds: (prepared) => embedder.feeds(prepared as Tensor<'int32'>),
    answerOf: (outputs, prepared) => embedder.vectorOf(outputs, prepared as Tensor<'int32'>),
    predict: () => [],
  };
}
