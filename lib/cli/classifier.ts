import { ImageClassifier } from '../classify/image-classifier.js';
import type { DataLimits } from '../data/limits.js';
import { TimedClassifier } from '../measure/timed-classifier.js';
import type { RunObserver } from '../skip/observer.js';
import type { Io } from './io.js';
import type { EngineOptions } from './options.js';

/**
 * Opens the model of a command; notes on the error stream when the preprocessing is a guess.
 * @throws what ImageClassifier.from throws
 */
export async function openClassifier(
  path: string,
  { policy, reference, backend, isa, threads, maxPixels }: EngineOptions & DataLimits,
  io: Io,
  observers: readonly RunObserver[] = [],
): Promise<TimedClassifier> {
  const options = { policy, reference, backend, isa, threads, observers, maxPixels };
  const images = await ImageClassifier.from(path, options);
  if (!images.preprocessorKnown) {
    io.err(`note: there is no preprocessor_config.json beside ${images.file}; pixels are scaled to 0..1\n`);
  }
  return new TimedClassifier(images);
}
