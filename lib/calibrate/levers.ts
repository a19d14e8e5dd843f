/**
 * What a calibration can turn: behind blocks an early exit, for each skippable block a gate, with a head of its own or reading
 * the confidence of an exit. For each fitting item there are a score (higher: safer to skip), the risk of turning it, and the
 * work that is saved. Scores and losses are honest: those of an item come from a head that was fitted without it.
 */
import { setImmediate } from 'node:timers/promises';
import type { Block, Program } from '../model/program.js';
import type { Head } from '../skip/head.js';
import { BlockMode } from '../skip/mode.js';
import { argMax, type Meaning, meaningOf, probabilities, softmax } from '../skip/scores.js';
import type { Evaluator } from './evaluator.js';
import { type FullPass, featuresOf, pointOf, rowOf } from './features.js';
import { applyHead, fitMlp, type Samples } from './mlp.js';
import { ridge } from './regression.js';
import { risksOf } from './risk-curve.js';

interface Turned {
  readonly block: string;
  /** Of the network's multiply-adds, that turning it saves. */
  readonly saving: number;
  /** For each row: pull the lever where this is at least a threshold. */
  readonly scores: Float64Array;
  /** For each row: how likely pulling this lever alone changes the answer, as its score has it. */
  readonly risks: Float64Array;
}

/** An exit, or a gate with a head of its own. */
export interface HeadLever extends Turned {
  readonly kind: 'exit' | 'gate';
  readonly head: Head;
  /** The same, fitted without the items of `order`, which it is judged on. */
  readonly trial: Head;
}

/** A gate that reads the confidence of the exit behind `reads`. */
export interface ConfidenceLever extends Turned {
  readonly kind: 'confidence';
  readonly reads: string;
}

export type Lever = HeadLever | ConfidenceLever;

/** A lever whose risks are yet to be estimated. */
interface Fitted extends Omit<HeadLever, 'risks'> {
  /** For each row: 1 where pulling this lever alone changes the answer. */
  readonly losses: Uint8Array;
}

/** Rows that heads are fitted on: every item, then altered copies of every item, again and again. */
export interface Lesson extends FullPass {
  /** Row r is a copy of item r % items. */
  readonly items: number;
  /** From this item on they are those of `order`. */
  readonly order: number;
  readonly seed: number;
  /** Called with items when about the work of running as many is done. */
  readonly onItems: (count: number) => void;
}

/** Heads are fitted without each of so many parts of the items, to judge them on it, and then with all. The last is `order`. */
export const FOLDS = 3;
const HIDDEN = 32;
/** Training takes about so many steps of one sample, but not more than so many multiply-adds. */
const [SAMPLES, LEAST_EPOCHS, MOST_EPOCHS, MOST_WORK] = [72_000, 2, 12, 8e9];
const PENALTY = 1e-2;
/** Below these, probabilities, divergences and doubts are alike. */
const [TINY, LEAST_DIVERGENCE, LEAST_DOUBT] = [1e-12, 1e-6, 1e-7];
/** An exit this close to the end saves too little to pay for its head. */
const LEAST_SAVING = 0.02;
/** A head that sees less than this share of the network's work has nothing to tell. */
const LEAST_DONE = 0.05;

/** Index of the largest logit; -1 when any is NaN. */
export function answerOf(logits: Float32Array): number {
  return logits.some(Number.isNaN) ? -1 : argMax(logits);
}

interface Place {
  readonly block: Block;
  readonly saving: number;
}

/** Blocks behind which an exit is worth while. */
export function exitPlaces(program: Program): Place[] {
  const { blocks, cost } = program;
  let done = 0;
  const places: Place[] = [];
  for (const [index, block] of blocks.entries()) {
    done += block.cost.multiplyAdds / cost.multiplyAdds;
    const rest = blocks.slice(index + 1).reduce((sum, next) => sum + next.cost.multiplyAdds, 0);
    const saving = rest / cost.multiplyAdds;
    if (done < LEAST_DONE || saving < LEAST_SAVING || !featuresOf(program, block.output)) continue;
    places.push({ block, saving });
  }
  return places;
}

/** Skippable blocks that have no gate of their own. */
export function gatePlaces(program: Program): Place[] {
  return program.blocks
    .filter((block) => block.skippable && !block.gate && featuresOf(program, block.input))
    .map((block) => ({ block, saving: block.cost.multiplyAdds / program.cost.multiplyAdds }));
}

/** The rows whose item is, or is not, in a part of the items. */
function rowsOf({ items, logits }: Lesson, inPart: (item: number) => boolean): number[] {
  return Array.from({ length: logits.rows }, (_, row) => row).filter((row) => inPart(row % items));
}

function pick({ width, data }: Samples, rows: readonly number[]): Samples {
  const picked = new Float32Array(rows.length * width);
  for (const [i, row] of rows.entries()) {
    picked.set(data.subarray(row * width, (row + 1) * width), i * width);
  }
  return { rows: rows.length, width, data: picked };
}

/**
 * A head fitted on all rows, one on all but those of `order`, and what heads fitted without it say of each row.
 * @param say called for every row once, with a head's outputs
 */
async function crossFit(
  lesson: Lesson,
  train: (rows: readonly number[]) => Head,
  features: Samples,
  say: (row: number, outputs: Float32Array) => void,
): Promise<{ head: Head; trial: Head }> {
  const foldOf = (item: number) => (item >= lesson.order ? FOLDS - 1 : item % (FOLDS - 1));
  const heads: Head[] = [];
  for (let fold = 0; fold < FOLDS; fold++) {
    const head = train(rowsOf(lesson, (item) => foldOf(item) !== fold));
    for (const row of rowsOf(lesson, (item) => foldOf(item) === fold)) {
      if (row < features.rows) say(row, applyHead(head, rowOf(features, row)));
    }
    heads.push(head);
    lesson.onItems(lesson.items);
    await setImmediate();
  }
  const head = train(rowsOf(lesson, () => true));
  lesson.onItems(lesson.items);
  await setImmediate();
  return { head, trial: heads[FOLDS - 1]! };
}

/** Of the confidence of an exit: the logarithm of its odds against. */
function doubtsOf(confidences: Float64Array): Float64Array {
  return confidences.map((share) => Math.log((1 - share + LEAST_DOUBT) / (share + LEAST_DOUBT)));
}

/** The levers that were fitted, and for each gate what reads each exit in front of it instead; all with risks. */
export function withRisks(program: Program, exits: readonly Fitted[], gates: readonly Fitted[]): Lever[] {
  const place = (block: string) => program.blocks.findIndex(({ name }) => name === block);
  const readers = gates.flatMap(({ block, saving, losses }) =>
    exits
      .filter((exit) => place(exit.block) < place(block))
      .map((exit) => ({
        ...{ kind: 'confidence' as const, block, saving, losses, reads: exit.block },
        scores: exit.scores.subarray(0, losses.length),
      })),
  );
  const estimated = <T extends { readonly scores: Float64Array; readonly losses: Uint8Array }>(
    levers: readonly T[],
    doubts: (scores: Float64Array) => Float64Array,
  ) => {
    if (levers.length === 0) return [];
    const risks = risksOf(levers.map(({ scores, losses }) => ({ doubts: doubts(scores), losses })));
    return levers.map((lever, i) => ({ ...lever, risks: risks[i]! }));
  };
  const all: Lever[] = [
    ...estimated(exits, doubtsOf),
    ...estimated(gates, (scores) => scores.map((score) => -score)),
    ...estimated(readers, doubtsOf),
  ];
  // In the network's order: a gate stands before its block, an exit behind it.
  const order = ({ kind, block }: Lever) => 2 * place(block) + (kind === 'exit' ? 1 : 0);
  return all.sort((a, b) => order(a) - order(b));
}

/** An exit behind each block where something worth while remains to be saved. */
export async function fitExits(program: Program, lesson: Lesson): Promise<Fitted[]> {
  const { logits, seed } = lesson;
  const meaning = meaningOf(program, program.outputs[0]!.value);
  const targets: Samples = { ...logits, data: new Float32Array(logits.data.length) };
  const answers = Array.from({ length: logits.rows }, (_, row) => {
    const own = rowOf(logits, row);
    targets.data.set(probabilities(own, meaning), row * logits.width);
    return argMax(own);
  });
  const levers: Fitted[] = [];
  for (const { block, saving } of exitPlaces(program)) {
    const seen = featuresOf(program, block.output)!;
    const features = lesson.features.get(pointOf(block.output, seen))!;
    const train = (rows: readonly number[]): Head => {
      const work = 3 * rows.length * HIDDEN * (features.width + logits.width);
      const epochs = Math.round(
        Math.max(LEAST_EPOCHS, Math.min(MOST_EPOCHS, SAMPLES / rows.length, MOST_WORK / work)),
      );
      const layers = fitMlp(pick(features, rows), pick(targets, rows), { hidden: HIDDEN, epochs, seed });
      return { features: seen, layers };
    };
    const scores = new Float64Array(logits.rows);
    const losses = new Uint8Array(logits.rows);
    const heads = await crossFit(lesson, train, features, (row, outputs) => {
      scores[row] = softmax(outputs)[argMax(outputs)]!;
      losses[row] = argMax(outputs) === answers[row] ? 0 : 1;
    });
    levers.push({ kind: 'exit', block: block.name, ...heads, saving, scores, losses });
  }
  return levers;
}

/** Kullback-Leibler divergence of the answers from those in full, in nats. */
function divergence(full: Float32Array, skipped: Float32Array, meaning: Meaning): number {
  const [p, q] = [probabilities(full, meaning), probabilities(skipped, meaning)];
  return p.reduce((sum, share, k) => sum + share * Math.log((share + TINY) / (q[k]! + TINY)), 0);
}

/**
 * A gate for each skippable block without one: its head predicts, from the block's input, the logarithm of how far
 * leaving the block out moves the answer. Fitted on the items themselves, without copies.
 * @param inputs the items
 */
export async function fitGates(
  evaluator: Evaluator,
  inputs: readonly Float32Array[],
  lesson: Lesson,
): Promise<Fitted[]> {
  const { program } = evaluator;
  const levers: Fitted[] = [];
  const logits = inputs.map((_, item) => rowOf(lesson.logits, item));
  for (const { block, saving } of gatePlaces(program)) {
    const index = program.blocks.indexOf(block);
    const alone = evaluator.policy((i) => (i === index ? BlockMode.skip : BlockMode.run));
    const skipped = await evaluator.run(inputs, alone, lesson.onItems);
    const targets = skipped.map(({ outputs }, i) =>
      Float32Array.of(
        Math.log(
          Math.max(0, divergence(logits[i]!, outputs[0]!, meaningOf(program, program.outputs[0]!.value))) +
            LEAST_DIVERGENCE,
        ),
      ),
    );
    const all = lesson.features.get(pointOf(block.input, 'mean'))!;
    const features = { ...all, rows: inputs.length };
    const train = (rows: readonly number[]): Head => {
      const some = rows.filter((row) => row < inputs.length);
      const x = some.map((row) => rowOf(features, row));
      const y = some.map((row) => targets[row]!);
      return { features: 'mean', layers: [ridge(x, y, PENALTY)] };
    };
    const scores = new Float64Array(inputs.length);
    const heads = await crossFit(lesson, train, features, (row, [moved]) => {
      scores[row] = -moved!;
    });
    const losses = Uint8Array.from(skipped, ({ outputs }, i) =>
      answerOf(outputs[0]!) === argMax(logits[i]!) ? 0 : 1,
    );
    levers.push({ kind: 'gate', block: block.name, ...heads, saving, scores, losses });
  }
  return levers;
}
