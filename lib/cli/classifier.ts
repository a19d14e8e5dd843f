import { wordPromise } from '../calibrate/report/wording.js';
import { openDataModel } from '../classify/data-model.js';
import { holdsArrays } from '../classify/feed-source.js';
import type { Item } from '../classify/images.js';
import type { DataLimits } from '../data/limits.js';
import { findModel } from '../data/model-files.js';
import { TimedClassifier } from '../measure/timed-classifier.js';
import type { PolicyInfo } from '../session/own-policy.js';
import type { PolicySource } from '../skip/load-policy.js';
import type { RunObserver } from '../skip/observer.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Io } from './io.js';
import type { EngineOptions, ReadingOptions } from './options.js';

/** Which policy runs and what it promises, on one line. */
export function wordPolicy({ source, promise, voided }: PolicyInfo): string {
  if (source === 'full') return 'policy: full, every block runs';
  if (source === 'model') return "policy: model, the file's own gates and exits decide; it promises nothing";
  if (voided) return `policy: ${source}; it promises nothing: it was edited after it was certified`;
  return `policy: ${source}; it promises ${promise ? `that ${wordPromise(promise)}` : 'nothing'}`;
}

/**
 * Opens the model of a command with the policy that was asked for or else that of its folder; notes, as of a
 * preprocessing that is a guess, go to the error stream.
 * @throws what openDataModel throws
 */
export async function openClassifier(
  path: string,
  {
    policy,
    original,
    backend,
    isa,
    threads,
    precision,
    maxPixels,
    preprocessor,
    data,
  }: Omit<EngineOptions, 'policy'> &
    ReadingOptions & { readonly policy?: PolicySource; readonly data?: string },
  io: Io,
  observers: readonly RunObserver[] = [],
): Promise<TimedClassifier> {
  const options = {
    policy: policy ?? (await findModel(path)).policy,
    original,
    backend,
    isa,
    threads,
    precision,
    observers,
    maxPixels,
    preprocessor,
    onNote: (note: string) => io.err(`note: ${note}\n`),
  };
  const feeds = data !== undefined && (await holdsArrays(data));
  const model = await openDataModel(path, options, undefined, { isFeeds: feeds, isTensor: false });
  return new TimedClassifier(model);
}

/** Items of a command that needs no labels. */
export async function openUnlabelled(
  { model }: TimedClassifier,
  data: string,
  { maxPixels, maxBytes }: DataLimits,
): Promise<readonly Item<Tensor>[]> {
  const { list } = await model.open(data, { maxPixels, maxBytes, labelsFrom: 'none' });
  return list as readonly Item<Tensor>[];
}
