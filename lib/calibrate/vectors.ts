/**
 * Networks whose answers aren't one class each: orders settings of exits, which each item takes at a depth of its own, and sets of blocks that no
 * item runs, from careful to bold; the kind that saves more within the limit is tested. Where no head can predict the answer, as for boxes and tokens, there are sets alone. See
 * docs/calibration.md.
 */
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { mean } from '../numeric/statistics.js';
import { attachExits, isAnswerable } from '../skip/attach.js';
import type { AnyExit } from '../skip/exits.js';
import { lossOf } from '../skip/losses.js';
import { isOfLabels, isOfNumbers, type Metric, partsOf } from '../skip/promise.js';
import { checkSkippable } from './checks.js';
import { exitPoints, mapPoints, savingsOf } from './fit/exit-points.js';
import { Fitter } from './fit/folds.js';
import { answersWithMap } from './fit/map-heads.js';
import { checkFull, className, lossesOf, type Pairs, worstLossesOf } from './losses.js';
import { blockSets, setsTried } from './order/block-sets.js';
import { exitsOf, type Measured, measure, summarise, type Thresholds, vectorsOf } from './order/measure.js';
import { exitScoresOf, settingsOf, settingsToTest } from './order/settings.js';
import { type Table, tableOf, tablesOf } from './order/table.js';
import { contributionsOf } from './report/examine.js';
import { Evaluator, gatesOf, runAll } from './run/evaluator.js';
import type { CalibrationItem } from './run/items.js';
import type { Part, Split } from './split.js';
import type { Effect, Setting, Strategy } from './strategy.js';
import type { Task } from './task.js';

/** Most items that sets of blocks are compared on. */
const MAX_COMPARED = 200;

/** Items whose answers are kept at a time. */
const AT_ONCE = 256;

/** Exits with their thresholds, or blocks that are left out. */
interface VectorSetting extends Setting {
  /** Of all exits that there could be. */
  readonly thresholds?: Thresholds;
}

/** A setting with its mean loss and its saving on items that order. */
interface Ordered {
  readonly setting: VectorSetting;
  readonly risk: number;
  readonly saved: number;
}

/** Items that ran with some blocks left out. */
interface Ran extends Pick<Effect, 'multiplyAddsSkipped' | 'blocksSkipped'> {
  readonly vectors: readonly Float32Array[];
}

export class VectorStrategy implements Strategy<VectorSetting> {
  readonly first: Part;
  readonly #metric: Metric;
  readonly #evaluator: Evaluator;
  /** Where neighbours are looked for. */
  #corpus: readonly CalibrationItem[] = [];
  /** Whether there may be exits. */
  readonly #exitable: boolean;
  #exits: readonly AnyExit[] = [];
  #table: Table | undefined;

  /** @throws ResidualSkipError UNSUPPORTED_MODEL (nothing to skip), INVALID_ARGUMENT (a source to fit on where no head can be) */
  constructor(private readonly task: Task) {
    const { main } = task.programs;
    checkSkippable(main);
    const { shape = [] } = main.values[main.outputs[0]?.value ?? -1] ?? {};
    // Vectors of a text's tokens become one; an exit gives all of an output of three axes the same.
    const { metric, lossOf, pools } = task.options;
    const single = shape.length === 3 ? pools === true : shape[1] === sizeOf(shape.slice(1));
    const ofVectors = (isOfNumbers(metric) || isOfLabels(metric)) && single && isAnswerable(main, true);
    const points = answersWithMap(main, task.options) ? mapPoints : exitPoints;
    const predictable = (ofVectors || points === mapPoints) && !lossOf && !main.ownExits;
    this.#exitable = predictable && points(main, 0).length > 0;
    if (task.options.fit && !this.#exitable) throw nothingToFit();
    this.first = this.#exitable && !task.options.fit ? 'fit' : 'order';
    this.#metric = metric;
    this.#evaluator = new Evaluator(task.backend, task.programs);
  }

  /** The labels of each item by the full network. */
  async classesOf({ certify }: Split): Promise<readonly (readonly number[])[]> {
    if (!this.task.options.perClass) return certify.map(() => []);
    const { vectors } = await this.#run(certify, 'none');
    return vectors.map((labels) => [...labels.keys()].filter((index) => labels[index] === 1));
  }

  async order(split: Split): Promise<readonly VectorSetting[]> {
    const { task } = this;
    const { programs, progress, rules } = task;
    const { order, certify } = split;
    const compared = order.slice(0, MAX_COMPARED);
    const fitter = this.#exitable ? new Fitter(task, split) : undefined;
    const tried = setsTried(programs.main.blocks.filter(({ skippable }) => skippable).length);
    const fitting = fitter ? fitter.work + fitter.folds.flat().length : 0;
    progress.total = fitting + compared.length * (1 + tried) + order.length + 2 * certify.length;
    const { vectors: full } = await this.#run(compared, 'none');
    checkFull(this.#metric, full, (index) => className(index, task.options.labels));
    const depths = fitter ? await this.#depths(fitter) : [];
    const sets = await this.#sets(compared, full);
    const chosen = worthOf(depths, rules[0].limit) > worthOf(sets, rules[0].limit) ? depths : sets;
    if (partsOf(this.#metric).name === 'recall') this.#corpus = order;
    const passes = chosen === depths ? 2 : 1 + sets.length;
    progress.total = progress.done + passes * (certify.length + this.#corpus.length);
    return chosen.map(({ setting }) => setting);
  }

  async measure(
    settings: readonly VectorSetting[],
    items: readonly CalibrationItem[],
  ): Promise<readonly Effect[]> {
    if (settings.some(({ thresholds }) => thresholds)) return this.#measureExits(settings, items);
    const { promises } = this.task.options;
    const database = await this.#database();
    const effects: Effect[] = [];
    for (const { omitted } of settings) {
      const losses = promises.map((): number[] => []);
      let [multiplyAddsSkipped, blocksSkipped] = [0, 0];
      // Maps are large: what all items answer need not fit into memory.
      for (let from = 0; from < items.length; from += AT_ONCE) {
        const some = items.slice(from, from + AT_ONCE);
        const { vectors: full } = await this.#run(some, 'none');
        const { vectors: skipping, ...skipped } = await this.#run(some, omitted);
        const pairs = { full, skipping, lossOf: this.#lossOf(some) };
        for (const [m, { metric }] of promises.entries())
          losses[m]!.push(...lossesOf(metric, pairs, database));
        multiplyAddsSkipped += (skipped.multiplyAddsSkipped * some.length) / items.length;
        blocksSkipped += (skipped.blocksSkipped * some.length) / items.length;
      }
      const [own = [], ...further] = losses;
      effects.push({ byItem: { losses: own, further }, multiplyAddsSkipped, blocksSkipped, exits: {} });
    }
    return effects;
  }

  /** A setting of blocks was measured by running it. */
  async verify({ thresholds, exits = [] }: VectorSetting, effect: Effect): Promise<void> {
    const table = this.#table;
    if (!thresholds || !table) return;
    const { backend, programs, progress, options } = this.task;
    const { vectorOf = ({ outputs }) => outputs[0]! } = options;
    const counted = table.of === 'maps' ? undefined : vectorsOf(table, thresholds);
    const { ran: paths, losses } = (effect as Measured).byItem;
    const evaluator = new Evaluator(
      backend,
      programs.map((program) => attachExits(program, exits)),
    );
    try {
      for (let from = 0; from < table.items.length; from += AT_ONCE) {
        const items = table.items.slice(from, from + AT_ONCE);
        const inputs = items.map(({ input }) => input);
        const outcomes = await evaluator.run(inputs, evaluator.policy(gatesOf(programs.main)), progress.add);
        const vectors = outcomes.map((outcome, i) => vectorOf(outcome, inputs[i]!));
        // Of maps, which aren't kept, their losses tell.
        const full = counted ? [] : (await this.#run(items, 'none')).vectors;
        const differs = outcomes.findIndex(({ ran }, i) => {
          if (ran.join('') !== paths[from + i]) return true;
          if (!counted) return lossOf(this.#metric)!(vectors[i]!, full[i]!) !== losses[from + i];
          return vectors[i]!.some((x, c) => !Object.is(x, counted[from + i]![c]));
        });
        if (differs >= 0) throw unlikeMeasured(from + differs, table.items.length);
      }
    } finally {
      evaluator.release();
    }
  }

  describe(setting: VectorSetting | undefined, effect: Effect | undefined) {
    const contributions =
      setting?.thresholds && this.#table && effect
        ? contributionsOf(this.#table, setting.exits ?? [], effect as Measured)
        : [];
    return { contributions, rungs: [], classes: [], examples: { most: [], least: [] } };
  }

  release(): void {
    this.#evaluator.release();
  }

  /** Settings of exits, as far as they are worth a test. */
  async #depths(fitter: Fitter): Promise<Ordered[]> {
    const { programs, options, rules } = this.task;
    const chains = await fitter.fit();
    const exits = chains.at(-1)!;
    const tables = await tablesOf(this.task, chains, fitter.folds);
    const scores = exitScoresOf(tables, savingsOf(programs.main, exits), rules[0]);
    const settings = exits.length > 0 ? settingsOf(scores, options.penalties) : [];
    this.#exits = exits;
    const order = tables.at(-1)!;
    const risks = new Map<Thresholds, number>();
    const riskOf = (thresholds: Thresholds) => {
      const pairs = order.of === 'vectors' && { full: order.vectors, skipping: vectorsOf(order, thresholds) };
      const risk = pairs ? mean(worstLossesOf(options.promises, pairs)) : summarise(order, thresholds).risk;
      risks.set(thresholds, risk);
      return risk;
    };
    return settingsToTest(settings, order, 2 * rules.at(-1)!.limit, undefined, riskOf).map((thresholds) => ({
      setting: { thresholds, exits: exitsOf(exits, thresholds), omitted: new Set<number>() },
      risk: risks.get(thresholds)!,
      saved: measure(order, thresholds).multiplyAddsSkipped,
    }));
  }

  /** Sets of blocks that no item runs. */
  async #sets(compared: readonly CalibrationItem[], full: readonly Float32Array[]): Promise<Ordered[]> {
    const { programs, options, rules } = this.task;
    const known = new Map<string, Pick<Ordered, 'risk' | 'saved'>>();
    const keyOf = (omitted: ReadonlySet<number>) => [...omitted].join();
    const riskOf = async (omitted: ReadonlySet<number>) => {
      const { vectors: skipping, multiplyAddsSkipped: saved } = await this.#run(compared, omitted);
      const pairs = { full, skipping, lossOf: this.#lossOf(compared) };
      const risk = mean(worstLossesOf(options.promises, pairs));
      known.set(keyOf(omitted), { risk, saved });
      return risk;
    };
    const sets = await blockSets(programs.main, riskOf, 2 * rules.at(-1)!.limit);
    return sets.map((omitted) => ({ setting: { omitted }, ...known.get(keyOf(omitted))! }));
  }

  /** Each item ran once, through all exits: what thresholds do is counted. */
  async #measureExits(
    settings: readonly VectorSetting[],
    items: readonly CalibrationItem[],
  ): Promise<Measured[]> {
    const table = await tableOf(this.task, this.#exits, items);
    this.#table = table;
    const database = await this.#database();
    return settings.map(({ thresholds = [] }) => {
      const measured = measure(table, thresholds);
      if (!database) return measured;
      const pairs = { full: table.vectors, skipping: vectorsOf(table, thresholds) };
      const losses = lossesOf(this.#metric, pairs, database);
      return { ...measured, byItem: { ...measured.byItem, losses } };
    });
  }

  /** Vectors of the full network, among which neighbours are looked for; undefined where none are. */
  async #database(): Promise<readonly Float32Array[] | undefined> {
    return this.#corpus.length > 0 ? (await this.#run(this.#corpus, 'none')).vectors : undefined;
  }

  /** The loss of the options, for losses that need more than an item's answers. */
  #lossOf(items: readonly CalibrationItem[]): Pairs['lossOf'] {
    const { lossOf } = this.task.options;
    return lossOf && ((skipping, full, i) => lossOf(skipping, full, items[i]!));
  }

  /** @param omitted blocks that are left out; 'none' also of the gates' */
  async #run(items: readonly CalibrationItem[], omitted: ReadonlySet<number> | 'none'): Promise<Ran> {
    const { programs, options, progress } = this.task;
    const { vectorOf = ({ outputs }) => outputs[0]! } = options;
    const policy = this.#evaluator.policy(omitted === 'none' ? runAll : gatesOf(programs.main, omitted));
    const inputs = items.map(({ input }) => input);
    const outcomes = await this.#evaluator.run(inputs, policy, progress.add);
    return {
      vectors: outcomes.map((outcome, i) => vectorOf(outcome, inputs[i]!)),
      multiplyAddsSkipped: mean(outcomes.map(({ ran }, i) => savedBy(programs.at(inputs[i]!), ran))),
      blocksSkipped: mean(
        outcomes.map(({ ran }) => ran.filter((digit) => digit === 0).length / Math.max(1, ran.length)),
      ),
    };
  }
}

/** The most that a setting saves whose risk keeps the limit. */
function worthOf(settings: readonly Ordered[], limit: number): number {
  const failing = settings.findIndex(({ risk }) => risk > limit);
  return Math.max(0, ...settings.slice(0, failing < 0 ? settings.length : failing).map(({ saved }) => saved));
}

function nothingToFit(): ResidualSkipError {
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    'fit: no head can be fitted, because no head can answer in the place of the model, or it has exits of its own; omit it',
  );
}

function unlikeMeasured(item: number, items: number): ResidualSkipError {
  return new ResidualSkipError(
    'INTERNAL',
    `calibration: item ${item} of the ${items} that certify behaves differently when the policy runs; please report it with the model`,
  );
}

function savedBy({ blocks, cost }: Program, ran: Uint8Array): number {
  return (
    blocks.reduce((sum, block, b) => (ran[b] === 0 ? sum + block.cost.multiplyAdds : sum), 0) /
    cost.multiplyAdds
  );
}
