/** 8-bit networks: `residual-skip quantize` as a function. See docs/quantization.md. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { type DataModel, openDataModel } from '../classify/data-model.js';
import type { ImageClassifierOptions } from '../classify/image-options.js';
import { type DataOptions, dataShape, type Images, type Item, prepareItems } from '../classify/images.js';
import { doubtOf } from '../classify/task.js';
import type { Texts } from '../classify/texts.js';
import { Unusable } from '../classify/unusable.js';
import { Work, type WorkOptions, workShape } from '../classify/work.js';
import { prefetch } from '../data/prefetch.js';
import { ResidualSkipError } from '../errors.js';
import { encodeModelProto } from '../model/read/proto.js';
import { generator, shuffle } from '../numeric/random.js';
import { InferenceSession } from '../session/session.js';
import type { Tensor } from '../tensor/tensor.js';
import { parsePart } from '../util/validation.js';
import { Comparing, type Comparison, divergence, probabilitiesOf } from './compare.js';
import { type Choices, Draft } from './draft.js';
import { readNetwork } from './network.js';
import { observe, shapesOf } from './observe.js';
import { layersOf } from './plan.js';
import { RANGES, type RangeMethod } from './range.js';
import { dropCasts, simplify } from './simplify.js';
import { streamsOf } from './streams.js';

/** `labels`, `preprocessor`, `backend`, `isa` and `threads` are those of ImageClassifier.from. */
export interface QuantizeOptions
  extends Pick<ImageClassifierOptions, 'labels' | 'preprocessor' | 'backend' | 'isa' | 'threads'>,
    Omit<DataOptions, 'labelsFrom' | 'groupsFrom'>,
    WorkOptions {
  /** Names of layers (nodes of the file) that stay in float, besides those that quantize itself leaves there. */
  readonly float?: readonly string[] | undefined;
  /** Seed of the choice of items for each purpose; 1 when left out. */
  readonly seed?: number | undefined;
}

/** What `quantize` returns. */
export interface Quantization extends Comparison {
  /** The ONNX file, in the form of QuantizeLinear and DequantizeLinear nodes. */
  readonly model: Uint8Array;
  /** Hex SHA-256 of `model`, and of the file that it was made from. */
  readonly sha256: string;
  readonly floatSha256: string;
  /** Sizes of both files; of the float one without external data. */
  readonly bytes: { readonly float: number; readonly int8: number };
  /** Number of layers with 8-bit weights, and names of those that stay in float. */
  readonly layers: { readonly int8: number; readonly float: readonly string[] };
  /** How the ranges of activations were chosen, and what else was found to lose less. */
  readonly range: RangeMethod;
  readonly biasCorrected: boolean;
  readonly equalised: boolean;
  /** Mean Kullback-Leibler divergence of the class probabilities, every block run, on the items that chose. */
  readonly loss: number;
  /** Images or texts that set ranges, and those that chose between candidates. */
  readonly images: { readonly ranges: number; readonly choice: number };
}

const ownShape = {
  maxPixels: dataShape().maxPixels,
  maxBytes: dataShape().maxBytes,
  ...workShape(),
  float: z.array(z.string()).optional(),
  seed: z.int({ error: 'expected a whole number of at least 0' }).min(0).optional(),
};
type Own = Pick<QuantizeOptions, keyof typeof ownShape & keyof QuantizeOptions>;

const SEED = 1;
/** Shares of the items that set ranges, and that choose; the others are only compared. */
const SHARE = 0.25;
const MOST = { ranges: 512, choice: 512, compared: 2000 };
const MIN_ITEMS = 20;
/**
 * Layers that are tried in float, and the factor by which the loss must fall. The last one costs little. The first one reads and writes large
 * maps: an 8-bit ResNet-18 takes up to half as long again with it.
 */
const IN_FLOAT = [
  { layer: -1, worth: 0.9 },
  { layer: 0, worth: 0.5 },
];

/**
 * Makes an 8-bit network of a float one by images or texts alone: weights as int8 with a scale for each output channel, activations as
 * uint8, biases as int32. Gates and exits decide in float.
 * @param model ONNX file (opset 13 or later), or a folder with one
 * @param data as for `calibrate`; labels aren't used. A few hundred items are enough
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (items that can't be used, or too few), UNSUPPORTED_MODEL (nothing to
 * quantise, quantised already, an older opset, no classes), ABORTED, and what ImageClassifier.from or TextClassifier.from throws
 */
export async function quantize(
  model: string,
  data: Images | Texts,
  options: QuantizeOptions = {},
): Promise<Quantization> {
  return quantizeItems(
    model,
    async (opened, limits) => (await opened.open(data, limits, 'none')).list,
    options,
  );
}

type Listed = Iterable<Item<Tensor>> | AsyncIterable<Item<Tensor>>;
type Limits = Pick<DataOptions, 'maxPixels' | 'maxBytes'>;

/** The same, with items that may be prepared already. */
export async function quantizeItems(
  model: string,
  itemsOf: (opened: DataModel, limits: Limits) => Promise<Listed>,
  options: QuantizeOptions,
): Promise<Quantization> {
  const { own, rest } = parsePart(ownShape, options);
  const work = new Work('quantization', own);
  work.check();
  // Each network decides by its own gates: a policy of the folder is for the float file alone.
  const asked = { ...rest, policy: 'model', maxPixels: own.maxPixels, onNote: work.note };
  const opened = await openDataModel(model, asked);
  try {
    if (!opened.labels) {
      throw new ResidualSkipError(
        'UNSUPPORTED_MODEL',
        `model ${opened.name}: its answers are no classes, by whose probabilities 8-bit networks are chosen`,
      );
    }
    const list = await itemsOf(opened, { maxPixels: own.maxPixels, maxBytes: own.maxBytes });
    return await quantizeWith(opened, list, own, rest, work);
  } finally {
    await opened.session.release();
  }
}

async function quantizeWith(
  opened: DataModel,
  list: Listed,
  own: Own,
  { backend, isa, threads }: Omit<QuantizeOptions, keyof Own>,
  work: Work,
): Promise<Quantization> {
  const engine = { backend, isa, threads };
  const { network, bytes } = await readNetwork(opened.file);
  simplify(network);
  const parts = await partsOf(opened, list, own, work);
  // The longest of texts: what is one token long says little about axes.
  const first = parts.ranges.reduce((most, item) => (item.size > most.size ? item : most));
  const feeds = opened.feeds(first);
  const shapes = await shapesOf(network, feeds, engine);
  dropCasts(network, shapes);
  const streams = await streamsOf(opened.file, feeds);
  const draft = new Draft(network, shapes, streams, own.float ?? [], (variant, axes) =>
    observe(variant, axes, { opened, engine, items: parts.ranges, work }),
  );
  const expected = await probabilitiesOf(opened, opened.session, parts.choice, work);
  const build = async (choices: Choices): Promise<Candidate> => {
    const model = encodeModelProto(await draft.build(choices));
    const session = await InferenceSession.create(model, engine);
    try {
      const found = await probabilitiesOf(opened, session, parts.choice, work);
      return { choices, model, loss: divergence(expected, found) };
    } finally {
      await session.release();
    }
  };
  const { choices, model, loss } = await choose(build, draft.pairs > 0, work);
  const { layers } = draft.plan(choices.inFloat);
  const session = await InferenceSession.create(model, engine);
  const compared = await compare(opened, session, parts, work).finally(() => session.release());
  const inPlan = new Set(layers.map(({ node }) => node));
  return {
    model,
    sha256: createHash('sha256').update(model).digest('hex'),
    floatSha256: await opened.session.sha256(),
    bytes: { float: bytes, int8: model.byteLength },
    layers: {
      int8: layers.length,
      float: layersOf(network).flatMap(({ node }) =>
        inPlan.has(node) ? [] : [node.name || node.output![0]!],
      ),
    },
    range: choices.range,
    biasCorrected: choices.biasCorrected,
    equalised: choices.equalised,
    loss,
    images: { ranges: parts.ranges.length, choice: parts.choice.length },
    ...compared,
  };
}

/** Both networks on items that chose nothing. */
async function compare(
  opened: DataModel,
  session: InferenceSession,
  { compared, unusable: before }: Parts,
  work: Work,
): Promise<Comparison> {
  const comparing = new Comparing(opened, session);
  const unusable = new Unusable([...before], opened.what);
  let done = 0;
  for await (const { tensor } of work.each(prepareItems(compared, unusable))) {
    if (tensor) comparing.add(tensor);
    work.report('comparing', ++done, compared.length);
  }
  const doubt = doubtOf({ ...opened, labels: opened.labels! }, opened.session.context.classScores, false);
  if (doubt)
    work.note(`an answer is the position of the largest score, which need be no class: ${doubt.reason}`);
  const leftOut = unusable.describe();
  if (leftOut !== undefined) work.note(`${leftOut}; they are left out`);
  return comparing.result();
}

interface Candidate {
  readonly choices: Choices;
  readonly model: Uint8Array;
  readonly loss: number;
}

/** The candidate that loses least; one choice after the other, from the choices that are usually best. */
async function choose(
  build: (choices: Choices) => Promise<Candidate>,
  canEqualise: boolean,
  work: Work,
): Promise<Candidate> {
  const changes: { readonly change: (from: Choices) => Partial<Choices>; readonly worth: number }[] = [
    ...RANGES.slice(1).map((range) => ({ change: () => ({ range }), worth: 1 })),
    { change: () => ({ biasCorrected: false }), worth: 1 },
    ...(canEqualise ? [{ change: () => ({ equalised: true }), worth: 1 }] : []),
    ...IN_FLOAT.map(({ layer, worth }) => ({
      change: ({ inFloat }: Choices) => ({ inFloat: [...inFloat, layer] }),
      worth,
    })),
  ];
  work.report('choosing', 0, changes.length + 1);
  let best = await build({ range: RANGES[0], biasCorrected: true, equalised: false, inFloat: [] });
  for (const [i, { change, worth }] of changes.entries()) {
    work.report('choosing', i + 1, changes.length + 1);
    const other = await build({ ...best.choices, ...change(best.choices) });
    if (other.loss < worth * best.loss) best = other;
  }
  work.report('choosing', changes.length + 1, changes.length + 1);
  return best;
}

interface Parts {
  readonly ranges: readonly Tensor[];
  readonly choice: readonly Tensor[];
  readonly compared: readonly Item<Tensor>[];
  readonly unusable: Unusable['problems'];
}

/** Divides the items by chance; only those that are compared are not kept in memory. */
async function partsOf({ what }: DataModel, list: Listed, { seed = SEED }: Own, work: Work): Promise<Parts> {
  const items: Item<Tensor>[] = [];
  for await (const item of work.each(prefetch<Item<Tensor>, Item<Tensor>>(list, async (each) => each)))
    items.push(item);
  if (items.length < MIN_ITEMS) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `${what}s: there are ${items.length}; quantize needs ${MIN_ITEMS} at least, and a few hundred to choose well`,
    );
  }
  const order = [...items.keys()];
  shuffle(order, generator(seed));
  const shuffled = order.map((i) => items[i]!);
  const size = (most: number) => Math.min(most, Math.ceil(SHARE * items.length));
  const [ranges, choice] = [size(MOST.ranges), size(MOST.choice)];
  const unusable = new Unusable([], what);
  const prepared: Tensor[] = [];
  for await (const { tensor } of work.each(prepareItems(shuffled.slice(0, ranges + choice), unusable))) {
    work.report('reading', prepared.length, ranges + choice);
    if (tensor) prepared.push(tensor);
  }
  if (prepared.length < MIN_ITEMS / 2) unusable.check(`too few ${what}s are left`);
  const middle = Math.ceil(prepared.length / 2);
  return {
    ranges: prepared.slice(0, middle),
    choice: prepared.slice(middle),
    compared: shuffled.slice(ranges + choice, ranges + choice + MOST.compared),
    unusable: unusable.problems,
  };
}
