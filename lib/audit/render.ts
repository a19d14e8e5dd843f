/** The report of an audit log, from code. */
import { z } from 'zod';
import { ImageClassifier } from '../classify/image-classifier.js';
import type { ImageClassifierOptions } from '../classify/image-options.js';
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
import { likelyFirst } from '../data/dataset.js';
import { encodeThumbnail } from '../data/image.js';
import { ResidualSkipError } from '../errors.js';
import { parseStrict } from '../util/validation.js';
import { hashItem } from './hash.js';
import { type AuditEntry, type AuditTrace, readAudit } from './read.js';
import { renderAuditReport } from './report.js';
import { depthOf, ofLastNetwork } from './summary.js';

/** Options of `renderAudit`. */
export interface RenderAuditOptions
  extends Omit<DataOptions, 'labelsFrom' | 'groupsFrom'>,
    Pick<ImageClassifierOptions, 'preprocessor'>,
    WorkOptions {
  /** The images that were recorded, among others: the report then shows those with the shortest and the longest paths. */
  images?: Images | undefined;
  /** The model that prepares `images`: ONNX file, or a folder with one; the one that the log names when left out. */
  model?: string | undefined;
}

const optionsSchema = z.strictObject({
  maxPixels: dataShape().maxPixels,
  maxBytes: dataShape().maxBytes,
  ...workShape(),
  images: z.custom<Images>().optional(),
  model: z.string().min(1).optional(),
  preprocessor: z.custom<ImageClassifierOptions['preprocessor']>().optional(),
});

/** Items that may be shown, at either end. */
const SHOWN = 24;

/**
 * A page for people about an audit log: what was skipped over time, by block, by class and by path.
 * @param log path of an audit log, or what `readAudit` returned
 * @returns HTML in one file, without scripts and without references to the network
 * @throws ResidualSkipError INVALID_DATA for a log that can't be read or holds no item, INVALID_ARGUMENT, MISSING_DEPENDENCY without the
 * packages vega and vega-lite, ABORTED (an AbortError), and what ImageClassifier.from throws where there are `images`
 */
export async function renderAudit(
  log: string | AuditTrace,
  options: RenderAuditOptions = {},
): Promise<string> {
  parseStrict(optionsSchema, options);
  const work = new Work('report', options);
  work.check();
  const { entries, problems, energy } = typeof log === 'string' ? await readAudit(log) : log;
  if (entries.length === 0) {
    const name = typeof log === 'string' ? `audit log '${log}'` : 'audit log';
    throw new ResidualSkipError('INVALID_DATA', `${name}: it holds no item yet`);
  }
  const { images } = options;
  const shown = images === undefined ? [] : ofLastNetwork(entries);
  const thumbnails = images === undefined ? undefined : await thumbnailsOf(shown, images, options, work);
  return renderAuditReport(entries, { problems, thumbnails, energy });
}

/** Small pictures of the items with the shortest and the longest paths, found by the hash of their input. */
async function thumbnailsOf(
  entries: readonly AuditEntry[],
  images: Images,
  { model, preprocessor, maxPixels, maxBytes }: RenderAuditOptions,
  work: Work,
): Promise<Map<string, string>> {
  const ordered = [...entries].sort((a, b) => depthOf(a) - depthOf(b));
  const shown = [...ordered.slice(0, SHOWN), ...ordered.slice(-SHOWN)];
  const wanted = new Set(shown.map(({ record }) => record.input));
  const source = model ?? entries.at(-1)!.header.model.source;
  if (!source) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      "audit log: it doesn't name the path of its model; give it (model, --model)",
    );
  }
  // Nothing runs: the classifier only prepares images.
  const preparing = {
    ...({ backend: 'reference', policy: 'model' } as const),
    ...{ preprocessor, maxPixels, onNote: work.note },
  };
  const classifier = await ImageClassifier.from(source, preparing);
  const found = new Map<string, string>();
  try {
    const from = { maxPixels, maxBytes, labelsFrom: 'none' };
    const { list, count } = await openItems(images, classifier, from);
    const items: Iterable<Item> | AsyncIterable<Item> = Array.isArray(list)
      ? likelyFirst<Item>(list, entries.length)
      : list;
    let searched = 0;
    for await (const { item, tensor } of work.each(prepareItems(items, new Unusable()))) {
      work.report('searching', ++searched, count);
      const hash = tensor && hashItem(classifier.feeds(tensor), 0, 1);
      if (hash === undefined || !wanted.delete(hash)) continue;
      const image = await item.load?.();
      if (image) found.set(hash, await encodeThumbnail(image));
      if (wanted.size === 0) break;
    }
  } finally {
    await classifier.release();
  }
  return found;
}
