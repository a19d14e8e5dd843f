import type { Block, Program } from '../model/program.js';
import type { TensorData } from '../tensor.js';
import { exitOf } from './attach.js';
import { BlockMode, type ResolvedPolicy } from './resolve.js';

/** Why a block ran or was skipped. */
export type SkipReason =
  /** The score of the model's or the policy's gate decided. */
  | 'gate'
  /** The policy's gate decided by the confidence of the exit before it. */
  | 'confidence'
  /** The policy always runs or always skips the block. */
  | 'policy'
  /** The block has no identity shortcut or no gate, and so always runs. */
  | 'fixed'
  /** An observer had set the session to full depth. */
  | 'tripped'
  /** An earlier exit was taken: all blocks behind it are skipped. */
  | 'exit'
  /** The answer was guarded: the item ran again in full. */
  | 'guard';

/** Every reason once. */
export const SKIP_REASONS = [
  'gate',
  'confidence',
  'policy',
  'fixed',
  'tripped',
  'exit',
  'guard',
] as const satisfies readonly SkipReason[];

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
  /** The exit's block. */
  readonly after: string;
  /** Whether the item left here. */
  readonly taken: boolean;
  /** Largest softmax probability of its head. */
  readonly score: number;
  /** The exit is taken if the score is at least this. */
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
  readonly policy: ResolvedPolicy;
  /**
   * The blocks that heads of the policy may skip, if an observer had set the session to full depth; `policy` is then
   * the full one.
   */
  readonly tripped?: ReadonlySet<string>;
  /** items x blocks: 1 if the block ran. */
  readonly ran: Uint8Array;
  /** items x blocks: the gate's score, NaN if no gate was evaluated. */
  readonly scores: Float32Array;
  /** In the order of the program's outputs; used if there are exits. */
  readonly outputs?: readonly TensorData[];
  /** Thresholds of the exits, by the exit's block. */
  readonly exits?: ReadonlyMap<string, number>;
  /** Items that ran again in full because of a guard. */
  readonly guarded?: ReadonlySet<number>;
}

function reasonOf(block: Block, mode: number, tripped: ReadonlySet<string> | undefined): SkipReason {
  if (mode === BlockMode.gate) return block.gate?.form === 'confidence' ? 'confidence' : 'gate';
  if (tripped?.has(block.name)) return 'tripped';
  const decided = mode === BlockMode.skip || (block.skippable && block.gate !== undefined);
  if (!decided) return 'fixed';
  return tripped ? 'tripped' : 'policy';
}

interface BlockColumns {
  /** Of each block, as an index into SKIP_REASONS, for an item that took no exit and was not guarded. */
  readonly reasons: Uint8Array;
  /** Blocks without a gate in force. */
  readonly ungated: readonly number[];
  /** Whether any block has heads. */
  readonly heads: boolean;
}

const columnsKnown = new WeakMap<ResolvedPolicy, BlockColumns>();

/** What is the same for most items. */
function columnsOf({ blocks }: Program, { policy, tripped }: RunRecord): BlockColumns {
  const known = tripped ? undefined : columnsKnown.get(policy);
  if (known) return known;
  const reasons = blocks.map((block, i) => SKIP_REASONS.indexOf(reasonOf(block, policy.modes[i]!, tripped)));
  const ungated = blocks.flatMap((_, i) => (policy.modes[i] === BlockMode.gate ? [] : [i]));
  const made = {
    reasons: Uint8Array.from(reasons),
    ungated,
    heads: blocks.some(({ heads }) => heads !== undefined),
  };
  if (!tripped) columnsKnown.set(policy, made);
  return made;
}

const layersKnown = new WeakMap<Program, number>();

/** The small layers of a gate don't count: they would only dilute the share of skipped layers. */
export function layersOf(program: Program): number {
  const known = layersKnown.get(program) ?? countLayers(program);
  layersKnown.set(program, known);
  return known;
}

function countLayers({ steps, blocks, cost }: Program): number {
  const ofGates = blocks
    .flatMap(({ gateFirst, first }) => steps.slice(gateFirst, first))
    .filter(({ op }) => op === 'conv' || op === 'gemm');
  return cost.layers - ofGates.length;
}

const exitPortsKnown = new WeakMap<Program, readonly { readonly after: string; readonly output: number }[]>();

/** The outputs that hold exits' confidences, by the exit's block. */
function exitPortsOf(program: Program) {
  const known = exitPortsKnown.get(program);
  if (known) return known;
  const ports = program.outputs.flatMap(({ name }, output) => {
    const after = exitOf(name);
    return after === undefined ? [] : [{ after, output }];
  });
  exitPortsKnown.set(program, ports);
  return ports;
}

/** Derives what one item did from the raw results of the run. */
export class RecordedDecisions implements ItemDecisions {
  readonly exits: readonly ExitDecision[];
  readonly #program: Program;
  readonly #record: RunRecord;
  readonly #first: number;
  readonly #guarded: boolean;
  /** Number of blocks before the exit that was taken. */
  readonly #reached: number;

  constructor(program: Program, record: RunRecord, item: number) {
    const { blocks } = program;
    this.#program = program;
    this.#record = record;
    this.#first = item * blocks.length;
    this.#guarded = record.guarded?.has(item) ?? false;
    this.exits = exitsOf(program, record, item);
    const last = this.exits.at(-1);
    this.#reached = last?.taken ? blocks.findIndex(({ name }) => name === last.after) + 1 : blocks.length;
  }

  ran(block: number): boolean {
    return this.#guarded || this.#record.ran[this.#first + block] === 1;
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
    const { policy, tripped } = this.#record;
    return reasonOf(this.#program.blocks[block]!, policy.modes[block]!, tripped);
  }

  multiplyAddsSkipped(): number {
    const { blocks, cost } = this.#program;
    let saved = this.#guarded ? -cost.multiplyAdds : 0;
    for (let i = 0; i < blocks.length; i++) {
      const { heads, cost: ofBlock } = blocks[i]!;
      if (heads && i < this.#reached) saved -= (this.#gated(i) ? heads.gate : 0) + heads.exit;
      if (this.#record.ran[this.#first + i] !== 1) saved += ofBlock.multiplyAdds;
    }
    if (this.exits.at(-1)?.taken) saved += blocks[this.#reached - 1]!.heads!.beyond;
    return saved;
  }

  spentMore(): boolean {
    return this.#guarded || columnsOf(this.#program, this.#record).heads;
  }

  copyTo(ran: Uint8Array, reasons: Uint8Array, scores: Float32Array, at: number): void {
    const blocks = this.#program.blocks.length;
    const end = this.#first + blocks;
    const columns = columnsOf(this.#program, this.#record);
    ran.set(this.#record.ran.subarray(this.#first, end), at);
    reasons.set(columns.reasons, at);
    scores.set(this.#record.scores.subarray(this.#first, end), at);
    for (const block of columns.ungated) scores[at + block] = Number.NaN;
    scores.fill(Number.NaN, at + this.#reached, at + blocks);
    reasons.fill(SKIP_REASONS.indexOf('exit'), at + this.#reached, at + blocks);
    if (!this.#guarded) return;
    ran.fill(1, at, at + blocks);
    reasons.fill(SKIP_REASONS.indexOf('guard'), at, at + blocks);
  }

  #gated(block: number): boolean {
    return this.#record.policy.modes[block] === BlockMode.gate;
  }
}

/** Whether an item took an exit. Behind the last block that skips no block, and yet the answer isn't the network's. */
export function leftEarly(
  program: Program,
  record: Pick<RunRecord, 'outputs' | 'exits'>,
  item: number,
): boolean {
  return exitsOf(program, record, item).at(-1)?.taken ?? false;
}

const NO_EXITS: readonly ExitDecision[] = [];

function exitsOf(
  program: Program,
  { outputs = [], exits = new Map() }: Pick<RunRecord, 'outputs' | 'exits'>,
  item: number,
): readonly ExitDecision[] {
  const ports = exitPortsOf(program);
  if (ports.length === 0) return NO_EXITS;
  return ports.flatMap(({ after, output }): ExitDecision[] => {
    const score = outputs[output]![item] as number;
    if (Number.isNaN(score)) return [];
    const threshold = exits.get(after) ?? Number.POSITIVE_INFINITY;
    return [{ after, taken: score >= Math.fround(threshold), score, threshold }];
  });
}

/** The trace of one run of `program`. */
export function buildTrace(program: Program, record: RunRecord): SkipTrace {
  const traceItem = (item: number): ItemTrace => {
    const decisions = new RecordedDecisions(program, record, item);
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
    };
  };
  return {
    items: Array.from({ length: record.items }, (_, item) => traceItem(item)),
    multiplyAdds: program.cost.multiplyAdds,
    layers: layersOf(program),
  };
}
