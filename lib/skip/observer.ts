import type { Precision } from '../model/program/program.js';
import type { Tensor } from '../tensor/tensor.js';
import type { BlockInfo } from './block-info.js';
import type { SkipPolicy } from './policy.js';
import type { Promised } from './promise.js';
import type { ScoreDistributions } from './score-distribution.js';
import type { Meaning } from './scores.js';
import type { ItemDecisions, SkipTrace } from './trace.js';

/** Tensors by the name of an input or output. */
export type TensorMap = { readonly [name: string]: Tensor };

/** What all runs of one model, policy and shape have in common; the same object for all of them. */
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
  /** Answers that the policy guards: names of classes, or `class 3` if it has no names. */
  readonly guards: readonly string[];
  readonly backend: 'native' | 'reference';
  /** Instruction set in use; `js` for the reference backend. */
  readonly isa: string;
  /** Workers in use. */
  readonly threads: number;
  /** What convolutions and matrix products with constants multiply. */
  readonly precision: Precision;
  /** Of one item with every block run. */
  readonly multiplyAdds: number;
  /** Convolutions and fully connected layers of the whole network, without those of its gates. */
  readonly layers: number;
  /** The residual blocks, in order. */
  readonly blocks: readonly BlockInfo[];
  /**
   * The output with class scores, whether they are logits or probabilities, and whether the network ends in a softmax or a sigmoid;
   * null if no output has them.
   */
  readonly classScores: {
    readonly name: string;
    readonly meaning: Meaning;
    readonly end: 'softmax' | 'sigmoid' | null;
  } | null;
}

/** The request that an item belongs to, for observers. */
export interface ItemRequest {
  /** Who sent it. */
  readonly caller: string;
  readonly id: string;
  /** The id that the client itself gave it, if any. */
  readonly clientId?: string | undefined;
}

/** One successful run. The tensors are shared with the caller: read them before returning. */
export interface RunEvent {
  readonly context: RunContext;
  readonly inputs: TensorMap;
  /** The caller can't reach `inputs`, as after `run`, which copies them: they may be kept but not changed. */
  readonly inputsKept: boolean;
  /** All outputs of the model, whichever ones the caller requested. */
  readonly outputs: TensorMap;
  /** Built when first read. It stays valid: an observer may keep the event and read the trace later. */
  readonly trace: SkipTrace;
  /** The trace of one item without an object for each of its blocks. It may be read later, too. */
  decisionsOf(item: number): ItemDecisions;
  /** Items of the batch; 1 if the model mixes them. */
  readonly items: number;
  /** Of each item, where the run's options name them. */
  readonly requests?: readonly ItemRequest[] | undefined;
  /** Wall-clock time in the backend, including the wait for a free worker. */
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

/** What an observer may ask its session to do. */
export interface SessionControl {
  /** How gates' and exits' scores were distributed when the session's policy was calibrated, if its file has them. */
  readonly expected?: { readonly gate?: ScoreDistributions; readonly exit?: ScoreDistributions };
  /** The session's policy, which `RunEvent.context` has of runs without one of their own. */
  readonly policy?: SkipPolicy;
  /** What the session's policy promises, if it does. */
  readonly promise?: Promised | undefined;
  /** Whether `runFull` runs another network, the session's option `original`. */
  readonly hasOriginal?: boolean;
  /**
   * Runs every block on `feeds`, of the session's original if it has one; no observer sees this run. With the priority `low`, other runs go first, for at most
   * a quarter of a second.
   */
  runFull(feeds: TensorMap, priority?: 'low'): Promise<TensorMap>;
  /** Runs `feeds` under the session's policy, including guards; no observer sees this run. */
  runAgain(feeds: TensorMap): Promise<TensorMap>;
  /**
   * What the answer of an item is made of its outputs and inputs, where it isn't the outputs themselves: the vector of a text.
   * @internal
   */
  answerReader?(): AnswerReader | undefined;
  /** For the audit log: encodes lines between runs. Undefined where the calling thread does this better. */
  readonly auditLines?: AuditLines | undefined;
  /**
   * While any observer has set this, every block of every run runs, whatever the policy of the session or the run;
   * traces give the reason `tripped`.
   */
  setFullDepth(on: boolean): void;
}

/**
 * What the observers of a session say of themselves, by the name of their kind; the second of a kind is `watch2`, and so on. `auditLog`
 * and `watch` add theirs; an observer of your own can add its own by declaration merging.
 */
export interface SessionStats {
  readonly [name: string]: unknown;
}

/**
 * Makes an item's answer, a vector, of its outputs and inputs, each a batch of one.
 * @internal
 */
export type AnswerReader = (outputs: TensorMap, feeds: TensorMap) => Float32Array;

/** Sees every run of a session. Its exceptions become process warnings and never reach the caller of `run`. */
export interface RunObserver {
  /**
   * False if `inputs` are not needed after `onRun` has returned and its promise is settled. If all observers say so,
   * their memory is reused for other runs.
   */
  readonly keepsInputs?: boolean;
  /** Called once, by `create`, which rejects with what this throws: an observer can refuse a session. */
  onAttach?(control: SessionControl): void;
  /** The caller of `run` does not wait for the promise. */
  onRun?(event: RunEvent): void | Promise<void>;
  /** Called by `release`, which waits for the promise. */
  onRelease?(): void | Promise<void>;
  /** Included in `session.stats()`. */
  stats?(): object;
}
