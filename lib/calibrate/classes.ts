/**
 * Networks with classes: fits exits, orders settings of their thresholds from "no skipping" to the boldest, and measures what
 * they do. See docs/calibration.md.
 */
import { ResidualSkipError } from '../errors.js';
import { attachExits } from '../skip/attach.js';
import type { AnyExit } from '../skip/exits.js';
import { answerOf } from '../skip/losses.js';
import { NEVER } from '../skip/scores.js';
import { checkOriginal, checkProgram } from './checks.js';
import { savingsOf } from './fit/exit-points.js';
import { Fitter, sampleOf, without } from './fit/folds.js';
import { checkAnswers, checkedAnswer, className } from './losses.js';
import type { ParsedOptions } from './options.js';
import { exitsOf, type Measured, measure, type Thresholds } from './order/measure.js';
import { exitScoresOf, settingsOf, settingsToTest, usefulExits } from './order/settings.js';
import { type Table, tableOf, tablesOf } from './order/table.js';
import { byClass, contributionsOf, examplesOf, rungsOf } from './report/examine.js';
import type { Calibration } from './report/result.js';
import { Evaluator, gatesOf, runAll } from './run/evaluator.js';
import type { CalibrationItem } from './run/items.js';
import type { Part, Split } from './split.js';
import type { Setting, Strategy } from './strategy.js';
import { hasGates, type Task } from './task.js';

export interface ClassSetting extends Setting {
  readonly thresholds: Thresholds;
  readonly exits: NonNullable<Setting['exits']>;
}

/** Exits, and the order of their settings. */
interface Ordering {
  readonly exits: readonly AnyExit[];
  /** Items that heads were not fitted on. */
  readonly tables: readonly Table[];
  /** The last of them. */
  readonly order: Table;
  readonly settings: readonly Thresholds[];
}

export class ClassStrategy implements Strategy<ClassSetting, Measured> {
  readonly first: Part;
  /** The model's own exits, which were trained elsewhere; none where nothing can be skipped. Undefined where exits are fitted. */
  #own: readonly AnyExit[] | undefined;
  #exits: readonly AnyExit[] = [];
  #table: Table | undefined;
  /** Of the items that certify; undefined for the network's answers. */
  #classes: readonly number[] | undefined;

  /**
   * @throws ResidualSkipError INVALID_ARGUMENT (an original that doesn't fit, a source to fit on where none can be used),
   * UNSUPPORTED_MODEL (nothing to skip)
   */
  constructor(private readonly task: Task) {
    const { programs, original, options } = task;
    const program = programs.main;
    const own = program.ownExits?.list.map(({ after }): AnyExit => ({ after }));
    checkProgram(program, Boolean(own || original || options.choice));
    if (original) checkOriginal(program, original.main);
    const skips = program.blocks.some(({ skippable }) => skippable);
    this.#own = own ?? (skips ? undefined : []);
    if (options.choice) this.#own = undefined;
    if (this.#own && options.fit) checkOrdering(options);
    const [withFit, withoutFit] = this.#own ? (['certify', 'order'] as const) : (['order', 'fit'] as const);
    this.first = options.fit ? withFit : withoutFit;
  }

  async classesOf({ items, certify }: Split): Promise<readonly number[]> {
    const labelled = items.every(({ label }) => label !== undefined);
    if (labelled) this.#classes = certify.map(({ label }) => label!);
    if (this.#classes || !this.task.options.perClass) return this.#classes ?? certify.map(() => 0);
    return fullAnswers(this.task, certify);
  }

  async order(split: Split): Promise<readonly ClassSetting[]> {
    const { options, rules, progress } = this.task;
    const { budget, fit, choice } = options;
    if (choice) {
      progress.total = this.#workOf([], split, undefined, false);
      return this.#toTest(choice.exits, choice.settings);
    }
    const fitter = this.#own ? undefined : new Fitter(this.task, split);
    const folds = fitter?.folds ?? [await this.#ownOrder(split)];
    // Exits that are hardly taken are left out, and the others fitted again. A budget has no limit to select them by.
    const refits = fitter !== undefined && fit !== undefined && budget === undefined;
    progress.total = this.#workOf(folds, split, fitter, refits);
    let ordering = await this.#orderingOf(fitter ? await fitter.fit() : [this.#own!], folds);
    checkAnswers(
      ordering.tables.flatMap(({ answers }) => [...answers]),
      (index) => className(index, options.labels),
    );
    if (refits) {
      const limits = rules.map(({ limit }) => limit);
      const useful = usefulExits(ordering.settings, ordering.order, limits);
      // A chain's exits are evaluated even where none of the items leave.
      if (useful.size > 0 && useful.size < ordering.exits.length)
        ordering = await this.#orderingOf(await fitter.fit(useful), folds);
    }
    const { exits, order, settings } = ordering;
    const max = budget === undefined ? 2 * rules.at(-1)!.limit : 1;
    return this.#toTest(exits, settingsToTest(settings, order, max, budget));
  }

  #toTest(exits: readonly AnyExit[], settings: readonly Thresholds[]): ClassSetting[] {
    const { programs, original, options } = this.task;
    this.#exits = exits;
    // Without any exit, another network's answers can change, and gates of the model save something.
    const none = exits.map(() => NEVER);
    const counts = original || hasGates(programs.main);
    return (counts && options.budget === undefined ? [none, ...settings] : settings).map((thresholds) => ({
      thresholds,
      exits: exitsOf(exits, thresholds),
      omitted: new Set<number>(),
    }));
  }

  async measure(settings: readonly ClassSetting[], items: readonly CalibrationItem[]): Promise<Measured[]> {
    const table = await tableOf(this.task, this.#exits, items);
    this.#table = table;
    return settings.map(({ thresholds }) => measure(table, thresholds));
  }

  async verify({ exits }: ClassSetting, { byItem }: Measured): Promise<void> {
    const { backend, programs, progress } = this.task;
    const { items } = this.#table!;
    const grown = programs.map((program) => attachExits(program, exits));
    const evaluator = new Evaluator(backend, grown);
    try {
      const inputs = items.map(({ input }) => input);
      const outcomes = await evaluator.run(inputs, evaluator.policy(gatesOf(grown.main)), progress.add);
      const differs = outcomes.findIndex(({ outputs, ran }, i) => {
        // A guarded item was counted as it is run in full.
        if (byItem.losses[i] === 0 && !byItem.ran[i]!.includes('0')) return false;
        return answerOf(outputs[0]!) !== byItem.answers[i] || ran.join('') !== byItem.ran[i];
      });
      if (differs < 0) return;
      throw new ResidualSkipError(
        'INTERNAL',
        `calibration: item ${differs} of the ${items.length} that certify behaves differently when the policy runs; ` +
          'please report it with the model',
      );
    } finally {
      evaluator.release();
    }
  }

  describe(
    setting: ClassSetting | undefined,
    effect: Measured | undefined,
  ): Pick<Calibration, 'contributions' | 'rungs' | 'classes' | 'examples'> {
    const { labels } = this.task.options;
    const table = this.#table!;
    const exits = setting?.exits ?? [];
    return {
      contributions: effect ? contributionsOf(table, exits, effect) : [],
      rungs: effect && exits.length > 0 ? rungsOf(table, exits, effect) : [],
      classes: byClass(this.#classes ?? [...table.answers], effect, labels),
      examples: examplesOf(table, effect, labels),
    };
  }

  release(): void {}

  /** The items that order settings of the model's own exits. */
  async #ownOrder({ items, order }: Split): Promise<readonly CalibrationItem[]> {
    const { fit } = this.task.options;
    return fit ? sampleOf(without(fit, items), items[0]!.input.byteLength) : order;
  }

  /** In items run by the full network. */
  #workOf(
    folds: readonly (readonly CalibrationItem[])[],
    { order, certify }: Split,
    fitter: Fitter | undefined,
    refits: boolean,
  ): number {
    const { original, programs, rules } = this.task;
    const passes = original || hasGates(programs.main) ? 2 : 1;
    const ordering = folds.flat().length + (refits ? order.length : 0);
    return (
      (fitter ? (refits ? 2 : 1) * fitter.work : 0) +
      passes * (ordering + 2 * certify.length) +
      rules.length * certify.length
    );
  }

  /** @param chains for each fold, then the policy's */
  async #orderingOf(
    chains: readonly (readonly AnyExit[])[],
    folds: readonly (readonly CalibrationItem[])[],
  ): Promise<Ordering> {
    const exits = chains.at(-1) ?? [];
    const tables = await tablesOf(this.task, chains, folds);
    const { programs, options } = this.task;
    const scores = exitScoresOf(tables, savingsOf(programs.main, exits), options);
    const settings = exits.length > 0 ? settingsOf(scores, options.penalties) : [];
    return { exits, tables, order: tables.at(-1)!, settings };
  }
}

/**
 * Images of `fit` can order the settings of a model's own exits: they have no labels, and a budget must be kept on fresh items.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
function checkOrdering({ metric, budget }: ParsedOptions): void {
  if (budget === undefined && metric !== 'accuracy') return;
  const reason =
    budget === undefined
      ? "they have no labels, which the metric 'accuracy' needs"
      : 'a budget has to be kept on images of the data';
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `fit: the model has exits of its own, whose settings its images would order, but ${reason}; omit it`,
  );
}

async function fullAnswers(
  { backend, programs, original }: Task,
  items: readonly CalibrationItem[],
): Promise<number[]> {
  const evaluator = new Evaluator(backend, original ?? programs);
  try {
    const inputs = items.map(({ input }) => input);
    const outcomes = await evaluator.run(inputs, evaluator.policy(runAll));
    return outcomes.map(({ outputs }) => checkedAnswer(outputs[0]!));
  } finally {
    evaluator.release();
  }
}
