/** Policies applied to programs. */
import { createHash } from 'node:crypto';
import { ResidualSkipError } from '../errors.js';
import type { Block, Precision, Program } from '../model/program/program.js';
import { keepRecent } from '../util/maps.js';
import { suggest } from '../util/suggest.js';
import { type ExitSpec, MODEL_EXITS, resolveExits } from './exits.js';
import { type ResolvedGuard, resolveGuards } from './guards.js';
import { decodeExits, type EncodedHeads } from './head-codec.js';
import { type BlockAction, hashPolicy, type SkipPolicy } from './policy.js';
import { type ClassScores, classScoresOf } from './scores.js';

/** What a policy says in the form that sessions use. */
export interface PolicyParts {
  /** The exits that it adds; MODEL_EXITS if it keeps the model's own. */
  readonly exits: readonly ExitSpec[];
  /** Equal for policies whose exits differ in thresholds alone; empty for those without exits, 'model' for MODEL_EXITS. */
  readonly exitsKey: string;
  /** With classes as indices. */
  readonly guards: readonly ResolvedGuard[];
  /** See hashPolicy. */
  readonly sha256: string;
}

const partsKnown = new Map<SkipPolicy, PolicyParts>();

/**
 * The parts of a policy. A policy that doesn't mention heads and doesn't run all blocks keeps
 * a model's own exits.
 * @throws ResidualSkipError INVALID_POLICY
 */
export function partsOf(policy: SkipPolicy): PolicyParts {
  const known = partsKnown.get(policy);
  if (known) return known;
  const { heads, default: others, guards = [], labels } = policy;
  let sha256: string | undefined;
  return keepRecent(partsKnown, policy, {
    exits: heads ? decodeExits(heads) : others === 'run' ? [] : MODEL_EXITS,
    exitsKey: heads ? keyOf(heads) : others === 'run' ? '' : 'model',
    guards: resolveGuards(guards, labels),
    get sha256() {
      sha256 ??= hashPolicy(policy);
      return sha256;
    },
  });
}

function keyOf({ exits }: EncodedHeads): string {
  if (exits.length === 0) return '';
  const alike = exits.map(({ threshold: _, ...exit }) => exit);
  return createHash('sha256').update(JSON.stringify(alike)).digest('base64');
}

/** What to do with one block, or at an exit: there the only one is `gate`. Values are part of the native ABI. */
export const BlockMode = { run: 0, skip: 1, gate: 2 } as const;

/** What a backend needs of a policy: an entry for each decision of the program, the blocks' before the exits'. */
export interface Decisions {
  /** `skip` only for skippable blocks, `gate` only for blocks with a gate; `gate` for every exit. */
  readonly modes: Uint8Array;
  /** Used where the mode is `gate`. The comparison is the gate's own; an exit is taken at the threshold and above. */
  readonly thresholds: Float32Array;
}

/** Why a block ran or was skipped. */
export type SkipReason =
  /** The score of the block's gate decided. */
  | 'gate'
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
  'policy',
  'fixed',
  'tripped',
  'exit',
  'guard',
] as const satisfies readonly SkipReason[];

/** The number of decisions about each item. */
export function decisionsIn({ blocks, exits }: Pick<Program, 'blocks' | 'exits'>): number {
  return blocks.length + exits.length;
}

/** Every block in a mode of its own; gates and exits have their own thresholds. */
export function decisionsFor(program: Program, mode: (block: Block, index: number) => number): Decisions {
  const { blocks, exits } = program;
  return {
    modes: Uint8Array.from([...blocks.map(mode), ...exits.map(() => BlockMode.gate)]),
    thresholds: Float32Array.from([
      ...blocks.map(({ gate }) => gate?.threshold ?? 0),
      ...exits.map(({ threshold }) => threshold),
    ]),
  };
}

/** What the full policy means to items that asked for another one. */
interface Tripped {
  /** As those of the full policy. */
  readonly reasons: Uint8Array;
  /** Whether the other policy would let items skip or leave. */
  readonly holdsBack: boolean;
}

/** A policy applied to a program that has the policy's exits. */
export class CompiledPolicy implements Decisions {
  readonly modes: Uint8Array;
  readonly thresholds: Float32Array;
  readonly parts: PolicyParts;
  /** Of each block, as an index into SKIP_REASONS, for an item that takes no exit and is not guarded. */
  readonly reasons: Uint8Array;
  /** Blocks without a gate in force. */
  readonly ungated: readonly number[];
  /** Of the network, as in a trace. */
  readonly layers: number;
  readonly classScores: ClassScores | null;
  readonly #tripped = new WeakMap<SkipPolicy, Tripped>();

  /**
   * @param sha256 of the model file that the program was made from
   * @throws ResidualSkipError POLICY_MISMATCH (made for another model), INVALID_POLICY (a block that the model
   * doesn't have, is named twice, or can't do what is asked)
   */
  constructor(
    readonly policy: SkipPolicy,
    readonly program: Program,
    sha256: () => string,
  ) {
    checkModel(policy, sha256);
    checkPrecision(policy, program.precision);
    this.parts = partsOf(policy);
    const { blocks, exits } = program;
    const named = namedActions(policy, blocks);
    this.modes = new Uint8Array(decisionsIn(program)).fill(BlockMode.gate);
    this.thresholds = new Float32Array(decisionsIn(program));
    for (const [index, block] of blocks.entries()) {
      const preferred = named.get(index) ?? policy.default ?? 'gate';
      const action = obstacle(block, preferred) ? 'run' : preferred;
      this.modes[index] = typeof action === 'string' ? BlockMode[action] : BlockMode.gate;
      this.thresholds[index] = typeof action === 'string' ? (block.gate?.threshold ?? 0) : action.threshold;
    }
    const given = new Map(
      resolveExits(program, this.parts.exits).map(({ after, threshold }) => [after, threshold]),
    );
    for (const [e, { after, threshold }] of exits.entries()) {
      this.thresholds[blocks.length + e] = given.get(after) ?? threshold;
    }
    this.reasons = Uint8Array.from(blocks, (block, i) => reasonOf(block, this.modes[i]!));
    this.ungated = blocks.flatMap((_, i) => (this.modes[i] === BlockMode.gate ? [] : [i]));
    this.layers = layersOf(program);
    this.classScores = classScoresOf(program);
  }

  /** What holds where this is the full policy, and an observer has put it in the place of `asked`. */
  whenTripped(asked: SkipPolicy): Tripped {
    const known = this.#tripped.get(asked);
    if (known) return known;
    const { blocks } = this.program;
    const exits = resolveExits(this.program, partsOf(asked).exits);
    const places = exits.map(({ after }) => blocks.findIndex(({ name }) => name === after));
    const reachable = Math.min(...places) + 1;
    const reasons = this.reasons.map((reason, i) => (reason !== FIXED || i >= reachable ? TRIPPED : reason));
    const tripped = { reasons, holdsBack: exits.length > 0 || reasons.includes(TRIPPED) };
    this.#tripped.set(asked, tripped);
    return tripped;
  }
}

const FIXED = SKIP_REASONS.indexOf('fixed');
const TRIPPED = SKIP_REASONS.indexOf('tripped');

function reasonOf(block: Block, mode: number): number {
  const decided = mode === BlockMode.skip || (block.skippable && block.gate !== undefined);
  return SKIP_REASONS.indexOf(mode === BlockMode.gate ? 'gate' : decided ? 'policy' : 'fixed');
}

/** The layers of a network. The small ones of a gate don't count: they would only dilute the share of skipped layers. */
export function layersOf({ steps, blocks, cost }: Program): number {
  const ofGates = blocks
    .flatMap(({ gateFirst, first }) => steps.slice(gateFirst, first))
    .filter(({ op }) => op === 'conv' || op === 'gemm');
  return cost.layers - ofGates.length;
}

/** Throws POLICY_MISMATCH for a policy that was made for another model. */
export function checkModel({ model }: SkipPolicy, sha256: () => string): void {
  if (!model || model.sha256 === sha256()) return;
  throw new ResidualSkipError(
    'POLICY_MISMATCH',
    `policy: it was made for the model with SHA-256 ${model.sha256}, but this one has ${sha256()}; use that model, or calibrate this one`,
  );
}

/**
 * A promise in one precision says nothing about the answers in another.
 * @throws ResidualSkipError POLICY_MISMATCH
 */
export function checkPrecision({ precision, promise }: SkipPolicy, used: Precision = 'float32'): void {
  if ((precision === undefined && !promise) || (precision ?? 'float32') === used) return;
  throw new ResidualSkipError(
    'POLICY_MISMATCH',
    `policy: it was made for the precision ${precision ?? 'float32'}, but the session runs in ${used}; create the session with ` +
      `the precision '${precision ?? 'float32'}', or calibrate in ${used}`,
  );
}

/** The actions of the blocks that a policy names, by index. */
function namedActions(policy: SkipPolicy, blocks: readonly Block[]): ReadonlyMap<number, BlockAction> {
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
  return named;
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
