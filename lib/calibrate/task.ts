/** What is calibrated, and how: what all steps of a calibration share. */
import type { Backend } from '../backends/backend.js';
import type { Program } from '../model/program/program.js';
import { type ResolvedGuard, resolveGuards } from '../skip/guards.js';
import { furtherRules, rulesOf } from './certify/certify.js';
import type { Rule } from './certify/groups.js';
import { type CalibrationOptions, type ParsedOptions, parseOptions } from './options.js';
import { Programs } from './run/evaluator.js';

export interface Task {
  readonly backend: Backend;
  /** The network at the shapes of the items, without heads. */
  readonly programs: Programs;
  /** Of the network's file. */
  readonly sha256: string;
  /** The network whose answers are promised, if it is another one: the float form of an 8-bit network. */
  readonly original: Programs | undefined;
  readonly options: ParsedOptions;
  /** What to promise for each limit, the lowest first. */
  readonly rules: readonly [Rule, ...Rule[]];
  /** Limits by other metrics that every setting keeps as well. */
  readonly further: readonly Rule[];
  readonly guards: readonly ResolvedGuard[];
  readonly progress: WorkMeter;
}

/** Reports progress in items that ran. */
export class WorkMeter {
  #done = 0;
  /** An estimate of all items to run. */
  total = 0;

  constructor(private readonly report: (done: number, total: number) => void = () => {}) {}

  get done(): number {
    return this.#done;
  }

  /** Starts from nothing, for so many items. */
  begin(total: number): void {
    [this.#done, this.total] = [0, total];
  }

  readonly add = (items: number): void => {
    this.#done += items;
    this.report(Math.min(this.#done, this.total), this.total);
  };

  finish(): void {
    this.report(this.total, this.total);
  }
}

/** @throws ResidualSkipError INVALID_ARGUMENT, and INVALID_POLICY for guards of unknown labels */
export function taskOf(
  backend: Backend,
  network: Program | Programs,
  sha256: string,
  given: CalibrationOptions,
): Task {
  const options = parseOptions(given);
  return {
    ...{ backend, sha256, options, programs: Programs.of(network) },
    original: options.original && Programs.of(options.original.program),
    rules: rulesOf(options),
    further: furtherRules(options),
    guards: resolveGuards(options.guards ?? [], options.labels),
    progress: new WorkMeter(options.onProgress),
  };
}

/** Whether the network has gates of its own. */
export function hasGates({ blocks }: Program): boolean {
  return blocks.some(({ gate }) => gate !== undefined);
}
