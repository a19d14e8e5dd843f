import { z } from 'zod';
import { PRECISIONS, type Precision } from '../model/program/program.js';
import type { PolicySource } from '../skip/load-policy.js';
import type { ItemRequest, RunObserver } from '../skip/observer.js';
import { late } from '../util/late.js';
import { parseStrict } from '../util/validation.js';
import { emitWarning } from '../util/warnings.js';
import { env } from './env.js';
import type { Progress } from './progress.js';
import type { ModelSource } from './source.js';

/** Instruction sets with native kernels. */
export const ISAS = ['scalar', 'avx2', 'avxvnni', 'avx512', 'avx512vnni', 'amx', 'neon', 'neondot'] as const;
/**
 * An instruction set that native kernels exist for: scalar, avx2, avx512 or neon; avxvnni, avx512vnni and neondot are the last
 * three with dot products of 8-bit numbers, amx is avx512vnni with products of matrices of them, which only 8-bit networks use.
 */
export type Isa = (typeof ISAS)[number];

/**
 * Options of onnxruntime that have no effect here. The first use of each emits a warning, unless `env.logLevel`
 * prevents it.
 */
export interface IgnoredSessionOptions {
  interOpNumThreads?: number | undefined;
  graphOptimizationLevel?: 'disabled' | 'basic' | 'extended' | 'layout' | 'all' | undefined;
  enableCpuMemArena?: boolean | undefined;
  enableMemPattern?: boolean | undefined;
  executionMode?: 'sequential' | 'parallel' | undefined;
  logId?: string | undefined;
  logSeverityLevel?: 0 | 1 | 2 | 3 | 4 | undefined;
  logVerbosityLevel?: number | undefined;
  /** `endProfiling` returns the profile. */
  profileFilePrefix?: string | undefined;
  extra?: Readonly<Record<string, unknown>> | undefined;
}

/** Options of `InferenceSession.create`. An unknown or malformed option is the error INVALID_ARGUMENT. */
export interface SessionOptions extends IgnoredSessionOptions {
  /**
   * Which blocks run; by default the `policy.json` of the model's folder, if the model is named by its folder and has one, or else
   * `model`: the gates and exits in the file decide.
   */
  policy?: PolicySource | undefined;
  /** `native` by default. `reference` is plain TypeScript: the same results on every platform, but slow. */
  backend?: 'native' | 'reference' | undefined;
  /** Native worker threads; by default as many as the process may use of the CPU. */
  threads?: number | undefined;
  /** onnxruntime's name of `threads`; 0 for as many as the process may use. */
  intraOpNumThreads?: number | undefined;
  /** onnxruntime's providers; only `cpu` is available, others are refused by name. */
  executionProviders?: readonly ('cpu' | (string & {}) | { readonly name: string })[] | undefined;
  /** onnxruntime's location of outputs; only `cpu` is available. */
  preferredOutputLocation?: 'cpu' | { readonly [outputName: string]: 'cpu' } | undefined;
  /** The most capable instruction set that native may use; by default the best of this CPU. */
  isa?: Isa | undefined;
  /**
   * What convolutions and matrix products with constants multiply: float32, or bfloat16, which is faster where the processor has
   * instructions for it (`bfloat16-amx` on Intel's with AMX, `bfloat16` on AMD's) and changes some answers; see docs/bfloat16.md. By default that of the policy, or else float32. Layers in 8 bits
   * stay as they are.
   */
  precision?: Precision | undefined;
  /**
   * Bytes that runs of the native backend may take at a time, in addition to weights, inputs and outputs. Fewer items of a batch, and
   * fewer runs, are under way at a time where all would take more; the error OUT_OF_MEMORY if a single item does. By default a single
   * item may take all memory that the process may use, several at a time half of it. Memory that isn't needed for five seconds is freed.
   */
  maxMemory?: number | undefined;
  /**
   * A folder for what `create` derives from model files: the next `create` of a file that hasn't changed neither lowers nor plans it
   * again, and answers are the same. It is made if it doesn't exist. Whoever may write to it decides what sessions compute, so it must
   * belong to the process's user. See docs/performance.md.
   */
  cache?: string | undefined;
  /**
   * The network that guards and monitors verify with, instead of this one with every block run: for an 8-bit network the float one
   * that it was made from; for a session in bfloat16 the same file. It has the same inputs and outputs, and runs in float32.
   */
  original?: ModelSource | undefined;
  /** Lengths for symbolic dimensions by name, as in onnxruntime: they become part of the model's shapes. */
  freeDimensionOverrides?: { readonly [dimension: string]: number } | undefined;
  /** Like `startProfiling` directly after `create`. */
  enableProfiling?: boolean | undefined;
  /**
   * Called by `create` when the file is loaded and, about twenty times a second, while the native backend packs weights. What it throws,
   * `create` throws once that has ended.
   */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Each sees every run of the session. */
  observers?: readonly RunObserver[] | undefined;
}

/** Options of `runSync` and `runTracedSync`. */
export interface RunSyncOptions {
  /** Instead of the session's policy, for this run. */
  policy?: PolicySource | undefined;
  /** Of each item of the batch, the request that it belongs to: observers see it, and the audit log records it. */
  requests?: readonly ItemRequest[] | undefined;
  /** A name for the run; as in onnxruntime, and without effect. */
  tag?: string | undefined;
  /** As in onnxruntime, and without effect. */
  logSeverityLevel?: 0 | 1 | 2 | 3 | 4 | undefined;
  /** As in onnxruntime, and without effect. */
  logVerbosityLevel?: number | undefined;
  /** As in onnxruntime, and without effect. */
  extra?: Readonly<Record<string, unknown>> | undefined;
}

/** Options of `run` and `runTraced`. */
export interface RunOptions extends RunSyncOptions {
  /** Aborting ends the run early with the error ABORTED, whose name is AbortError; null means no signal. */
  signal?: AbortSignal | null | undefined;
  /** As in onnxruntime: true ends the run at once with the error ABORTED. */
  terminate?: boolean | undefined;
}

const MOST_THREADS = 1024;
const isPolicy = (value: unknown) =>
  typeof value === 'string' || (typeof value === 'object' && value !== null);
const policySchema = late(() =>
  z.custom<PolicySource>(isPolicy, {
    error: "expected 'model', 'full', a SkipPolicy or the path of a policy file",
  }),
);

function integer(max: number) {
  const error = `expected an integer in 1..${max}`;
  return z.int({ error }).min(1, { error }).max(max, { error });
}

function oneOf<const T extends readonly string[]>(names: T) {
  return z.enum(names, { error: `expected one of ${names.map((name) => `'${name}'`).join(', ')}` });
}

const logLevel = late(() => z.literal([0, 1, 2, 3, 4], { error: 'expected an integer in 0..4' }));
const CPU_ONLY = "this package runs on the CPU alone; expected ['cpu']";

const ignoredShape = late(
  () =>
    ({
      interOpNumThreads: z.int().min(0).optional(),
      graphOptimizationLevel: oneOf(['disabled', 'basic', 'extended', 'layout', 'all']).optional(),
      enableCpuMemArena: z.boolean().optional(),
      enableMemPattern: z.boolean().optional(),
      executionMode: oneOf(['sequential', 'parallel']).optional(),
      logId: z.string().optional(),
      logSeverityLevel: logLevel().optional(),
      logVerbosityLevel: z.int().optional(),
      profileFilePrefix: z.string().optional(),
      extra: z.record(z.string(), z.unknown()).optional(),
    }) satisfies Record<keyof IgnoredSessionOptions, z.ZodType>,
);

const sessionSchema = late(() =>
  z.strictObject({
    ...ignoredShape(),
    intraOpNumThreads: z
      .int()
      .min(0)
      .max(MOST_THREADS, { error: `expected an integer in 0..${MOST_THREADS}` })
      .optional(),
    executionProviders: z
      .array(
        z.custom<string | { readonly name: string }>(
          (value) => value === 'cpu' || Object(value).name === 'cpu',
          {
            error: ({ input }) => `'${Object(input).name ?? input}' is not available: ${CPU_ONLY}`,
          },
        ),
      )
      .optional(),
    preferredOutputLocation: z
      .union([z.literal('cpu'), z.record(z.string(), z.literal('cpu'))], {
        error: "outputs are in main memory; expected 'cpu'",
      })
      .optional(),
    policy: policySchema().optional(),
    backend: oneOf(['native', 'reference']).optional(),
    threads: integer(MOST_THREADS).optional(),
    isa: oneOf(ISAS).optional(),
    precision: oneOf(PRECISIONS).optional(),
    maxMemory: integer(Number.MAX_SAFE_INTEGER).optional(),
    cache: z.string().min(1, { error: 'expected the path of a folder' }).optional(),
    original: z.custom<ModelSource>().optional(),
    enableProfiling: z.boolean().optional(),
    onProgress: z
      .custom<(progress: Progress) => void>((value) => typeof value === 'function', {
        error: 'expected a function',
      })
      .optional(),
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
  }),
);

const runSyncSchema = late(() =>
  z.strictObject({
    policy: policySchema().optional(),
    requests: z
      .custom<readonly ItemRequest[]>(
        (value) =>
          Array.isArray(value) &&
          value.every((one) => typeof one?.caller === 'string' && typeof one.id === 'string'),
        { error: 'expected an array of objects with caller and id' },
      )
      .optional(),
    tag: z.string().optional(),
    logSeverityLevel: logLevel().optional(),
    logVerbosityLevel: z.int().optional(),
    extra: z.record(z.string(), z.unknown()).optional(),
    trace: z.undefined({ error: 'runTraced and runTracedSync return traces' }).optional(),
  }),
);

const runSchema = late(() =>
  runSyncSchema().extend({
    signal: z
      .custom<AbortSignal>((value) => value instanceof AbortSignal, { error: 'expected an AbortSignal' })
      .nullish(),
    terminate: z.boolean({ error: 'expected true or false' }).optional(),
  }),
);

/** Names of the options of `run`. */
export const runOptions: () => readonly string[] = late(() => Object.keys(runSchema().shape));

/** Options that need no schema, whose library takes longer to load than a small network. Such values are what the schema accepts. */
const PLAIN: { readonly [option: string]: (value: unknown) => boolean } = {
  policy: isPolicy,
  threads: (value) => Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MOST_THREADS,
  cache: (value) => typeof value === 'string' && value !== '',
  isa: (value) => (ISAS as readonly unknown[]).includes(value),
  precision: (value) => (PRECISIONS as readonly unknown[]).includes(value),
};

function isPlain(value: unknown): value is SessionOptions {
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return false;
  return Object.entries(value).every(
    ([name, option]) => Object.hasOwn(PLAIN, name) && (option === undefined || PLAIN[name]!(option)),
  );
}

function parseOptions<T>(schema: () => z.ZodType<T>, value: unknown): T {
  // Every run calls this, usually without options.
  if (value === undefined) return {} as T;
  return parseStrict(schema(), value ?? {});
}

const warned = new Set<string>();

function warnOfIgnored(options: SessionOptions): void {
  if (env.logLevel === 'error' || env.logLevel === 'fatal') return;
  for (const name of Object.keys(ignoredShape())) {
    if (!Object.hasOwn(options, name) || warned.has(name)) continue;
    warned.add(name);
    emitWarning('OPTION', `onnxruntime's option ${name} has no effect in residual-skip`);
  }
}

/**
 * Options of a session; onnxruntime's `intraOpNumThreads` sets `threads`, too.
 * @throws ResidualSkipError INVALID_ARGUMENT naming all unknown or malformed options
 */
export function parseSessionOptions(value: unknown): SessionOptions {
  if (isPlain(value)) return { ...value };
  const options: SessionOptions = parseOptions(sessionSchema, value);
  warnOfIgnored(options);
  const { intraOpNumThreads, ...rest } = options;
  return intraOpNumThreads ? { threads: intraOpNumThreads, ...rest } : rest;
}

/** Whether it has a policy or nothing, as the runs of a server and of what measures: the schema would take longer than a small layer. */
function isPolicyAlone(value: unknown): value is Pick<RunSyncOptions, 'policy'> {
  if (typeof value !== 'object' || value === null) return false;
  for (const name in value) if (name !== 'policy') return false;
  const { policy } = value as RunSyncOptions;
  if (policy === undefined) return Object.getPrototypeOf(value) === Object.prototype;
  return typeof policy === 'string' || (typeof policy === 'object' && policy !== null);
}

/** Both throw ResidualSkipError INVALID_ARGUMENT naming all unknown or malformed options. */
export const parseRunOptions = (value: unknown): RunOptions =>
  isPolicyAlone(value) ? value : parseOptions(runSchema, value);
export const parseRunSyncOptions = (value: unknown): RunSyncOptions =>
  isPolicyAlone(value) ? value : parseOptions(runSyncSchema, value);
