/** What a calibrated policy promises, and what it rests on; see lib/calibrate. */
import { z } from 'zod';

const fraction = z.number().min(0).max(1);

export const promiseSchema = z
  .strictObject({
    metric: z.enum(['disagreement', 'accuracy']).meta({
      description:
        "disagreement: answers other than the full network's; accuracy: answers that the full network has right and skipping has not.",
    }),
    limit: fraction.meta({ description: 'The rate is at most this ...' }),
    confidence: fraction.meta({
      description: '... with at least this probability over the draw of the data.',
    }),
    certified: z.boolean().meta({ description: 'False when the limit was not met and no promise is made.' }),
    items: z.int().min(0).meta({ description: 'Items that certified it.' }),
    events: z.int().min(0).meta({ description: 'Of these, how many broke the rule.' }),
    pValue: fraction,
    upperBound: fraction.meta({ description: 'Of the rate, at the same confidence (Clopper-Pearson).' }),
    data: z.strictObject({
      sha256: z.string().meta({ description: 'Of the sorted hashes of all items.' }),
      seed: z.int(),
      fit: z.int(),
      order: z.int(),
      certify: z.int(),
    }),
  })
  .meta({ description: 'What was promised, by fixed-sequence testing on data that chose nothing.' });

export type Promised = z.infer<typeof promiseSchema>;

export const expectedSchema = z
  .strictObject({
    multiplyAddsSkipped: fraction,
    blocksSkipped: fraction,
    latencyReduction: z
      .number()
      .nullable()
      .meta({ description: '1 - median with the policy / median in full.' }),
  })
  .meta({ description: 'Measured on the items that certified the policy.' });

export type Expected = z.infer<typeof expectedSchema>;
