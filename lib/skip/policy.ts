import { createHash } from 'node:crypto';
import { inspect } from 'node:util';
import { z } from 'zod';
import { PRECISIONS, type Precision } from '../model/program/program.js';
import { late } from '../util/late.js';
import { parseStrict, sha256Schema } from '../util/validation.js';
import { type FrontSpec, frontSchema } from './fronts.js';
import { type Guard, guardSchema } from './guards.js';
import { type EncodedHeads, headsSchema } from './head-codec.js';
import { type Expected, expectedSchema, type Promised, promiseSchema } from './promise.js';

/**
 * What to do with one block: always run it, always skip it, let its gate decide, or let its gate decide with another
 * threshold (finite; compared by the gate's own comparison).
 */
export type BlockAction = 'run' | 'skip' | 'gate' | { readonly threshold: number };

/** What to do with each block of a model. */
export interface SkipPolicy {
  /** Location of the schema of policies, for editors; ignored. */
  readonly $schema?: string;
  readonly version?: 1;
  /** Ties the policy to one model file, by the hex SHA-256 of its bytes. */
  readonly model?: { readonly sha256: string };
  /**
   * The network whose answers are promised, if it is another one, by the hex SHA-256 of its file: guards verify with it, so that a
   * session with guards needs it as its option `original`.
   */
  readonly reference?: { readonly sha256: string };
  /** The precision that the model runs in, which the promise is about; float32 where it is left out. */
  readonly precision?: Precision;
  /**
   * What made tensors of the images that the promise is about: sizes, filter, normalisation and the version of the code, as
   * `Preprocessor.id` has them. A classifier that prepares images otherwise says so.
   */
  readonly preprocessing?: string;
  /**
   * For all blocks that `blocks` doesn't name, where possible: `skip` for skippable blocks, `gate` and `{ threshold
   * }` for blocks with a gate; the rest run. `gate` by default.
   */
  readonly default?: BlockAction;
  /** By name or index of a block, which must be able to do this. */
  readonly blocks?: { readonly [nameOrIndex: string]: BlockAction };
  /** Other networks, each an exit before the first block, in the order in which they are asked. */
  readonly fronts?: readonly FrontSpec[];
  /** Early exits, as `calibrate` fits them. By default a model's own exits decide. */
  readonly heads?: EncodedHeads;
  /** Answers that are checked against the full network. */
  readonly guards?: readonly Guard[];
  /** Names of the classes, which guards may use. */
  readonly labels?: readonly string[];
  /** What this policy promises, and the numbers behind it. */
  readonly promise?: Promised;
  /** What the policy saved on the data that it was calibrated with. */
  readonly expected?: Expected;
  /** Bolder settings of the same model, in order, for a server that chooses by load; a session ignores them. */
  readonly settings?: readonly Omit<SkipPolicy, 'settings'>[];
}

const THRESHOLD = 'expected a finite number that a float32 can hold';

const thresholdSchema = late(() =>
  z
    .number({ error: THRESHOLD })
    .refine((value) => Number.isFinite(Math.fround(value)), { error: THRESHOLD })
    .meta({ description: "Compared with the score of the block's gate, by the gate's own comparison." }),
);

const actionSchema = late(() =>
  z
    .union([z.enum(['run', 'skip', 'gate']), z.strictObject({ threshold: thresholdSchema() })], {
      error: ({ input }) => explainAction(input),
    })
    .meta({
      description:
        "'run': always run; 'skip': never run; 'gate': the block's gate decides; { threshold }: the gate decides with this threshold.",
    }),
);

const fileSchema = late(() =>
  z.strictObject({
    sha256: sha256Schema(),
  }),
);

const oneSchema = late(() =>
  z.strictObject({
    $schema: z.string().optional().meta({ description: 'For editors; ignored.' }),
    version: z.literal(1).optional(),
    model: fileSchema()
      .optional()
      .meta({ description: 'The model that the policy was made for; other models are refused.' }),
    reference: fileSchema().optional().meta({
      description:
        'Another network, whose answers are promised and with which guards verify: the float form of an 8-bit model.',
    }),
    precision: z.enum(PRECISIONS).optional().meta({
      description: 'The precision that the model runs in, which the promise is about; float32 by default.',
    }),
    preprocessing: z
      .string()
      .regex(/^[0-9a-f]{16}$/, { error: 'expected 16 hexadecimal digits in lower case' })
      .optional()
      .meta({ description: 'What made tensors of the images that certified the policy.' }),
    default: actionSchema().optional().meta({
      description: "For every block that 'blocks' doesn't name and that can do it; 'gate' by default.",
    }),
    blocks: z
      .record(z.string(), actionSchema())
      .default({})
      .meta({ description: 'By the name or the index of a block.' }),
    fronts: z
      .array(frontSchema())
      .min(1)
      .refine((fronts) => new Set(fronts.map(({ name }) => name)).size === fronts.length, {
        error: 'expected fronts of different names',
      })
      .optional()
      .meta({ description: 'Networks that are asked before the model, in order; `heads` has their exits.' }),
    heads: headsSchema().optional(),
    guards: z.array(guardSchema()).optional(),
    labels: z
      .array(z.string())
      .optional()
      .meta({ description: 'Names of the classes, which guards may use.' }),
    promise: promiseSchema().optional(),
    expected: expectedSchema().optional(),
  }),
);

export const policySchema = late(
  () =>
    oneSchema()
      .extend({
        settings: z.array(oneSchema()).optional().meta({
          description:
            'Bolder settings of the same model, in order; a server chooses between them as the load demands.',
        }),
      })
      .meta({ title: 'SkipPolicy of residual-skip' }) satisfies z.ZodType<SkipPolicy>,
);

/** Not String(): it throws for objects without a method that converts them to text. */
function shown(value: unknown): string {
  return inspect(value, { depth: 1, breakLength: Number.POSITIVE_INFINITY });
}

function explainAction(input: unknown): string {
  if (typeof input === 'object' && input !== null) {
    const keys = Object.keys(input);
    const unknown = keys.find((key) => key !== 'threshold');
    if (unknown !== undefined) return `unknown key '${unknown}'; expected { threshold }`;
    if (keys.length === 1)
      return `threshold: ${THRESHOLD}, received ${shown(Reflect.get(input, 'threshold'))}`;
  }
  return `expected 'run', 'skip', 'gate' or { threshold }, received ${shown(input)}`;
}

/**
 * `value` as a SkipPolicy.
 * @throws ResidualSkipError INVALID_POLICY naming every unknown or malformed key
 */
export function parsePolicy(value: unknown, subject = 'policy'): SkipPolicy {
  const { $schema: _, ...policy } = parseStrict(policySchema(), value, { code: 'INVALID_POLICY', subject });
  return policy;
}

/** Hex SHA-256 of a policy as canonical JSON: keys sorted, block keys as written. */
export function hashPolicy(policy: SkipPolicy): string {
  return hashCanonical(policy);
}

/**
 * Hex SHA-256, as canonical JSON, of what a promise is about: all of a parsed policy that decides which answer is given, and the promise
 * itself but for its data. Names of files don't count, since each file has a hash; nor do bolder settings, which have promises of their own.
 */
export function hashPromised(policy: SkipPolicy): string {
  const { fronts, promise, ...own } = policy;
  return hashCanonical({
    ...without(own, 'version', 'expected', 'settings'),
    fronts: fronts?.map((front) => without(front, 'file')),
    promise: without(promise ?? {}, 'settings', 'data'),
  });
}

function without(object: object, ...keys: readonly string[]): object {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}

function hashCanonical(policy: object): string {
  const sorted = (_: string, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value;
  return createHash('sha256').update(JSON.stringify(policy, sorted)).digest('hex');
}
