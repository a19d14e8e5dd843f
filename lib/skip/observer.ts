import type { Tensor } from '../tensor.js';
import type { BlockInfo } from './block-info.js';
import type { SkipPolicy } from './policy.js';
import type { ScoreProfiles } from './profile.js';
import type { Meaning } from './scores.js';
import type { ItemDecisions, SkipTrace } from './trace.js';

/** Tensors by the name of an input or output. */
export type TensorMap = { readonly [name: string]: Tensor };

/** The circumstances of a run; the same object for all runs that share them. */
export interface RunContext {
  /** Version of this package. */
  readonly version: string;
  /** Hex SHA-256 of the model file. */
  readonly sha256: string;
  /** Path that the model was loaded from; null when it came as bytes. */
  readonly source: string | null;
  /** What `loadPolicy` makes of the policy that was asked for. */
  readonly policy: SkipPolicy;
  /** Hex SHA-256 of the policy as canonical JSON. */
  readonly policySha256: string;
  /** Answers that the policy guards: names of classes, or `class 3` where it has none. */
  readonly guards: readonly string[];
  readonly backend: 'native' | 'reference';
  readonly isa: string;
  readonly threads: number;
  /** Of one item in full. */
  readonly multiplyAdds: number;
  /** Convolutions and fully connected layers of the whole network; those of its gates don't count. */
  readonly layers: number;
  readonly blocks: readonly BlockInfo[];
  /** The output with class scores, and whether they are logits or probabilities; null where no output has them. */
  readonly classScores: { readonly name: string; readonly meaning: Meaning } | null;
}

/** One run that has ended well. The tensors are shared with the caller: read them before returning. */
export interface RunEvent {
  readonly context: RunContext;
  readonly inputs: TensorMap;
  /** The caller has no hold on `inputs`, as after `run`, which copies them: they may be kept, and not be changed. */
  readonly inputsKept: boolean;
  /** All outputs of the model, whichever the caller asked for. */
  readonly outputs: TensorMap;
  /** Built when first read. It stays valid: an observer may keep the event and read it later. */
  readonly trace: SkipTrace;
  /** What the trace says of one item, without an object for each of its blocks. It too may be asked later. */
  decisionsOf(item: number): ItemDecisions;
  readonly items: number;
  /** Wall-clock time in the backend, waiting for a free worker included. */
  readonly milliseconds: number;
}

/** Encodes a batch of items as whole lines of the audit log; native/addon/audit_lines.h describes the batch. */
export type AuditLines = (
  arrays: readonly ArrayBufferView[],
  items: number,
  capacity: number,
  blocks: number,
  outputLength: number,
  top: number,
  meaning: Meaning,
) => Promise<Uint8Array>;

/** What an observer may ask of its session. */
export interface SessionControl {
  /** What gates' scores and exits' confidences were when the session's policy was calibrated, where its file says. */
  readonly profiles?: { readonly gate?: ScoreProfiles; readonly exit?: ScoreProfiles };
  /**
   * Runs every block on `feeds`; no observer sees this run. With the priority `low` it lets the runs of others go first,
   * for a quarter of a second at most.
   */
  runFull(feeds: TensorMap, priority?: 'low'): Promise<TensorMap>;
  /** Runs `feeds` as the session's policy says, guards included; no observer sees this run. */
  runAgain(feeds: TensorMap): Promise<TensorMap>;
  /** For the audit log: does it between runs. Missing where that is better done on the calling thread. */
  readonly auditLines?: AuditLines | undefined;
  /**
   * While any observer has it on, every block of every run is run, whatever the policy, also one given to the run; traces
   * give the reason `tripped`.
   */
  setFullDepth(on: boolean): void;
}

/** Sees every run of a session. What it throws becomes a process warning and never reaches the caller of `run`. */
export interface RunObserver {
  /**
   * False when `inputs` are not needed any more once `onRun` has returned and its promise is settled. Where all
   * observers say so, their memory is used for other runs.
   */
  readonly keepsInputs?: boolean;
  /** Called once, by `create`, which fails with what this throws: so an observer refuses a session. */
  onAttach?(control: SessionControl): void;
  /** The caller of `run` does not wait for the promise. */
  onRun?(event: RunEvent): void | Promise<void>;
  /** Called by `release`, which waits for it. */
  onRelease?(): void | Promise<void>;
  /** Becomes part of `session.stats()`. */
  stats?(): object;
}

/** Makes a process warning of what went wrong in an observer. */
export function warn(error: unknown): void {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.emitWarning(`a run observer failed: ${text}`, { code: 'RESIDUAL_SKIP_OBSERVER' });
}

const quiet = new WeakMap<Promise<void>, Promise<void>>();

/** A promise that is settled as `going` is, with a warning for what it is rejected with; the same for the same. */
function warned(going: Promise<void>): Promise<void> {
  const known = quiet.get(going);
  if (known) return known;
  const made = Promise.resolve(going).catch(warn);
  quiet.set(going, made);
  return made;
}

/**
 * Calls each observer in order. What one throws, or what its promise is rejected with, becomes a warning.
 * @returns when all that they began has ended; undefined where nothing goes on
 */
export function notify(
  observers: readonly RunObserver[],
  call: (observer: RunObserver) => void | Promise<void>,
): Promise<unknown> | undefined {
  const pending: Promise<void>[] = [];
  for (const observer of observers) {
    try {
      const going = call(observer);
      if (going) pending.push(warned(going));
    } catch (error) {
      warn(error);
    }
  }
  return pending.length > 1 ? Promise.all(pending) : pending[0];
}
