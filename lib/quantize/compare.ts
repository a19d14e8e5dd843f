/** The float network and a quantised one on the same items. */
import type { DataModel } from '../classify/data-model.js';
import type { Work } from '../classify/work.js';
import { prefetch } from '../data/prefetch.js';
import { median } from '../numeric/statistics.js';
import type { InferenceSession } from '../session/session.js';
import { answerOf } from '../skip/losses.js';
import { probabilities } from '../skip/scores.js';
import type { Tensor } from '../tensor/tensor.js';

/** A share of what was compared. */
export interface Share {
  readonly items: number;
  readonly changed: number;
}

export interface Comparison {
  /** Answers that changed; each network follows its own gates and exits. */
  readonly answers: Share;
  /** Decisions of gates that changed: whether a block ran. */
  readonly decisions: Share;
  /** Median times of one item in milliseconds, alternately, each network with its own gates. */
  readonly latencyMs: { readonly float: number; readonly int8: number };
}

/** Items that are timed, and the time after which no further one is. */
const TIMED = { items: 200, milliseconds: 5000 };
/** A smaller probability counts as this one. */
const MIN_SHARE = 1e-30;
/** Runs under way at a time. */
const AT_ONCE = 8;

/** Class probabilities of each item, every block run. */
export async function probabilitiesOf(
  opened: DataModel,
  session: InferenceSession,
  items: readonly Tensor[],
  work: Work,
): Promise<Float64Array[]> {
  const answer = async (item: Tensor) => {
    const outputs = await session.run(opened.feeds(item), [opened.output], { policy: 'full' });
    return opened.answerOf(outputs, item);
  };
  const all: Float64Array[] = [];
  for await (const scores of work.each(prefetch(items, answer, AT_ONCE))) {
    // Asked for behind the first run, since the context may depend on its shape.
    all.push(probabilities(scores, session.context.classScores!.meaning));
  }
  return all;
}

/** How far probabilities are from those of the float network: the mean Kullback-Leibler divergence. */
export function divergence(from: readonly Float64Array[], to: readonly Float64Array[]): number {
  const of = (p: Float64Array, q: Float64Array) =>
    p.reduce(
      (sum, share, i) => sum + (share > 0 ? share * Math.log(share / Math.max(q[i]!, MIN_SHARE)) : 0),
      0,
    );
  return from.reduce((sum, p, i) => sum + of(p, to[i]!), 0) / from.length;
}

/** Compares answers, decisions and times on items that chose nothing. */
export class Comparing {
  #items = 0;
  #answers = 0;
  #decisions = { items: 0, changed: 0 };
  readonly #times = { float: [] as number[], int8: [] as number[] };
  #spent = 0;

  constructor(
    private readonly opened: DataModel,
    private readonly session: InferenceSession,
  ) {}

  add(item: Tensor): void {
    const { opened } = this;
    const feeds = opened.feeds(item);
    const both = { float: opened.session, int8: this.session };
    const answered = (name: 'float' | 'int8') => {
      const { outputs, trace } = both[name].runTracedSync(feeds, [opened.output]);
      return { answer: answerOf(opened.answerOf(outputs, item)), blocks: trace.items[0]!.blocks };
    };
    // A run finds its weights in the caches if the run before was of the same network. Both take turns at being first, which gives them that.
    const order = this.#items % 2 === 0 ? (['float', 'int8'] as const) : (['int8', 'float'] as const);
    const second = answered(order[1]);
    const first = answered(order[0]);
    const [float, int8] = order[0] === 'float' ? [first, second] : [second, first];
    this.#items++;
    // NaN scores name no class.
    if (float.answer < 0 || float.answer !== int8.answer) this.#answers++;
    for (const [i, { score, ran }] of float.blocks.entries()) {
      if (score === null) continue;
      this.#decisions.items++;
      if (int8.blocks[i]?.ran !== ran) this.#decisions.changed++;
    }
    if (this.#items > TIMED.items || this.#spent > TIMED.milliseconds) return;
    for (const name of order) {
      const start = performance.now();
      both[name].runSync(feeds, [opened.output]);
      const time = performance.now() - start;
      this.#times[name].push(time);
      this.#spent += time;
    }
  }

  result(): Comparison {
    return {
      answers: { items: this.#items, changed: this.#answers },
      decisions: this.#decisions,
      latencyMs: { float: median(this.#times.float), int8: median(this.#times.int8) },
    };
  }
}
