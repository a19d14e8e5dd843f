/**
 * The exits' answers to items. Each item runs once, through all exits, none of which is taken. The effect of any
 * thresholds follows without another run, because nothing before an exit depends on the exits that were passed.
 */
import type { Backend } from '../backends/backend.js';
import type { Program } from '../model/program/program.js';
import { type AnyExit, attachReadOuts } from '../skip/attach.js';
import { BlockMode } from '../skip/compiled-policy.js';
import { isGuarded, type ResolvedGuard } from '../skip/guards.js';
import type { Metric } from '../skip/promise.js';
import { meaningOf } from '../skip/scores.js';
import { answerOf, checkedAnswer, totalVariation } from './answers.js';
import { CHUNK, Evaluator, type Outcome, runAll } from './evaluator.js';
import type { CalibrationItem } from './options.js';
import type { Programs } from './programs.js';

/** The answers at one place, for each item. */
export interface Column {
  readonly answers: Int32Array;
  /** In [0, 1]; 0 or 1 except for the metric `probability`. */
  readonly losses: Float64Array;
  /** 1 if a guard would make the item run in full. */
  readonly guarded: Uint8Array;
}

export interface ExitColumn extends Column {
  readonly exit: AnyExit;
  /** Of a fitted exit, the largest softmax probability; of the model's own, its score. */
  readonly confidences: Float32Array;
}

export interface Table {
  readonly items: readonly CalibrationItem[];
  /** Without the exits. */
  readonly program: Program;
  /** The same at the shape of each item; undefined where all have one. */
  readonly shaped?: readonly Program[] | undefined;
  /** Of the reference, or of the network itself, with every block run. */
  readonly answers: Int32Array;
  readonly exits: readonly ExitColumn[];
  /** The answers if no exit is taken: the network's, with its own gates if it has any. */
  readonly end: Column;
  /** Items x blocks: 1 if the block ran, and the scores of the network's own gates, NaN if no gate was evaluated. */
  readonly ran: Uint8Array;
  readonly scores: Float32Array;
}

/** Every item passes an exit with this threshold. */
export const NEVER = 2;

export interface Judging {
  readonly backend: Backend;
  /** Without heads. */
  readonly programs: Programs;
  /** The network whose answers are promised, if it is another one: the float form of an 8-bit network. */
  readonly reference: Programs | undefined;
  readonly guards: readonly ResolvedGuard[];
  readonly metric: Metric;
  /** Called with the number of items done since the last call. */
  readonly onItems: (count: number) => void;
}

function column(items: number): Column {
  return {
    answers: new Int32Array(items),
    losses: new Float64Array(items),
    guarded: new Uint8Array(items),
  };
}

/** Whether the network has gates of its own. */
export function hasGates({ blocks }: Program): boolean {
  return blocks.some(({ gate }) => gate !== undefined);
}

/** @throws ResidualSkipError INVALID_DATA when the network answers NaN */
export async function tableOf(
  judging: Judging,
  exits: readonly AnyExit[],
  items: readonly CalibrationItem[],
): Promise<Table> {
  const { backend, programs: own, reference, guards, onItems } = judging;
  const meaning = meaningOf(own.main, own.main.outputs[0]!.value);
  const grown = own.map((one) => attachReadOuts(one, exits).program);
  const { readOuts } = attachReadOuts(own.main, exits);
  const program = own.main;
  const blocks = program.blocks.length;
  const table: Table = {
    items,
    program,
    shaped: own.shapes && items.map(({ input }) => own.at(input)),
    answers: new Int32Array(items.length),
    exits: exits.map((exit) => ({
      exit,
      ...column(items.length),
      confidences: new Float32Array(items.length),
    })),
    end: column(items.length),
    ran: new Uint8Array(items.length * blocks),
    scores: new Float32Array(items.length * blocks),
  };
  const fill = (to: Column, i: number, scores: Float32Array, full: Float32Array, skipped: boolean) => {
    to.answers[i] = answerOf(scores);
    // As in a session: an item that neither skipped a block nor took an exit has the network's own answer.
    const checked = skipped || reference !== undefined;
    to.guarded[i] = Number(checked && isGuarded(scores, meaning, guards));
    to.losses[i] = to.guarded[i] ? 0 : lossOf(judging, items[i]!, scores, full, table.answers[i]!);
  };

  const evaluator = new Evaluator(backend, grown);
  const full = reference || hasGates(own.main) ? new Evaluator(backend, reference ?? own) : undefined;
  try {
    for (let from = 0; from < items.length; from += CHUNK) {
      const inputs = items.slice(from, from + CHUNK).map(({ input }) => input);
      const outcomes = await evaluator.run(inputs, evaluator.policy(gatesOf(program)), onItems);
      const inFull: readonly Outcome[] = full
        ? await full.run(inputs, full.policy(runAll), onItems)
        : outcomes;
      for (const [k, outcome] of outcomes.entries()) {
        const i = from + k;
        const answered = inFull[k]!.outputs[0]!;
        table.answers[i] = checkedAnswer(answered);
        for (const [e, exit] of table.exits.entries()) {
          const { score, answer } = readOuts[e]!;
          exit.confidences[i] = outcome.outputs[score]![0]!;
          fill(exit, i, outcome.outputs[answer]!, answered, true);
        }
        fill(table.end, i, outcome.outputs[0]!, answered, outcome.ran.includes(0));
        table.ran.set(outcome.ran, i * blocks);
        table.scores.set(outcome.scores, i * blocks);
      }
    }
  } finally {
    evaluator.release();
    full?.release();
  }
  return table;
}

/** Modes of the blocks: those with a gate are decided by it. */
export function gatesOf({ blocks }: Program): (block: number) => number {
  return (i) => (blocks[i]!.gate ? BlockMode.gate : BlockMode.run);
}

function lossOf(
  { metric, programs: { main: program } }: Judging,
  { label }: CalibrationItem,
  scores: Float32Array,
  full: Float32Array,
  before: number,
): number {
  if (metric === 'probability') {
    return totalVariation(scores, full, meaningOf(program, program.outputs[0]!.value));
  }
  const answer = answerOf(scores);
  return Number(metric === 'disagreement' ? answer !== before : before === label && answer !== label);
}
