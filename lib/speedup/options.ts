/** Options of `speedup`: types, defaults and the command's flags follow from one schema. */
import { z } from 'zod';
import { type CalibrateOptions, optionShape } from '../calibrate/options.js';
import { flagged, number } from '../util/flags.js';

const { maxDisagreement, confidence, metric, fit, state, seed } = optionShape;

export const speedupShape = {
  ...{ maxDisagreement, confidence, metric, fit, state, seed },
  /** Networks to put before the model: ONNX files, or folders with one. Each is tried, and those that pay are kept. */
  front: flagged(
    z.array(z.string().min(1)).readonly().default([]),
    '--front <model...>',
    'small networks to try in front of the model, to answer the items that they are sure of',
  ),
  /** Whether 8-bit forms are tried; images only. */
  int8: flagged(z.boolean().default(true), '--no-int8', "don't try 8 bits"),
  /** Whether the network is tried in the form of bfloat16 that the processor has the fastest instructions for, if it has any. */
  bfloat16: flagged(z.boolean().default(true), '--no-bfloat16', "don't try bfloat16"),
  /** Whether exits are fitted, in the network and in fronts; those that a file brings are used anyway. */
  exits: flagged(z.boolean().default(true), '--no-exits', "don't fit exits"),
  /** What to minimise: the mean time or the 95th percentile. The energy of one core goes with the mean. */
  for: flagged(
    z.enum(['mean', 'p95', 'energy'], { error: "expected 'mean', 'p95' or 'energy'" }).default('mean'),
    '--for <figure>',
    'what to minimise: mean, p95 or energy',
  ),
  /** After this time nothing new is tried: what was found until then is certified. */
  minutes: flagged(
    z
      .number({ error: 'expected a number above 0' })
      .positive({ error: 'expected a number above 0' })
      .optional(),
    '--minutes <n>',
    'start no new trial after this time',
    number,
  ),
};

/** `labels`, `preprocessor`, `backend`, `isa` and `threads` are those of ImageClassifier.from. */
export interface SpeedupOptions
  extends Readonly<z.input<z.ZodObject<typeof speedupShape>>>,
    Pick<
      CalibrateOptions,
      | 'labels'
      | 'preprocessor'
      | 'isa'
      | 'threads'
      | 'labelsFrom'
      | 'maxPixels'
      | 'maxBytes'
      | 'task'
      | 'onProgress'
      | 'onNote'
      | 'signal'
    > {}
