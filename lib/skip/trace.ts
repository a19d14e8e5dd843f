import type { Block, Program } from '../model/program.js';
import type { TensorData } from '../tensor.js';
import { exitOf } from './attach.js';
import { BlockMode, type ResolvedPolicy } from './mode.js';

/** Why a block ran or was skipped. */
export type SkipReason =
  /** The model's or the policy's gate decided by its score. */
  | 'gate'
  /** The policy's gate decided by how sure the exit in front of it was. */
  | 'confidence'
  /** The policy says always run or always skip. */
  | 'policy'
  /** The block has no identity shortcut or no gate, and so always runs. */
  | 'fixed'
  /** An observer had set the session to full depth. */
  | 'tripped'
  /** An earlier exit was sure of its answer: all blocks behind it are skipped. */
  | 'exit'
  /** The answer was guarded: the item was run in full. */
  | 'guard';

export interface BlockDecision {
  readonly block: string;
  readonly index: number;
  readonly ran: boolean;
  /** The gate's score; null when no gate was asked. */
  readonly score: number | null;
  /** The threshold that the score was compared with; null when no gate was asked. */
  readonly threshold: number | null;
  readonly reason: SkipReason;
}

/** An early exit that an item reached. */
export interface ExitDecision {
  /** The block behind which it stands. */
  readonly after: string;
  readonly taken: boolean;
  /** Largest softmax probability of its head. */
  readonly score: number;
  readonly threshold: number;
}

/** What one item did. */
export interface ItemTrace {
  readonly blocks: readonly BlockDecision[];
  /** Exits of the policy, as far as the item came. */
  readonly exits: readonly ExitDecision[];
  /**
   * Multiply-adds that were saved: those of the blocks that were skipped, less those of the policy's heads that were asked,
   * and less a run in full where a guard took one. Negative where more was spent than in full.
   */
  readonly multiplyAddsSkipped: number;
  /** Convolutions and fully connected layers in the blocks that were skipped. */
  readonly layersSkipped: number;
}

/** What every item of one run did. */
export interface SkipTrace {
  readonly items: readonly ItemTrace[];
  /** Multiply-adds of one item in full. */
  readonly multiplyAdds: number;
  /** Convolutions and fully connected layers of the whole network; those of its gates don't count. */
  readonly layers: number;
}

/** What a run left behind, from which its trace is built; see RunRequest. */
export interface RunRecord {
  readonly items: number;
  readonly policy: ResolvedPolicy;
  /**
   * The blocks that heads of the policy may skip, when an observer had set the session to full depth; `policy` is then
   * the full one.
   */
  readonly tripped?: ReadonlySet<string>;
  /** items x blocks: 1 where the block ran. */
  readonly ran: Uint8Array;
  /** items x blocks: the gate's score, NaN where no gate was asked. */
  readonly scores: Float32Array;
  /** By the program's outputs; read where there are exits. */
  readonly outputs?: readonly TensorData[];
  /** Thresholds of the exits, by the block behind which they stand. */
  readonly exits?: ReadonlyMap<string, number>;
  /** Items whose answer a guard had run in full. */
  readonly guarded?: ReadonlySet<number>;
}

function reasonOf(block: Block, mode: number, tripped: ReadonlySet<string> | undefined): SkipReason {
  if (mode === BlockMode.gate) return block.gate?.form === 'confidence' ? 'confidence' : 'gate';
  if (tripped?.has(block.name)) return 'tripped';
  const decided = mode === BlockMode.skip || (block.skippable && block.gate !== undefined);
  if (!decided) return 'fixed';
  return tripped ? 'tripped' : 'policy';
}

const layersKnown = new WeakMap<Program, number>();

/** A gate's small layers decide about layers; to count them too would only dilute what is skipped. */
function layersOf(program: Program): number {
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

/** The exits that `item` came to, in order; only the last can be taken. */
function exitsOf(
  program: Program,
  { outputs = [], exits = new Map() }: RunRecord,
  item: number,
): ExitDecision[] {
  return program.outputs.flatMap(({ name }, i): ExitDecision[] => {
    const after = exitOf(name);
    const score = after === undefined ? Number.NaN : (outputs[i]![item] as number);
    if (after === undefined || Number.isNaN(score)) return [];
    const threshold = exits.get(after) ?? Number.POSITIVE_INFINITY;
    return [{ after, taken: score >= Math.fround(threshold), score, threshold }];
  });
}

/** The trace of one run of `program`. */
export function buildTrace(program: Program, record: RunRecord): SkipTrace {
  const { items, policy, tripped, ran, scores, guarded } = record;
  const { blocks } = program;
  const reasons = blocks.map((block, index) => reasonOf(block, policy.modes[index]!, tripped));
  const traceItem = (item: number): ItemTrace => {
    const first = item * blocks.length;
    const exits = exitsOf(program, record, item);
    const last = exits.find(({ taken }) => taken)?.after;
    const reached = last === undefined ? blocks.length : blocks.findIndex(({ name }) => name === last) + 1;
    const verified = guarded?.has(item) ?? false;
    const decisions: BlockDecision[] = [];
    let [multiplyAddsSkipped, layersSkipped] = [verified ? -program.cost.multiplyAdds : 0, 0];
    for (let index = 0; index < blocks.length; index++) {
      const { name, cost, heads } = blocks[index]!;
      const asked = policy.modes[index] === BlockMode.gate && index < reached;
      const didRun = verified || ran[first + index] === 1;
      decisions.push({
        block: name,
        index,
        ran: didRun,
        score: asked ? scores[first + index]! : null,
        threshold: asked ? policy.thresholds[index]! : null,
        reason: verified ? 'guard' : index < reached ? reasons[index]! : 'exit',
      });
      if (heads) multiplyAddsSkipped -= (asked ? heads.gate : 0) + (index < reached ? heads.exit : 0);
      if (ran[first + index] !== 1) multiplyAddsSkipped += cost.multiplyAdds;
      if (!didRun) layersSkipped += cost.layers;
    }
    return { blocks: decisions, exits, multiplyAddsSkipped, layersSkipped };
  };
  return {
    items: Array.from({ length: items }, (_, item) => traceItem(item)),
    multiplyAdds: program.cost.multiplyAdds,
    layers: layersOf(program),
  };
}
