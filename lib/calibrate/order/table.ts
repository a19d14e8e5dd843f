/**
 * The exits' answers to items. Each item runs once, through all exits, none of which is taken. The effect of any
 * thresholds follows without another run, because nothing before an exit depends on the exits that were passed.
 */
import type { Program } from '../../model/program/program.js';
import { attachReadOuts, type ReadOut } from '../../skip/attach.js';
import type { AnyExit } from '../../skip/exits.js';
import { isGuarded } from '../../skip/guards.js';
import { isOfPlaces } from '../../skip/head.js';
import { answerOf, lossOf as lossBetween, worstOf } from '../../skip/losses.js';
import { isVectorMetric } from '../../skip/promise.js';
import { type Meaning, meaningOf, totalVariation } from '../../skip/scores.js';
import { checkedAnswer, lossesOf, worstLossesOf } from '../losses.js';
import type { ParsedOptions } from '../options.js';
import { atOnce, Evaluator, gatesOf, type Outcome, runAll } from '../run/evaluator.js';
import type { CalibrationItem } from '../run/items.js';
import { hasGates, type Task } from '../task.js';

/** The answers at an exit, or at the end, for each item. */
export interface Column {
  readonly answers: Int32Array;
  /**
   * 0 or 1; -1, 0 or 1 for `accuracy`, whose answers may be gained; in [0, 1] for `probability` and `ordinal`. Of several metrics, the
   * worst in units of the first limit.
   */
  readonly losses: Float64Array;
  /** Of several metrics that are promised, the losses by each; empty where there is one. */
  readonly byMetric: readonly Float64Array[];
  /** 1 if a guard would make the item run in full. */
  readonly guarded: Uint8Array;
  /** Of a network that answers with a vector; its `answers` are 0. Maps are too large to keep. */
  readonly vectors: Float32Array[];
}

export interface ExitColumn extends Column {
  readonly exit: AnyExit;
  /** Of a fitted exit, the largest softmax probability or its score; of the model's own, its score. */
  readonly confidences: Float32Array;
}

export interface Table {
  readonly of: 'classes' | 'vectors' | 'maps';
  readonly items: readonly CalibrationItem[];
  /** Without the exits. */
  readonly program: Program;
  /** The same at the shape of each item; undefined where all have one. */
  readonly shaped?: readonly Program[] | undefined;
  /** Of the original, or of the network itself, with every block run. */
  readonly answers: Int32Array;
  readonly vectors: Float32Array[];
  readonly exits: readonly ExitColumn[];
  /** The answers if no exit is taken: the network's, with its own gates if it has any. */
  readonly end: Column;
  /** Items x blocks: 1 if the block ran, and the scores of the network's own gates, NaN if no gate was evaluated. */
  readonly ran: Uint8Array;
  readonly scores: Float32Array;
}

function column(items: number, metrics: number): Column {
  return {
    answers: new Int32Array(items),
    losses: new Float64Array(items),
    byMetric: Array.from({ length: metrics }, () => new Float64Array(items)),
    guarded: new Uint8Array(items),
    vectors: [],
  };
}

/** @throws ResidualSkipError INVALID_DATA when the network answers NaN */
export async function tableOf(
  task: Task,
  exits: readonly AnyExit[],
  items: readonly CalibrationItem[],
): Promise<Table> {
  const { backend, programs: own, original, progress } = task;
  const table = emptyTable(task, exits, items);
  const grown = own.map((one) => attachReadOuts(one, exits).program);
  const { readOuts } = attachReadOuts(own.main, exits);
  const evaluator = new Evaluator(backend, grown);
  const full = original || hasGates(own.main) ? new Evaluator(backend, original ?? own) : undefined;
  try {
    const size = atOnce(grown.main);
    for (let from = 0; from < items.length; from += size) {
      const inputs = items.slice(from, from + size).map(({ input }) => input);
      const outcomes = await evaluator.run(inputs, evaluator.policy(gatesOf(own.main)), progress.add);
      const inFull = full ? await full.run(inputs, full.policy(runAll), progress.add) : outcomes;
      for (const [k, outcome] of outcomes.entries()) {
        const fill = table.of === 'classes' ? fillRow : fillVectors;
        fill(task, table, from + k, outcome, inFull[k]!, readOuts);
      }
    }
    if (table.of === 'vectors') fillLosses(task.options.promises, table);
  } finally {
    evaluator.release();
    full?.release();
  }
  return table;
}

/**
 * A table of each fold.
 * @param chains exits for each fold
 */
export async function tablesOf(
  task: Task,
  chains: readonly (readonly AnyExit[])[],
  folds: readonly (readonly CalibrationItem[])[],
): Promise<Table[]> {
  const tables: Table[] = [];
  for (const [fold, items] of folds.entries()) tables.push(await tableOf(task, chains[fold]!, items));
  return tables;
}

/** The same with some of the items. */
export function tableWith(table: Table, rows: readonly number[]): Table {
  const blocks = table.program.blocks.length;
  const cells = rows.flatMap((row) => Array.from({ length: blocks }, (_, b) => row * blocks + b));
  const columnWith = <T extends Column>(of: T): T => ({
    ...of,
    answers: Int32Array.from(rows, (row) => of.answers[row]!),
    losses: Float64Array.from(rows, (row) => of.losses[row]!),
    guarded: Uint8Array.from(rows, (row) => of.guarded[row]!),
    vectors: of.vectors.length > 0 ? rows.map((row) => of.vectors[row]!) : [],
  });
  return {
    ...table,
    items: rows.map((row) => table.items[row]!),
    shaped: table.shaped && rows.map((row) => table.shaped![row]!),
    answers: Int32Array.from(rows, (row) => table.answers[row]!),
    vectors: table.vectors.length > 0 ? rows.map((row) => table.vectors[row]!) : [],
    exits: table.exits.map((exit) => ({
      ...columnWith(exit),
      confidences: Float32Array.from(rows, (row) => exit.confidences[row]!),
    })),
    end: columnWith(table.end),
    ran: Uint8Array.from(cells, (cell) => table.ran[cell]!),
    scores: Float32Array.from(cells, (cell) => table.scores[cell]!),
  };
}

function emptyTable(
  { programs, options }: Task,
  exits: readonly AnyExit[],
  items: readonly CalibrationItem[],
): Table {
  const { main: program, shapes } = programs;
  const count = items.length;
  const blocks = program.blocks.length;
  const ofMaps = exits.some(({ head }) => head && isOfPlaces(head.features));
  const metrics = options.promises.length > 1 ? options.promises.length : 0;
  return {
    ...{ items, program },
    of: ofMaps ? 'maps' : isVectorMetric(options.metric) ? 'vectors' : 'classes',
    shaped: shapes && items.map(({ input }) => programs.at(input)),
    answers: new Int32Array(count),
    vectors: [],
    exits: exits.map((exit) => ({ exit, ...column(count, metrics), confidences: new Float32Array(count) })),
    end: column(count, metrics),
    ran: new Uint8Array(count * blocks),
    scores: new Float32Array(count * blocks),
  };
}

/** @param inFull the run whose answer is promised for the item */
function fillRow(
  task: Task,
  table: Table,
  i: number,
  { outputs, ran, scores }: Outcome,
  inFull: Outcome,
  readOuts: readonly ReadOut[],
): void {
  const full = inFull.outputs[0]!;
  const { main } = task.programs;
  const meaning = meaningOf(main, main.outputs[0]!.value);
  const fill = (to: Column, given: Float32Array, skipped: boolean) => {
    to.answers[i] = answerOf(given);
    // As in a session: an item that neither skipped a block nor took an exit has the network's own answer.
    const checked = skipped || task.original !== undefined;
    to.guarded[i] = Number(checked && isGuarded(given, meaning, task.guards));
    to.losses[i] = to.guarded[i] ? 0 : lossOf(task, meaning, table.items[i]!, given, full);
  };
  table.answers[i] = checkedAnswer(full);
  for (const [e, exit] of table.exits.entries()) {
    const { score, answer } = readOuts[e]!;
    exit.confidences[i] = outputs[score]![0]!;
    fill(exit, outputs[answer]!, true);
  }
  fill(table.end, outputs[0]!, ran.includes(0));
  table.ran.set(ran, i * main.blocks.length);
  table.scores.set(scores, i * main.blocks.length);
}

/** The same of a vector, or of a map, of which only the losses are kept. */
function fillVectors(
  { programs, options }: Task,
  table: Table,
  i: number,
  outcome: Outcome,
  inFull: Outcome,
  readOuts: readonly ReadOut[],
): void {
  const { outputs, ran, scores } = outcome;
  const { vectorOf = ({ outputs: all }) => all[0]!, promises } = options;
  const { input } = table.items[i]!;
  const full = vectorOf(inFull, input);
  const fill = (to: Column, given: Outcome) => {
    const vector = vectorOf(given, input);
    if (table.of === 'vectors') {
      to.vectors[i] = vector;
      return;
    }
    to.losses[i] = worstOf(promises, (metric) => lossBetween(metric)!)(vector, full);
    for (const [m, losses] of to.byMetric.entries())
      losses[i] = lossBetween(promises[m]!.metric)!(vector, full);
  };
  if (table.of === 'vectors') table.vectors[i] = full;
  for (const [e, exit] of table.exits.entries()) {
    const { score, answer } = readOuts[e]!;
    exit.confidences[i] = outputs[score]![0]!;
    fill(exit, { ...outcome, outputs: [outputs[answer]!] });
  }
  fill(table.end, outcome);
  table.ran.set(ran, i * programs.main.blocks.length);
  table.scores.set(scores, i * programs.main.blocks.length);
}

/** Of each item as if it alone ended there: neighbours of others are those of full vectors. */
function fillLosses(promises: ParsedOptions['promises'], { vectors: full, exits, end }: Table): void {
  for (const { losses, byMetric, vectors: skipping } of [...exits, end]) {
    const pairs = { full, skipping };
    losses.set(worstLossesOf(promises, pairs));
    for (const [m, own] of byMetric.entries()) own.set(lossesOf(promises[m]!.metric, pairs));
  }
}

function lossOf(
  { options: { metric } }: Task,
  meaning: Meaning,
  { label }: CalibrationItem,
  scores: Float32Array,
  full: Float32Array,
): number {
  if (metric === 'probability') return totalVariation(scores, full, meaning);
  const loss = lossBetween(metric);
  return loss ? loss(scores, full) : Number(answerOf(full) === label) - Number(answerOf(scores) === label);
}
