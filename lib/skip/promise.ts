/** What a calibrated policy promises, and on what evidence; see lib/calibrate. */
import { z } from 'zod';
import { late } from '../util/late.js';
import { nearNames } from '../util/suggest.js';
import { sha256Schema } from '../util/validation.js';
import { distributionSchema } from './score-distribution.js';

const fraction = late(() => z.number().min(0).max(1));

/** Metrics of networks whose answer is one class. */
export const CLASS_METRICS = ['disagreement', 'accuracy', 'probability', 'ordinal'] as const;

/** The number behind the `@` of a metric. */
interface Parameter {
  readonly pattern: string;
  /**
   * Taken where it is left out; `output`: 0.5 or 0, as the output holds probabilities or logits; `none`: the metric without it is
   * another one. Undefined: it can't be left out.
   */
  readonly byDefault?: number | 'output' | 'none';
}

const size = '\\d+(?:\\.\\d+)?(?:e-?\\d+)?';
const threshold = { pattern: `-?${size}`, byDefault: 'output' } as const;

/** Metrics of all other answers, with their parameters. */
const PARAMETERS = {
  cosine: undefined,
  relative: { pattern: size, byDefault: 'none' },
  recall: { pattern: '[1-9]\\d{0,5}' },
  absolute: { pattern: size },
  excess: { pattern: size },
  labels: threshold,
  missed: threshold,
  added: threshold,
  pixels: threshold,
  miou: threshold,
  boxes: { pattern: '(?:0?\\.\\d+|1)', byDefault: 0.5 },
  tokens: undefined,
  ctc: { pattern: '\\d{1,6}', byDefault: 0 },
  ranking: undefined,
  custom: undefined,
} as const satisfies Record<string, Parameter | undefined>;

type Named = keyof typeof PARAMETERS;
/** Metrics of answers that aren't one class. */
export type VectorMetric =
  | Exclude<Named, 'recall' | 'absolute' | 'excess'>
  | `${Exclude<Named, 'cosine' | 'tokens' | 'ranking' | 'custom'>}@${number}`;
export type Metric = (typeof CLASS_METRICS)[number] | VectorMetric;

/** That the mean loss of a metric is at most this. */
export interface Limit {
  readonly metric: Metric;
  readonly limit: number;
}

/** The metrics, for messages and help. */
export const METRICS =
  'disagreement, accuracy, probability, ordinal, cosine, recall@k, relative, relative@tolerance, absolute@tolerance, ' +
  'excess@tolerance, labels, missed, added, pixels, miou, boxes, tokens, ctc, ranking, custom';

const patterns = Object.entries<Parameter | undefined>(PARAMETERS).map(([name, parameter]) => {
  if (!parameter) return name;
  const { pattern, byDefault } = parameter;
  return byDefault === undefined ? `${name}@${pattern}` : `${name}(?:@${pattern})?`;
});

/** Numbers of metrics, in messages; 0.5 of others. */
const EXAMPLES: Readonly<Record<string, number>> = {
  relative: 0.02,
  recall: 10,
  absolute: 0.1,
  excess: 0.1,
  ctc: 0,
};

function metricProblem(given: string): string {
  const [name = '', ...at] = given.split('@');
  const parameters: Readonly<Record<string, Parameter | undefined>> = PARAMETERS;
  const parameter = parameters[name];
  if (parameter !== undefined) {
    const alone = parameter.byDefault === undefined ? '' : `'${name}', or `;
    return `expected ${alone}a number behind it, as in '${name}@${EXAMPLES[name] ?? 0.5}'; received '${given}'`;
  }
  const names = [...CLASS_METRICS, ...Object.keys(PARAMETERS)];
  if (names.includes(name) && at.length > 0) return `${name} takes no number; received '${given}'`;
  const near = nearNames(name, names).map((one) => `'${one}'`);
  const hint = near.length > 0 ? `; did you mean ${near.join(' or ')}?` : '';
  return `expected one of ${METRICS}, received '${given}'${hint}`;
}

export const metricSchema = late(
  () =>
    z.string().regex(new RegExp(`^(?:${[...CLASS_METRICS, ...patterns].join('|')})$`), {
      error: ({ input }) => metricProblem(String(input)),
    }) as unknown as z.ZodType<Metric, Metric>,
);

/** The name of a metric, and its parameter; undefined where it has none. */
export function partsOf(metric: Metric): { name: Named | (typeof CLASS_METRICS)[number]; at?: number } {
  const [name, at] = metric.split('@') as [Named, string | undefined];
  return at === undefined ? { name } : { name, at: Number(at) };
}

/**
 * The metric with its parameter, where that was left out.
 * @param threshold of the output: 0.5 for probabilities, 0 for logits
 */
export function complete(metric: Metric, threshold: number): Metric {
  const { name, at } = partsOf(metric);
  const { byDefault = 'none' } = (PARAMETERS as Record<string, Parameter | undefined>)[name] ?? {};
  if (at !== undefined || byDefault === 'none') return metric;
  return `${name}@${byDefault === 'output' ? threshold : byDefault}` as Metric;
}

export function isVectorMetric(metric: Metric): metric is VectorMetric {
  return !(CLASS_METRICS as readonly string[]).includes(metric);
}

/** Whether a metric is about sets of labels. */
export function isOfLabels(metric: Metric): boolean {
  return ['labels', 'missed', 'added'].includes(partsOf(metric).name);
}

/** Whether a metric is about vectors or numbers. */
export function isOfNumbers(metric: Metric): boolean {
  return ['cosine', 'recall', 'relative', 'absolute', 'excess'].includes(partsOf(metric).name);
}

/** Whether a metric is about the classes of pixels. */
export function isOfPixels(metric: Metric): boolean {
  return ['pixels', 'miou'].includes(partsOf(metric).name);
}

/** Whether losses are 0 or 1, or -1 where `accuracy` gains an answer. */
export function isCounted(metric: Metric): boolean {
  const { name, at } = partsOf(metric);
  if (name === 'relative') return at !== undefined;
  return ['disagreement', 'accuracy', 'labels', 'missed', 'added', 'absolute'].includes(name);
}

/** The largest loss of an item. */
export function maxLoss(metric: Metric): number {
  return metric === 'cosine' ? 2 : 1;
}

/** Cosine distances reach 2. */
const loss = late(() => z.number().min(0).max(2));

const testedShape = late(() => ({
  limit: loss().meta({ description: 'The rate, or the mean loss, is at most this.' }),
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
  pValue: fraction(),
  upperBound: loss().meta({
    description:
      'One-sided upper bound of the rate or mean loss at the same confidence, for a setting that was not selected on these ' +
      'items. Settings are selected on them, so that only the limit is certified; with a budget the limit is this bound.',
  }),
}));

const groupSchema = late(() =>
  z.strictObject({
    kind: z.enum(['class', 'group']),
    name: z.string(),
    promised: z.boolean().meta({ description: 'False when the group is too small for a promise.' }),
    ...testedShape(),
  }),
);

/** How outputs hold boxes; see the schema. */
export const BOX_FORMS = ['corners', 'centres', 'detr', 'yolo', 'yolov5'] as const;
const boxesSchema = late(() =>
  z.strictObject({
    form: z.enum(BOX_FORMS).meta({
      description:
        'corners: x1, y1, x2, y2; centres: x, y of the centre, width, height; detr: centres, with logits whose last class is no box; yolo: one output of ' +
        'columns, centres and then the scores of the classes, of which non-maximum suppression leaves some; yolov5: one output of rows, centres, ' +
        'then the score of there being an object, which the scores of the classes are multiplied by, and suppression too.',
    }),
    score: z.number().meta({ description: 'Boxes with a higher score count.' }),
  }),
);
export type Boxes = z.infer<ReturnType<typeof boxesSchema>>;
export const DEFAULT_BOXES: Boxes = { form: 'corners', score: 0.5 };

const alsoSchema = late(() =>
  z.strictObject({
    metric: metricSchema(),
    ...testedShape(),
    groups: z.array(groupSchema()).optional(),
  }),
);

const certifiedOn = late(() =>
  z.strictObject({
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
);

export const promiseSchema = late(() =>
  z
    .strictObject({
      metric: metricSchema().meta({
        description:
          "disagreement: answers other than the full network's; accuracy: the fall of the accuracy, which is the share of answers that are " +
          'right in the full network and wrong with skipping, less that of the reverse; probability: how far the class probabilities move (total variation distance); ' +
          'ordinal: how far the class moves, as a share of the scale. Of other answers, ' +
          "against the full network's: cosine: 1 - cos of their angle; relative: |difference| / |full|, at most 1; relative@t: whether that is above t; " +
          'absolute@t: whether any number is off by more than t; excess@t: how far beyond t the largest error is, as a share of t, at most 1; ' +
          'recall@k: the share of the k nearest neighbours that are others, among vectors of the full network of the items that order settings; ' +
          'labels@t: whether the set of labels above the threshold t is another; missed@t and added@t: whether a label is missing from it, or is new; ' +
          'pixels@t: the share of the pixels that change their class (t is for maps of one channel); miou@t: 1 - the mean over the classes of the intersection over the union; ' +
          'boxes@t: the share of the boxes without a partner of the same class whose IoU is t at least; tokens: the share of the tokens that change; ' +
          'ctc@b: errors of the sequence, b being the blank; ranking: the share of the pairs whose order changes; custom: the loss of a function.',
      }),
      outputs: z.array(z.string()).min(1).optional().meta({
        description: "Names of the outputs that the promise is about; the network's only one when absent.",
      }),
      notPromised: z
        .array(z.string())
        .min(1)
        .optional()
        .meta({ description: 'Names of the other outputs, about which nothing is promised.' }),
      boxes: boxesSchema().optional().meta({ description: 'How boxes are read, for the metric boxes.' }),
      confidence: fraction().meta({
        description: 'Everything here holds with at least this probability over the draw of the data.',
      }),
      joint: z
        .strictObject({ promises: z.int().min(2), confidence: fraction() })
        .optional()
        .meta({
          description:
            'For a policy with several settings: this many promises, including those of limits without a setting of their own, hold ' +
            'together with this confidence.',
        }),
      ladders: z
        .int()
        .min(2)
        .optional()
        .meta({
          description:
            'How many ladders were certified, of which the fastest that passed was taken: each was tested at an equal share of the error, so that ' +
            'this promise holds with `confidence` whichever it is. `pValue` and `upperBound` are those of a test at that share.',
        }),
      ...testedShape(),
      groups: z.array(groupSchema()).optional().meta({
        description: 'Limits that also hold for each class or group; each is tested at the full level.',
      }),
      also: z
        .array(alsoSchema())
        .min(1)
        .optional()
        .meta({
          description:
            'Limits by other metrics, which hold together with the first one at this confidence: a setting passes only if it passes all of ' +
            'their tests, so each is tested at the full level.',
        }),
      data: certifiedOn(),
      settings: sha256Schema()
        .optional()
        .meta({
          description:
            'Of the policy as it was certified: of all that decides which answer is given, and of this promise but for its data. A policy that ' +
            'differs promises nothing. Absent in files of older versions, which are believed.',
        }),
    })
    .meta({
      description: 'The promise, certified by fixed-sequence testing on data that was used for no choice.',
    }),
);

export type Promised = z.infer<ReturnType<typeof promiseSchema>>;
/** The result of one test on some items. */
export type Tested = Omit<TestedGroup, 'kind' | 'name' | 'promised'>;
export type TestedGroup = z.infer<ReturnType<typeof groupSchema>>;

const milliseconds = late(() =>
  z.strictObject({
    p50: z.number().positive(),
    mean: z.number().positive(),
    p95: z.number().positive().optional(),
  }),
);

export const latencySchema = late(() =>
  z
    .strictObject({
      fullMs: milliseconds(),
      policyMs: milliseconds(),
      items: z.int().min(1),
      isa: z.string(),
      threads: z.int().min(1),
    })
    .meta({
      description:
        'Milliseconds of one item at batch 1, alternately in full and with the policy, on the machine that calibrated.',
    }),
);

export type Latency = z.infer<ReturnType<typeof latencySchema>>;

export const expectedSchema = late(() =>
  z
    .strictObject({
      multiplyAddsSkipped: fraction(),
      blocksSkipped: fraction(),
      latencyReduction: z
        .number()
        .nullable()
        .meta({ description: '1 - median with the policy / median in full.' }),
      latency: latencySchema().optional(),
      scores: z.record(z.string(), distributionSchema()).optional().meta({
        description: "Of each block's gate, by the block's name; watch() compares later scores with them.",
      }),
      exits: z.record(z.string(), distributionSchema()).optional().meta({
        description:
          "Likewise the confidences at each exit, by the exit's block; skipRate is the fraction that left of the items that reached it.",
      }),
    })
    .meta({ description: 'Measured on the items that certified the policy.' }),
);

export type Expected = z.infer<ReturnType<typeof expectedSchema>>;
