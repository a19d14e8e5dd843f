/**
 * Networks whose answers aren't one class each: orders sets of blocks that no item runs, from none to many, and measures how far they
 * move the answers. See docs/calibration.md.
 */
import type { Program } from '../model/program/program.js';
import { mean } from '../numeric/statistics.js';
import { partsOf } from '../skip/promise.js';
import { checkSkippable } from './checks.js';
import { lossesOf, type Pairs } from './losses.js';
import type { CalibrationItem } from './options.js';
import { blockSets, setsTried } from './order/block-sets.js';
import { Evaluator, gatesOf, runAll } from './run/evaluator.js';
import type { Split } from './split.js';
import type { Effect, Setting, Strategy } from './strategy.js';
import type { Task } from './task.js';

/** Most items that sets of blocks are compared on. */
const MAX_COMPARED = 200;

/** Items whose answers are kept at a time. */
const AT_ONCE = 256;

/** Items that ran with some blocks left out. */
interface Ran extends Pick<Effect, 'multiplyAddsSkipped' | 'blocksSkipped'> {
  readonly vectors: readonly Float32Array[];
}

export class VectorStrategy implements Strategy {
  readonly first = 'order';
  readonly #evaluator: Evaluator;
  /** Where neighbours are looked for. */
  #corpus: readonly CalibrationItem[] = [];

  /** @throws ResidualSkipError UNSUPPORTED_MODEL (nothing to skip) */
  constructor(private readonly task: Task) {
    checkSkippable(task.programs.main);
    this.#evaluator = new Evaluator(task.backend, task.programs);
  }

  /** The labels of each item by the full network. */
  async classesOf({ certify }: Split): Promise<readonly (readonly number[])[]> {
    if (!this.task.options.perClass) return certify.map(() => []);
    const { vectors } = await this.#run(certify, 'none');
    return vectors.map((labels) => [...labels.keys()].filter((index) => labels[index] === 1));
  }

  async order({ order, certify }: Split): Promise<readonly Setting[]> {
    const { programs, rules, progress, options } = this.task;
    const { blocks } = programs.main;
    const compared = order.slice(0, MAX_COMPARED);
    const tried = setsTried(blocks.filter(({ skippable }) => skippable).length);
    progress.total = compared.length * (1 + tried) + order.length + 2 * certify.length;
    const { vectors: full } = await this.#run(compared, 'none');
    const riskOf = async (omitted: ReadonlySet<number>) => {
      const { vectors: skipping } = await this.#run(compared, omitted);
      return mean(lossesOf(options.metric, { full, skipping, lossOf: this.#lossOf(compared) }));
    };
    const sets = await blockSets(programs.main, riskOf, 2 * rules.at(-1)!.limit);
    if (partsOf(options.metric).name === 'recall') this.#corpus = order;
    progress.total = progress.done + (1 + sets.length) * (certify.length + this.#corpus.length);
    return sets.map((omitted) => ({ omitted }));
  }

  async measure(settings: readonly Setting[], items: readonly CalibrationItem[]): Promise<readonly Effect[]> {
    const { metric } = this.task.options;
    const corpus = this.#corpus;
    const near = corpus.length > 0 ? await this.#run(corpus, 'none') : undefined;
    const effects: Effect[] = [];
    for (const { omitted } of settings) {
      const rest = near && { full: near.vectors, skipping: (await this.#run(corpus, omitted)).vectors };
      const losses: number[] = [];
      let [multiplyAddsSkipped, blocksSkipped] = [0, 0];
      // Maps are large: what all items answer need not fit into memory.
      for (let from = 0; from < items.length; from += AT_ONCE) {
        const some = items.slice(from, from + AT_ONCE);
        const { vectors: full } = await this.#run(some, 'none');
        const { vectors: skipping, ...skipped } = await this.#run(some, omitted);
        losses.push(...lossesOf(metric, { full, skipping, lossOf: this.#lossOf(some) }, rest));
        multiplyAddsSkipped += (skipped.multiplyAddsSkipped * some.length) / items.length;
        blocksSkipped += (skipped.blocksSkipped * some.length) / items.length;
      }
      effects.push({ byItem: { losses }, multiplyAddsSkipped, blocksSkipped, exits: {} });
    }
    return effects;
  }

  /** A setting was measured by running it. */
  async verify(): Promise<void> {}

  describe() {
    return { contributions: [], rungs: [], classes: [], examples: { most: [], least: [] } };
  }

  release(): void {
    this.#evaluator.release();
  }

  /** The loss of the options, for losses that need more than an item's answers. */
  #lossOf(items: readonly CalibrationItem[]): Pairs['lossOf'] {
    const { lossOf } = this.task.options;
    return lossOf && ((skipping, full, i) => lossOf(skipping, full, items[i]!));
  }

  async #run(items: readonly CalibrationItem[], omitted: ReadonlySet<number> | 'none'): Promise<Ran> {
    const { programs, options, progress } = this.task;
    const { vectorOf = ({ outputs }) => outputs[0]! } = options;
    const policy = this.#evaluator.policy(omitted === 'none' ? runAll : gatesOf(programs.main, omitted));
    const inputs = items.map(({ input }) => input);
    const outcomes = await this.#evaluator.run(inputs, policy, progress.add);
    return {
      vectors: outcomes.map((outcome, i) => vectorOf(outcome, inputs[i]!)),
      multiplyAddsSkipped: mean(outcomes.map(({ ran }, i) => savedBy(programs.at(inputs[i]!), ran))),
      blocksSkipped: mean(outcomes.map(({ ran }) => ran.filter((digit) => digit === 0).length / ran.length)),
    };
  }
}

function savedBy({ blocks, cost }: Program, ran: Uint8Array): number {
  return (
    blocks.reduce((sum, block, b) => (ran[b] === 0 ? sum + block.cost.multiplyAdds : sum), 0) /
    cost.multiplyAdds
  );
}
