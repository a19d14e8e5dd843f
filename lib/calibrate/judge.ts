import type { Backend } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program.js';
import { attachHeads, exitOf, type Heads } from '../skip/attach.js';
import { isGuarded, type ResolvedGuard } from '../skip/guards.js';
import { BlockMode } from '../skip/mode.js';
import { profileOf, type ScoreProfiles } from '../skip/profile.js';
import type { Metric } from '../skip/promise.js';
import { type Meaning, meaningOf, probabilities } from '../skip/scores.js';
import type { CalibrationItem } from './calibration.js';
import { Evaluator, type Outcome, runAll } from './evaluator.js';
import { answerOf } from './levers.js';

/** @throws ResidualSkipError INVALID_DATA when the network answers NaN */
export function checkedAnswer(scores: Float32Array): number {
  const answer = answerOf(scores);
  if (answer >= 0) return answer;
  throw new ResidualSkipError(
    'INVALID_DATA',
    'the model answers NaN for an item; check its weights and preprocessing',
  );
}

/** The full network's answers on some items, which settings are judged by. */
export interface Judged {
  readonly items: readonly CalibrationItem[];
  readonly answers: readonly number[];
  /** The class scores behind them. */
  readonly scores: readonly Float32Array[];
}

/** What a setting did with each item. */
interface ByItem {
  /** In [0, 1]; 0 or 1 but for the metric `probability`. */
  readonly losses: readonly number[];
  /** Share of the network's multiply-adds; negative where a guard had the item run twice. */
  readonly saved: readonly number[];
  readonly answers: readonly number[];
  /** A digit for each block: 1 ran, 0 skipped; all 1 where a guard had the item run in full. */
  readonly ran: readonly string[];
}

export interface Measured {
  readonly byItem: ByItem;
  /** Mean loss. */
  readonly risk: number;
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
  readonly exits: Readonly<Record<string, number>>;
  readonly skips: Readonly<Record<string, number>>;
  /** Items that came to each exit and that asked each gate, as fractions, by block. */
  readonly asked: {
    readonly exit: Readonly<Record<string, number>>;
    readonly gate: Readonly<Record<string, number>>;
  };
  /** Of the gates that were asked, and of the exits that items came to. */
  readonly profiles: { readonly gate: ScoreProfiles; readonly exit: ScoreProfiles };
}

/** Runs settings as they will be run, guards included, and counts what breaks the rule. */
export class Judge {
  private readonly meaning: Meaning;

  constructor(
    private readonly backend: Backend,
    private readonly program: Program,
    private readonly guards: readonly ResolvedGuard[],
    private readonly metric: Metric,
    private readonly onItems: (count: number) => void,
  ) {
    this.meaning = meaningOf(program, program.outputs[0]!.value);
  }

  async full(items: readonly CalibrationItem[]): Promise<Judged> {
    const outcomes = await this.#run(this.program, items, runAll);
    const scores = outcomes.map(({ outputs }) => outputs[0]!);
    return { items, answers: scores.map(checkedAnswer), scores };
  }

  async measure(heads: Heads, full: Judged): Promise<Measured> {
    const { items } = full;
    const program = attachHeads(this.program, heads);
    const outcomes = await this.#run(program, items, (i) =>
      program.blocks[i]!.gate ? BlockMode.gate : BlockMode.run,
    );
    const total = this.program.cost.multiplyAdds;
    // As a session does: an item that skipped nothing needs no check.
    const verified = outcomes.map(
      ({ outputs, ran }) => ran.includes(0) && isGuarded(outputs[0]!, this.meaning, this.guards),
    );
    const losses = outcomes.map(({ outputs }, i) => (verified[i] ? 0 : this.#loss(outputs[0]!, full, i)));
    const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    // Exits are asked in order, and one that isn't reached has NaN for its confidence.
    const exits = heads.exits.map(({ after, threshold }) => ({
      after,
      threshold: Math.fround(threshold),
      output: program.outputs.findIndex(({ name }) => exitOf(name) === after),
      behind: program.blocks.findIndex(({ name }) => name === after) + 1,
    }));
    const came = ({ outputs }: Outcome, exit: { readonly output: number }) =>
      !Number.isNaN(outputs[exit.output]![0]!);
    const exitBehind = new Map(exits.map((exit) => [exit.after, exit]));
    const saved = outcomes.map((outcome, i) => {
      let sum = 0;
      for (const [b, { name, cost, heads: asking }] of program.blocks.entries()) {
        if (!outcome.ran[b]) sum += cost.multiplyAdds;
        const exit = exitBehind.get(name);
        if (asking && exit && came(outcome, exit)) sum -= asking.exit;
        if (asking && exit && outcome.outputs[exit.output]![0]! >= exit.threshold) sum += asking.beyond;
        if (asking && !Number.isNaN(outcome.scores[b]!)) sum -= asking.gate;
      }
      // A guarded item is run twice: what it skipped at first was spent in vain.
      return sum / total - (verified[i] ? 1 : 0);
    });
    const left = outcomes.map(({ outputs }, i) =>
      verified[i] ? undefined : exits.find(({ output, threshold }) => outputs[output]![0]! >= threshold),
    );
    const ran = outcomes.map((outcome, i) => (verified[i] ? outcome.ran.map(() => 1) : outcome.ran));
    const rate = (some: (item: number) => boolean) => mean(outcomes.map((_, i) => (some(i) ? 1 : 0)));
    return {
      byItem: {
        losses,
        saved,
        answers: outcomes.map(({ outputs }, i) => (verified[i] ? full.answers[i]! : answerOf(outputs[0]!))),
        ran: ran.map((row) => row.join('')),
      },
      risk: mean(losses),
      multiplyAddsSkipped: Math.max(0, mean(saved)),
      blocksSkipped: mean(ran.map((row) => row.filter((r) => r === 0).length / row.length)),
      profiles: {
        gate: profilesOf(program, outcomes, ran),
        exit: Object.fromEntries(
          exits.flatMap(({ after, output }) => {
            const scores = outcomes.map(({ outputs }) => outputs[output]![0]!);
            const known = scores.filter((score) => !Number.isNaN(score));
            const gone = left.filter((exit) => exit?.after === after).length;
            return known.length > 0 ? [[after, profileOf(known, gone / known.length)]] : [];
          }),
        ),
      },
      exits: Object.fromEntries(
        exits.map(({ after }) => [after, rate((item) => left[item]?.after === after)]),
      ),
      skips: Object.fromEntries(
        heads.gates.map(({ block }) => {
          const index = program.blocks.findIndex(({ name }) => name === block);
          return [block, rate((item) => ran[item]![index] === 0 && index < (left[item]?.behind ?? Infinity))];
        }),
      ),
      asked: {
        exit: Object.fromEntries(
          exits.map((exit) => [exit.after, rate((item) => came(outcomes[item]!, exit))]),
        ),
        gate: Object.fromEntries(
          heads.gates.map(({ block }) => {
            const index = program.blocks.findIndex(({ name }) => name === block);
            return [block, rate((item) => !Number.isNaN(outcomes[item]!.scores[index]!))];
          }),
        ),
      },
    };
  }

  #loss(scores: Float32Array, { items, answers, scores: full }: Judged, i: number): number {
    if (this.metric === 'probability') return totalVariation(scores, full[i]!, this.meaning);
    const [answer, before, { label }] = [answerOf(scores), answers[i]!, items[i]!] as const;
    const lost = this.metric === 'disagreement' ? answer !== before : before === label && answer !== label;
    return lost ? 1 : 0;
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

/** @param ran for each item and block, what came of it in the end */
function profilesOf(
  { blocks }: Program,
  outcomes: readonly Outcome[],
  ran: readonly ArrayLike<number>[],
): ScoreProfiles {
  const profiles = blocks.flatMap(({ name }, block) => {
    const asked = outcomes.flatMap(({ scores }, item) => (Number.isNaN(scores[block]!) ? [] : [item]));
    if (asked.length === 0) return [];
    const skipped = asked.filter((item) => ran[item]![block] === 0).length;
    const scores = asked.map((item) => outcomes[item]!.scores[block]!);
    return [[name, profileOf(scores, skipped / asked.length)] as const];
  });
  return Object.fromEntries(profiles);
}

/**
 * Of the probabilities that two rows of class scores stand for: half the sum of their differences, in [0, 1]. Scores that
 * are NaN are as far from any others as can be.
 */
export function totalVariation(a: Float32Array, b: Float32Array, meaning: Meaning): number {
  const [p, q] = [probabilities(a, meaning), probabilities(b, meaning)];
  const distance = p.reduce((sum, value, i) => sum + Math.abs(value - q[i]!), 0) / 2;
  return Number.isNaN(distance) ? 1 : Math.min(1, distance);
}
