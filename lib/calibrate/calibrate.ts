/** Calibrates a model on images: `residual-skip calibrate` as a function. */
import { z } from 'zod';
import type { Backend } from '../backends/backend.js';
import { NativeBackend } from '../backends/native.js';
import { ReferenceBackend } from '../backends/reference.js';
import { ImageClassifier, type ImageClassifierOptions } from '../classify/image-classifier.js';
import {
  type DataOptions,
  dataShape,
  type Images,
  type Item,
  openItems,
  prepareItems,
} from '../classify/images.js';
import { Unusable } from '../classify/unusable.js';
import { Work, type WorkOptions, workShape } from '../classify/work.js';
import { encodeThumbnail } from '../data/image.js';
import { findModel } from '../data/model-files.js';
import { prefetch } from '../data/prefetch.js';
import { compileModel } from '../model/compile.js';
import { loadModel } from '../model/load.js';
import { bindFeeds, type Feeds } from '../session/feeds.js';
import { guardSchema } from '../skip/guards.js';
import type { SkipPolicy } from '../skip/policy.js';
import { METRICS } from '../skip/promise.js';
import type { Tensor } from '../tensor.js';
import { parsePart } from '../validation.js';
import { calibrateItems } from './calibrate-items.js';
import type { CalibrationItem, CalibrationOptions, FitImages } from './options.js';
import type { Calibration, Example } from './result.js';
import { ResumableBackend } from './resume.js';
import { contentHash } from './split.js';
import { recordUse } from './uses.js';

/** `labels`, `preprocessor`, `backend`, `isa` and `threads` are those of ImageClassifier.from. */
export interface CalibrateOptions
  extends Omit<CalibrationOptions, 'labels' | 'fit' | 'reference' | 'onProgress'>,
    Pick<ImageClassifierOptions, 'labels' | 'preprocessor' | 'backend' | 'isa' | 'threads'>,
    DataOptions,
    WorkOptions {
  /**
   * Further images that are used only to fit heads, such as the network's training images. Labels are not needed. Images that
   * can't be used are left out, with a note; so are those that are also among `images`.
   */
  readonly fit?: Images | undefined;
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
  ...workShape,
  maxDisagreement: number,
  limits: z.array(z.number()).optional(),
  maxGroupDisagreement: number,
  confidence: number,
  metric: z.enum(METRICS).optional(),
  perClass: z.boolean().optional(),
  budget: number,
  budgetMs: number,
  guards: z.array(guardSchema).optional(),
  seed: count(0),
  copies: count(0),
  settings: count(2),
  fit: z.custom<Images>().optional(),
  reference: z.string().min(1).optional(),
  state: z.string().min(1).optional(),
};

type Own = Pick<CalibrateOptions, keyof typeof ownShape & keyof CalibrateOptions>;

/** Default seed of the split. */
const SEED = 1;
/** Most bytes of prepared images to fit on that are kept; the others are prepared again each time they are needed. */
const MOST_KEPT = 2 ** 30;

/**
 * Makes a policy that skips blocks, with a certified limit on changed answers, for a frozen residual network with one image input
 * and one output of class scores; see docs/calibration.md. The network runs many times: on thousands of images this takes minutes.
 *
 * Each use of these images to certify a policy is recorded in a file of the user (below `$XDG_STATE_HOME/residual-skip`). If several
 * policies are certified on the same images and the best is chosen, its promise is void; `policy.promise.data.uses` is their number.
 * @param model ONNX file, or a folder with one
 * @param images a folder of images, a file that holds many, or an iterable of images or tensors. Labels are needed only for the
 * metric `accuracy`. The prepared images are kept in memory.
 * @returns the policy, for `JSON.stringify` into a file or the option `policy` of InferenceSession.create, and what was tested
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (images that can't be used, all named; too few of them; all answered
 * alike), INVALID_SHAPE, UNSUPPORTED_MODEL (nothing to skip), ABORTED (an AbortError), and what ImageClassifier.from throws
 */
export async function calibrate(
  model: string,
  images: Images,
  options: CalibrateOptions = {},
): Promise<Calibration> {
  const { own, rest } = parsePart(ownShape, options);
  const work = new Work('calibration', own);
  work.check();
  // This classifier only prepares images: the calibration runs the network on a backend of its own.
  const preparing = { ...rest, backend: 'reference' as const, maxPixels: own.maxPixels };
  const classifier = await ImageClassifier.from(model, preparing);
  try {
    const data = await readImages(classifier, images, own, work);
    const engine = engineOf(rest);
    try {
      const backend = own.state === undefined ? engine : await ResumableBackend.open(engine, own.state);
      const result = await calibrateOn(backend, classifier, data, own, work);
      return await withThumbnails(await counted(result, work), data.byHash);
    } finally {
      engine.release();
    }
  } finally {
    await classifier.release();
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
  /** One prepared image, for its shape. */
  readonly first: Tensor;
  readonly byHash: ReadonlyMap<string, Item>;
}

async function readImages(
  classifier: ImageClassifier,
  images: Images,
  options: Own,
  work: Work,
): Promise<CalibrationData> {
  const labels = options.metric === 'accuracy' ? 'data' : 'none';
  const { count, list } = await openItems(images, classifier, options, work, labels);
  const items: CalibrationItem[] = [];
  const byHash = new Map<string, Item>();
  const unusable = new Unusable();
  let first: Tensor | undefined;
  let read = 0;
  for await (const { item, tensor } of work.each(prepareItems<Item>(list, unusable))) {
    work.report('reading', ++read, count);
    if (!tensor) continue;
    first ??= tensor;
    const sha256 = contentHash(tensor.data);
    items.push({ input: tensor.data, sha256, label: item.label, groups: item.groups });
    byHash.set(sha256, item);
  }
  // A promise covers all of the data, so no image may be left out silently.
  unusable.check('repair them, or take them out of the data');
  unusable.checkSome(items.length);
  return { items, first: first!, byHash };
}

async function calibrateOn(
  backend: Backend,
  classifier: ImageClassifier,
  { items, first }: CalibrationData,
  options: Own,
  work: Work,
): Promise<Calibration> {
  const model = await loadModel(classifier.file);
  const feeds = classifier.feeds(first);
  const program = compileModel(model, bindFeeds(model, feeds).binding);
  const { fit: fitImages, reference, seed = SEED, onProgress: _, ...asked } = options;
  const unusable = new Unusable();
  const fit =
    fitImages === undefined ? undefined : await openFit(classifier, fitImages, options, work, unusable);
  try {
    return await calibrateItems(backend, program, model.sha256, items, {
      ...asked,
      seed,
      fit,
      reference: reference === undefined ? undefined : await openReference(reference, feeds),
      labels: classifier.labelsKnown ? classifier.labels : undefined,
      onProgress: (done, total) => work.report('calibrating', done, total),
    });
  } finally {
    const leftOut = unusable.describe();
    if (leftOut !== undefined) work.note(`of the images to fit on, ${leftOut}; they are left out`);
  }
}

async function openReference(path: string, feeds: Feeds) {
  const model = await loadModel((await findModel(path)).model);
  return { program: compileModel(model, bindFeeds(model, feeds).binding), sha256: model.sha256 };
}

async function openFit(
  classifier: ImageClassifier,
  images: Images,
  { maxPixels, maxBytes }: Own,
  work: Work,
  unusable: Unusable,
): Promise<FitImages> {
  const { list } = await openItems(images, classifier, { maxPixels, maxBytes, labelsFrom: 'none' }, work);
  const items: Item[] = [];
  for await (const item of work.each(prefetch<Item, Item>(list, async (each) => each))) items.push(item);
  /** Undefined for images that can't be used. */
  const kept = new Map<number, Float32Array | undefined>();
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

async function withThumbnails(result: Calibration, items: ReadonlyMap<string, Item>): Promise<Calibration> {
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
