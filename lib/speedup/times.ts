/** Times of the parts that a ladder is made of, and what its items spend by them. */
import type { Backend } from '../backends/backend.js';
import type { Costs } from '../calibrate/order/thresholds.js';
import { type Effort, Stopwatch } from '../calibrate/run/latency.js';
import type { Task } from '../calibrate/task.js';
import type { AnyExit } from '../skip/exits.js';
import { NEVER } from '../skip/scores.js';
import type { TensorData } from '../tensor/tensor.js';

/** Times of an exit, as fractions of the time of the network in float with every block run. */
export interface ExitTime {
  /** Index of its network: fronts in their order, then the network itself. */
  readonly network: number;
  /** From the beginning of its network to the exit, without heads. */
  readonly reach: number;
  /** Of its head. */
  readonly head: number;
}

/** What rows spend, in time. */
export class TimeCosts implements Costs {
  /**
   * @param own index of the network itself
   * @param whole its time without exits
   */
  constructor(
    private readonly exits: readonly ExitTime[],
    private readonly own: number,
    private readonly whole: number,
  ) {}

  passing(exit: number, thresholds: readonly number[]): number {
    const { network, reach, head } = this.exits[exit]!;
    // The network itself runs on anyway, and so does a front to its last exit in use.
    return network === this.own ? head : head + Math.max(0, reach - this.#reached(network, thresholds, exit));
  }

  leaving(thresholds: readonly number[]): number[] {
    const reached = Array.from({ length: this.own }, (_, front) => this.#reached(front, thresholds));
    /** Of heads in use so far, and of the fronts that were passed. */
    let [heads, passed, network] = [0, 0, 0];
    const spent = this.exits.map((exit, e) => {
      for (; network < exit.network; network++) passed += reached[network]!;
      const used = thresholds[e]! < NEVER;
      if (used) heads += exit.head;
      const within = used || network === this.own ? exit.reach : Math.min(exit.reach, reached[network]!);
      return heads + passed + within;
    });
    for (; network < this.own; network++) passed += reached[network]!;
    return [...spent, heads + passed + this.whole];
  }

  /** How far rows that pass a network run in it. */
  #reached(network: number, thresholds: readonly number[], except?: number): number {
    let reached = 0;
    for (const [e, exit] of this.exits.entries()) {
      if (e !== except && exit.network === network && thresholds[e]! < NEVER)
        reached = Math.max(reached, exit.reach);
    }
    return reached;
  }
}

/** Effort of timing one exit. All items take the same path, so that few are enough; on a busy machine, several rounds are needed. */
const EFFORT: Effort = { items: 20, milliseconds: 100, rounds: 2 };
/**
 * How often all exits are timed; of each the least share counts. What else a core does for a second or two costs 8-bit networks more than
 * float ones: beside other work, ResNet-56 in 8 bits takes 0.34 or 0.5 to 0.67 of its float time on an Intel Xeon (Emerald Rapids).
 */
const PASSES = 3;

/**
 * The time of each exit: measured by runs that all leave there, in alternation with the full network.
 * @param chains the exits of each front, the last one at its end; then those of the network
 */
export function timesOf(
  backend: Backend,
  { programs, original }: Task,
  chains: readonly (readonly AnyExit[])[],
  inputs: readonly TensorData[],
): { readonly times: readonly ExitTime[]; readonly whole: number } {
  const stopwatch = new Stopwatch(backend, programs, [], original);
  const least = new Map<string, number>();
  /** Of runs that evaluate all these exits, and leave at the last one if the threshold lets them: the least until now. */
  const time = (list: readonly AnyExit[], last: number): number => {
    const specs = list.map((exit, e) => ({ ...exit, threshold: e === list.length - 1 ? last : NEVER }));
    const { fullMs, policyMs } = stopwatch.time(specs, inputs, EFFORT);
    const key = [...list.map(({ after }) => after), last].join();
    const share = Math.min(policyMs.p50 / fullMs.p50, least.get(key) ?? Number.POSITIVE_INFINITY);
    least.set(key, share);
    return share;
  };
  const inNetwork = (
    network: number,
    exits: readonly AnyExit[],
    alone: number,
    all: () => number,
  ): ExitTime[] => {
    if (exits.length === 0) return [];
    const head = Math.max(0, all() - alone) / exits.length;
    const reach = exits.map((_, e) => time(exits.slice(0, e + 1), 0) - head * (e + 1));
    return reach.map((each) => ({ network, reach: Math.min(Math.max(0, each), alone), head }));
  };
  const pass = () => {
    const whole = original ? time([], NEVER) : 1;
    const times = chains.flatMap((exits, network) => {
      if (network === chains.length - 1) return inNetwork(network, exits, whole, () => time(exits, NEVER));
      const end = exits.at(-1)!;
      const alone = time([end], 0);
      return [
        ...inNetwork(network, exits.slice(0, -1), alone, () => time(exits, 0)),
        { network, reach: alone, head: 0 },
      ];
    });
    return { times, whole };
  };
  try {
    for (let earlier = 1; earlier < PASSES; earlier++) pass();
    return pass();
  } finally {
    stopwatch.release();
  }
}
