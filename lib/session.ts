import type { Backend, RunRequest } from './backends/backend.js';
import { NativeBackend } from './backends/native.js';
import { ReferenceBackend } from './backends/reference.js';
import { Contexts } from './contexts.js';
import { ResidualSkipError } from './errors.js';
import {
  type BoundFeeds,
  bindFeeds,
  declaredBinding,
  type Feeds,
  overrideDimensions,
  tensorsAsRead,
} from './feeds.js';
import { allocateOutputs, collectOutputs, type Fetches, type FetchMap, parseFetches } from './fetches.js';
import { InputCopies } from './input-copies.js';
import {
  type BlockInfo,
  describeBlocks,
  describePort,
  type ModelInfo,
  type TensorMetadata,
} from './metadata.js';
import { loadModel } from './model/load.js';
import { compileModel } from './model/lower.js';
import type { Model } from './model/model.js';
import {
  parseRunOptions,
  parseRunSyncOptions,
  parseSessionOptions,
  type RunOptions,
  type RunSyncOptions,
  type SessionOptions,
} from './options.js';
import { notify, type RunContext, type RunEvent, type RunObserver, type TensorMap } from './skip/observer.js';
import { exitThresholds, FULL_POLICY, guardsOf, loadPolicy, type SkipPolicy } from './skip/policy.js';
import { buildTrace, type SkipTrace } from './skip/trace.js';
import { checkSource, type ModelSource } from './source.js';
import { type Specialization, Specializations } from './specializations.js';
import type { TensorData } from './tensor.js';
import { guardedItems, verificationOf } from './verification.js';

/** What a run with `{ trace: true }` returns. */
export interface TracedRun {
  /** Output tensors by name, as a run without trace returns them. */
  readonly outputs: TensorMap;
  readonly trace: SkipTrace;
}

type Traced<O> = O & { readonly trace: true };
type Untraced<O> = O & { readonly trace?: false };

/** A run that is checked and ready. */
interface Call {
  readonly specialization: Specialization;
  readonly feeds: BoundFeeds;
  readonly fetches: FetchMap;
  readonly request: RunRequest;
  readonly trace: boolean;
  /** What was asked for; `request.policy` is another one when an observer has set full depth. */
  readonly policy: SkipPolicy;
  readonly tripped: boolean;
}

function createBackend({ backend = 'native', threads, isa }: SessionOptions): Backend {
  return backend === 'native' ? new NativeBackend({ threads, isa }) : new ReferenceBackend();
}

/**
 * A residual network made ready to run; shaped like onnxruntime's class of that name. Runs may overlap.
 * Every failure is a ResidualSkipError, after which the session still works.
 */
export class InferenceSession {
  readonly #model: Model;
  readonly #backend: Backend;
  readonly #programs: Specializations;
  readonly #contexts: Contexts;
  readonly #policy: SkipPolicy;
  readonly #observers: readonly RunObserver[];
  readonly #running = new Set<Promise<unknown>>();
  readonly #copies = new InputCopies();
  #fullDepth = false;
  #released: Promise<void> | undefined;

  private constructor(
    model: Model,
    source: string | null,
    backend: Backend,
    policy: SkipPolicy,
    observers: readonly RunObserver[],
  ) {
    this.#model = model;
    this.#backend = backend;
    this.#programs = new Specializations(model, backend, compileModel);
    this.#contexts = new Contexts(model, source, backend);
    this.#policy = policy;
    this.#observers = [...observers];
  }

  /**
   * Loads a model and compiles it for its declared shape. When that depends on symbolic dimensions other
   * than the batch, it is compiled for each shape that is fed, at the first run with it.
   * @param source path of an ONNX file, or the bytes of one (external data needs a path)
   * @throws ResidualSkipError, see the codes MODEL_NOT_FOUND to ISA_UNAVAILABLE of ErrorCode
   */
  static async create(source: ModelSource, options?: SessionOptions): Promise<InferenceSession> {
    const parsed = parseSessionOptions(options);
    const policy = loadPolicy(parsed.policy ?? 'model');
    const checked = checkSource(source);
    const model = overrideDimensions(await loadModel(checked), parsed.freeDimensionOverrides ?? {});
    const backend = createBackend(parsed);
    const path = typeof checked === 'string' ? checked : null;
    const session = new InferenceSession(model, path, backend, policy, parsed.observers ?? []);
    try {
      session.#compileDeclared();
      session.#attach();
    } catch (error) {
      await session.release();
      throw error;
    }
    return session;
  }

  get inputNames(): readonly string[] {
    return this.#model.inputs.map(({ name }) => name);
  }

  get outputNames(): readonly string[] {
    return this.#model.outputs.map(({ name }) => name);
  }

  get inputMetadata(): readonly TensorMetadata[] {
    return this.#model.inputs.map(describePort);
  }

  get outputMetadata(): readonly TensorMetadata[] {
    return this.#model.outputs.map(describePort);
  }

  /**
   * The residual blocks, in order. Costs depend on shapes: they are those of the shape run last.
   * @throws ResidualSkipError INVALID_ARGUMENT before the first run of a model with symbolic dimensions other
   * than the batch; `freeDimensionOverrides` settles them
   */
  get blocks(): readonly BlockInfo[] {
    return describeBlocks(this.#latest().program);
  }

  get model(): ModelInfo {
    const { sha256, opset, parameters, batching, batchingReason } = this.#model;
    const multiplyAdds = this.#programs.latest?.program.cost.multiplyAdds ?? null;
    return { sha256, opset, parameters, multiplyAdds, batching, batchingReason: batchingReason ?? null };
  }

  get backend(): 'native' | 'reference' {
    return this.#backend.name;
  }

  /** Instruction set in use; 'js' for the reference backend. */
  get isa(): string {
    return this.#backend.isa;
  }

  /**
   * What runs with the session's policy have in common, for the shape run last.
   * @throws ResidualSkipError INVALID_ARGUMENT as `blocks` does
   */
  get context(): RunContext {
    const { program, resolve } = this.#latest();
    return this.#contexts.of(program, this.#policy, resolve(this.#policy));
  }

  /** What the observers say of themselves, in one object: `{ watch, auditLog }` where both are attached. */
  stats(): Readonly<Record<string, unknown>> {
    return Object.assign({}, ...this.#observers.map((observer) => observer.stats?.() ?? {}));
  }

  /**
   * Runs the model without blocking the event loop.
   * @param feeds every input by name; copied before this returns
   * @param fetches names of the outputs to return, or a map from name to null or to a tensor that is filled and
   * returned; all outputs when left out. Tensors are filled only when the run ends well.
   * @returns the outputs by name; with `{ trace: true }`, `{ outputs, trace }`
   * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_SHAPE, INVALID_POLICY, POLICY_MISMATCH,
   * ABORTED, SESSION_RELEASED, OUT_OF_MEMORY
   */
  run(feeds: Feeds, options: Traced<RunOptions>): Promise<TracedRun>;
  run(feeds: Feeds, fetches: Fetches, options: Traced<RunOptions>): Promise<TracedRun>;
  run(feeds: Feeds, options?: Untraced<RunOptions>): Promise<TensorMap>;
  run(feeds: Feeds, fetches: Fetches, options?: Untraced<RunOptions>): Promise<TensorMap>;
  run(feeds: Feeds, options: RunOptions): Promise<TensorMap | TracedRun>;
  run(feeds: Feeds, fetches: Fetches, options: RunOptions): Promise<TensorMap | TracedRun>;
  async run(feeds: Feeds, second?: Fetches | RunOptions, third?: RunOptions): Promise<TensorMap | TracedRun> {
    const { fetches, options } = parseFetches(this.#model, second, third);
    const { signal, ...rest } = parseRunOptions(options);
    if (signal?.aborted) {
      throw new ResidualSkipError('ABORTED', 'the run was aborted before it began', { cause: signal.reason });
    }
    const call = this.#prepare(feeds, fetches, rest);
    // The caller may change or transfer its arrays while the run is under way.
    const inputs = call.request.inputs.map((data) => this.#copies.copy(data));
    const start = performance.now();
    await this.#track(call.specialization.compiled.run({ ...call.request, inputs, signal }));
    const check = this.#verification(call, inputs);
    if (check) {
      await this.#track(check.compiled.run({ ...check.request, signal }));
      check.apply();
    }
    const result = this.#finish(call, inputs, performance.now() - start, check?.items);
    // Observers may keep what they were shown.
    if (this.#observers.length === 0) this.#copies.reuse(inputs);
    return result;
  }

  /** As `run`, on the calling thread, which it blocks: for scripts. */
  runSync(feeds: Feeds, options: Traced<RunSyncOptions>): TracedRun;
  runSync(feeds: Feeds, fetches: Fetches, options: Traced<RunSyncOptions>): TracedRun;
  runSync(feeds: Feeds, options?: Untraced<RunSyncOptions>): TensorMap;
  runSync(feeds: Feeds, fetches: Fetches, options?: Untraced<RunSyncOptions>): TensorMap;
  runSync(feeds: Feeds, options: RunSyncOptions): TensorMap | TracedRun;
  runSync(feeds: Feeds, fetches: Fetches, options: RunSyncOptions): TensorMap | TracedRun;
  runSync(feeds: Feeds, second?: Fetches | RunSyncOptions, third?: RunSyncOptions): TensorMap | TracedRun {
    const { fetches, options } = parseFetches(this.#model, second, third);
    const call = this.#prepare(feeds, fetches, parseRunSyncOptions(options));
    const start = performance.now();
    call.specialization.compiled.runSync(call.request);
    const check = this.#verification(call, call.request.inputs);
    if (check) {
      check.compiled.runSync(check.request);
      check.apply();
    }
    return this.#finish(call, call.request.inputs, performance.now() - start, check?.items);
  }

  /** Frees what the session holds, once the runs under way have ended. Idempotent. */
  release(): Promise<void> {
    this.#released ??= this.#close();
    return this.#released;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#running);
    await notify(this.#observers, (observer) => observer.onRelease?.());
    await Promise.allSettled(this.#running);
    this.#programs.release();
    this.#backend.release();
  }

  #attach(): void {
    const control = {
      runFull: (feeds: TensorMap) => this.#runUnseen(feeds),
      setFullDepth: (on: boolean) => {
        this.#fullDepth = on;
      },
    };
    void notify(this.#observers, (observer) => observer.onAttach?.(control));
  }

  /** For observers: every block runs, and no observer sees it. */
  async #runUnseen(feeds: TensorMap): Promise<TensorMap> {
    const { fetches } = parseFetches(this.#model, undefined, undefined);
    const call = this.#prepare(feeds, fetches, { policy: 'full' });
    await this.#track(call.specialization.compiled.run(call.request));
    return collectOutputs(call.specialization.program, call.request, fetches);
  }

  async #track(work: Promise<void>): Promise<void> {
    this.#running.add(work);
    try {
      await work;
    } finally {
      this.#running.delete(work);
    }
  }

  #compileDeclared(): void {
    const binding = declaredBinding(this.#model);
    if (binding) this.#programs.get(binding, this.#policy).resolve(this.#policy);
  }

  #latest(): Specialization {
    if (this.#programs.latest) return this.#programs.latest;
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      'blocks depend on the shapes of the inputs, which the model leaves open; run it once, or give freeDimensionOverrides to create',
    );
  }

  #prepare(feeds: Feeds, fetches: FetchMap, options: RunSyncOptions): Call {
    if (this.#released) {
      throw new ResidualSkipError('SESSION_RELEASED', 'the session was released; create another');
    }
    const policy = options.policy === undefined ? this.#policy : loadPolicy(options.policy);
    const tripped = this.#fullDepth && options.policy === undefined;
    const applied = tripped ? FULL_POLICY : policy;
    const bound = bindFeeds(this.#model, feeds);
    const specialization = this.#programs.get(bound.binding, applied);
    const { program, resolve } = specialization;
    const cells = bound.items * program.blocks.length;
    const request: RunRequest = {
      items: bound.items,
      inputs: program.inputs.map(({ name }) => bound.tensors[name]!.data),
      outputs: allocateOutputs(program, bound.items, fetches),
      policy: resolve(applied),
      ran: new Uint8Array(cells),
      scores: new Float32Array(cells).fill(Number.NaN),
    };
    return { specialization, feeds: bound, fetches, request, trace: options.trace ?? false, policy, tripped };
  }

  /** The run in full of the items whose answer the policy guards; undefined when there are none. */
  #verification({ specialization, feeds, request, policy, tripped }: Call, inputs: readonly TensorData[]) {
    const guards = tripped ? [] : guardsOf(policy);
    if (guards.length === 0) return undefined;
    const guarded = guardedItems(specialization.program, request, guards);
    if (guarded.length === 0) return undefined;
    const { program, compiled, resolve } = this.#programs.get(feeds.binding, FULL_POLICY);
    return { compiled, ...verificationOf(program, { ...request, inputs }, guarded, resolve(FULL_POLICY)) };
  }

  #finish(
    call: Call,
    data: readonly TensorData[],
    milliseconds: number,
    guarded?: ReadonlySet<number>,
  ): TensorMap | TracedRun {
    const { specialization, request } = call;
    const { program, resolve } = specialization;
    const outputs = collectOutputs(program, request, call.fetches);
    if (!call.trace && this.#observers.length === 0) return outputs;
    const { items } = request;
    const traceOf = once(() =>
      buildTrace(program, { ...request, tripped: call.tripped, exits: exitThresholds(call.policy), guarded }),
    );
    if (this.#observers.length > 0) {
      const context = this.#contexts.of(program, call.policy, resolve(call.policy));
      const names = program.inputs.map(({ name }) => name);
      const inputsKept = data !== request.inputs;
      const inputs = tensorsAsRead(call.feeds, names, data);
      const event: RunEvent = {
        context,
        inputs,
        inputsKept,
        outputs,
        items,
        milliseconds,
        get trace() {
          return traceOf();
        },
      };
      void notify(this.#observers, (observer) => observer.onRun?.(event));
    }
    return call.trace ? { outputs, trace: traceOf() } : outputs;
  }
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
