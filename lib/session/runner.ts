import { ResidualSkipError } from '../errors.js';
import { gatesOutOfUse } from '../model/blocks/gates-out-of-use.js';
import type { Program } from '../model/program/program.js';
import type { Binding, ModelFacts } from '../model/read/model.js';
import { checkModel, checkPrecision } from '../skip/compiled-policy.js';
import { FULL_POLICY, loadPolicy } from '../skip/load-policy.js';
import type { AnswerReader, RunContext, RunObserver, SessionStats, TensorMap } from '../skip/observer.js';
import type { SkipPolicy } from '../skip/policy.js';
import type { TensorData } from '../tensor/tensor.js';
import { milliseconds } from '../util/clock.js';
import { emitWarning } from '../util/warnings.js';
import { Contexts } from './contexts.js';
import { bindFeeds, declaredBinding, type Feeds, hasOneBinding } from './feeds.js';
import { KnownFronts } from './known-fronts.js';
import { Notifier } from './notifier.js';
import { parseRunOptions, parseRunSyncOptions, type RunSyncOptions, type SessionOptions } from './options.js';
import { checkOriginal } from './original.js';
import { allOutputs, collectAnswers, collectOutputs, type FetchMap, parseFetches } from './outputs.js';
import type { SessionParts } from './parts.js';
import type { Profiler } from './profile.js';
import { ProgramCache } from './program-cache.js';
import { PackingReport } from './progress.js';
import {
  ActiveRuns,
  type BoundRun,
  endedRun,
  execute,
  executeSync,
  type PreparedRun,
  prepareRun,
  RunOutcome,
  type Verifier,
} from './run.js';
import type { Stopped } from './stopped-items.js';
import type { Tail } from './tail.js';

/** How long a run of low priority waits for others: a session that is never idle must be monitored, too. */
const PATIENCE_MS = 250;

/** Gates that a warning names at most. */
const NAMED_GATES = 3;

/** What the caller gets from a finished run. */
export type Answer<T> = (outputs: TensorMap, outcome: RunOutcome) => T;

/** Feeds that nobody changes or transfers, so that they needn't be copied. */
export interface OwnFeeds {
  /** Set if items go on from where they stopped. */
  readonly of?: Stopped | undefined;
}

/** How a run ended. */
interface Ended {
  /** Whether the inputs are copies of this session. */
  readonly inputsKept: boolean;
  readonly milliseconds: number;
  readonly guarded: readonly number[] | undefined;
  /** All outputs of a model with stages behind its program. */
  readonly answers: TensorMap | undefined;
}

/** The runs of one session: which policy and program each has, and what the caller and the observers get from it. */
export class Runner {
  readonly #parts: SessionParts;
  readonly #model: ModelFacts;
  readonly #policy: SkipPolicy;
  readonly #programs: ProgramCache;
  readonly #verifier: Verifier;
  readonly #contexts: Contexts;
  readonly #tail: Tail | undefined;
  readonly #notifier: Notifier;
  readonly #everything: FetchMap;
  readonly #fronts: KnownFronts;
  readonly #running = new ActiveRuns();
  /** Observers that have set full depth. */
  readonly #fullDepth = new Set<RunObserver>();
  /** The declared shapes or, if the model leaves them open, those that the caller ran last. */
  #shapes: Binding | undefined;
  #released: Promise<void> | undefined;
  #gatesChecked = false;
  /** Says what an item's answer is, for observers that compare answers. */
  answerReader: AnswerReader | undefined;
  /** Set while the session is profiled. */
  profiler: Profiler | undefined;

  constructor(parts: SessionParts, tail: Tail | undefined) {
    const { network, source, backend, own, original, fronts, precision, options } = parts;
    this.#parts = parts;
    this.#model = network.model;
    this.#policy = own.policy;
    this.#programs = new ProgramCache(
      network,
      backend,
      (program) => this.#warnOfGates(program),
      fronts,
      precision,
    );
    this.#verifier = original
      ? { programs: new ProgramCache(original, backend), isOriginal: true }
      : { programs: this.#programs, isOriginal: false };
    this.#tail = tail;
    this.#contexts = new Contexts(network, source, backend);
    this.#fronts = new KnownFronts(own.policy);
    this.#notifier = new Notifier(options.observers ?? [], this.#contexts);
    this.#everything = allOutputs(network.model);
  }

  /** Compiles the program of the declared shapes, if the model declares them, and attaches the observers. */
  async prepare(): Promise<void> {
    const { original, precision, options } = this.#parts;
    checkModel(this.#policy, () => this.#model.sha256);
    checkOriginal(this.#policy, original?.model.sha256, this.#model);
    checkPrecision(this.#policy, precision);
    await this.#compileDeclared(options.onProgress);
    this.#attach();
  }

  /** Whether runs have shown the shapes that the model leaves open, or it declares them. */
  get hasShapes(): boolean {
    return this.#shapes !== undefined;
  }

  /**
   * Of the session's own policy.
   * @throws ResidualSkipError INVALID_ARGUMENT while `hasShapes` is false
   */
  get program(): Program {
    if (this.#shapes) return this.#programs.programOf({ binding: this.#shapes }, this.#policy);
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      'blocks: they depend on the shapes of the inputs, which the model leaves open; run it once, or give freeDimensionOverrides to create',
    );
  }

  get context(): RunContext {
    return this.#contexts.describe(this.program, this.#policy);
  }

  stats(): SessionStats {
    return this.#notifier.stats();
  }

  run<T>(feeds: Feeds, second: unknown, third: unknown, answer: Answer<T>, own?: OwnFeeds): Promise<T> {
    return this.#running.track(this.#run(feeds, second, third, answer, own));
  }

  async #run<T>(
    feeds: Feeds,
    second: unknown,
    third: unknown,
    answer: Answer<T>,
    own?: OwnFeeds,
  ): Promise<T> {
    const { fetches, options } = parseFetches(this.#model, this.#everything, second, third);
    const parsed = parseRunOptions(options);
    const signal = parsed.signal ?? undefined;
    if (parsed.terminate || signal?.aborted) {
      throw new ResidualSkipError('ABORTED', 'run: it was aborted before it began', {
        cause: signal?.reason,
      });
    }
    // The caller may change or transfer its arrays during the run.
    const bound = this.#bind(feeds, parsed, own ? undefined : (data) => this.#notifier.copyInput(data));
    // That of the session was checked when it was created.
    if (bound.policy.model && bound.policy !== this.#policy) await this.#model.identify();
    const cached =
      this.#programs.find(bound.feeds, bound.applied) ??
      (await this.#programs.get(bound.feeds, bound.applied));
    const call = prepareRun(bound, cached, fetches, this.profiler, signal, own?.of);
    const start = milliseconds();
    const guarded = await execute(call, this.#verifier);
    const answers = await this.#tail?.run(endedRun(call));
    const ended = { inputsKept: !own, milliseconds: milliseconds() - start, guarded, answers };
    return this.#finish(call, ended, answer);
  }

  runSync<T>(feeds: Feeds, second: unknown, third: unknown, answer: Answer<T>): T {
    const { fetches, options } = parseFetches(this.#model, this.#everything, second, third);
    const parsed = parseRunSyncOptions(options);
    const bound = this.#bind(feeds, parsed);
    const cached = this.#programs.getSync(bound.feeds, bound.applied);
    const call = prepareRun(bound, cached, fetches, this.profiler);
    const start = milliseconds();
    const guarded = executeSync(call, this.#verifier);
    const answers = this.#tail?.runSync(endedRun(call));
    const ended = { inputsKept: false, milliseconds: milliseconds() - start, guarded, answers };
    return this.#finish(call, ended, answer);
  }

  release(): Promise<void> {
    this.#released ??= this.#close();
    return this.#released;
  }

  async #close(): Promise<void> {
    await this.#running.settled();
    await this.#notifier.release();
    await this.#running.settled();
    this.#programs.release();
    this.#tail?.release();
    if (this.#verifier.isOriginal) this.#verifier.programs.release();
    this.#parts.backend.release();
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
    emitWarning('GATE', text);
  }

  #attach(): void {
    const { expected, promise } = this.#policy;
    this.#notifier.attach((observer) => ({
      policy: this.#policy,
      promise,
      expected: { gate: expected?.scores, exit: expected?.exits },
      auditLines: this.#parts.backend.auditLines,
      hasOriginal: this.#verifier.isOriginal,
      answerReader: () => this.answerReader,
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

  /** @param copy for a run that leaves the caller its arrays meanwhile */
  #bind(feeds: Feeds, options: RunSyncOptions, copy?: (data: TensorData) => TensorData): BoundRun {
    if (this.#released) {
      throw new ResidualSkipError('SESSION_RELEASED', 'session: it was released; create another');
    }
    const policy = options.policy === undefined ? this.#policy : loadPolicy(options.policy);
    if (policy !== this.#policy) {
      checkOriginal(policy, this.#parts.original?.model.sha256, this.#model);
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
