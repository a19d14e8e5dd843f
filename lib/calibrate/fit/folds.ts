/** Fits the heads of a policy, and those that order its settings: no head is measured on items that it was fitted on. */
import { ResidualSkipError } from '../../errors.js';
import { decodeExits, type EncodedHeads, encodeExits } from '../../skip/head-codec.js';
import { isVectorMetric } from '../../skip/promise.js';
import { className } from '../losses.js';
import { Evaluator, runAll } from '../run/evaluator.js';
import type { CalibrationItem, FitImages } from '../run/items.js';
import { ResumableBackend } from '../run/resume.js';
import { contentHash, MIN_FIT, type Split } from '../split.js';
import type { Task } from '../task.js';
import type { FittedExit } from './chain.js';
import { fitExits, fittingWork } from './fit.js';
import { answersWithMap, fitMapExits } from './map-heads.js';
import { fitVectorExits } from './vector-heads.js';

/** Heads are fitted without each fold of the items, to be measured on it, and then on all items. The last fold is `order`. */
const FOLDS = 3;

/** Most images that order the settings of a model's own exits, and bytes of them. */
const [MAX_ORDERING, MAX_BYTES] = [2000, 2 ** 30];

function foldOf({ fit }: Split, i: number): number {
  return i >= fit.length ? FOLDS - 1 : i % (FOLDS - 1);
}

/** The items that heads are fitted and measured on, by fold. */
export function foldsOf(split: Split): CalibrationItem[][] {
  const items = [...split.fit, ...split.order];
  return [...Array(FOLDS).keys()].map((fold) => items.filter((_, i) => foldOf(split, i) === fold));
}

export class Fitter {
  /** In items run by the full network. */
  readonly work: number;
  /** The items that heads are measured on, by fold. Images of `fit` make one fold of them: no head has seen any. */
  readonly folds: readonly (readonly CalibrationItem[])[];
  readonly #chains: readonly (readonly number[])[];
  readonly #items: readonly CalibrationItem[];

  constructor(
    private readonly task: Task,
    private readonly split: Split,
  ) {
    const { fit, order } = split;
    const { options, programs } = task;
    this.#items = [...fit, ...order];
    const folds = [...Array(FOLDS).keys()];
    const without = options.fit ? [] : folds.map((fold) => folds.filter((other) => other !== fold));
    this.#chains = [...without, folds];
    this.folds = options.fit ? [order] : foldsOf(split);
    const images = options.fit?.count ?? this.#items.length;
    const copies = answersWithMap(programs.main, options) ? 0 : options.copies;
    this.work = fittingWork(programs.main, images, { copies, chains: this.#chains });
  }

  /**
   * Chains of heads for each of `folds`, then the policy's; of a single fold, the policy's alone.
   * @param behind blocks behind which there may be exits; all when left out
   */
  async fit(behind?: ReadonlySet<string>): Promise<FittedExit[][]> {
    const { backend, options } = this.task;
    if (!(backend instanceof ResumableBackend)) return this.#fitOn(backend, behind);
    return options.fit ? this.#fitOn(backend.engine, behind) : this.#remembered(backend, behind);
  }

  /** As `fit`; the progress is that of fitting alone. */
  fitAlone(behind?: ReadonlySet<string>): Promise<FittedExit[][]> {
    this.task.progress.begin(this.work);
    return this.fit(behind);
  }

  #fitOn(backend: Task['backend'], behind?: ReadonlySet<string>): Promise<FittedExit[][]> {
    const { programs, options, progress } = this.task;
    const source = options.fit
      ? without(options.fit, this.split.items)
      : { count: this.#items.length, load: async (i: number) => this.#items[i]!.input };
    const { fit, seed, copies, metric, promises, vectorOf } = options;
    const fitting = {
      ...{ seed, copies, chains: this.#chains, behind, onItems: progress.add },
      foldOf: fit ? (i: number) => i % FOLDS : (i: number) => foldOf(this.split, i),
    };
    if (isVectorMetric(metric)) {
      const fitVectors = answersWithMap(programs.main, options) ? fitMapExits : fitVectorExits;
      return fitVectors(backend, programs, source, { ...fitting, promises, vectorOf });
    }
    return fitExits(backend, programs, source, {
      ...fitting,
      className: (index) => className(index, options.labels),
    });
  }

  /** A hash of what is read of an item's outputs: files beside the model, such as its pooling, decide that. */
  async #reading(backend: ResumableBackend): Promise<string | undefined> {
    const { programs, options } = this.task;
    if (!options.vectorOf) return undefined;
    const { input } = this.#items[0]!;
    const evaluator = new Evaluator(backend, programs);
    try {
      const [outcome] = await evaluator.run([input], evaluator.policy(runAll));
      return contentHash(options.vectorOf(outcome!, input));
    } finally {
      evaluator.release();
    }
  }

  /** Taken from the state of an earlier calibration where it fitted the same. */
  async #remembered(backend: ResumableBackend, behind?: ReadonlySet<string>): Promise<FittedExit[][]> {
    const { seed, copies, metric, promises } = this.task.options;
    const some = behind && { behind: [...behind].sort() };
    const vectors = isVectorMetric(metric) && { promises, reading: await this.#reading(backend) };
    const asked = { seed, copies, ...some, ...vectors };
    const inputs = JSON.stringify([this.#items.map(({ sha256 }) => sha256), asked]);
    const encoded = await backend.remember(this.task.programs.main, inputs, async (engine) => {
      const chains = await this.#fitOn(engine, behind);
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

/** The images but those that are among the items: what was fitted on an item can't be measured on it. */
export function without(source: FitImages, items: readonly CalibrationItem[]): FitImages {
  const known = new Set(items.map((item) => item.sha256));
  const { hashOf = contentHash } = source;
  return {
    count: source.count,
    load: async (index) => {
      const input = await source.load(index);
      if (!input || !known.has(hashOf(input))) return input;
      source.onShared?.(index);
      return undefined;
    },
  };
}

/**
 * Images that order settings, spread evenly over their source: at most 2,000, or 1 GiB.
 * @throws ResidualSkipError INVALID_DATA when there are too few
 */
export async function sampleOf({ count, load }: FitImages, bytesOfOne: number): Promise<CalibrationItem[]> {
  const max = Math.min(count, MAX_ORDERING, Math.floor(MAX_BYTES / bytesOfOne));
  const items: CalibrationItem[] = [];
  for (let i = 0; i < max; i++) {
    const input = await load(Math.floor((i * count) / max));
    if (input) items.push({ input, sha256: contentHash(input) });
  }
  if (items.length >= MIN_FIT) return items;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `fit: ${items.length} of its ${count} images can be used: the others can't be read, or are among the data; ` +
      `${MIN_FIT} are needed to order settings`,
  );
}
