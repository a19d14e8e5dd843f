/** What a calibrated policy promises, and on what evidence; see lib/calibrate. */
import { z } from 'zod';
import { profileSchema } from './profile.js';

const fraction = z.number().min(0).max(1);

/** Metrics of networks with classes, and of those whose answer is a vector. */
export const CLASS_METRICS = ['disagreement', 'accuracy', 'probability'] as const;
export const VECTOR_METRICS = ['cosine', 'relative'] as const;

export type Metric = (typeof CLASS_METRICS)[number] | (typeof VECTOR_METRICS)[number] | `recall@${number}`;

export const metricSchema = z
  .string()
  .regex(new RegExp(`^(${[...CLASS_METRICS, ...VECTOR_METRICS].join('|')}|recall@[1-9]\\d{0,5})$`), {
    error: `expected one of ${[...CLASS_METRICS, ...VECTOR_METRICS].join(', ')} or recall@k, as recall@10`,
  }) as unknown as z.ZodType<Metric, Metric>;
export type VectorMetric = Exclude<Metric, (typeof CLASS_METRICS)[number]>;

export function isVectorMetric(metric: Metric): metric is VectorMetric {
  return !(CLASS_METRICS as readonly string[]).includes(metric);
}

/** Whether losses are 0 or 1, or -1 where `accuracy` gains an answer. */
export function isCounted(metric: Metric): boolean {
  return metric === 'disagreement' || metric === 'accuracy';
}

/** The largest loss of an item. */
export function maxLoss(metric: Metric): number {
  return metric === 'cosine' ? 2 : 1;
}

/** Cosine distances reach 2. */
const loss = z.number().min(0).max(2);

const testedShape = {
  limit: loss.meta({ description: 'The rate, or the mean loss, is at most this.' }),
  items: z.int().min(0).meta({ description: 'Items that certified it.' }),
  events: z.int().min(0).meta({ description: 'Of these, how many had any loss.' }),
  gained: z
    .int()
    .min(0)
    .optional()
    .meta({
      description:
        'For accuracy: items that only the policy answers rightly, which are set off against `events`. Absent where losses alone ' +
        'were counted, as older versions did, and as is done for few items: then no more right answers than the limit are lost.',
    }),
  risk: z.number().min(-1).max(2).meta({
    description: 'Their mean loss; below 0 where more answers were gained than lost.',
  }),
  pValue: fraction,
  upperBound: loss.meta({
    description:
      'One-sided upper bound of the rate or mean loss at the same confidence, for a setting that was not selected on these ' +
      'items. Settings are selected on them, so that only the limit is certified; with a budget the limit is this bound.',
  }),
};

const groupSchema = z.strictObject({
  kind: z.enum(['class', 'group']),
  name: z.string(),
  promised: z.boolean().meta({ description: 'False when the group is too small for a promise.' }),
  ...testedShape,
});

export const promiseSchema = z
  .strictObject({
    metric: metricSchema.meta({
      description:
        "disagreement: answers other than the full network's; accuracy: the fall of the accuracy, which is the share of answers that are " +
        'right in the full network and wrong with skipping, less that of the reverse; probability: how far the class probabilities move (total variation distance). Of networks whose answer ' +
        "is a vector, against the full network's: cosine: 1 - cos of their angle; relative: |difference| / |full|, at most 1; " +
        'recall@k: the share of the k nearest neighbours among the items that order settings that are others.',
    }),
    confidence: fraction.meta({
      description: 'Everything here holds with at least this probability over the draw of the data.',
    }),
    joint: z
      .strictObject({ promises: z.int().min(2), confidence: fraction })
      .optional()
      .meta({
        description:
          'For a policy with several settings: this many promises, including those of limits without a setting of their own, hold ' +
          'together with this confidence.',
      }),
    ...testedShape,
    groups: z.array(groupSchema).optional().meta({
      description: 'Limits that also hold for each class or group; each is tested at the full level.',
    }),
    data: z.strictObject({
      sha256: z.string().meta({ description: 'Of the sorted hashes of all items.' }),
      seed: z.int(),
      fit: z.int(),
      order: z.int(),
      certify: z.int(),
      uses: z
        .int()
        .min(1)
        .optional()
        .meta({
          description:
            'How many different calibrations have read these images, or others of a set that overlaps much, to certify on this ' +
            'machine, including this one, whether or not they made a policy. Choosing among them by their results voids the promise.',
        }),
    }),
  })
  .meta({
    description: 'The promise, certified by fixed-sequence testing on data that was used for no choice.',
  });

export type Promised = z.infer<typeof promiseSchema>;
/** The result of one test on some items. */
export type Tested = Pick<Promised, keyof typeof testedShape>;
export type TestedGroup = z.infer<typeof groupSchema>;

const milliseconds = z.strictObject({
  p50: z.number().positive(),
  mean: z.number().positive(),
  p95: z.number().positive().optional(),
});

export const latencySchema = z
  .strictObject({
    fullMs: milliseconds,
    policyMs: milliseconds,
    items: z.int().min(1),
    isa: z.string(),
    threads: z.int().min(1),
  })
  .meta({
    description:
      'Milliseconds of one item at batch 1, alternately in full and with the policy, on the machine that calibrated.',
  });

export type Latency = z.infer<typeof latencySchema>;

export const expectedSchema = z
  .strictObject({
    multiplyAddsSkipped: fraction,
    blocksSkipped: fraction,
    latencyReduction: z
      .number()
      .nullable()
      .meta({ description: '1 - median with the policy / median in full.' }),
    latency: latencySchema.optional(),
    scores: z.record(z.string(), profileSchema).optional().meta({
      description: "Of each block's gate, by the block's name; watch() compares later scores with them.",
    }),
    exits: z.record(z.string(), profileSchema).optional().meta({
      description:
        "Likewise the confidences at each exit, by the exit's block; skipRate is the fraction that left of the items that reached it.",
    }),
  })
  .meta({ description: 'Measured on the items that certified the policy.' });

export type Expected = z.infer<typeof expectedSchema>;
