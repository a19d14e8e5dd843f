import { openDataModel } from '../classify/data-model.js';
import type { Item } from '../classify/images.js';
import { Work } from '../classify/work.js';
import type { DataLimits } from '../data/limits.js';
import { TimedClassifier } from '../measure/timed-classifier.js';
import type { RunObserver } from '../skip/observer.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Io } from './io.js';
import type { EngineOptions } from './options.js';

/**
 * Opens the model of a command; notes on the error stream when the preprocessing is a guess.
 * @throws what openDataModel throws
 */
export async function openClassifier(
  path: string,
  { policy, reference, backend, isa, threads, maxPixels }: EngineOptions & DataLimits,
  io: Io,
  observers: readonly RunObserver[] = [],
): Promise<TimedClassifier> {
  const options = { policy, reference, backend, isa, threads, observers, maxPixels };
  const model = await openDataModel(path, options);
  if (model.images?.preprocessorKnown === false) {
    io.err(`note: there is no preprocessor_config.json beside ${model.file}; pixels are scaled to 0..1\n`);
  }
  return new TimedClassifier(model);
}

/** Items of a command that needs no labels, without a note about preprocessing, which `openClassifier` has made. */
export async function openUnlabelled(
  { model }: TimedClassifier,
  data: string,
  { maxPixels, maxBytes }: DataLimits,
): Promise<readonly Item<Tensor>[]> {
  const work = new Work('reading', { onNote: () => {} });
  const { list } = await model.open(data, { maxPixels, maxBytes, labelsFrom: 'none' }, work);
  return list as readonly Item<Tensor>[];
}
