import { z } from 'zod';
import type { PolicySource } from './skip/load-policy.js';
import type { RunObserver } from './skip/observer.js';
import { parseStrict } from './validation.js';

/** Instruction sets that native kernels exist for. */
export const ISAS = ['scalar', 'avx2', 'avx512', 'neon'] as const;
export type Isa = (typeof ISAS)[number];

export interface SessionOptions {
  /** Which blocks run; `model` (the gates in the file decide) when left out. */
  policy?: PolicySource;
  /** `native` when left out. `reference` is plain TypeScript: the same results from anywhere, slowly. */
  backend?: 'native' | 'reference';
  /** Native worker threads; as many as the process may use of the CPU when left out. */
  threads?: number;
  /** The most capable instruction set that native may use; the best of this CPU when left out. */
  isa?: Isa;
  /** Lengths for symbolic dimensions by name, as in onnxruntime: they become part of the model's shapes. */
  freeDimensionOverrides?: { readonly [dimension: string]: number };
  /** Each sees every run of the session. */
  observers?: readonly RunObserver[];
}

export interface RunSyncOptions {
  /** Also return what each item ran and skipped. */
  trace?: boolean;
  /** Instead of the session's policy, for this run. */
  policy?: PolicySource;
}

export interface RunOptions extends RunSyncOptions {
  /** Aborting ends the run early with the error ABORTED; null is no signal. */
  signal?: AbortSignal | null;
}

const policySchema = z.custom<PolicySource>(
  (value) => typeof value === 'string' || (typeof value === 'object' && value !== null),
  { error: "expected 'model', 'full', a SkipPolicy or the path of a policy file" },
);

function integer(most: number) {
  const error = `expected an integer in 1..${most}`;
  return z.int({ error }).min(1, { error }).max(most, { error });
}

function oneOf<const T extends readonly string[]>(names: T) {
  return z.enum(names, { error: `expected one of ${names.map((name) => `'${name}'`).join(', ')}` });
}

const sessionSchema = z.strictObject({
  policy: policySchema.optional(),
  backend: oneOf(['native', 'reference']).optional(),
  threads: integer(1024).optional(),
  isa: oneOf(ISAS).optional(),
  freeDimensionOverrides: z.record(z.string(), integer(2 ** 31 - 1)).optional(),
  observers: z
    .array(
      z.custom<RunObserver>(
        (value) =>
          typeof value === 'object' &&
          value !== null &&
          ['function', 'undefined'].includes(typeof Reflect.get(value, 'onRun')),
        { error: 'expected an object with a method onRun' },
      ),
      { error: 'expected an array of observers' },
    )
    .optional(),
});

const runSyncSchema = z.strictObject({
  trace: z.boolean({ error: 'expected true or false' }).optional(),
  policy: policySchema.optional(),
});

const runSchema = runSyncSchema.extend({
  signal: z
    .custom<AbortSignal>((value) => value instanceof AbortSignal, { error: 'expected an AbortSignal' })
    .nullish(),
});

/** Names of the options of `run`. */
export const RUN_OPTIONS: readonly string[] = Object.keys(runSchema.shape);

function parseOptions<T>(schema: z.ZodType<T> & { shape: object }, value: unknown): T {
  // Every run asks, most without any.
  if (value === undefined) return {} as T;
  const known = Object.keys(schema.shape);
  return parseStrict(schema, value ?? {}, { code: 'INVALID_ARGUMENT', subject: 'options', known });
}

/** Each throws ResidualSkipError INVALID_ARGUMENT that names all options that are unknown or malformed. */
export const parseSessionOptions = (value: unknown): SessionOptions => parseOptions(sessionSchema, value);
export const parseRunOptions = (value: unknown): RunOptions => parseOptions(runSchema, value);
export const parseRunSyncOptions = (value: unknown): RunSyncOptions => parseOptions(runSyncSchema, value);
