import { BlockMode, type CompiledPolicy, SKIP_REASONS, type SkipReason } from './compiled-policy.js';
import type { SkipPolicy } from './policy.js';

export { SKIP_REASONS, type SkipReason } from './compiled-policy.js';

/** What one item did at one block. */
export interface BlockDecision {
  /** Name of the block. */
  readonly block: string;
  /** Index of the block, from 0 at the input. */
  readonly index: number;
  /** False if the block was skipped. */
  readonly ran: boolean;
  /** The gate's score; null if no gate was evaluated. */
  readonly score: number | null;
  /** The threshold that the score was compared with; null if no gate was evaluated. */
  readonly threshold: number | null;
  /** Why it ran or was skipped. */
  readonly reason: SkipReason;
}

/** An early exit that an item reached. */
export interface ExitDecision {
  /** The block or front whose exit it is; `/input` for one before the first block in the file. */
  readonly after: string;
  /** Whether the item left here. */
  readonly taken: boolean;
  /** Of a policy's exit, the largest softmax probability of its head, or the score of one that answers with a vector. */
  readonly score: number;
  /** The exit is taken if the score is at least this, a float32. */
  readonly threshold: number;
}

/** What one item did. */
export interface ItemTrace {
  /** By block, in the order of the network. */
  readonly blocks: readonly BlockDecision[];
  /** Exits of the policy or the model that the item reached. */
  readonly exits: readonly ExitDecision[];
  /**
   * Saved multiply-adds: those of the skipped blocks and of everything else behind an exit that was taken, minus
   * those of the evaluated heads and of a guard's run in full. Negative if the item cost more than in full.
   */
  readonly multiplyAddsSkipped: number;
  /** Convolutions and fully connected layers in the skipped blocks. */
  readonly layersSkipped: number;
  /** Why the item ran in full, whatever its policy had decided: a guard covers the answer, or a monitor had tripped. Left out for others. */
  readonly inFull?: 'guard' | 'tripped';
}

/** The block or front whose exit answered an item; null for the network, also where a guard made it run in full. */
export function answeredBy({ exits, inFull }: Pick<ItemTrace, 'exits' | 'inFull'>): string | null {
  if (inFull === 'guard') return null;
  return exits.find(({ taken }) => taken)?.after ?? null;
}

/** What every item of one run did. */
export interface SkipTrace {
  /** In the order of the batch; one if the model mixes the items of a batch. */
  readonly items: readonly ItemTrace[];
  /** Multiply-adds of one item with every block run. */
  readonly multiplyAdds: number;
  /** Convolutions and fully connected layers of the whole network, without those of its gates. */
  readonly layers: number;
}

/** What one item did, by block index: like its ItemTrace, but without an object for each block. */
export interface ItemDecisions {
  /** Exits that the item reached; only the last can be taken. */
  readonly exits: readonly ExitDecision[];
  /** As in ItemTrace. */
  readonly inFull: 'guard' | 'tripped' | undefined;
  ran(block: number): boolean;
  /** The gate's score; null if no gate was evaluated. */
  score(block: number): number | null;
  /** The threshold of the gate in force, evaluated or not; null if none decides. */
  threshold(block: number): number | null;
  reason(block: number): SkipReason;
  /** As in ItemTrace. */
  multiplyAddsSkipped(): number;
  /** Whether heads or a run in full may have cost something; otherwise that is the sum over the skipped blocks. */
  spentMore(): boolean;
  /**
   * For every block i, writes to index `at` + i: 1 if it ran, the index of its reason in SKIP_REASONS, and its score,
   * NaN for null.
   */
  copyTo(ran: Uint8Array, reasons: Uint8Array, scores: Float32Array, at: number): void;
}

/** The raw results of a run, from which its trace is built; see RunRequest. */
export interface RunRecord {
  readonly items: number;
  /** The policy that ran. */
  readonly policy: CompiledPolicy;
  /** The policy that was asked for, if an observer had set the session to full depth. */
  readonly tripped?: SkipPolicy | undefined;
  /** items x decisions: 1 if the block ran, or if the exit was taken. */
  readonly outcomes: Uint8Array;
  /** items x decisions: the score, NaN if none was computed. */
  readonly scores: Float32Array;
  /** Items that ran again in full because of a guard. */
  readonly guarded?: ReadonlySet<number> | undefined;
}

const EXIT = SKIP_REASONS.indexOf('exit');
const GUARD = SKIP_REASONS.indexOf('guard');
const NO_EXITS: readonly ExitDecision[] = [];

/** What one item did, copied from the record of a run. */
export class RecordedDecisions implements ItemDecisions {
  readonly exits: readonly ExitDecision[];
  readonly #record: RunRecord;
  readonly #first: number;
  readonly #guarded: boolean;
  /** Index of the exit that was taken; -1 for none. */
  readonly #taken: number;
  /** Number of blocks in front of it. */
  readonly #reached: number;

  constructor(record: RunRecord, item: number) {
    const { blocks, exits } = record.policy.program;
    this.#record = record;
    this.#first = item * record.policy.modes.length;
    this.#guarded = record.guarded?.has(item) ?? false;
    this.#taken = exits.findIndex((_, e) => record.outcomes[this.#first + blocks.length + e] === 1);
    this.#reached = exits[this.#taken]?.blocks ?? blocks.length;
    this.exits = exits.length === 0 ? NO_EXITS : this.#exits();
  }

  get inFull(): 'guard' | 'tripped' | undefined {
    if (this.#guarded) return 'guard';
    const { tripped, policy } = this.#record;
    return tripped && policy.whenTripped(tripped).holdsBack ? 'tripped' : undefined;
  }

  ran(block: number): boolean {
    return this.#guarded || this.#record.outcomes[this.#first + block] === 1;
  }

  score(block: number): number | null {
    return block < this.#reached && this.#gated(block) ? this.#record.scores[this.#first + block]! : null;
  }

  threshold(block: number): number | null {
    return this.#gated(block) ? this.#record.policy.thresholds[block]! : null;
  }

  reason(block: number): SkipReason {
    if (this.#guarded) return 'guard';
    if (block >= this.#reached) return 'exit';
    return SKIP_REASONS[this.#reasons()[block]!]!;
  }

  multiplyAddsSkipped(): number {
    const { blocks, exits, cost } = this.#record.policy.program;
    let saved = this.#guarded ? -cost.multiplyAdds : 0;
    for (let i = 0; i < blocks.length; i++) {
      if (this.#record.outcomes[this.#first + i] !== 1) saved += blocks[i]!.cost.multiplyAdds;
    }
    for (const [e, { multiplyAdds, beyond }] of exits.entries()) {
      if (this.#taken < 0 || e <= this.#taken) saved -= multiplyAdds;
      if (e === this.#taken) saved += beyond;
    }
    return saved;
  }

  spentMore(): boolean {
    return this.#guarded || this.#record.policy.program.exits.length > 0;
  }

  copyTo(ran: Uint8Array, reasons: Uint8Array, scores: Float32Array, at: number): void {
    const { policy, outcomes, scores: all } = this.#record;
    const blocks = policy.program.blocks.length;
    const end = this.#first + blocks;
    ran.set(outcomes.subarray(this.#first, end), at);
    reasons.set(this.#reasons(), at);
    scores.set(all.subarray(this.#first, end), at);
    for (const block of policy.ungated) scores[at + block] = Number.NaN;
    scores.fill(Number.NaN, at + this.#reached, at + blocks);
    reasons.fill(EXIT, at + this.#reached, at + blocks);
    if (!this.#guarded) return;
    ran.fill(1, at, at + blocks);
    reasons.fill(GUARD, at, at + blocks);
  }

  #reasons(): Uint8Array {
    const { policy, tripped } = this.#record;
    return tripped ? policy.whenTripped(tripped).reasons : policy.reasons;
  }

  #gated(block: number): boolean {
    return this.#record.policy.modes[block] === BlockMode.gate;
  }

  #exits(): readonly ExitDecision[] {
    const { policy, outcomes, scores } = this.#record;
    const { blocks, exits } = policy.program;
    return exits.flatMap(({ after }, e): ExitDecision[] => {
      const column = blocks.length + e;
      const score = scores[this.#first + column]!;
      if (Number.isNaN(score)) return [];
      const taken = outcomes[this.#first + column] === 1;
      return [{ after, taken, score, threshold: policy.thresholds[column]! }];
    });
  }
}

/** The trace of one run. */
export function buildTrace(record: RunRecord): SkipTrace {
  const { program, layers } = record.policy;
  const traceItem = (item: number): ItemTrace => {
    const decisions = new RecordedDecisions(record, item);
    const { inFull } = decisions;
    let layersSkipped = 0;
    const blocks = program.blocks.map(({ name, cost }, index): BlockDecision => {
      const ran = decisions.ran(index);
      if (!ran) layersSkipped += cost.layers;
      const score = decisions.score(index);
      return {
        block: name,
        index,
        ran,
        score,
        threshold: score === null ? null : decisions.threshold(index),
        reason: decisions.reason(index),
      };
    });
    return {
      blocks,
      exits: decisions.exits,
      multiplyAddsSkipped: decisions.multiplyAddsSkipped(),
      layersSkipped,
      ...(inFull && { inFull }),
    };
  };
  return {
    items: Array.from({ length: record.items }, (_, item) => traceItem(item)),
    multiplyAdds: program.cost.multiplyAdds,
    layers,
  };
}
