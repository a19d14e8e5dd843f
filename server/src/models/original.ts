/** Runs of the network whose answers a model's policies promise, as records of the audit log. */
import {
  hashPolicy,
  type InferenceSession,
  type ItemDecisions,
  loadPolicy,
  type RunContext,
  type RunEvent,
} from 'residual-skip';

/** Of a run in which there is nothing to skip. */
const NOTHING_DECIDED: ItemDecisions = {
  exits: [],
  inFull: undefined,
  ran: () => true,
  score: () => null,
  threshold: () => null,
  reason: () => 'fixed',
  multiplyAddsSkipped: () => 0,
  spentMore: () => false,
  copyTo: () => {},
};

/** @param source path of that network's file, if it is known */
export function contextOfOriginal(
  session: InferenceSession,
  sha256: string,
  source: string | null,
): RunContext {
  const policy = loadPolicy('full');
  const none = { guards: [], blocks: [] };
  return { ...session.context, ...none, sha256, source, policy, policySha256: hashPolicy(policy) };
}

/** The event of such a run, which a session's observers don't see. */
export function eventOfOriginal(
  run: Pick<RunEvent, 'context' | 'inputs' | 'outputs' | 'trace' | 'milliseconds' | 'requests'>,
): RunEvent {
  const items = run.trace.items.length;
  return { ...run, inputsKept: false, items, decisionsOf: () => NOTHING_DECIDED };
}
