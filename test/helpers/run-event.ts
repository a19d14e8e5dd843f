import type { RunContext, RunEvent } from 'lib/skip/observer.js';
import { type ItemDecisions, SKIP_REASONS } from 'lib/skip/trace.js';
import { Tensor } from 'lib/tensor/tensor.js';

/** Context of a network with `blocks` gated blocks. */
export function runContext(blocks = 3): RunContext {
  return {
    version: '0.0.0',
    sha256: 'a'.repeat(64),
    source: 'models/some/model.onnx',
    policy: { blocks: {} },
    policySha256: 'b'.repeat(64),
    guards: [],
    backend: 'native',
    isa: 'scalar',
    threads: 1,
    precision: 'float32',
    classScores: { name: 'logits', meaning: 'logits', end: null },
    multiplyAdds: 1000,
    layers: 2 * blocks + 2,
    blocks: Array.from({ length: blocks }, (_, index) => ({
      index,
      name: `block${index}`,
      shortcut: 'identity' as const,
      skippable: true,
      gate: { form: 'multiply' as const, compare: 'gt' as const, threshold: 0 },
      multiplyAdds: 300,
      share: 0.3,
      layers: 2,
    })),
  };
}

/** Adds `decisionsOf` to `event`, based on its trace. */
export function withDecisions(event: Omit<RunEvent, 'decisionsOf'>): RunEvent {
  const decisionsOf = (item: number): ItemDecisions => {
    const { blocks, exits, inFull, multiplyAddsSkipped } = event.trace.items[item]!;
    return {
      exits,
      inFull,
      ran: (block) => blocks[block]!.ran,
      score: (block) => blocks[block]!.score,
      threshold: (block) => blocks[block]!.threshold,
      reason: (block) => blocks[block]!.reason,
      multiplyAddsSkipped: () => multiplyAddsSkipped,
      spentMore: () => true,
      copyTo: (ran, reasons, scores, at) => {
        for (const [i, block] of blocks.entries()) {
          ran[at + i] = block.ran ? 1 : 0;
          reasons[at + i] = SKIP_REASONS.indexOf(block.reason);
          scores[at + i] = block.score ?? Number.NaN;
        }
      },
    };
  };
  return { ...event, decisionsOf };
}

/** A run with one item per row of `scores`; a block runs if its score is above 0. */
export function runEvent(context: RunContext, scores: readonly (readonly number[])[], seed = 0): RunEvent {
  const items = scores.length;
  return withDecisions({
    context,
    inputsKept: false,
    items,
    inputs: {
      input: new Tensor(
        'float32',
        Float32Array.from({ length: items * 4 }, (_, i) => seed + i),
        [items, 4],
      ),
    },
    outputs: {
      logits: new Tensor(
        'float32',
        Float32Array.from({ length: items * 2 }, (_, i) => Math.sin(seed + i)),
        [items, 2],
      ),
    },
    milliseconds: items,
    trace: {
      multiplyAdds: context.multiplyAdds,
      layers: context.layers,
      items: scores.map((row) => ({
        blocks: row.map((score, index) => ({
          block: `block${index}`,
          index,
          ran: score > 0,
          score: Math.fround(score),
          threshold: 0,
          reason: 'gate' as const,
        })),
        exits: [],
        multiplyAddsSkipped: 300 * row.filter((score) => score <= 0).length,
        layersSkipped: 2 * row.filter((score) => score <= 0).length,
      })),
    },
  });
}
