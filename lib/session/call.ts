/** One call of `run` or `runSync`: what it was asked for, what it left behind, and its trace. */
import type { RunRequest } from '../backends/backend.js';
import { exitThresholds, guardsOf, type SkipPolicy, skippedByHeads } from '../skip/policy.js';
import {
  buildTrace,
  type ItemDecisions,
  RecordedDecisions,
  type RunRecord,
  type SkipTrace,
} from '../skip/trace.js';
import type { BoundFeeds } from './feeds.js';
import { checkFetches, type FetchMap } from './fetches.js';
import type { Specialization } from './program-cache.js';
import type { Results } from './results.js';
import { guardedItems } from './verification.js';

/** A run whose feeds are checked. */
export interface Bound {
  readonly feeds: BoundFeeds;
  /** What was asked for. */
  readonly policy: SkipPolicy;
  /** What is done: another one when an observer has set full depth. */
  readonly applied: SkipPolicy;
  readonly tripped: boolean;
}

/** A run that is ready. */
export interface Call extends Bound {
  readonly specialization: Specialization;
  readonly fetches: FetchMap;
  readonly request: RunRequest;
  /** What the request fills. */
  readonly results: Results;
}

export function prepareCall(bound: Bound, specialization: Specialization, fetches: FetchMap): Call {
  const { feeds, policy, applied, tripped } = bound;
  const { items, tensors } = feeds;
  const { program, resolve, results } = specialization;
  checkFetches(program, items, fetches);
  const inputs = program.inputs.map(({ name }) => tensors[name]!.data);
  const resolved = resolve(applied);
  const taken = results.take(items);
  const { outputs, ran, scores } = taken;
  const request: RunRequest = { items, inputs, outputs, policy: resolved, ran, scores };
  return { feeds, policy, applied, tripped, specialization, fetches, request, results: taken };
}

/** The items whose answer the policy guards and that run again in full; undefined when there are none. */
export function guardedBy({ specialization, request, policy, tripped }: Call): readonly number[] | undefined {
  const guards = tripped ? [] : guardsOf(policy);
  if (guards.length === 0) return undefined;
  const guarded = guardedItems(specialization.program, request, guards);
  return guarded.length > 0 ? guarded : undefined;
}

/** What a call that has ended did, made when it is asked for. */
export class Deeds {
  #record: RunRecord | undefined;
  #trace: SkipTrace | undefined;

  /** @param guarded items that ran again in full */
  constructor(
    private readonly call: Call,
    private readonly guarded: readonly number[] | undefined,
  ) {}

  get trace(): SkipTrace {
    this.#trace ??= buildTrace(this.call.specialization.program, this.#left());
    return this.#trace;
  }

  decisionsOf(item: number): ItemDecisions {
    return new RecordedDecisions(this.call.specialization.program, this.#left(), item);
  }

  #left(): RunRecord {
    if (this.#record) return this.#record;
    const { specialization, request, policy, tripped } = this.call;
    const { items, ran, scores, outputs } = request;
    // Spreading the request would take longer than all else.
    this.#record = {
      items,
      policy: request.policy,
      ran,
      scores,
      outputs,
      tripped: tripped ? skippedByHeads(policy, specialization.program) : undefined,
      exits: exitThresholds(policy, specialization.program),
      guarded: this.guarded && new Set(this.guarded),
    };
    return this.#record;
  }
}
