/** One run: its request, its execution, its results, and its trace; and the runs in progress. */
import { setTimeout } from 'node:timers/promises';
import type { RunRequest } from '../backends/backend.js';
import type { Program } from '../model/program/program.js';
import type { CompiledPolicy } from '../skip/compiled-policy.js';
import { FULL_POLICY } from '../skip/load-policy.js';
import type { ItemRequest, TensorMap } from '../skip/observer.js';
import type { SkipPolicy } from '../skip/policy.js';
import {
  buildTrace,
  type ItemDecisions,
  RecordedDecisions,
  type RunRecord,
  type SkipTrace,
} from '../skip/trace.js';
import type { TensorData } from '../tensor/tensor.js';
import type { BoundFeeds } from './feeds.js';
import { checkFetches, type FetchMap, keptOutput, type Results } from './outputs.js';
import type { Profiler } from './profile.js';
import type { CachedProgram, ProgramCache } from './program-cache.js';
import type { Stopped } from './stopped-items.js';
import { guardedItems, verificationOf } from './verification.js';

/** A run whose feeds are checked. */
export interface BoundRun {
  readonly feeds: BoundFeeds;
  /** The requested policy. */
  readonly policy: SkipPolicy;
  /** The policy that runs: a different one when an observer has set full depth. */
  readonly applied: SkipPolicy;
  readonly tripped: boolean;
  /** Of each item, if the caller named them. */
  readonly requests: readonly ItemRequest[] | undefined;
}

/** A run that is ready to execute. */
export interface PreparedRun extends BoundRun {
  readonly cached: CachedProgram;
  readonly fetches: FetchMap;
  /** `applied`, for the program. */
  readonly compiledPolicy: CompiledPolicy;
  readonly request: RunRequest;
  /** The arrays that the request fills. */
  readonly results: Results;
  /** Set while the session is profiled. */
  readonly profiler: Profiler | undefined;
}

export function prepareRun(
  bound: BoundRun,
  cached: CachedProgram,
  fetches: FetchMap,
  profiler?: Profiler,
  signal?: AbortSignal,
  of?: Stopped,
): PreparedRun {
  const { feeds, policy, applied, tripped, requests } = bound;
  const { items, tensors } = feeds;
  const { program, resolve, results } = cached;
  checkFetches(program, items, fetches);
  const inputs = program.inputs.map(({ name }) => tensors[name]!.data);
  const compiledPolicy = resolve(applied);
  const taken = results.take(items);
  const { outputs, outcomes, scores } = taken;
  const times = profiler?.begin(program, cached.compiled, items);
  const request: RunRequest = {
    items,
    inputs,
    outputs,
    policy: compiledPolicy,
    outcomes,
    scores,
    signal,
    times,
    states: of?.stopped.statesOf(of.items, cached.compiled),
  };
  return {
    feeds,
    policy,
    applied,
    tripped,
    requests,
    cached,
    fetches,
    compiledPolicy,
    request,
    results: taken,
    profiler,
  };
}

/** A run of the program before the stages, which has ended. */
export interface EndedRun {
  readonly program: Program;
  /** Its inputs, as `bindFeeds` returns them. */
  readonly tensors: TensorMap;
  /** Its outputs, in their order. They are not written to afterwards. */
  readonly outputs: readonly TensorData[];
  readonly signal?: AbortSignal | undefined;
}

export const endedRun = ({ cached: { program }, results, feeds, request }: PreparedRun): EndedRun => ({
  ...{ program, tensors: feeds.tensors, signal: request.signal },
  outputs: program.outputs.map((_, index) => keptOutput(results, index)),
});

/** The programs that verify answers: the session's own, or those of another network. */
export interface Verifier {
  readonly programs: ProgramCache;
  readonly isOriginal: boolean;
}

/**
 * Executes the run, then runs items with guarded answers again in full.
 * @returns those items; undefined if there are none
 */
export async function execute(run: PreparedRun, verifier: Verifier): Promise<readonly number[] | undefined> {
  await run.cached.compiled.run(run.request);
  const guarded = guardedBy(run, verifier);
  if (!guarded) return undefined;
  const full = await verifier.programs.get(run.feeds, FULL_POLICY);
  const check = verification(run, full, guarded);
  await full.compiled.run(check.request);
  check.apply();
  return guarded;
}

/** Like `execute`, but on the calling thread. */
export function executeSync(run: PreparedRun, verifier: Verifier): readonly number[] | undefined {
  run.cached.compiled.runSync(run.request);
  const guarded = guardedBy(run, verifier);
  if (!guarded) return undefined;
  const full = verifier.programs.getSync(run.feeds, FULL_POLICY);
  const check = verification(run, full, guarded);
  full.compiled.runSync(check.request);
  check.apply();
  return guarded;
}

function guardedBy(
  { request, compiledPolicy }: PreparedRun,
  { isOriginal }: Verifier,
): readonly number[] | undefined {
  if (compiledPolicy.parts.guards.length === 0) return undefined;
  const guarded = guardedItems(compiledPolicy, request, isOriginal);
  return guarded.length > 0 ? guarded : undefined;
}

function verification(
  { request, profiler }: PreparedRun,
  { program, compiled, resolve }: CachedProgram,
  guarded: readonly number[],
) {
  const { times: of } = request;
  const times = of && profiler?.begin(program, compiled, guarded.length, { of, items: guarded });
  const { request: again, apply } = verificationOf(resolve(FULL_POLICY), request, guarded);
  return { request: { ...again, signal: request.signal, times }, apply };
}

/** The results of a finished run. The trace is built when it is first read. */
export class RunOutcome {
  #record: RunRecord | undefined;
  #trace: SkipTrace | undefined;

  /** @param guarded items that ran again in full */
  constructor(
    private readonly run: PreparedRun,
    private readonly guarded: readonly number[] | undefined,
  ) {}

  get trace(): SkipTrace {
    this.#trace ??= buildTrace(this.#runRecord());
    return this.#trace;
  }

  decisionsOf(item: number): ItemDecisions {
    return new RecordedDecisions(this.#runRecord(), item);
  }

  #runRecord(): RunRecord {
    if (this.#record) return this.#record;
    const { request, compiledPolicy, policy, tripped } = this.run;
    const { items, outcomes, scores } = request;
    // Spreading the request would take longer than everything else here.
    this.#record = {
      items,
      policy: compiledPolicy,
      outcomes,
      scores,
      tripped: tripped ? policy : undefined,
      guarded: this.guarded && new Set(this.guarded),
    };
    return this.#record;
  }
}

const STEP_MS = 2;

/** A session's runs in progress. */
export class ActiveRuns {
  readonly #runs = new Set<Promise<unknown>>();

  /** Counts `run` until it settles. */
  track<T>(run: Promise<T>): Promise<T> {
    this.#runs.add(run);
    const ended = () => this.#runs.delete(run);
    run.then(ended, ended);
    return run;
  }

  /** Resolves when the runs in progress now have settled, successfully or not. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#runs);
  }

  /**
   * Resolves when no run is in progress, checked every two milliseconds and not before the first check, or after
   * `patience` milliseconds.
   */
  async idle(patience: number): Promise<void> {
    const end = performance.now() + patience;
    do await setTimeout(STEP_MS);
    while (this.#runs.size > 0 && performance.now() < end);
  }
}
