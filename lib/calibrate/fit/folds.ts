/** Fits the heads of a policy, and those that order its settings: no head is measured on items that it was fitted on. */
import { decodeExits, type EncodedHeads, encodeExits } from '../../skip/head-codec.js';
import { className } from '../losses.js';
import type { CalibrationItem } from '../options.js';
import { ResumableBackend } from '../run/resume.js';
import type { Split } from '../split.js';
import type { Task } from '../task.js';
import type { FittedExit } from './chain.js';
import { fitExits, fittingWork } from './fit.js';
import { sourceOf, without } from './source.js';

/** Heads are fitted without each fold of the items, to be measured on it, and then on all items. The last fold is `order`. */
const FOLDS = 3;

export class Fitter {
  /** In items run by the full network. */
  readonly work: number;
  /** The items that heads are measured on, by fold. Images of `fit` make one fold of them: no head has seen any. */
  readonly folds: readonly (readonly CalibrationItem[])[];
  readonly #chains: readonly ((image: number) => boolean)[];
  readonly #items: readonly CalibrationItem[];

  constructor(
    private readonly task: Task,
    private readonly split: Split,
  ) {
    const { fit, order } = split;
    const { options, programs } = task;
    this.#items = [...fit, ...order];
    const foldOf = (i: number) => (i >= fit.length ? FOLDS - 1 : i % (FOLDS - 1));
    const folds = options.fit ? [] : [...Array(FOLDS).keys()];
    this.#chains = [...folds.map((fold) => (i: number) => foldOf(i) !== fold), () => true];
    this.folds = options.fit
      ? [order]
      : folds.map((fold) => this.#items.filter((_, i) => foldOf(i) === fold));
    const images = options.fit?.count ?? this.#items.length;
    this.work = fittingWork(programs.main, images, { copies: options.copies, chains: this.#chains });
  }

  /**
   * Chains of heads for each of `folds`, then the policy's; of a single fold, the policy's alone.
   * @param behind blocks behind which there may be exits; all when left out
   */
  async fit(behind?: ReadonlySet<string>): Promise<FittedExit[][]> {
    const { backend, options } = this.task;
    if (!(backend instanceof ResumableBackend)) return this.#fitOn(backend, behind);
    return options.fit ? this.#fitOn(backend.engine, behind) : this.#remembered(backend);
  }

  #fitOn(backend: Task['backend'], behind?: ReadonlySet<string>): Promise<FittedExit[][]> {
    const { programs, options, progress } = this.task;
    const source = options.fit ? without(options.fit, this.split.items) : sourceOf(this.#items);
    return fitExits(backend, programs, source, {
      ...{ seed: options.seed, copies: options.copies, chains: this.#chains, behind },
      className: (index) => className(index, options.labels),
      onItems: progress.add,
    });
  }

  /** Taken from the state of an earlier calibration where it fitted the same. */
  async #remembered(backend: ResumableBackend): Promise<FittedExit[][]> {
    const { seed, copies } = this.task.options;
    const inputs = JSON.stringify([this.#items.map(({ sha256 }) => sha256), { seed, copies }]);
    const encoded = await backend.remember(this.task.programs.main, inputs, async (engine) => {
      const chains = await this.#fitOn(engine);
      return JSON.stringify(
        chains.map((chain) => encodeExits(chain.map((exit) => ({ ...exit, threshold: 0 })))),
      );
    });
    const chains: EncodedHeads[] = JSON.parse(encoded);
    return chains.map((chain) =>
      decodeExits(chain).map(({ threshold: _, head, ...exit }) => ({ ...exit, head: head! })),
    );
  }
}
