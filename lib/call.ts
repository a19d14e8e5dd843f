/** One call of `run` or `runSync`: what it was asked for, what it left behind, and its trace. */
import type { RunRequest } from './backends/backend.js';
import type { BoundFeeds } from './feeds.js';
import { allocateOutputs, type FetchMap } from './fetches.js';
import { exitThresholds, guardsOf, type SkipPolicy, skippedByHeads } from './skip/policy.js';
import { buildTrace, type SkipTrace } from './skip/trace.js';
import type { Specialization } from './specializations.js';
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
}

export function prepareCall(bound: Bound, specialization: Specialization, fetches: FetchMap): Call {
  const { items, tensors } = bound.feeds;
  const { program, resolve } = specialization;
  const cells = items * program.blocks.length;
  // One buffer: making one takes longer than anything else here.
  const decisions = new ArrayBuffer(5 * cells);
  const request: RunRequest = {
    items,
    inputs: program.inputs.map(({ name }) => tensors[name]!.data),
    outputs: allocateOutputs(program, items, fetches),
    policy: resolve(bound.applied),
    ran: new Uint8Array(decisions, 4 * cells),
    scores: new Float32Array(decisions, 0, cells).fill(Number.NaN),
  };
  return { ...bound, specialization, fetches, request };
}

/** The items whose answer the policy guards and that run again in full; undefined when there are none. */
export function guardedBy({ specialization, request, policy, tripped }: Call): readonly number[] | undefined {
  const guards = tripped ? [] : guardsOf(policy);
  if (guards.length === 0) return undefined;
  const guarded = guardedItems(specialization.program, request, guards);
  return guarded.length > 0 ? guarded : undefined;
}

/**
 * The trace of a call that has ended, made when it is first asked for.
 * @param guarded items that ran again in full
 */
export function traceLater(call: Call, guarded: readonly number[] | undefined): () => SkipTrace {
  const { specialization, request, policy, tripped } = call;
  const { program } = specialization;
  let made: SkipTrace | undefined;
  return () => {
    made ??= buildTrace(program, {
      ...request,
      tripped: tripped ? skippedByHeads(policy, program) : undefined,
      exits: exitThresholds(policy),
      guarded: new Set(guarded),
    });
    return made;
  };
}
