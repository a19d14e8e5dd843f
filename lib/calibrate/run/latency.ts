/** The time that a setting saves on this machine: the full network and the setting alternate on the same items. */
import { type Backend, type CompiledProgram, type RunRequest, requestFor } from '../../backends/backend.js';
import type { Program } from '../../model/program/program.js';
import { mean, median, quantile } from '../../numeric/statistics.js';
import { attachExits } from '../../skip/attach.js';
import { decisionsFor } from '../../skip/compiled-policy.js';
import type { ExitSpec } from '../../skip/exits.js';
import { isGuarded, type ResolvedGuard } from '../../skip/guards.js';
import type { Latency } from '../../skip/promise.js';
import { meaningOf } from '../../skip/scores.js';
import type { TensorData } from '../../tensor/tensor.js';
import { gatesOf, Programs, runAll } from './evaluator.js';

export interface Effort {
  /** Most items to time. */
  readonly items: number;
  /** No further item is begun after this time, in the first round. */
  readonly milliseconds: number;
  /** How often each item is timed; its least time counts, so that a pause of the machine doesn't. */
  readonly rounds: number;
}

/** Effort of timing every tested setting, and the chosen one. */
export const QUICK: Effort = { items: 20, milliseconds: 100, rounds: 1 };
export const THOROUGH: Effort = { items: 400, milliseconds: 3000, rounds: 3 };
/** With fewer items a median is meaningless; these are timed however long it takes. */
const MIN_ITEMS = 5;
/** Items in a turn: in use, one network isn't pushed out of the caches by another after each item. */
const TURN = 5;
/** The least wait for a processor that is told from rounding, in milliseconds. */
const MIN_WAIT = 0.02;
/** Windows counts the time of processors in ticks of 15 ms. */
const HAS_FINE_CLOCK = process.platform !== 'win32';
/** Share of the effort that goes before what is timed: code, caches and clock rate reach their steady state. */
const WARM_UP = 0.2;

const MODES = ['full', 'policy'] as const;

/** A program of one shape, and what its runs fill. */
interface Ready {
  readonly program: Program;
  readonly compiled: CompiledProgram;
  readonly request: Omit<RunRequest, 'inputs'>;
}

/** A network that runs one item at a time on the calling thread. */
class Runner {
  readonly #ready = new Map<Program, Ready>();

  /** @param modes of the blocks */
  constructor(
    private readonly backend: Backend,
    private readonly programs: Programs,
    private readonly modes: (block: number) => number,
  ) {}

  /** Compiles the program for an item of a shape that is new, and runs it once: its memory hasn't been touched yet. */
  ready(input: TensorData): Ready {
    const program = this.programs.at(input);
    const known = this.#ready.get(program);
    if (known) return known;
    const policy = decisionsFor(program, (_, i) => this.modes(i));
    const request = requestFor(program, 1, policy);
    const made = { program, compiled: this.backend.compileSync(program), request };
    this.#ready.set(program, made);
    this.#run(made, input);
    return made;
  }

  run(input: TensorData): { readonly scores: Float32Array; readonly skipped: boolean } {
    const ready = this.ready(input);
    this.#run(ready, input);
    const { program, request } = ready;
    const { outputs, outcomes } = request;
    const blocks = program.blocks.length;
    const skipped = outcomes.subarray(0, blocks).includes(0) || outcomes.subarray(blocks).includes(1);
    return { scores: outputs[0] as Float32Array, skipped };
  }

  #run({ compiled, request }: Ready, input: TensorData): void {
    compiled.runSync({ ...request, inputs: this.programs.inputsOf(input) });
  }

  release(): void {
    for (const { compiled } of this.#ready.values()) compiled.release();
  }
}

export class Stopwatch {
  readonly #programs: Programs;
  readonly #full: Runner;

  /**
   * @param network without exits
   * @param original runs instead where every block runs
   */
  constructor(
    private readonly backend: Backend,
    network: Program | Programs,
    private readonly guards: readonly ResolvedGuard[],
    private readonly original?: Programs,
  ) {
    this.#programs = Programs.of(network);
    this.#full = new Runner(backend, original ?? this.#programs, runAll);
  }

  /**
   * Times of one item at batch 1, guards and their runs in full included.
   * @param inputs at least one; as many as the effort allows are timed
   * @param omitted blocks that are left out
   */
  time(
    exits: readonly ExitSpec[],
    inputs: readonly TensorData[],
    effort: Effort,
    omitted?: ReadonlySet<number>,
  ): Latency {
    const grown = this.#programs.map((program) => attachExits(program, exits));
    const setting = new Runner(this.backend, grown, gatesOf(grown.main, omitted));
    const { main } = this.#programs;
    const meaning = meaningOf(main, main.outputs[0]!.value);
    try {
      const modes = {
        full: (input: TensorData) => void this.#full.run(input),
        policy: (input: TensorData) => {
          const { scores, skipped } = setting.run(input);
          if ((skipped || this.original) && isGuarded(scores, meaning, this.guards)) this.#full.run(input);
        },
      };
      const times = { full: [] as number[], policy: [] as number[] };
      for (const input of inputs.slice(0, effort.items))
        for (const one of [this.#full, setting]) one.ready(input);
      const start = performance.now();
      const spent = () => (performance.now() - start) / effort.milliseconds;
      const count = Math.min(effort.items, inputs.length);
      const warm = Math.ceil(WARM_UP * count);
      for (let i = 0; i < warm && spent() < WARM_UP; i++) {
        modes.full(inputs[i]!);
        modes.policy(inputs[i]!);
      }
      let last: (typeof MODES)[number] = 'policy';
      const turn = (from: number, round: number) => {
        const order = (from / TURN + round) % 2 === 0 ? MODES : MODES.toReversed();
        for (const mode of order) {
          // The first run after another network's finds its weights gone from the caches.
          if (mode !== last) modes[mode](inputs[from]!);
          last = mode;
          for (let i = from; i < Math.min(from + TURN, count); i++) {
            const time = timed(() => modes[mode](inputs[i]!), this.backend.threads);
            times[mode][i] = Math.min(time, times[mode][i] ?? Number.POSITIVE_INFINITY);
          }
        }
      };
      for (let from = 0; from < count && (from < MIN_ITEMS || spent() < 1); from += TURN) turn(from, 0);
      for (let round = 1; round < effort.rounds; round++) {
        for (let from = 0; from < times.full.length; from += TURN) turn(from, round);
      }
      return latencyOf(times, this.backend);
    } finally {
      setting.release();
    }
  }

  release(): void {
    this.#full.release();
  }
}

/**
 * Of a run that waited for a processor, the time that it had one. With several threads, their CPU time hides how long they waited, but not
 * in a network that runs on one of them, which would seem faster than others. So all time counts there.
 */
function timed(run: () => void, threads: number): number {
  const before = process.cpuUsage();
  const start = performance.now();
  run();
  const spent = performance.now() - start;
  const { user, system } = process.cpuUsage(before);
  const used = (user + system) / 1000;
  return HAS_FINE_CLOCK && threads === 1 && spent > used + MIN_WAIT ? used : spent;
}

function latencyOf(times: Readonly<Record<'full' | 'policy', number[]>>, { isa, threads }: Backend): Latency {
  const of = (sample: readonly number[]) => ({
    p50: median(sample),
    mean: mean(sample),
    p95: quantile(sample, 0.95),
  });
  return { items: times.full.length, isa, threads, fullMs: of(times.full), policyMs: of(times.policy) };
}

/** Of the median; negative where a policy takes longer. */
export function latencyReduction({ fullMs, policyMs }: Latency): number {
  return 1 - policyMs.p50 / fullMs.p50;
}
