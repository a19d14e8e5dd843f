/**
 * Networks whose answers are vectors: orders sets of blocks that no item runs, from none to many, and measures how far they move
 * the vectors. See docs/calibration.md.
 */
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program/program.js';
import { mean } from '../numeric/statistics.js';
import type { VectorMetric } from '../skip/promise.js';
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

/** Items that ran with some blocks left out. */
interface Ran extends Pick<Effect, 'multiplyAddsSkipped' | 'blocksSkipped'> {
  readonly vectors: readonly Float32Array[];
}

export class VectorStrategy implements Strategy {
  readonly first = 'order';
  readonly #metric: VectorMetric;
  readonly #evaluator: Evaluator;
  /** Where neighbours are looked for. */
  #corpus: readonly CalibrationItem[] = [];

  /** @throws ResidualSkipError UNSUPPORTED_MODEL (nothing to skip) */
  constructor(private readonly task: Task) {
    checkSkippable(task.programs.main);
    this.#metric = task.options.metric as VectorMetric;
    this.#evaluator = new Evaluator(task.backend, task.programs);
  }

  async classesOf(): Promise<readonly number[]> {
    return [];
  }

  async order({ order, certify }: Split): Promise<readonly Setting[]> {
    const { programs, rules, progress } = this.task;
    const { blocks } = programs.main;
    const compared = order.slice(0, MAX_COMPARED);
    const tried = setsTried(blocks.filter(({ skippable }) => skippable).length);
    progress.total = compared.length * (1 + tried) + order.length + 2 * certify.length;
    const { vectors: full } = await this.#run(compared, 'none');
    checkLength(this.#metric, full[0]!.length);
    const riskOf = async (omitted: ReadonlySet<number>) => {
      const { vectors: skipping } = await this.#run(compared, omitted);
      return mean(lossesOf(this.#metric, { full, skipping }));
    };
    const sets = await blockSets(programs.main, riskOf, 2 * rules.at(-1)!.limit);
    if (this.#metric.startsWith('recall')) this.#corpus = order;
    progress.total = progress.done + (1 + sets.length) * (certify.length + this.#corpus.length);
    return sets.map((omitted) => ({ omitted }));
  }

  async measure(settings: readonly Setting[], items: readonly CalibrationItem[]): Promise<readonly Effect[]> {
    const corpus = this.#corpus;
    const near = corpus.length > 0 ? await this.#run(corpus, 'none') : undefined;
    const { vectors: full } = await this.#run(items, 'none');
    const effects: Effect[] = [];
    for (const { omitted } of settings) {
      const { vectors: skipping, ...skipped } = await this.#run(items, omitted);
      const rest: Pairs | undefined = near && {
        full: near.vectors,
        skipping: (await this.#run(corpus, omitted)).vectors,
      };
      const losses = lossesOf(this.#metric, { full, skipping }, rest);
      effects.push({ byItem: { losses }, ...skipped, exits: {} });
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

/** Angles between single numbers say nothing of their size. */
function checkLength(metric: VectorMetric, length: number): void {
  if (length > 1 || metric === 'relative') return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `metric: '${metric}' is about angles of vectors, but the output is a single number; take relative`,
  );
}

function savedBy({ blocks, cost }: Program, ran: Uint8Array): number {
  return (
    blocks.reduce((sum, block, b) => (ran[b] === 0 ? sum + block.cost.multiplyAdds : sum), 0) /
    cost.multiplyAdds
  );
}
