import type { Backend } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program.js';
import { attachHeads, type Heads } from '../skip/attach.js';
import { isGuarded, type ResolvedGuard } from '../skip/guards.js';
import { BlockMode } from '../skip/mode.js';
import type { CalibrationItem } from './calibration.js';
import { Evaluator, type Outcome, runAll } from './evaluator.js';
import { answerOf } from './levers.js';

/** @throws ResidualSkipError INVALID_DATA when the network answers NaN for an item */
export function answersOf(outcomes: readonly Outcome[]): number[] {
  return outcomes.map(({ outputs }) => {
    const answer = answerOf(outputs[0]!);
    if (answer >= 0) return answer;
    throw new ResidualSkipError(
      'INVALID_DATA',
      'the model answers NaN for an item; check its weights and preprocessing',
    );
  });
}

/** The full network's answers on some items, which settings are judged by. */
export interface Judged {
  readonly items: readonly CalibrationItem[];
  readonly answers: readonly number[];
}

export interface Measured {
  /** Whether each item broke the rule. */
  readonly broken: readonly boolean[];
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
  readonly exits: Readonly<Record<string, number>>;
  readonly skips: Readonly<Record<string, number>>;
}

/** Runs settings as they will be run, guards included, and counts what breaks the rule. */
export class Judge {
  constructor(
    private readonly backend: Backend,
    private readonly program: Program,
    private readonly guards: readonly ResolvedGuard[],
    private readonly metric: 'disagreement' | 'accuracy',
    private readonly onItems: (count: number) => void,
  ) {}

  async full(items: readonly CalibrationItem[]): Promise<Judged> {
    const outcomes = await this.#run(this.program, items, runAll);
    return { items, answers: answersOf(outcomes) };
  }

  async measure(heads: Heads, { items, answers }: Judged): Promise<Measured> {
    const program = attachHeads(this.program, heads);
    const outcomes = await this.#run(program, items, (i) =>
      program.blocks[i]!.gate ? BlockMode.gate : BlockMode.run,
    );
    const total = this.program.cost.multiplyAdds;
    // As a session does: an item that skipped nothing needs no check.
    const verified = outcomes.map(
      ({ outputs, ran }) => ran.includes(0) && isGuarded(outputs[0]!, this.guards),
    );
    const broken = outcomes.map(({ outputs }, i) => {
      if (verified[i]) return false;
      const [answer, full, { label }] = [answerOf(outputs[0]!), answers[i]!, items[i]!] as const;
      return this.metric === 'disagreement' ? answer !== full : full === label && answer !== label;
    });
    const costs = program.blocks.map(({ cost }) => cost.multiplyAdds / total);
    const skipped = outcomes.map(
      ({ ran }, i) =>
        // A guarded item is run twice: what it skipped at first was spent in vain.
        costs.reduce((sum, cost, b) => sum + (ran[b] ? 0 : cost), 0) - (verified[i] ? 1 : 0),
    );
    const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    const rate = (block: string, some: (outcome: Outcome, index: number) => boolean) => {
      const index = program.blocks.findIndex(({ name }) => name === block);
      return mean(outcomes.map((outcome) => (some(outcome, index) ? 1 : 0)));
    };
    return {
      broken,
      multiplyAddsSkipped: Math.max(0, mean(skipped)),
      blocksSkipped: mean(
        outcomes.map(({ ran }, i) => (verified[i] ? 0 : ran.filter((r) => r === 0).length / ran.length)),
      ),
      exits: Object.fromEntries(
        heads.exits.map(({ after }) => [
          after,
          rate(after, ({ ran }, i) => !ran.slice(i + 1).some((r) => r === 1)),
        ]),
      ),
      skips: Object.fromEntries(
        heads.gates.map(({ block }) => [block, rate(block, ({ ran }, i) => ran[i] === 0)]),
      ),
    };
  }

  async #run(program: Program, items: readonly CalibrationItem[], mode: (block: number) => number) {
    const evaluator = new Evaluator(this.backend, program);
    try {
      return await evaluator.run(
        items.map(({ input }) => input),
        evaluator.policy(mode),
        this.onItems,
      );
    } finally {
      evaluator.release();
    }
  }
}

export function count(flags: readonly boolean[]): number {
  return flags.filter(Boolean).length;
}

/** By class of the full network's answer: items, and how many of them broke the rule. */
export function byClass(
  answers: readonly number[],
  result: Measured | undefined,
  labels: readonly string[] | undefined,
) {
  const classes = new Map<number, { label: string; items: number; events: number }>();
  for (const [i, answer] of answers.entries()) {
    const entry = classes.get(answer) ?? {
      label: labels?.[answer] ?? `class ${answer}`,
      items: 0,
      events: 0,
    };
    classes.set(answer, entry);
    entry.items++;
    if (result?.broken[i]) entry.events++;
  }
  return [...classes].sort(([a], [b]) => a - b).map(([, entry]) => entry);
}
