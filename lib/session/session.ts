import { ResidualSkipError } from '../errors.js';
import type { Precision } from '../model/program/program.js';
import type { FirstLayer } from '../model/read/first-layer.js';
import { type BlockInfo, describeBlocks } from '../skip/block-info.js';
import type { AnswerReader, RunContext, SessionStats, TensorMap } from '../skip/observer.js';
import type { SkipPolicy } from '../skip/policy.js';
import type { SkipTrace } from '../skip/trace.js';
import { bindFeeds, type Feeds } from './feeds.js';
import { describePort, type ModelInfo, type TensorMetadata } from './metadata.js';
import { openRunner } from './open.js';
import type { RunOptions, RunSyncOptions, SessionOptions } from './options.js';
import type { Fetches } from './outputs.js';
import { namingFiles, type PolicyInfo } from './own-policy.js';
import { readParts, type SessionParts } from './parts.js';
import { type Profile, Profiler } from './profile.js';
import type { Answer, OwnFeeds, Runner } from './runner.js';
import type { ModelSource } from './source.js';

/** What `create` shows to the constructor. */
const OPENED = Symbol('opened');

/** Returned by `runTraced`. */
export interface TracedRun {
  /** Output tensors by name, as `run` returns them. */
  readonly outputs: TensorMap;
  readonly trace: SkipTrace;
}

const untraced: Answer<TensorMap> = (outputs) => outputs;
const traced: Answer<TracedRun> = (outputs, { trace }) => ({ outputs, trace });

/**
 * A residual network ready to run; shaped like onnxruntime's class of that name. Runs may overlap. Every failure is a
 * ResidualSkipError, after which the session still works.
 */
export class InferenceSession {
  readonly #parts: SessionParts;
  readonly #runner: Runner;

  private constructor(parts: SessionParts, runner: Runner, opened?: symbol) {
    if (opened !== OPENED) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        'new InferenceSession(): it is not supported; use await InferenceSession.create(model)',
      );
    }
    this.#parts = parts;
    this.#runner = runner;
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
    const parts = await readParts(source, rest);
    const { network, own, options } = parts;
    const session = new InferenceSession(parts, await openRunner(parts), OPENED);
    try {
      options.onProgress?.({ stage: 'loading', done: 1, total: 1 });
      await session.#runner.prepare();
      if (options.enableProfiling) session.startProfiling();
    } catch (error) {
      await session.release();
      throw namingFiles(error, own.info, network.model.location?.model);
    }
    return session;
  }

  /** Names of the inputs, in the order of the model. */
  get inputNames(): readonly string[] {
    return this.#parts.network.model.inputs.map(({ name }) => name);
  }

  /** Names of the outputs, in the order of the model. */
  get outputNames(): readonly string[] {
    return this.#parts.network.model.outputs.map(({ name }) => name);
  }

  /** Type and declared shape of each input; open dimensions are names. */
  get inputMetadata(): readonly TensorMetadata[] {
    return this.#parts.network.model.inputs.map(describePort);
  }

  /** Type and declared shape of each output; open dimensions are names. */
  get outputMetadata(): readonly TensorMetadata[] {
    return this.#parts.network.model.outputs.map(describePort);
  }

  /**
   * The residual blocks under the session's own policy, in order. Costs are those of the declared shape or, if the
   * model leaves it open, of the shape that the caller ran last.
   * @throws ResidualSkipError INVALID_ARGUMENT before the first run of a model with symbolic dimensions other than
   * the batch; `freeDimensionOverrides` settles them
   */
  get blocks(): readonly BlockInfo[] {
    return describeBlocks(this.#runner.program);
  }

  /** The session's own policy: which one it is, and what it promises. A run may have another one. */
  get policy(): PolicyInfo {
    return this.#parts.own.info;
  }

  /**
   * The session's own policy itself.
   * @internal
   */
  get ownPolicy(): SkipPolicy {
    return this.#parts.own.policy;
  }

  /** Facts about the model. */
  get model(): ModelInfo {
    const { model } = this.#parts.network;
    const { opset, metadata, parameters, batching, batchingReason = null } = model;
    const multiplyAdds = this.#runner.hasShapes ? this.#runner.program.cost.multiplyAdds : null;
    const facts = { opset, metadata, parameters, multiplyAdds, batching, batchingReason };
    return {
      get sha256() {
        return model.sha256;
      },
      ...facts,
    };
  }

  /**
   * `model.sha256`; if it isn't known yet, it is computed in turns with the event loop.
   * @throws ResidualSkipError READ_FAILED when the file has changed since it was loaded
   */
  sha256(): Promise<string> {
    return this.#parts.network.model.identify();
  }

  /**
   * What the network expects of pixels, if that is known.
   * @internal
   */
  get firstLayer(): FirstLayer | undefined {
    return this.#parts.network.model.firstLayer;
  }

  /**
   * The tensors that a run takes of these feeds.
   * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DTYPE or INVALID_SHAPE
   * @internal
   */
  checkedFeeds(feeds: Feeds): TensorMap {
    return bindFeeds(this.#parts.network.model, feeds).tensors;
  }

  get backend(): 'native' | 'reference' {
    return this.#parts.backend.name;
  }

  /** Instruction set in use; 'js' for the reference backend. */
  get isa(): string {
    return this.#parts.backend.isa;
  }

  /** What convolutions and matrix products with constants multiply. */
  get precision(): Precision {
    return this.#parts.precision;
  }

  /**
   * Says what an item's answer is, for observers that compare answers.
   * @internal
   */
  readAnswersWith(reader: AnswerReader): void {
    this.#runner.answerReader = reader;
  }

  /**
   * What runs with the session's own policy have in common, for the shape that `blocks` describes.
   * @throws ResidualSkipError INVALID_ARGUMENT as `blocks` does
   */
  get context(): RunContext {
    return this.#runner.context;
  }

  /**
   * The statistics of the observers in one object: `{ watch, auditLog }` if both are attached. A second observer of a
   * kind is `watch2`, in the order of the option `observers`.
   */
  stats(): SessionStats {
    return this.#runner.stats();
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
    return this.#runner.run(feeds, second, third, untraced);
  }

  /** Like `run`, but also returns what each item ran and skipped. */
  runTraced(feeds: Feeds, options?: RunOptions): Promise<TracedRun>;
  runTraced(feeds: Feeds, fetches: Fetches, options?: RunOptions): Promise<TracedRun>;
  runTraced(feeds: Feeds, second?: Fetches | RunOptions, third?: RunOptions): Promise<TracedRun> {
    return this.#runner.run(feeds, second, third, traced);
  }

  /**
   * Like `run`, with feeds that nobody changes or transfers. Items may have run before (`of`): one that an exit stopped goes on behind that
   * exit if the policy leads there and further, without what came before. Outputs and traces are those of a run from the beginning.
   * @internal
   */
  runOwn(feeds: Feeds, fetches: Fetches, options: RunOptions, own: OwnFeeds): Promise<TensorMap> {
    return this.#runner.run(feeds, fetches, options, untraced, own);
  }

  /**
   * The same, with what each item ran and skipped.
   * @internal
   */
  runOwnTraced(feeds: Feeds, fetches: Fetches, options: RunOptions, own: OwnFeeds): Promise<TracedRun> {
    return this.#runner.run(feeds, fetches, options, traced, own);
  }

  /** Like `run`, but on the calling thread, which it blocks: for scripts. */
  runSync(feeds: Feeds, options?: RunSyncOptions): TensorMap;
  runSync(feeds: Feeds, fetches: Fetches, options?: RunSyncOptions): TensorMap;
  runSync(feeds: Feeds, second?: Fetches | RunSyncOptions, third?: RunSyncOptions): TensorMap {
    return this.#runner.runSync(feeds, second, third, untraced);
  }

  /** Like `runTraced`, but on the calling thread, which it blocks: for scripts. */
  runTracedSync(feeds: Feeds, options?: RunSyncOptions): TracedRun;
  runTracedSync(feeds: Feeds, fetches: Fetches, options?: RunSyncOptions): TracedRun;
  runTracedSync(feeds: Feeds, second?: Fetches | RunSyncOptions, third?: RunSyncOptions): TracedRun {
    return this.#runner.runSync(feeds, second, third, traced);
  }

  /**
   * Measures the time of every step of all runs until `endProfiling`. Starts over if profiling was already on.
   * Without profiling nothing is measured, and nothing is spent.
   */
  startProfiling(): void {
    this.#runner.profiler = new Profiler();
  }

  /**
   * Ends profiling.
   * @returns what ran since `startProfiling`: items, their blocks and gates, and their steps, in Chrome's trace
   * format. Steps that the engine has fused appear as one, under the name of the last.
   * @throws ResidualSkipError INVALID_ARGUMENT when profiling was not started
   */
  endProfiling(): Profile {
    if (!this.#runner.profiler) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        'endProfiling: profiling is not on; call startProfiling first',
      );
    }
    const profile = this.#runner.profiler.end(this.#parts.backend);
    this.#runner.profiler = undefined;
    return profile;
  }

  /** Frees what the session holds once the runs in progress have ended. Idempotent. */
  release(): Promise<void> {
    return this.#runner.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
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
