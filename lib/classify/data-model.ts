/** What commands need from a network, whether it takes images or texts. */
import { join } from 'node:path';
import { soundsId } from '../data/arrays.js';
import { kindOf } from '../data/files.js';
import { findModel, type ModelFiles } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import { InferenceSession } from '../session/session.js';
import type { TensorMap } from '../skip/observer.js';
import { isVectorMetric } from '../skip/promise.js';
import { isFloat, isFloatType, isTensorLike, type Tensor, toFloat32 } from '../tensor/tensor.js';
import { answerOutput, firstOutput, type Prediction, predictions } from './class-scores.js';
import { Embedder } from './embedder.js';
import { FeedReader, type FeedSource, holdsArrays, isFeeds } from './feed-source.js';
import { ImageClassifier } from './image-classifier.js';
import { takesImages } from './image-input.js';
import { type ImageClassifierOptions, sessionPart } from './image-options.js';
import { type DataOptions, type Images, type Items, openItems } from './images.js';
import { notePreparation } from './policy-doubt.js';
import { architectureTask, type TaskOptions } from './task.js';
import { TextClassifier } from './text-classifier.js';
import { TextModel } from './text-model.js';
import { openTexts, type TextReader, type Texts } from './texts.js';
import type { Work } from './work.js';

/** Images for a network of images, texts for one of texts, or tensors by input for any. */
export type Data = Images | Texts | FeedSource;

/** A network with its preprocessing, which turns each item into one tensor. */
export interface DataModel {
  readonly what: 'image' | 'text' | 'feed';
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
  /** What the answers are, as the caller or the session's policy says. */
  readonly task: TaskOptions['task'];
  /** What the network was trained for, if config.json beside it says so. */
  readonly problem: string | undefined;
  /** The class of the network in Hugging Face's library, if config.json beside it says so. */
  readonly architecture: string | undefined;
  /** Set for a network of texts. */
  readonly reader: TextReader | undefined;
  /** Set for a network of images. */
  readonly images: ImageClassifier | undefined;
  /** A hash of all that decides which tensor an item becomes, as a policy keeps it; undefined where the caller prepares tensors. */
  readonly preparation: (() => string | Promise<string>) | undefined;
  /** Throws the errors of `openItems` or `openTexts`. */
  open(data: Data, options: DataOptions, labels?: 'data' | 'none'): Promise<Items<Tensor>>;
  /** Of tensors by input: the lengths of a prepared item, by the number of its elements. */
  readonly dimsOf?: (elements: number) => readonly number[];
  /** What `session.run` takes for one prepared item. */
  feeds(prepared: Tensor): TensorMap;
  /** The class scores, or the vector, of one prepared item in the outputs of `session.run`. */
  answerOf(outputs: TensorMap, prepared: Tensor): Float32Array;
  /** The most probable classes; none for a network without classes. */
  predict(answer: Float32Array, count: number): Prediction[];
}

/**
 * Loads a network: one of texts if `tokenizer.json` is beside it and no `preprocessor_config.json`, otherwise one of images; or, for data
 * that is given as tensors by input, one of anything. A network of texts has classes if config.json beside it has labels, or its output is
 * called logits, or by the caller's word, `task`. The policy is that of the options alone, not that of the model's folder: callers such
 * as `calibrate` run no policy.
 * @param data undefined for images or texts
 * @throws ResidualSkipError what ImageClassifier.from, TextClassifier.from or Embedder.from throws
 */
export async function openDataModel(
  path: string,
  options: ImageClassifierOptions,
  task?: TaskOptions['task'],
  data?: Sample,
): Promise<DataModel> {
  const files = await findModel(path);
  const { model: file, folder, preprocessor, problem, architecture } = files;
  const about = (session: InferenceSession) => ({
    task: task ?? promisedTask(session),
    problem,
    architecture,
  });
  const { labels: own } = options;
  const rest = sessionPart(options);
  const isText = !preprocessor && (await kindOf(join(folder, 'tokenizer.json'))) === 'file';
  if (!isText || data?.isFeeds) {
    const session = await InferenceSession.create(file, rest);
    if (data?.isFeeds || (data?.isTensor && !takesImages(session.inputMetadata, files.name)))
      return await ofFeeds(session, files, own, { ...about(session), onNote: options.onNote });
    const ofBoxes = task === 'detection' || architectureTask(architecture) === 'detection';
    const outputOf = ofBoxes ? firstOutput : answerOutput;
    return ofImages(await ImageClassifier.over(session, files, options, outputOf), about(session));
  }
  if (options.preprocessor) {
    throw new ResidualSkipError('INVALID_ARGUMENT', `options.preprocessor: ${path} is a network of texts`);
  }
  return TextModel.use(file, { ...rest, onNote: options.onNote }, async (model) =>
    hasClasses(model, (own ?? task) !== undefined)
      ? ofTexts(await TextClassifier.over(model, own), about(model.session))
      : ofVectors(await Embedder.over(model), about(model.session)),
  );
}

/** Answers that a policy promises as classes were said or proven to be classes when it was calibrated. */
function promisedTask({ policy: { promise } }: InferenceSession): TaskOptions['task'] {
  return promise && !isVectorMetric(promise.metric) ? 'single-label' : undefined;
}

/** What data of a source is like. */
export interface Sample {
  /** Tensors by input. */
  readonly isFeeds: boolean;
  /** A tensor, of an image say. */
  readonly isTensor: boolean;
}

/**
 * Looks at the first item of a source, which decides how the network is opened.
 * @returns the source as well, with that item
 */
export async function sampled(
  data: Data,
  work: Work,
): Promise<{ readonly data: Data; readonly sample: Sample }> {
  if (typeof data === 'string')
    return { data, sample: { isFeeds: await holdsArrays(data), isTensor: false } };
  const sampleOf = (first: unknown) => {
    const own = typeof first === 'object' && first !== null && 'image' in first ? first.image : first;
    return { isFeeds: !isTensorLike(own) && isFeeds(first), isTensor: isTensorLike(own) };
  };
  if (Array.isArray(data)) return { data, sample: sampleOf(data[0]) };
  const iterable = Object(data) as Partial<AsyncIterable<unknown> & Iterable<unknown>>;
  const iterator = iterable[Symbol.asyncIterator]?.() ?? iterable[Symbol.iterator]?.();
  // What is no source is refused when it is opened.
  if (!iterator) return { data, sample: sampleOf(undefined) };
  const first = await work.unlessAborted(Promise.resolve(iterator.next()));
  return { data: continued(iterator, first) as Data, sample: sampleOf(first.value) };
}

async function* continued(
  iterator: AsyncIterator<unknown> | Iterator<unknown>,
  first: IteratorResult<unknown>,
) {
  try {
    for (let next = first; !next.done; next = await iterator.next()) yield next.value;
  } finally {
    await iterator.return?.();
  }
}

function hasClasses({ files, session }: TextModel, labelled: boolean): boolean {
  const flat = session.outputMetadata.filter(({ shape }) => shape.length === 2).map(({ name }) => name);
  if (flat.includes('sentence_embedding')) return false;
  return flat.includes('logits') || (flat.length > 0 && (labelled || files.labels !== undefined));
}

type About = Pick<DataModel, 'task' | 'problem' | 'architecture'>;

function ofImages(images: ImageClassifier, about: About): DataModel {
  const { name, file, session, output, labels: known, labelsKnown } = images;
  const isRow = known.length > 0 && rowOf(session, output);
  const labels = isRow ? known : null;
  return {
    ...{ what: 'image', name, file, session, output, labels, labelsKnown, images, reader: undefined },
    ...about,
    preparation: () => images.preprocessor.id,
    // Names of folders are no labels of a network without classes.
    open: (data, options, from = isRow ? undefined : 'none') =>
      openItems(data as Images, images, options, from),
    feeds: (prepared) => images.feeds(prepared),
    answerOf: (outputs) => (isRow ? images.scoresOf(outputs, 1)[0]! : numbersOf(outputs[output]!)),
    predict: (answer, count) => (isRow ? images.predict(answer, count) : []),
  };
}

/** Whether an output is a row of scores for each item. */
function rowOf({ outputMetadata }: InferenceSession, output: string): boolean {
  const { type, shape } = outputMetadata.find(({ name }) => name === output)!;
  return (
    isFloatType(type) && shape.length >= 2 && shape[1] !== 1 && shape.slice(2).every((length) => length === 1)
  );
}

/** All numbers of an output. */
function numbersOf(output: Tensor): Float32Array {
  return isFloat(output) ? toFloat32(output).data : Float32Array.from(output.data, Number);
}

async function ofFeeds(
  session: InferenceSession,
  { name, model: file, labels: beside, sounds }: ModelFiles,
  own: readonly string[] | undefined,
  { onNote, ...about }: About & Pick<ImageClassifierOptions, 'onNote'>,
): Promise<DataModel> {
  const known = own ?? beside;
  const from = { labelsFrom: own ? 'options.labels' : 'config.json' };
  const { output, classes } = answerOutput(session.outputMetadata, known?.length, name, from);
  const labels =
    classes === undefined ? null : (known ?? Array.from({ length: classes }, (_, i) => String(i)));
  const reader = new FeedReader(session, labels, sounds);
  const preparation = sounds && (() => soundsId(sounds));
  await notePreparation(session.ownPolicy, { what: 'sounds', id: preparation, labels: known }, onNote);
  return {
    ...{ what: 'feed', name, file, session, output, labels, labelsKnown: known !== undefined },
    ...{ images: undefined, reader: undefined, preparation },
    ...about,
    open: (data, options, labelled) =>
      reader.open(data as FeedSource, options, (options.labelsFrom ?? labelled) !== 'none'),
    feeds: (prepared) => reader.feeds(prepared),
    dimsOf: (elements) => reader.dimsOf(elements),
    answerOf: (outputs) => numbersOf(outputs[output]!),
    predict: (answer, count) =>
      labels ? predictions({ name, session, output, labels }, answer, count, about.problem) : [],
  };
}

function ofTexts(texts: TextClassifier, about: About): DataModel {
  const { name, file, session, output, labelsKnown } = texts;
  // Labels beside a single number are no classes.
  const labels = rowOf(session, output) ? texts.labels : null;
  const reader: TextReader = { labels, prepare: (text) => texts.prepare(text) };
  return {
    ...{ what: 'text', name, file, session, output, labels, labelsKnown, images: undefined, reader },
    ...about,
    preparation: () => texts.preparation(),
    open: (data, options, from) => openTexts(data as Texts, reader, options, from),
    feeds: (prepared) => texts.feeds(prepared as Tensor<'int32'>),
    answerOf: (outputs, prepared) => texts.scoresOf(outputs, prepared as Tensor<'int32'>),
    predict: (answer, count) => (labels ? texts.predict(answer, count) : []),
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
    preparation: () => embedder.preparation(),
    open: (data, options, from) => openTexts(data as Texts, reader, options, from),
    feeds: (prepared) => embedder.feeds(prepared as Tensor<'int32'>),
    answerOf: (outputs, prepared) => embedder.vectorOf(outputs, prepared as Tensor<'int32'>),
    predict: () => [],
  };
}
