/** Calibrates a model on images: `residual-skip calibrate` as a function. */
import { z } from 'zod';
import type { Backend } from '../backends/backend.js';
import { NativeBackend } from '../backends/native.js';
import { ReferenceBackend } from '../backends/reference.js';
import { type TaskOptions, taskShape } from '../classify/class-scores.js';
import { type Data, type DataModel, openDataModel } from '../classify/data-model.js';
import type { ImageClassifierOptions } from '../classify/image-classifier.js';
import { type DataOptions, dataShape, type Item, prepareItems } from '../classify/images.js';
import { Unusable } from '../classify/unusable.js';
import { Work, type WorkOptions, workShape } from '../classify/work.js';
import { encodeThumbnail } from '../data/image.js';
import { findModel } from '../data/model-files.js';
import { prefetch } from '../data/prefetch.js';
import { LengthSeries } from '../model/length-series.js';
import { loadModel } from '../model/load.js';
import type { Program } from '../model/program/program.js';
import type { Model } from '../model/read/model.js';
import { bindFeeds } from '../session/feeds.js';
import { guardSchema } from '../skip/guards.js';
import type { SkipPolicy } from '../skip/policy.js';
import { isVectorMetric, type Metric, metricSchema } from '../skip/promise.js';
import { Tensor, type TensorData } from '../tensor/tensor.js';
import { parsePart } from '../util/validation.js';
import { calibrateItems } from './calibrate-items.js';
import { calibrateVectors, type VectorOf } from './calibrate-vectors.js';
import { checkClasses } from './checks.js';
import type { CalibrationItem, CalibrationOptions, FitImages } from './options.js';
import { Programs } from './programs.js';
import type { Calibration, Example } from './result.js';
import { ResumableBackend } from './resume.js';
import { contentHash } from './split.js';
import { recordUse } from './uses.js';

/** `labels`, `preprocessor`, `backend`, `isa` and `threads` are those of ImageClassifier.from. */
export interface CalibrateOptions
  extends Omit<CalibrationOptions, 'labels' | 'fit' | 'reference' | 'onProgress'>,
    Pick<ImageClassifierOptions, 'labels' | 'preprocessor' | 'backend' | 'isa' | 'threads'>,
    DataOptions,
    TaskOptions,
    WorkOptions {
  /**
   * Further images or texts that are used only to fit heads, such as those that the network was trained on. Labels are not needed. If the
   * model has exits of its own, these order the settings instead, and all of the data certifies. What can't be used is left out,
   * with a note; so is what is also among the data.
   */
  readonly fit?: Data | undefined;
  /**
   * ONNX file, or a folder with one, of the network whose answers are promised: for an 8-bit network the float one that it was made
   * from. When left out, the answers are those of the model itself with every block run.
   */
  readonly reference?: string | undefined;
  /**
   * Folder for intermediate results, created if it doesn't exist. If a calibration is killed, the next call with the same
   * arguments resumes from them.
   */
  readonly state?: string | undefined;
}

const number = z.number().optional();
const count = (least: number) =>
  z
    .int({ error: `expected a whole number of at least ${least}` })
    .min(least)
    .optional();

const ownShape = {
  ...dataShape,
  ...taskShape,
  ...workShape,
  maxDisagreement: number,
  limits: z.array(z.number()).optional(),
  maxGroupDisagreement: number,
  confidence: number,
  metric: metricSchema.optional(),
  perClass: z.boolean().optional(),
  budget: number,
  budgetMs: number,
  guards: z.array(guardSchema).optional(),
  seed: count(0),
  copies: count(0),
  settings: count(2),
  fit: z.custom<Data>().optional(),
  reference: z.string().min(1).optional(),
  state: z.string().min(1).optional(),
};

type Own = Pick<CalibrateOptions, keyof typeof ownShape & keyof CalibrateOptions>;

/** Default seed of the split. */
const SEED = 1;
/** Most bytes of prepared images to fit on that are kept; the others are prepared again each time they are needed. */
const MOST_KEPT = 2 ** 30;

/**
 * Makes a policy that skips blocks, with a certified limit on changed answers, for a frozen residual network of images or texts;
 * see docs/calibration.md. Its answer is one output of class scores or, for the metrics `cosine`, `relative` and `recall@k`, a vector.
 * The network runs many times: on thousands of items this takes minutes.
 *
 * Each use of these items to certify a policy is recorded in a file of the user (below `$XDG_STATE_HOME/residual-skip`). If several
 * policies are certified on the same items and the best is chosen, its promise is void; `policy.promise.data.uses` is their number.
 * @param model ONNX file, or a folder with one; a network of texts has `tokenizer.json` beside it
 * @param data a folder of images, a file that holds many, or an iterable of images or tensors; or a file of texts, or an iterable of
 * them. Labels are needed only for the metric `accuracy`. The prepared items are kept in memory.
 * @returns the policy, for `JSON.stringify` into a file or the option `policy` of InferenceSession.create, and what was tested
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (images that can't be used, all named; too few of them; all answered
 * alike), INVALID_SHAPE, UNSUPPORTED_MODEL (nothing to skip), ABORTED (an AbortError), and what ImageClassifier.from,
 * TextClassifier.from or Embedder.from throws
 */
export async function calibrate(
  model: string,
  data: Data,
  options: CalibrateOptions = {},
): Promise<Calibration> {
  const { own, rest } = parsePart(ownShape, options);
  const work = new Work('calibration', own);
  work.check();
  // This session only prepares items: the calibration runs the network on a backend of its own.
  const preparing = { ...rest, backend: 'reference' as const, maxPixels: own.maxPixels };
  const opened = await openDataModel(model, preparing, own.task);
  try {
    const loaded = await loadModel(opened.file);
    const asked = { ...own, metric: own.metric ?? (opened.labels ? 'disagreement' : 'cosine') };
    const read = await readItems(opened, data, asked, work, (first, labelled) => {
      if (isVectorMetric(asked.metric)) return;
      checkClasses(asked.metric, opened, programsOf(loaded, opened, first).main, labelled);
    });
    const engine = engineOf(rest);
    try {
      const backend = own.state === undefined ? engine : await ResumableBackend.open(engine, own.state);
      const result = await calibrateOn(backend, loaded, opened, read, asked, work);
      return await withThumbnails(await counted(result, work), read.byHash);
    } finally {
      engine.release();
    }
  } finally {
    await opened.session.release();
  }
}

function engineOf({
  backend = 'native',
  isa,
  threads,
}: Pick<CalibrateOptions, 'backend' | 'isa' | 'threads'>) {
  return backend === 'reference' ? new ReferenceBackend() : new NativeBackend({ isa, threads });
}

interface CalibrationData {
  readonly items: readonly CalibrationItem[];
  /** The prepared items in the order of their size. */
  readonly bySize: readonly Tensor[];
  readonly byHash: ReadonlyMap<string, Item<Tensor>>;
}

/** @param check called with the first item that can be used, before the others are read */
async function readItems(
  opened: DataModel,
  data: Data,
  options: Own,
  work: Work,
  check: (first: Tensor, labelled: boolean) => void,
): Promise<CalibrationData> {
  const labels = options.metric === 'accuracy' ? 'data' : 'none';
  const { count, list } = await opened.open(data, options, work, labels);
  const items: CalibrationItem[] = [];
  const byHash = new Map<string, Item<Tensor>>();
  const unusable = new Unusable([], opened.what);
  const tensors: Tensor[] = [];
  let read = 0;
  for await (const { item, tensor } of work.each(prepareItems<Item<Tensor>>(list, unusable))) {
    work.report('reading', ++read, count);
    if (!tensor) continue;
    if (tensors.push(tensor) === 1) check(tensor, item.label !== undefined);
    const sha256 = contentHash(tensor.data);
    items.push({ input: tensor.data, sha256, label: item.label, groups: item.groups });
    byHash.set(sha256, item);
  }
  // A promise covers all of the data, so no image may be left out silently.
  unusable.check('repair them, or take them out of the data');
  unusable.checkSome(items.length);
  return { items, bySize: tensors.sort((a, b) => a.size - b.size), byHash };
}

async function calibrateOn(
  backend: Backend,
  model: Model,
  opened: DataModel,
  { items, bySize }: CalibrationData,
  options: Own & { readonly metric: Metric },
  work: Work,
): Promise<Calibration> {
  const typical = bySize[bySize.length >> 1]!;
  const programs = programsOf(model, opened, typical);
  const { fit: fitData, reference, seed = SEED, metric, ...asked } = options;
  const onProgress = (done: number, total: number) => work.report('calibrating', done, total);
  if (isVectorMetric(metric)) {
    const vectorOf = vectorsOf(opened, programs.main, typical);
    const forClasses = { fit: fitData, reference } as object;
    const all = { ...asked, ...forClasses, metric, seed, onProgress };
    return calibrateVectors(backend, programs, model.sha256, items, vectorOf, all);
  }
  const unusable = new Unusable([], opened.what);
  const fit = fitData === undefined ? undefined : await openFit(opened, fitData, options, work, unusable);
  try {
    return await calibrateItems(backend, programs, model.sha256, items, {
      ...{ ...asked, metric, seed, fit, onProgress },
      reference: reference === undefined ? undefined : await openReference(reference, opened, typical),
      labels: (opened.labelsKnown && opened.labels) || undefined,
    });
  } finally {
    const leftOut = unusable.describe();
    if (leftOut !== undefined) work.note(`of the ${opened.what}s to fit on, ${leftOut}; they are left out`);
  }
}

async function openReference(path: string, opened: DataModel, typical: Tensor) {
  const model = await loadModel((await findModel(path)).model);
  return { program: programsOf(model, opened, typical), sha256: model.sha256 };
}

/** The network at the shapes of the items: texts of each length have a program of their own. */
function programsOf(model: Model, opened: DataModel, typical: Tensor): Programs {
  const series = new LengthSeries(model);
  const compiled = (tensor: Tensor) => series.program(bindFeeds(model, opened.feeds(tensor)).binding);
  const main = compiled(typical);
  if (opened.what === 'image') return new Programs(main);
  return new Programs(main, {
    programFor: (input) => (input.length === typical.size ? main : compiled(preparedOf(input, typical))),
    inputsOf: (input) => {
      const feeds = opened.feeds(preparedOf(input, typical));
      return main.inputs.map(({ name }) => feeds[name]!.data);
    },
  });
}

/** The prepared item with these elements; a text may have another length than `typical`. */
function preparedOf(input: TensorData, { type, dims }: Tensor): Tensor {
  const shape = dims.length === 2 ? [dims[0]!, input.length / dims[0]!] : dims;
  return new Tensor(type, input as never, shape) as Tensor;
}

/** Reads an item's vector: of an image all elements of the output, of a text the pooled ones. */
function vectorsOf(opened: DataModel, { outputs }: Program, typical: Tensor): VectorOf {
  const index = outputs.findIndex(({ name }) => name === opened.output);
  return ({ outputs: found }, input) => {
    const data = found[index]!;
    if (opened.what === 'image') return data;
    const prepared = preparedOf(input, typical);
    // Vectors of tokens, or of the text.
    const tokens = prepared.dims[1]!;
    const pooled =
      opened.session.outputMetadata.find(({ name }) => name === opened.output)!.shape.length === 2;
    const dims = pooled ? [1, data.length] : [1, tokens, data.length / tokens];
    return opened.answerOf({ [opened.output]: new Tensor('float32', data, dims) }, prepared);
  };
}

async function openFit(
  opened: DataModel,
  data: Data,
  { maxPixels, maxBytes }: Own,
  work: Work,
  unusable: Unusable,
): Promise<FitImages> {
  const { list } = await opened.open(data, { maxPixels, maxBytes, labelsFrom: 'none' }, work);
  const items: Item<Tensor>[] = [];
  for await (const item of work.each(prefetch<Item<Tensor>, Item<Tensor>>(list, async (each) => each))) {
    items.push(item);
  }
  /** Undefined for items that can't be used. */
  const kept = new Map<number, TensorData | undefined>();
  let bytes = 0;
  return {
    count: items.length,
    load: async (index) => {
      if (kept.has(index)) return kept.get(index);
      const tensor = await items[index]!.prepare().catch((error: unknown) => unusable.note(error));
      const size = tensor?.data.byteLength ?? 0;
      if (bytes + size <= MOST_KEPT) {
        bytes += size;
        kept.set(index, tensor?.data);
      }
      return tensor?.data;
    },
  };
}

/** Adds to each promise the number of policies that these images have certified. */
async function counted(result: Calibration, work: Work): Promise<Calibration> {
  const { policy, certifiedOn } = result;
  try {
    const uses = await recordUse(policy, certifiedOn);
    const used = (one: SkipPolicy): SkipPolicy => {
      const promise = one.promise!;
      return { ...one, promise: { ...promise, data: { ...promise.data, uses } } };
    };
    const { settings } = policy;
    return { ...result, policy: { ...used(policy), ...(settings && { settings: settings.map(used) }) } };
  } catch (error) {
    work.note(`how often these images have certified isn't counted: ${(error as Error).message}`);
    return result;
  }
}

async function withThumbnails(
  result: Calibration,
  items: ReadonlyMap<string, Item<Tensor>>,
): Promise<Calibration> {
  const drawn = async (example: Example): Promise<Example> => {
    try {
      const image = await items.get(example.sha256)?.load?.();
      return image ? { ...example, thumbnail: await encodeThumbnail(image) } : example;
    } catch {
      // sharp or the file may be missing by now; the result is valid without pictures.
      return example;
    }
  };
  const { most, least } = result.examples;
  const examples = {
    most: await Promise.all(most.map(drawn)),
    least: await Promise.all(least.map(drawn)),
  };
  return { ...result, examples };
}
