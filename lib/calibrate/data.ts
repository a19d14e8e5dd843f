/** Reads the items of a calibration, and prepares them for the network. */
import type { Data, DataModel } from '../classify/data-model.js';
import { type Item, type Items, prepareItems } from '../classify/images.js';
import { Unusable } from '../classify/unusable.js';
import type { Work } from '../classify/work.js';
import { takeEvenly } from '../data/dataset.js';
import { findModel } from '../data/model-files.js';
import { prefetch } from '../data/prefetch.js';
import { loadModel } from '../model/load.js';
import { isOfLabels } from '../skip/promise.js';
import type { Tensor, TensorData } from '../tensor/tensor.js';
import type { Promisable } from './checks.js';
import type { CalibrateOptions, CalibrationOptions } from './options.js';
import { programsOf } from './prepared.js';
import { customLoss, ownLossOf, poolsVectors, readingOf, type Staged, stagedReading } from './promised.js';
import type { Programs } from './run/evaluator.js';
import type { CalibrationItem, FitImages } from './run/items.js';
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
function someOf({ count, list }: Items<Tensor>, max: number): Items<Tensor> {
  if (Array.isArray(list)) {
    const chosen = takeEvenly(list as readonly Item<Tensor>[], max);
    return { count: chosen.length, list: chosen };
  }
  async function* first() {
    let taken = 0;
    for await (const item of list) {
      yield item;
      if (++taken === max) return;
    }
  }
  return { count: count === null ? null : Math.min(count, max), list: first() };
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
  const source = await opened.open(data, options, labels);
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
  { metric, limits, indices, byBlocks, ...about }: Promisable,
  programs: Programs,
  work: Work,
  unusable: Unusable,
  staged?: Staged,
): Promise<CalibrationOptions> {
  // Tensors of images were prepared by the caller.
  const isKnown = opened.what !== 'image' || [...byHash.values()].every(({ load }) => load);
  const asked = {
    preprocessing: isKnown ? await opened.preparation?.() : undefined,
    ...{ ...options, metric, limits, about: Object.keys(about).length > 0 ? about : undefined },
    fit: fit === undefined ? undefined : await openFit(opened, fit, options, work, unusable, typical),
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

async function openOriginal(path: string, opened: DataModel, typical: Tensor) {
  const model = await loadModel((await findModel(path)).model);
  return { program: programsOf(model, opened, typical), sha256: model.sha256 };
}

async function openFit(
  opened: DataModel,
  data: Data,
  { maxPixels, maxBytes }: CalibrateOptions,
  work: Work,
  unusable: Unusable,
  typical: Tensor,
): Promise<FitImages> {
  const { list } = await opened.open(data, { maxPixels, maxBytes, labelsFrom: 'none' });
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
    hashOf: (data) => hashOf(opened, { ...typical, data } as Tensor),
    onShared: (index) => void unusable.shared.add(index),
  };
}
