/** Options of classes for images: their own, and those of their session. */
import { z } from 'zod';
import type { PreprocessorConfig } from '../data/preprocessor-config.js';
import type { PreprocessorPreset } from '../data/presets.js';
import type { SessionOptions } from '../session/options.js';
import { late } from '../util/late.js';
import { checkOptions, parseStrict, refuseMisspelt } from '../util/validation.js';
import { labelsSchema } from './class-scores.js';
import { type WorkOptions, workShape } from './work.js';

/** Options of `ImageClassifier.from`: those of a session, and options for images and labels. */
export interface ImageClassifierOptions extends SessionOptions {
  /** Labels by class index. When left out, those of config.json beside the model, or else the indices. */
  labels?: readonly string[] | undefined;
  /**
   * How pixels are prepared: the name of a preset, or an object in the form of Hugging Face's preprocessor_config.json. When left
   * out, that file beside the model is used. Without either, pixels are scaled to 0..1, and images are resized if the model has a
   * fixed size.
   */
  preprocessor?: PreprocessorConfig | PreprocessorPreset | undefined;
  /** Images with more pixels are refused before they are decoded; 2^26 (8192 x 8192) when left out. */
  readonly maxPixels?: number | undefined;
  /**
   * Called with notes for the caller, which are not errors: at the first image, that its preprocessing is a guess, and what would fit
   * better. A note is a process warning when left out.
   */
  onNote?: WorkOptions['onNote'];
}

/** Of `from`, besides those of a session. */
const OWN_OPTIONS = ['labels', 'preprocessor', 'maxPixels', 'onNote'];

/**
 * The options of a session among those of a classifier.
 * @param own names of further options, which are not among these
 * @throws ResidualSkipError INVALID_ARGUMENT for what is no object, and for a misspelt name
 */
export function sessionPart(options: ImageClassifierOptions, own: readonly string[] = []): SessionOptions {
  checkOptions(options);
  const { labels: _, preprocessor: __, maxPixels: ___, onNote: ____, ...rest } = options;
  refuseMisspelt(rest, [...OWN_OPTIONS, ...own], 'options', 'INVALID_ARGUMENT');
  return rest;
}

const ownSchema = late(() => z.object({ labels: labelsSchema(), onNote: workShape().onNote }));

/** @throws ResidualSkipError INVALID_ARGUMENT */
export function checkOwn(options: Pick<ImageClassifierOptions, 'labels' | 'onNote'>): void {
  parseStrict(ownSchema(), options, { subject: 'options' });
}
