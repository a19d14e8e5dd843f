/** Policies applied to programs. */
import { ResidualSkipError } from '../errors.js';
import type { Block, Program } from '../model/program.js';
import { suggest } from '../suggest.js';
import type { BlockAction, SkipPolicy } from './policy.js';

/** What to do with one block. Values are part of the native ABI. */
export const BlockMode = { run: 0, skip: 1, gate: 2 } as const;

/** A policy resolved against one program: entry i is for block i. */
export interface ResolvedPolicy {
  /** BlockMode of every block. `skip` only for skippable blocks, `gate` only for blocks with a gate. */
  readonly modes: Uint8Array;
  /** Threshold of every block; used if the mode is `gate`. The comparison is the gate's own. */
  readonly thresholds: Float32Array;
}

/** Index of the block that `key` names; names take precedence over indices. */
function findBlock(key: string, blocks: readonly Block[]): number {
  const byName = blocks.findIndex((block) => block.name === key);
  if (byName >= 0) return byName;
  if (/^\d+$/.test(key) && Number(key) < blocks.length) return Number(key);
  const names = blocks.map((block) => block.name);
  throw new ResidualSkipError(
    'INVALID_POLICY',
    `policy: the model has no block '${key}' among its ${blocks.length} (indices start at 0); ${suggest(key, names)}`,
  );
}

/** Why `block` can't do `action`; undefined if it can. */
function obstacle(block: Block, action: BlockAction): string | undefined {
  if (action === 'run') return undefined;
  if (action !== 'skip') return block.gate ? undefined : "has no gate; use 'run' or 'skip'";
  if (block.skippable) return undefined;
  const why =
    block.shortcut === 'identity'
      ? 'values of its body are used elsewhere'
      : `its shortcut is a ${block.shortcut}`;
  return `can't be skipped: ${why}`;
}

/**
 * `policy` applied to the blocks of `program`.
 * @param sha256 of the model file that the program was made from
 * @throws ResidualSkipError POLICY_MISMATCH (made for another model), INVALID_POLICY (a block that the model
 * doesn't have, is named twice, or can't do what is asked)
 */
export function resolvePolicy(policy: SkipPolicy, program: Program, sha256: string): ResolvedPolicy {
  if (policy.model && policy.model.sha256 !== sha256) {
    throw new ResidualSkipError(
      'POLICY_MISMATCH',
      `policy: it was made for the model with SHA-256 ${policy.model.sha256}, but this one has ${sha256}; use that model, or calibrate this one`,
    );
  }
  const { blocks } = program;
  const named = new Map<number, BlockAction>();
  for (const [key, action] of Object.entries(policy.blocks ?? {})) {
    const index = findBlock(key, blocks);
    const block = blocks[index]!;
    if (named.has(index)) {
      throw new ResidualSkipError(
        'INVALID_POLICY',
        `policy: it names block '${block.name}' (index ${index}) twice`,
      );
    }
    const why = obstacle(block, action);
    if (why) {
      throw new ResidualSkipError('INVALID_POLICY', `policy: block '${key}' (index ${index}) ${why}`);
    }
    named.set(index, action);
  }
  const modes = new Uint8Array(blocks.length);
  const thresholds = new Float32Array(blocks.length);
  for (const [index, block] of blocks.entries()) {
    const preferred = named.get(index) ?? policy.default ?? 'gate';
    const action = obstacle(block, preferred) ? 'run' : preferred;
    modes[index] = typeof action === 'string' ? BlockMode[action] : BlockMode.gate;
    thresholds[index] = typeof action === 'string' ? (block.gate?.threshold ?? 0) : action.threshold;
  }
  return { modes, thresholds };
}
