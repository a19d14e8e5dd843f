import type { Block, Program } from '../model/program.js';
import { BlockMode, type ResolvedPolicy } from './mode.js';

/** Why a block ran or was skipped. */
export type SkipReason =
  /** The model's or the policy's gate decided by its score. */
  | 'gate'
  /** The policy says always run or always skip. */
  | 'policy'
  /** The block has no identity shortcut or no gate, and so always runs. */
  | 'fixed'
  /** An observer had set the session to full depth. */
  | 'tripped';

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

/** What one item did. */
export interface ItemTrace {
  readonly blocks: readonly BlockDecision[];
  /** Multiply-adds of the blocks that were skipped. */
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
  /** An observer had set the session to full depth; `policy` is then the full one. */
  readonly tripped?: boolean;
  /** items x blocks: 1 where the block ran. */
  readonly ran: Uint8Array;
  /** items x blocks: the gate's score, NaN where no gate was asked. */
  readonly scores: Float32Array;
}

function reasonOf(block: Block, mode: number, tripped: boolean): SkipReason {
  if (mode === BlockMode.gate) return 'gate';
  const decided = mode === BlockMode.skip || (block.skippable && block.gate !== undefined);
  if (!decided) return 'fixed';
  return tripped ? 'tripped' : 'policy';
}

/** A gate's small layers decide about layers; to count them too would only dilute what is skipped. */
function layersOf({ steps, blocks, cost }: Program): number {
  const ofGates = blocks
    .flatMap(({ gateFirst, first }) => steps.slice(gateFirst, first))
    .filter(({ op }) => op === 'conv' || op === 'gemm');
  return cost.layers - ofGates.length;
}

/** The trace of one run of `program`. */
export function buildTrace(
  program: Program,
  { items, policy, tripped = false, ran, scores }: RunRecord,
): SkipTrace {
  const { blocks } = program;
  const reasons = blocks.map((block, index) => reasonOf(block, policy.modes[index]!, tripped));
  const traceItem = (item: number): ItemTrace => {
    const first = item * blocks.length;
    const decisions = blocks.map((block, index): BlockDecision => {
      const asked = policy.modes[index] === BlockMode.gate;
      return {
        block: block.name,
        index,
        ran: ran[first + index] === 1,
        score: asked ? scores[first + index]! : null,
        threshold: asked ? policy.thresholds[index]! : null,
        reason: reasons[index]!,
      };
    });
    const skipped = blocks.filter((_, index) => !decisions[index]!.ran);
    return {
      blocks: decisions,
      multiplyAddsSkipped: skipped.reduce((sum, { cost }) => sum + cost.multiplyAdds, 0),
      layersSkipped: skipped.reduce((sum, { cost }) => sum + cost.layers, 0),
    };
  };
  return {
    items: Array.from({ length: items }, (_, item) => traceItem(item)),
    multiplyAdds: program.cost.multiplyAdds,
    layers: layersOf(program),
  };
}
