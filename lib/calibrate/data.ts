/** Reads the items of a calibration, and prepares them for the network. */
import type { Data, DataModel } from '../classify/data-model.js';
import { type Item, type Items, prepareItems } from '../classify/images.js';
import { Unusable } from '../classify/unusable.js';
import type { Work } from '../classify/work.js';
import { takeEvenly } from '../data/dataset.js';
import { findModel } from '../data/model-files.js';
import { prefetch } from '../data/prefetch.js';
import { LengthSeries } from '../model/length-series.js';
import { loadModel } from '../model/load.js';
import type { Program } from '../model/program/program.js';
import type { Binding, Model } from '../model/read/model.js';
import { sizeOf } from '../numeric/shapes.js';
import { bindFeeds } from '../session/feeds.js';
import { joining, type LoadedFront } from '../session/fronts.js';
import type { Tail } from '../session/tail.js';
import { answerOf, readerOf } from '../skip/losses.js';
import type { TensorMap } from '../skip/observer.js';
import { type Part, partOf, partsTogether } from '../skip/parts.js';
import { isOfLabels, isOfNumbers, type Metric } from '../skip/promise.js';
import { type CustomLoss, checkedLoss } from '../skip/run-loss.js';
import { meaningOf } from '../skip/scores.js';
import { allocate, Tensor, type TensorData } from '../tensor/tensor.js';
import { atOnce, type Sliced } from '../util/slices.js';
import type { Promisable } from './checks.js';
import type {
  CalibrateOptions,
  CalibrationItem,
  CalibrationOptions,
  FitImages,
  VectorOf,
} from './options.js';
import { Programs } from './run/evaluator.js';
import { contentHash, dryRunItems } from './split.js';

/** Most bytes of prepared images to fit on that are kept; the others are prepared again each time they are needed. */
const MAX_KEPT = 2 ** 30;

/** Confidence of a dry run: the true loss of what it chooses is as likely above the limit as below. */
export const ESTIMATED = 0.5;

export interface CalibrationData {
  readonly items: readonly CalibrationItem[];
  /** The prepared item of median size: it stands for all. */
  readonly typical: Tensor;
  readonly byHash: ReadonlyMap<string, Item<Tensor>>;
}

/** As many items of a source: spread evenly over it where they are known, otherwise the first. */
function someOf({ count, list }: Items<Tensor>, most: number): Items<Tensor> {
  if (Array.isArray(list)) {
    const chosen = takeEvenly(list as readonly Item<Tensor>[], most);
    return { count: chosen.length, list: chosen };
  }
  async function* first() {
    let taken = 0;
    for await (const item of list) {
      yield item;
      if (++taken === most) return;
    }
  }
  return { count: count === null ? null : Math.min(count, most), list: first() };
}

/** @param check called with the first item that can be used, before the others are read */
export async function readItems(
  opened: DataModel,
  data: Data,
  options: CalibrateOptions,
  work: Work,
  check: (first: Tensor, labelled: boolean) => void,
): Promise<CalibrationData> {
  const labels = options.metric === 'accuracy' ? 'data' : 'none';
  const source = await opened.open(data, options, work, labels);
  const { count, list } = options.dryRun ? someOf(source, dryRunItems(options, ESTIMATED)) : source;
  const items: CalibrationItem[] = [];
  const byHash = new Map<string, Item<Tensor>>();
  const unusable = new Unusable([], opened.what);
  const tensors: Tensor[] = [];
  let read = 0;
  for await (const { item, tensor } of work.each(prepareItems<Item<Tensor>>(list, unusable))) {
    work.report('reading', ++read, count);
    if (!tensor) continue;
    if (tensors.push(tensor) === 1) check(tensor, item.label !== undefined);
    const sha256 = hashOf(opened, tensor);
    items.push({ input: tensor.data, sha256, label: item.label, groups: item.groups });
    byHash.set(sha256, item);
  }
  // A promise covers all of the data, so no image may be left out silently.
  unusable.check('repair them, or take them out of the data');
  unusable.checkSome(items.length);
  tensors.sort((a, b) => a.size - b.size);
  return { items, typical: tensors[tensors.length >> 1]!, byHash };
}

/** Of a prepared item: of tensors by input, all of them count. */
function hashOf(opened: DataModel, prepared: Tensor): string {
  if (opened.what !== 'feed') return contentHash(prepared.data);
  return contentHash(...Object.values(opened.feeds(prepared)).map(({ data }) => data));
}

/**
 * Options of a calibration on the items: opens the original, and the images to fit on.
 * @param unusable what of these images can't be used
 */
export async function itemOptions(
  opened: DataModel,
  { typical, byHash }: Pick<CalibrationData, 'typical' | 'byHash'>,
  { fit, original, state: _, loss, ...options }: CalibrateOptions,
  { metric, indices, byBlocks, ...about }: Promisable,
  programs: Programs,
  work: Work,
  unusable: Unusable,
  staged?: Staged,
): Promise<CalibrationOptions> {
  const asked = {
    ...{ ...options, metric, about: Object.keys(about).length > 0 ? about : undefined },
    fit: fit === undefined ? undefined : await openFit(opened, fit, options, work, unusable),
    // Nothing says that tensors are images, which may be shifted and mirrored.
    ...(opened.what === 'feed' && { copies: 0 }),
    onProgress: (done: number, total: number) => work.report('calibrating', done, total),
  };
  const labels = (opened.labelsKnown && opened.labels) || undefined;
  if (byBlocks) {
    const promised = { metric, indices, boxes: about.boxes };
    return {
      ...{ ...asked, labels: isOfLabels(metric) ? labels : undefined, pools: poolsVectors(opened, metric) },
      vectorOf: staged
        ? stagedReading(opened, programs, typical, promised, staged)
        : readingOf(opened, programs, typical, promised),
      lossOf: loss ? customLoss(loss, opened, programs, typical, indices, byHash) : ownLossOf(metric),
    };
  }
  return {
    ...{ ...asked, labels },
    original: original === undefined ? undefined : await openOriginal(original, opened, typical),
  };
}

/** `accuracy` needs labels. */
function ownLossOf(metric: Metric): CalibrationOptions['lossOf'] {
  if (metric !== 'accuracy') return undefined;
  return (skipping, full, { label }) =>
    Number(answerOf(full) === label) - Number(answerOf(skipping) === label);
}

async function openOriginal(path: string, opened: DataModel, typical: Tensor) {
  const model = await loadModel((await findModel(path)).model);
  return { program: programsOf(model, opened, typical), sha256: model.sha256 };
}

/** The network, behind its fronts, at the shapes of the items: texts of each length have a program of their own. */
export function programsOf(
  model: Model,
  opened: DataModel,
  typical: Tensor,
  fronts: readonly LoadedFront[] = [],
): Programs {
  const series = new LengthSeries(model);
  return shapedPrograms(model, opened, typical, (binding) =>
    joining(series.program(binding), fronts, binding),
  );
}

/**
 * The programs that one is compiled to for the inputs of a network, at the shapes of the items.
 * @param model the network
 */
export function shapedPrograms(
  model: Model,
  opened: DataModel,
  typical: Tensor,
  compiling: (binding: Binding) => Sliced<Program>,
): Programs {
  const compiled = (tensor: Tensor) => atOnce(compiling(bindFeeds(model, opened.feeds(tensor)).binding));
  const main = compiled(typical);
  if (opened.what === 'image' && main.inputs.length === 1) return new Programs(main);
  return new Programs(main, {
    programFor: (input) =>
      input.length === typical.size ? main : compiled(preparedOf(opened, input, typical)),
    inputsOf: (input) => {
      const { tensors } = bindFeeds(model, opened.feeds(preparedOf(opened, input, typical)));
      return main.inputs.map(({ name }) => tensors[name]!.data);
    },
  });
}

/** The prepared item with these elements; it may have another length than `typical`. */
function preparedOf(opened: DataModel, input: TensorData, { type, dims }: Tensor): Tensor {
  const ofText = opened.what === 'text' ? [dims[0]!, input.length / dims[0]!] : dims;
  return new Tensor(type, input as never, opened.dimsOf?.(input.length) ?? ofText) as Tensor;
}

/** Reads what is promised of an item; embeddings of texts are pooled. */
function readingOf(
  opened: DataModel,
  programs: Programs,
  typical: Tensor,
  { metric, indices, boxes }: Pick<Promisable, 'metric' | 'indices' | 'boxes'>,
): VectorOf {
  const { outputs, values } = programs.main;
  const partsOfRun = (found: readonly ArrayLike<number>[], input: TensorData): Part[] => {
    const program = programs.at(input);
    return indices.map((index) => {
      const { value } = program.outputs[index]!;
      const part = partOf(
        found[index] as TensorData,
        program.values[value]!.shape,
        meaningOf(program, value),
      );
      const cut = opened.what === 'text' && metric !== 'custom';
      return cut ? ownTokens(part, preparedOf(opened, input, typical)) : part;
    });
  };
  if (poolsVectors(opened, metric)) return pooling(opened, programs.main, typical);
  const forms = indices.map((index) => {
    const { dtype, shape } = values[outputs[index]!.value]!;
    return partOf(allocate(dtype, 0), shape, meaningOf(programs.main, outputs[index]!.value));
  });
  const read = readerOf(metric, forms, boxes);
  return ({ outputs: found }, input) => read(partsOfRun(found, input));
}

/** The same of a network with stages behind its program, which run for each item. */
function stagedReading(
  opened: DataModel,
  programs: Programs,
  typical: Tensor,
  { metric, indices, boxes }: Pick<Promisable, 'metric' | 'indices' | 'boxes'>,
  { model, tail }: Staged,
): VectorOf {
  return ({ outputs }, input) => {
    const { tensors } = bindFeeds(model, opened.feeds(preparedOf(opened, input, typical)));
    const answers = tail.runSync({ program: programs.at(input), tensors, outputs });
    const parts = partsTogether(indices.map((index) => answers[model.outputs[index]!.name]!));
    return readerOf(metric, parts, boxes)(parts);
  };
}

/** A network with stages behind its program. */
export interface Staged {
  readonly model: Model;
  readonly tail: Tail;
}

/** Whether the vector of a text is pooled from those of its tokens. */
const poolsVectors = ({ what, labels }: DataModel, metric: Metric) =>
  what === 'text' && labels === null && isOfNumbers(metric);

/** Without the tokens that fill a text up to a fixed length. */
function ownTokens(part: Part, prepared: Tensor): Part {
  const [length = 0, ...rest] = part.dims;
  if (length !== prepared.dims[1]) return part;
  const marks = (prepared.data as Int32Array).subarray(length, 2 * length);
  const tokens = marks.reduce((sum, mark) => sum + mark, 0);
  const data = Float32Array.from(part.data).subarray(0, tokens * sizeOf(rest));
  return { ...part, data, dims: [tokens, ...rest] };
}

function pooling(opened: DataModel, { outputs }: Program, typical: Tensor): VectorOf {
  const index = outputs.findIndex(({ name }) => name === opened.output);
  return ({ outputs: found }, input) => {
    const data = found[index]!;
    const prepared = preparedOf(opened, input, typical);
    // Vectors of tokens, or of the text.
    const tokens = prepared.dims[1]!;
    const pooled =
      opened.session.outputMetadata.find(({ name }) => name === opened.output)!.shape.length === 2;
    const dims = pooled ? [1, data.length] : [1, tokens, data.length / tokens];
    return opened.answerOf({ [opened.output]: new Tensor('float32', data, dims) }, prepared);
  };
}

/** The loss of a caller, who sees tensors; what was read are the elements of all promised outputs. */
function customLoss(
  loss: CustomLoss,
  opened: DataModel,
  programs: Programs,
  typical: Tensor,
  indices: readonly number[],
  byHash: ReadonlyMap<string, Item<Tensor>>,
): CalibrationOptions['lossOf'] {
  const tensorsOf = (elements: Float32Array, input: TensorData): TensorMap => {
    const { outputs, values } = programs.at(input);
    let from = 0;
    return Object.fromEntries(
      indices.map((index) => {
        const { name, value } = outputs[index]!;
        const { dtype, shape } = values[value]!;
        const own = elements.subarray(from, from + sizeOf(shape));
        from += own.length;
        const isBig = dtype === 'int64';
        const data = isBig ? BigInt64Array.from(own, (x) => BigInt(x)) : own;
        return [
          name,
          dtype === 'float32' || isBig
            ? new Tensor(dtype, data as never, shape)
            : new Tensor(dtype, Array.from(own) as never, shape),
        ];
      }),
    ) as TensorMap;
  };
  return (skipping, full, { input, sha256, label }) => {
    const prepared = preparedOf(opened, input, typical);
    const item = { feeds: opened.feeds(prepared), name: byHash.get(sha256)?.name, label };
    return checkedLoss(
      loss(tensorsOf(full, input), tensorsOf(skipping, input), item),
      item.name ?? 'an item',
    );
  };
}

async function openFit(
  opened: DataModel,
  data: Data,
  { maxPixels, maxBytes }: CalibrateOptions,
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
      if (bytes + size <= MAX_KEPT) {
        bytes += size;
        kept.set(index, tensor?.data);
      }
      return tensor?.data;
    },
  };
}
