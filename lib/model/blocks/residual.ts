import { sameShape } from '../../numeric/shapes.js';
import { isDue, type Sliced } from '../../util/slices.js';
import { type ByteType, bytesOf, isIdentity, numbersOf } from '../optimise/quantised-value.js';
import { changesNothing, forgetRanges, rangeOf } from '../optimise/range.js';
import type { Region, Select, WorkOp, WorkStep, WorkStepNamed } from '../optimise/region.js';
import { between, dependsOn } from '../optimise/search.js';
import {
  type Activation,
  NO_ACTIVATION,
  type ShortcutKind,
  type UnusableGate,
  type ValueId,
} from '../program/program.js';
import { blockNames } from './names.js';
import { normSource, shortcutPath } from './shortcut.js';

/** A residual block as values; its operations are gathered when it is scheduled. */
export interface ResidualBlock {
  readonly name: string;
  readonly shortcut: ShortcutKind;
  readonly skippable: boolean;
  readonly input: ValueId;
  readonly output: ValueId;
  readonly skipActivation: Activation;
  readonly skipTable: ValueId | undefined;
  /** The producer of `output` is a `select`, which carries the gate. */
  readonly gated: boolean;
}

interface Candidate {
  readonly op: WorkOp;
  readonly shortcut: ShortcutKind;
  readonly input: ValueId;
  readonly body: ReadonlySet<WorkOp>;
  readonly gate: ReadonlySet<WorkOp>;
  readonly skippable: boolean;
  readonly skipActivation: Activation;
  readonly skipTable: ValueId | undefined;
}

/**
 * Finds the residual blocks of a fused region whose sums are still separate steps (He et al. 2015 and 2016, Sandler
 * et al. 2018). Blocks are disjoint: of nested ones, a gated block wins over the blocks in it; otherwise the
 * innermost wins. A `select` that can't become a block becomes plain arithmetic, and is added to `unusable`.
 * @param recurrent names of nodes in which sums are no shortcuts
 */
export function* findBlocks(
  region: Region,
  unusable: UnusableGate[] = [],
  recurrent: ReadonlySet<string> = new Set(),
): Sliced<ResidualBlock[]> {
  forgetRanges(region);
  const gated = findGated(region, unusable);
  const taken = new Set<WorkOp>(gated.flatMap(({ body, gate }) => [...body, ...gate]));
  const plain: Candidate[] = [];
  const inputs = new Map<ValueId, ValueId>(gated.map(({ op, input }) => [op.outputs[0]!, input]));
  let layersBefore = false;
  for (const op of region.ops) {
    if (region.effort.spent) break;
    if (isDue()) yield;
    layersBefore ||= isLayer(op);
    const isSum = layersBefore && !taken.has(op) && !recurrent.has(op.node);
    const candidate = isSum ? sumCandidate(region, op, inputs) : undefined;
    if (!candidate) continue;
    inputs.set(op.outputs[0]!, candidate.input);
    plain.push(candidate);
  }
  const chosen = [...gated];
  for (const candidate of plain.sort((a, b) => a.body.size - b.body.size)) {
    if ([...candidate.body].some((op) => taken.has(op))) continue;
    for (const op of candidate.body) taken.add(op);
    chosen.push(candidate);
  }
  chosen.sort((a, b) => region.position(a.op) - region.position(b.op));
  const blocks = joinLayers(region, chosen);
  const names = blockNames(blocks.map(({ body }) => [...body].map((op) => op.node)));
  return blocks.map(({ op, shortcut, skippable, input, skipActivation, skipTable }, i) => ({
    name: names[i]!,
    shortcut,
    skippable,
    input,
    output: op.outputs[0]!,
    skipActivation,
    skipTable,
    gated: op.op === 'select',
  }));
}

/**
 * The operations that only `output` needs: `input` needs none of them, and all their results end in `output` (nothing
 * in the region is dead). For a `select`, `gate` holds those that only its score needs. Both are in order.
 */
export function gatherBody(
  region: Region,
  output: ValueId,
  input: ValueId,
): { body: Set<WorkOp>; gate: Set<WorkOp> } {
  const last = region.producer(output)!;
  const before = region.producer(input);
  const scorer = last.op === 'select' ? region.producer(last.inputs[0]!) : undefined;
  const gate = scorer ? neededOnlyBy(region, last, (op) => op === scorer, before) : new Set<WorkOp>();
  gate.delete(last);
  return { gate, body: neededOnlyBy(region, last, (op) => op !== scorer, before) };
}

/**
 * `last`, those of its operands' producers that `enters` allows, and all before them, as far as nothing else needs their results. What
 * `beyond` needs is not among them, because `beyond` isn't.
 */
function neededOnlyBy(
  region: Region,
  last: WorkOp,
  enters: (op: WorkOp) => boolean,
  beyond: WorkOp | undefined,
): Set<WorkOp> {
  const members = [last];
  /** Uses of an operation's results outside `members`. */
  const others = new Map<WorkOp, number>();
  for (const member of members) {
    for (const id of region.reads(member)) {
      const op = region.producer(id);
      if (!op || op === beyond || (member === last && !enters(op))) continue;
      const left = (others.get(op) ?? usesOf(region, op)) - 1;
      others.set(op, left);
      if (left === 0) members.push(op);
    }
  }
  return new Set(members.sort((a, b) => region.position(a) - region.position(b)));
}

/** How often the results of an operation are read; without end if one is an output of the region. */
function usesOf(region: Region, { outputs }: WorkOp): number {
  if (outputs.some((id) => region.isOutput(id))) return Number.POSITIVE_INFINITY;
  region.effort.spend(1);
  return outputs.reduce((sum, id) => sum + region.useCount(id), 0);
}

const NOTHING: ReturnType<typeof gatherBody> = { body: new Set(), gate: new Set() };

/** The selects that are blocks; the others become arithmetic. */
function findGated(region: Region, unusable: UnusableGate[]): Candidate[] {
  const found: Candidate[] = [];
  const inside = new Set<WorkOp>();
  const selects = region.ops.filter((op): op is Select => op.op === 'select');
  for (const op of selects.reverse()) {
    const input = op.inputs[2]!;
    const nested = inside.has(op);
    const { body, gate } = nested ? NOTHING : gatherBody(region, op.outputs[0]!, input);
    const source = region.producer(op.inputs[1]!);
    const problem = nested
      ? 'it is inside the block of another gate'
      : !source || !body.has(source)
        ? 'what it would skip is needed elsewhere, too'
        : holdsConditional(body)
          ? 'its block holds an If'
          : region.effort.spent
            ? 'the network has too many of them'
            : undefined;
    if (problem) {
      unusable.push({ node: op.node, reason: problem });
      toArithmetic(region, op);
      continue;
    }
    for (const member of [...body, ...gate]) inside.add(member);
    const { skipActivation } = op.attrs;
    const skipTable = neededTable(region, input, op.attrs.skipTable);
    found.push({ op, shortcut: 'identity', input, body, gate, skippable: true, skipActivation, skipTable });
  }
  // Turning an inner select into arithmetic changed the members of the blocks around it.
  return found.map((candidate) => ({
    ...candidate,
    ...gatherBody(region, candidate.op.outputs[0]!, candidate.input),
  }));
}

/** Where(score <compare> threshold, body, skipActivation(shortcut)). */
function toArithmetic(region: Region, select: Select): void {
  const [score, body, shortcut] = select.inputs as [ValueId, ValueId, ValueId];
  const { node, outputs } = select;
  const { compare, threshold, skipActivation, skipTable } = select.attrs;
  const { dtype, shape } = region.value(shortcut);
  const flat = region.addValue(`${node}.score`, 'float32', [1]);
  const limit = region.addValue(`${node}.threshold`, 'float32', [1], Float32Array.of(threshold));
  const flag = region.addValue(`${node}.flag`, 'bool', [1]);
  const steps: WorkStep[] = [
    { op: 'reshape', node, inputs: [score], outputs: [flat], attrs: {} },
    { op: 'compare', node, inputs: [flat, limit], outputs: [flag], attrs: { kind: compare } },
  ];
  let skipped = shortcut;
  if (skipActivation.kind !== 'none') {
    skipped = region.addValue(`${node}.skipped`, dtype, shape);
    const attrs = { act: skipActivation };
    steps.push({ op: 'unary', node, inputs: [shortcut], outputs: [skipped], attrs });
  }
  if (skipTable !== undefined) {
    skipped = region.addValue(`${node}.skipped`, dtype, shape);
    steps.push({ op: 'lookup', node, inputs: [shortcut, skipTable], outputs: [skipped], attrs: {} });
  }
  steps.push({ op: 'where', node, inputs: [flag, body, skipped], outputs, attrs: {} });
  region.replace([select], steps);
}

/**
 * The two blocks of a post-norm transformer layer (Vaswani et al. 2017), norm(y + mlp(y)) with y = norm(x + attention(x)), are
 * one: what is skipped passes x on, which is normalised already.
 */
function joinLayers(region: Region, blocks: readonly Candidate[]): Candidate[] {
  const joined: Candidate[] = [];
  for (let i = 0; i < blocks.length; i++) {
    const layer = postNormLayer(region, blocks[i]!, blocks[i + 1]);
    joined.push(layer ?? blocks[i]!);
    if (layer) i++;
  }
  return joined;
}

const ATTENTION: ReadonlySet<string> = new Set(['softmax', 'attention']);
const attends = ({ body }: Candidate): boolean => [...body].some(({ op }) => ATTENTION.has(op));

function postNormLayer(
  region: Region,
  first: Candidate,
  second: Candidate | undefined,
): Candidate | undefined {
  if (!second || !first.skippable || !second.skippable || !attends(first) || attends(second))
    return undefined;
  if (first.op.op === 'select' || second.op.op === 'select') return undefined;
  if (normSource(region, second.input) !== first.op.outputs[0]) return undefined;
  const sum = second.op.outputs[0]!;
  const after = between(region, sum, region.outputs[0]!);
  const like = region.shape(first.input);
  const op = after.findLast(
    ({ outputs: [end] }) => sameShape(region.shape(end!), like) && normSource(region, end!) === sum,
  );
  if (!op) return undefined;
  const { body, gate } = gatherBody(region, op.outputs[0]!, first.input);
  const contained = [...first.body, ...second.body].every((member) => body.has(member));
  return contained ? { ...first, op, body, gate, skipActivation: NO_ACTIVATION } : undefined;
}

/** Blocks never cross a branch. */
const holdsConditional = (ops: Iterable<WorkOp>): boolean => [...ops].some((op) => op.op === 'if');

const LAYERS: ReadonlySet<WorkOp['op']> = new Set([
  'conv',
  'gemm',
  'matmul',
  'attention',
  'qconv',
  'qmatmul',
]);
const isLayer = ({ op }: WorkOp): boolean => LAYERS.has(op);

/** The block that ends with the sum `op`, if it is one. `inputs` maps the output of every block to its input. */
function sumCandidate(
  region: Region,
  op: WorkOp,
  inputs: ReadonlyMap<ValueId, ValueId>,
): Candidate | undefined {
  if ((op.op !== 'binary' && op.op !== 'qbinary') || op.attrs.kind !== 'add') return undefined;
  const output = op.outputs[0]!;
  const [a, b] = op.inputs as [ValueId, ValueId];
  const { shape, dtype } = region.value(output);
  if ((dtype !== 'float32' && op.op === 'binary') || ![a, b].every((id) => isVarying(region, id, shape)))
    return undefined;
  const path = identity(region, a, b, inputs) ?? identity(region, b, a, inputs) ?? indirect(region, a, b);
  if (!path) return undefined;
  const { body, gate } = gatherBody(region, output, path.input);
  if (holdsConditional(body)) return undefined;
  const inside = between(region, path.input, output);
  // What depends on a value by a gate's decision alone, such as the state of a recurrent gate, is no block around it.
  if (path.kind !== 'identity' && inside.some((member) => member.op === 'select')) return undefined;
  const layers = inside.filter(isLayer);
  const leaks = layers.some((layer) => !body.has(layer));
  if (layers.length === 0 && ![...body].some(isLayer)) return undefined;
  const act = op.op === 'binary' ? op.attrs.act : NO_ACTIVATION;
  const idle = changesNothing(act, () => rangeOf(region, path.input));
  const identical = path.kind === 'identity' && !leaks;
  const alike = region.value(path.input).dtype === dtype;
  return {
    op,
    shortcut: path.kind,
    input: path.input,
    body,
    gate,
    skippable: identical && (op.op === 'binary' || alike),
    skipActivation: path.kind !== 'identity' || idle ? NO_ACTIVATION : act,
    skipTable: op.op === 'qbinary' && identical && alike ? shortcutTable(region, op, path.input) : undefined,
  };
}

/** What becomes of a shortcut's bytes if the other summand is left out; undefined if nothing does. */
function shortcutTable(region: Region, op: WorkStepNamed<'qbinary'>, input: ValueId): ValueId | undefined {
  const { name, dtype } = region.value(op.outputs[0]!);
  const term = op.attrs.terms[op.inputs[0] === input ? 0 : 1];
  const { zero, low, high } = op.attrs.requant;
  const unit = { zero, factor: 1 };
  const table = bytesOf(numbersOf(dtype as ByteType, term), dtype as ByteType, unit, [low, high]);
  return neededTable(region, input, region.addValue(`${name}.table`, dtype, [256], table));
}

/** A table, unless it changes no byte that `input` can hold. */
function neededTable(region: Region, input: ValueId, table: ValueId | undefined): ValueId | undefined {
  const data = table === undefined ? undefined : region.value(table).data;
  const { low, high } = rangeOf(region, input);
  return data && isIdentity(data as Uint8Array | Int8Array, low, high) ? undefined : table;
}

function isVarying(region: Region, id: ValueId, shape: readonly number[]): boolean {
  const value = region.value(id);
  return value.data === undefined && sameShape(value.shape, shape);
}

/** `body` is computed from `shortcut`, or from the input of the block that made it (x + F(x) + G(x)). */
function identity(
  region: Region,
  shortcut: ValueId,
  body: ValueId,
  inputs: ReadonlyMap<ValueId, ValueId>,
): { kind: ShortcutKind; input: ValueId } | undefined {
  for (let from: ValueId | undefined = shortcut; from !== undefined; from = inputs.get(from)) {
    if (dependsOn(region, body, from)) return { kind: 'identity', input: shortcut };
    if (!region.usedOnce(from)) break;
  }
  return undefined;
}

/** A projected or padded shortcut. If both paths are linear, neither is the body. */
function indirect(
  region: Region,
  a: ValueId,
  b: ValueId,
): { kind: ShortcutKind; input: ValueId } | undefined {
  const [first, second] = [shortcutPath(region, a, b), shortcutPath(region, b, a)];
  if (first && second && first.layers === second.layers) return undefined;
  if (first && second) return first.layers < second.layers ? first : second;
  return first ?? second;
}
