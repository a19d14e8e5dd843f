import type { Backend } from '../backends/backend.js';
import { NativeBackend } from '../backends/native.js';
import { ReferenceBackend } from '../backends/reference.js';
import { ResidualSkipError } from '../errors.js';
import { gatesOutOfUse } from '../model/blocks/unusable-gates.js';
import { building } from '../model/compile.js';
import { loadModel } from '../model/load.js';
import type { Ir } from '../model/program/ir.js';
import type { Precision, Program } from '../model/program/program.js';
import type { ModelLocation } from '../model/read/file.js';
import type { FirstLayer } from '../model/read/first-layer.js';
import type { Binding, Model } from '../model/read/model.js';
import { type BlockInfo, describeBlocks } from '../skip/block-info.js';
import { checkPrecision } from '../skip/compiled-policy.js';
import { FULL_POLICY, loadPolicy } from '../skip/load-policy.js';
import type { AnswerReader, RunContext, RunObserver, SessionStats, TensorMap } from '../skip/observer.js';
import type { SkipPolicy } from '../skip/policy.js';
import type { SkipTrace } from '../skip/trace.js';
import type { TensorData } from '../tensor/tensor.js';
import type { Sliced } from '../util/slices.js';
import { Contexts } from './contexts.js';
import { bindFeeds, declaredBinding, type Feeds, hasOneBinding, overrideDimensions } from './feeds.js';
import { KnownFronts, type LoadedFront, loadFronts } from './fronts.js';
import { describePort, type ModelInfo, type TensorMetadata } from './metadata.js';
import { Notifier } from './notifier.js';
import {
  parseRunOptions,
  parseRunSyncOptions,
  parseSessionOptions,
  type RunOptions,
  type RunSyncOptions,
  type SessionOptions,
} from './options.js';
import { checkOriginal, checkSamePorts } from './original.js';
import {
  allOutputs,
  collectAnswers,
  collectOutputs,
  type Fetches,
  type FetchMap,
  parseFetches,
} from './outputs.js';
import { namingFiles, type OwnPolicy, ownPolicy, type PolicyInfo } from './own-policy.js';
import { type Profile, Profiler } from './profile.js';
import { ProgramCache } from './program-cache.js';
import { PackingReport } from './progress.js';
import {
  ActiveRuns,
  type BoundRun,
  execute,
  executeSync,
  type PreparedRun,
  prepareRun,
  RunOutcome,
  type Verifier,
} from './run.js';
import { checkSource, type ModelSource, parseSourceArguments } from './source.js';
import { endedRun, Tail } from './tail.js';

/** How long a run of low priority waits for others: a session that is never idle must be monitored, too. */
const PATIENCE_MS = 250;

/** Gates that a warning names at most. */
const NAMED_GATES = 3;

/** Returned by `runTraced`. */
export interface TracedRun {
  /** Output tensors by name, as `run` returns them. */
  readonly outputs: TensorMap;
  readonly trace: SkipTrace;
}

/** What the caller gets from a finished run. */
type Answer<T> = (outputs: TensorMap, outcome: RunOutcome) => T;
const untraced: Answer<TensorMap> = (outputs) => outputs;
const traced: Answer<TracedRun> = (outputs, { trace }) => ({ outputs, trace });

/** How a run ended. */
interface Ended {
  /** Whether the inputs are copies of this session. */
  readonly inputsKept: boolean;
  readonly milliseconds: number;
  readonly guarded: readonly number[] | undefined;
  /** All outputs of a model with stages behind its program. */
  readonly answers: TensorMap | undefined;
}

function createBackend({ backend = 'native', ...options }: SessionOptions): Backend {
  const { threads, isa, maxMemory } = options;
  return backend === 'native' ? new NativeBackend({ threads, isa, maxMemory }) : new ReferenceBackend();
}

/**
 * A residual network ready to run; shaped like onnxruntime's class of that name. Runs may overlap. Every failure is a
 * ResidualSkipError, after which the session still works.
 */
export class InferenceSession {
  readonly #model: Model;
  readonly #backend: Backend;
  readonly #programs: ProgramCache;
  readonly #verifier: Verifier;
  readonly #contexts: Contexts;
  readonly #tail: Tail | undefined;
  readonly #policy: SkipPolicy;
  readonly #policyInfo: PolicyInfo;
  readonly #originalSha256: string | undefined;
  readonly #precision: Precision;
  readonly #notifier: Notifier;
  readonly #everything: FetchMap;
  readonly #fronts: KnownFronts;
  #profiler: Profiler | undefined;
  #answerReader: AnswerReader | undefined;
  readonly #running = new ActiveRuns();
  /** Observers that have set full depth. */
  readonly #fullDepth = new Set<RunObserver>();
  /** The declared shapes or, if the model leaves them open, those that the caller ran last. */
  #shapes: Binding | undefined;
  #released: Promise<void> | undefined;
  #gatesChecked = false;

  private constructor(
    model: Model,
    source: string | null,
    backend: Backend,
    own: OwnPolicy,
    observers: readonly RunObserver[],
    original: Model | undefined,
    fronts: readonly LoadedFront[],
    precision: Precision,
  ) {
    if (backend === undefined) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        'new InferenceSession(): it is not supported; use await InferenceSession.create(model)',
      );
    }
    this.#model = model;
    this.#backend = backend;
    this.#programs = new ProgramCache(model, backend, (ir) => this.#build(ir), fronts, precision);
    this.#verifier = original
      ? {
          programs: new ProgramCache(original, backend),
          isOriginal: true,
        }
      : { programs: this.#programs, isOriginal: false };
    this.#tail = model.stages && new Tail(model, backend);
    this.#originalSha256 = original?.sha256;
    this.#precision = precision;
    this.#contexts = new Contexts(model, source, backend);
    this.#policy = own.policy;
    this.#policyInfo = own.info;
    this.#fronts = new KnownFronts(own.policy);
    this.#notifier = new Notifier(observers, this.#contexts);
    this.#everything = allOutputs(model);
  }

  /**
   * Loads a model and compiles it for its declared shape. If that depends on symbolic dimensions other than the
   * batch, the model is compiled at the first run with each shape. A process warning (RESIDUAL_SKIP_GATE) names gates of the graph
   * that can't be used.
   * @param source an ONNX file: its path or that of its folder, a `file:` URL, its bytes, or a Blob. External data
   * needs a path. For an ArrayBuffer, `byteOffset` and `byteLength` may follow. A folder's `policy.json` is the session's policy
   * unless `options.policy` names another.
   * @throws ResidualSkipError, see the codes MODEL_NOT_FOUND to ISA_UNAVAILABLE of ErrorCode
   */
  static async create(source: ModelSource, options?: SessionOptions): Promise<InferenceSession>;
  static async create(
    buffer: ArrayBufferLike,
    byteOffset: number,
    byteLength?: number,
    options?: SessionOptions,
  ): Promise<InferenceSession>;
  static async create(source: ModelSource, ...rest: unknown[]): Promise<InferenceSession> {
    const { bytes, options } = parseSourceArguments(source, rest);
    const parsed = parseSessionOptions(options);
    const asked = parsed.policy === undefined ? undefined : ownPolicy(parsed.policy);
    const checked = checkSource(bytes);
    const namesModel = asked && (asked.policy.model !== undefined || asked.policy.fronts !== undefined);
    const identified = ({ policy }: ModelLocation) =>
      parsed.observers !== undefined || parsed.original !== undefined || (namesModel ?? policy !== undefined);
    // The caller's bytes are copied before the first await.
    const load = async (from: typeof checked) => {
      const loaded = await loadModel(from instanceof Blob ? new Uint8Array(await from.arrayBuffer()) : from, {
        identified,
      });
      return overrideDimensions(loaded, parsed.freeDimensionOverrides ?? {});
    };
    const model = await load(checked);
    const own = asked ?? ownPolicy(model.location?.policy ?? 'model');
    const original = parsed.original === undefined ? undefined : await load(checkSource(parsed.original));
    if (original) checkSamePorts(model, original);
    const path = typeof checked === 'string' ? checked : null;
    const fronts = await loadFronts(own.policy, model).catch((error: unknown) => {
      throw namingFiles(error, own.info, model.location?.model);
    });
    const backend = createBackend(parsed);
    const observers = parsed.observers ?? [];
    const precision = parsed.precision ?? own.policy.precision ?? 'float32';
    const session = new InferenceSession(model, path, backend, own, observers, original, fronts, precision);
    try {
      parsed.onProgress?.({ stage: 'loading', done: 1, total: 1 });
      checkOriginal(own.policy, original?.sha256);
      checkPrecision(own.policy, precision);
      await session.#compileDeclared(parsed.onProgress);
      session.#attach();
      if (parsed.enableProfiling) session.startProfiling();
    } catch (error) {
      await session.release();
      throw namingFiles(error, own.info, model.location?.model);
    }
    return session;
  }

  /** Names of the inputs, in the order of the model. */
  get inputNames(): readonly string[] {
    return this.#model.inputs.map(({ name }) => name);
  }

  /** Names of the outputs, in the order of the model. */
  get outputNames(): readonly string[] {
    return this.#model.outputs.map(({ name }) => name);
  }

  /** Type and declared shape of each input; open dimensions are names. */
  get inputMetadata(): readonly TensorMetadata[] {
    return this.#model.inputs.map(describePort);
  }

  /** Type and declared shape of each output; open dimensions are names. */
  get outputMetadata(): readonly TensorMetadata[] {
    return this.#model.outputs.map(describePort);
  }

  /**
   * The residual blocks under the session's own policy, in order. Costs are those of the declared shape or, if the
   * model leaves it open, of the shape that the caller ran last.
   * @throws ResidualSkipError INVALID_ARGUMENT before the first run of a model with symbolic dimensions other than
   * the batch; `freeDimensionOverrides` settles them
   */
  get blocks(): readonly BlockInfo[] {
    return describeBlocks(this.#program());
  }

  /** The session's own policy: which one it is, and what it promises. A run may have another one. */
  get policy(): PolicyInfo {
    return this.#policyInfo;
  }

  /** Facts about the model. */
  get model(): ModelInfo {
    const model = this.#model;
    const { opset, metadata, parameters, batching, batchingReason = null } = model;
    const multiplyAdds = this.#shapes ? this.#program().cost.multiplyAdds : null;
    const facts = { opset, metadata, parameters, multiplyAdds, batching, batchingReason };
    return {
      get sha256() {
        return model.sha256;
      },
      ...facts,
    };
  }

  /**
   * What the network expects of pixels, if that is known.
   * @internal
   */
  get firstLayer(): FirstLayer | undefined {
    return this.#model.firstLayer;
  }

  get backend(): 'native' | 'reference' {
    return this.#backend.name;
  }

  /** Instruction set in use; 'js' for the reference backend. */
  get isa(): string {
    return this.#backend.isa;
  }

  /** What convolutions and matrix products with constants multiply. */
  get precision(): Precision {
    return this.#precision;
  }

  /**
   * Says what an item's answer is, for observers that compare answers.
   * @internal
   */
  readAnswersWith(reader: AnswerReader): void {
    this.#answerReader = reader;
  }

  /**
   * What runs with the session's own policy have in common, for the shape that `blocks` describes.
   * @throws ResidualSkipError INVALID_ARGUMENT as `blocks` does
   */
  get context(): RunContext {
    return this.#contexts.describe(this.#program(), this.#policy);
  }

  /**
   * The statistics of the observers in one object: `{ watch, auditLog }` if both are attached. A second observer of a
   * kind is `watch2`, in the order of the option `observers`.
   */
  stats(): SessionStats {
    return this.#notifier.stats();
  }

  /**
   * Runs the model without blocking the event loop, except for runs that would take at most about 2 ms even with every
   * block and no exit. A single one executes on the calling thread, in a turn of the event loop of its own. So does one of
   * several in a session of two to four threads that has all cores that the process may use. Runs with a signal never do.
   * @param feeds every input by name; copied before this returns
   * @returns all outputs by name
   * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_SHAPE, INVALID_POLICY, POLICY_MISMATCH,
   * ABORTED, SESSION_RELEASED, OUT_OF_MEMORY
   */
  run(feeds: Feeds, options?: RunOptions): Promise<TensorMap>;
  /**
   * The same, for some of the outputs.
   * @param fetches names of the outputs to return, or a map from name to null or to a tensor that is filled and
   * returned. Tensors are filled only when the run ends well.
   */
  run(feeds: Feeds, fetches: Fetches, options?: RunOptions): Promise<TensorMap>;
  run(feeds: Feeds, second?: Fetches | RunOptions, third?: RunOptions): Promise<TensorMap> {
    return this.#running.track(this.#run(feeds, second, third, untraced));
  }

  /** Like `run`, but also returns what each item ran and skipped. */
  runTraced(feeds: Feeds, options?: RunOptions): Promise<TracedRun>;
  runTraced(feeds: Feeds, fetches: Fetches, options?: RunOptions): Promise<TracedRun>;
  runTraced(feeds: Feeds, second?: Fetches | RunOptions, third?: RunOptions): Promise<TracedRun> {
    return this.#running.track(this.#run(feeds, second, third, traced));
  }

  async #run<T>(feeds: Feeds, second: unknown, third: unknown, answer: Answer<T>): Promise<T> {
    const { fetches, options } = parseFetches(this.#model, this.#everything, second, third);
    const parsed = parseRunOptions(options);
    const signal = parsed.signal ?? undefined;
    if (parsed.terminate || signal?.aborted) {
      throw new ResidualSkipError('ABORTED', 'run: it was aborted before it began', {
        cause: signal?.reason,
      });
    }
    // The caller may change or transfer its arrays during the run.
    const bound = this.#bind(feeds, parsed, (data) => this.#notifier.copyInput(data));
    const cached =
      this.#programs.find(bound.feeds, bound.applied) ??
      (await this.#programs.get(bound.feeds, bound.applied));
    const call = prepareRun(bound, cached, fetches, this.#profiler, signal);
    const start = performance.now();
    const guarded = await execute(call, this.#verifier);
    const answers = await this.#tail?.run(endedRun(call));
    const milliseconds = performance.now() - start;
    return this.#finish(call, { inputsKept: true, milliseconds, guarded, answers }, answer);
  }

  /** Like `run`, but on the calling thread, which it blocks: for scripts. */
  runSync(feeds: Feeds, options?: RunSyncOptions): TensorMap;
  runSync(feeds: Feeds, fetches: Fetches, options?: RunSyncOptions): TensorMap;
  runSync(feeds: Feeds, second?: Fetches | RunSyncOptions, third?: RunSyncOptions): TensorMap {
    return this.#runSync(feeds, second, third, untraced);
  }

  /** Like `runTraced`, but on the calling thread, which it blocks: for scripts. */
  runTracedSync(feeds: Feeds, options?: RunSyncOptions): TracedRun;
  runTracedSync(feeds: Feeds, fetches: Fetches, options?: RunSyncOptions): TracedRun;
  runTracedSync(feeds: Feeds, second?: Fetches | RunSyncOptions, third?: RunSyncOptions): TracedRun {
    return this.#runSync(feeds, second, third, traced);
  }

  #runSync<T>(feeds: Feeds, second: unknown, third: unknown, answer: Answer<T>): T {
    const { fetches, options } = parseFetches(this.#model, this.#everything, second, third);
    const parsed = parseRunSyncOptions(options);
    const bound = this.#bind(feeds, parsed);
    const cached = this.#programs.getSync(bound.feeds, bound.applied);
    const call = prepareRun(bound, cached, fetches, this.#profiler);
    const start = performance.now();
    const guarded = executeSync(call, this.#verifier);
    const answers = this.#tail?.runSync(endedRun(call));
    const milliseconds = performance.now() - start;
    return this.#finish(call, { inputsKept: false, milliseconds, guarded, answers }, answer);
  }

  /**
   * Measures the time of every step of all runs until `endProfiling`. Starts over if profiling was already on.
   * Without profiling nothing is measured, and nothing is spent.
   */
  startProfiling(): void {
    this.#profiler = new Profiler();
  }

  /**
   * Ends profiling.
   * @returns what ran since `startProfiling`: items, their blocks and gates, and their steps, in Chrome's trace
   * format. Steps that the engine has fused appear as one, under the name of the last.
   * @throws ResidualSkipError INVALID_ARGUMENT when profiling was not started
   */
  endProfiling(): Profile {
    if (!this.#profiler) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        'endProfiling: profiling is not on; call startProfiling first',
      );
    }
    const profile = this.#profiler.end(this.#backend);
    this.#profiler = undefined;
    return profile;
  }

  /** Frees what the session holds once the runs in progress have ended. Idempotent. */
  release(): Promise<void> {
    this.#released ??= this.#close();
    return this.#released;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  async #close(): Promise<void> {
    await this.#running.settled();
    await this.#notifier.release();
    await this.#running.settled();
    this.#programs.release();
    this.#tail?.release();
    if (this.#verifier.isOriginal) this.#verifier.programs.release();
    this.#backend.release();
  }

  *#build(ir: Ir): Sliced<Program> {
    const program = yield* building(ir);
    this.#warnOfGates(program);
    return program;
  }

  /** Names the gates that can't be used, once: in `create`, or at the first run where the model leaves its shape open. */
  #warnOfGates(program: Program): void {
    // Where every block is to run, no gate is missed.
    if (this.#gatesChecked || this.#policy === FULL_POLICY) return;
    this.#gatesChecked = true;
    const gates = gatesOutOfUse(this.#model, program);
    if (gates.length === 0) return;
    const shown = gates.slice(0, NAMED_GATES).map(({ node, reason }) => `'${node}' (${reason})`);
    const rest = gates.length > shown.length ? `, and ${gates.length - shown.length} more` : '';
    const text = `model: gates that can't be used are computed: ${shown.join(', ')}${rest}; inspect lists them`;
    process.emitWarning(text, { code: 'RESIDUAL_SKIP_GATE' });
  }

  #attach(): void {
    const { expected, promise } = this.#policy;
    this.#notifier.attach((observer) => ({
      promise,
      profiles: { gate: expected?.scores, exit: expected?.exits },
      auditLines: this.#backend.auditLines,
      hasOriginal: this.#verifier.isOriginal,
      answerReader: () => this.#answerReader,
      runFull: (feeds: TensorMap, priority?: 'low') =>
        this.#runUnseen(this.#verifier.programs, feeds, { policy: 'full' }, priority),
      runAgain: (feeds: TensorMap) => this.#runUnseen(this.#programs, feeds, {}),
      setFullDepth: (on: boolean) => {
        if (on) this.#fullDepth.add(observer);
        else this.#fullDepth.delete(observer);
      },
    }));
  }

  /** A run for observers, which no observer sees. */
  async #runUnseen(
    programs: ProgramCache,
    feeds: TensorMap,
    options: RunSyncOptions,
    priority?: 'low',
  ): Promise<TensorMap> {
    if (priority === 'low') await this.#running.idle(PATIENCE_MS);
    return this.#running.track(this.#runAside(programs, feeds, options));
  }

  async #runAside(programs: ProgramCache, feeds: TensorMap, options: RunSyncOptions): Promise<TensorMap> {
    const fetches = this.#everything;
    const bound = this.#bind(feeds, options);
    const cached = await programs.get(bound.feeds, bound.applied);
    const call = prepareRun(bound, cached, fetches);
    await execute(call, this.#verifier);
    const answers = await this.#tail?.run(endedRun(call));
    const outputs = answers
      ? collectAnswers(answers, fetches)
      : collectOutputs(cached.program, call.results, fetches);
    cached.results.giveBack(call.results);
    return outputs;
  }

  async #compileDeclared(onProgress: SessionOptions['onProgress']): Promise<void> {
    const binding = declaredBinding(this.#model);
    if (!binding) return;
    const report = onProgress && new PackingReport(onProgress);
    const only = hasOneBinding(this.#model);
    const declared = await this.#programs.declare(binding, this.#policy, only, report?.onPacked);
    report?.check();
    declared.resolve(this.#policy);
    this.#shapes = binding;
  }

  /** Of the session's own policy. */
  #program(): Program {
    if (this.#shapes) return this.#programs.programOf({ binding: this.#shapes }, this.#policy);
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      'blocks: they depend on the shapes of the inputs, which the model leaves open; run it once, or give freeDimensionOverrides to create',
    );
  }

  /** @param copy for a run that leaves the caller its arrays meanwhile */
  #bind(feeds: Feeds, options: RunSyncOptions, copy?: (data: TensorData) => TensorData): BoundRun {
    if (this.#released) {
      throw new ResidualSkipError('SESSION_RELEASED', 'session: it was released; create another');
    }
    const policy = options.policy === undefined ? this.#policy : loadPolicy(options.policy);
    if (policy !== this.#policy) {
      checkOriginal(policy, this.#originalSha256);
      this.#fronts.check(policy);
    }
    const tripped = this.#fullDepth.size > 0;
    const applied = tripped ? FULL_POLICY : policy;
    const bound = bindFeeds(this.#model, feeds);
    const { requests } = options;
    if (requests && requests.length !== bound.items) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        `options.requests: expected one for each of the ${bound.items} items, received ${requests.length}`,
      );
    }
    return { feeds: copy ? bound.copied(copy) : bound, policy, applied, tripped, requests };
  }

  /** For observers: the caller's outputs if it requested all of them, otherwise all outputs again. */
  #allOutputs({ cached, results, fetches }: PreparedRun, { answers }: Ended, outputs: TensorMap): TensorMap {
    const all = this.#everything;
    if (this.#notifier.nobody || fetches === all) return outputs;
    return answers ? answers : collectOutputs(cached.program, results, all);
  }

  #finish<T>(call: PreparedRun, ended: Ended, answer: Answer<T>): T {
    const { program } = call.cached;
    if (!this.#programs.hasDeclared) this.#shapes = call.feeds.binding;
    const outputs = ended.answers
      ? collectAnswers(ended.answers, call.fetches)
      : collectOutputs(program, call.results, call.fetches);
    const outcome = new RunOutcome(call, ended.guarded);
    const { inputsKept, milliseconds } = ended;
    const all = this.#allOutputs(call, ended, outputs);
    this.#notifier.notify(call, { inputsKept, milliseconds, outputs: all, outcome });
    const ran = answer(outputs, outcome);
    if (this.#notifier.nobody) call.cached.results.giveBack(call.results);
    return ran;
  }
}

/**
 * onnxruntime's names of the types around a session.
 * @hidden
 */
export declare namespace InferenceSession {
  type SessionOptions = import('./options.js').SessionOptions;
  type RunOptions = import('./options.js').RunOptions;
  /** What `run` is given: inputs by name. */
  type FeedsType = Feeds;
  /** Which outputs `run` returns. */
  type FetchesType = Fetches;
  /** What `run` returns: outputs by name. */
  type ReturnType = TensorMap;
  type OnnxValueMapType = TensorMap;
  type NullableOnnxValueMapType = { readonly [name: string]: TensorMap[string] | null };
  type ValueMetadata = TensorMetadata;
  type TensorValueMetadata = TensorMetadata;
  type ExecutionProviderConfig = NonNullable<SessionOptions['executionProviders']>[number];
}
