/**
 * Calibration of a frozen network: fits heads, orders settings from "no skipping" to the most aggressive, and
 * certifies the furthest one that keeps its promise. See docs/calibration.md.
 */
import { createHash } from 'node:crypto';
import type { Backend } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program.js';
import { attachHeads, type Heads } from '../skip/attach.js';
import { type Guard, isGuarded, type ResolvedGuard, resolveGuards } from '../skip/guards.js';
import { encodeHeads } from '../skip/heads.js';
import { BlockMode } from '../skip/mode.js';
import type { SkipPolicy } from '../skip/policy.js';
import { headsOf, prices, settingsAt } from './dial.js';
import { Evaluator, type Outcome, runAll, withFeatures } from './evaluator.js';
import { answerOf, type FullPass, fitExits, fitGates, type Lever } from './levers.js';
import { binomialPValue, checkFraction, fixedSequenceTest, itemsNeeded, upperRate } from './risk.js';
import { type Part, partOf } from './split.js';

/** One image, prepared for the model. */
export interface CalibrationItem {
  readonly input: Float32Array;
  /** Hex SHA-256 of its content. */
  readonly sha256: string;
  /** Class index; required for the metric `accuracy`. */
  readonly label?: number;
}

export interface CalibrationOptions {
  /** Rate that the policy must keep below; 0.01 when left out. */
  readonly maxDisagreement?: number;
  /** Probability that it does; 0.95 when left out. */
  readonly confidence?: number;
  /** `disagreement` (when left out) needs no labels; `accuracy` counts what only the full network has right. */
  readonly metric?: 'disagreement' | 'accuracy';
  /** Fraction of the full network's multiply-adds that the policy may spend: the best within it, certified or not. */
  readonly budget?: number;
  readonly guards?: readonly Guard[];
  readonly labels?: readonly string[];
  readonly seed?: number;
  /** Settings of the dial. */
  readonly settings?: number;
  /** Called with items done and items to do, of all passes over the data together. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** One setting of the dial, as measured on the items that certify. */
export interface SettingResult {
  readonly price: number;
  readonly events: number;
  readonly items: number;
  readonly pValue: number;
  readonly upperBound: number;
  /** Means over the items; fractions. */
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
  /** Items that took each exit and skipped each gated block, as fractions, by block. */
  readonly exits: Readonly<Record<string, number>>;
  readonly skips: Readonly<Record<string, number>>;
}

export interface Calibration {
  readonly policy: SkipPolicy;
  readonly settings: readonly SettingResult[];
  /** Index of the setting that the policy has; -1 for no skipping. */
  readonly chosen: number;
  /** By class of the full network's answer: items, and how many of them broke the rule under the policy. */
  readonly classes: readonly { readonly label: string; readonly items: number; readonly events: number }[];
}

const SETTINGS = 24;
/** With fewer than this nothing can be fitted. */
const LEAST_FIT = 50;

/**
 * @param program of the model at the shape of the items, one float32 input and one float32 output [N, classes]
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (too little data, NaN logits, labels missing),
 * UNSUPPORTED_MODEL (nothing to skip)
 */
export async function calibrate(
  backend: Backend,
  program: Program,
  sha256: string,
  items: readonly CalibrationItem[],
  options: CalibrationOptions = {},
): Promise<Calibration> {
  const { maxDisagreement = 0.01, confidence = 0.95, metric = 'disagreement', seed = 0, budget } = options;
  checkFraction('maxDisagreement', maxDisagreement);
  checkFraction('confidence', confidence);
  if (budget !== undefined) checkFraction('budget', budget);
  checkProgram(program);
  const guards = resolveGuards(options.guards ?? [], options.labels);
  const parts = split(items, seed);
  checkParts(parts, maxDisagreement, 1 - confidence, budget !== undefined);
  if (metric === 'accuracy' && items.some(({ label }) => label === undefined)) {
    throw new ResidualSkipError('INVALID_DATA', "the metric 'accuracy' needs a label for every item");
  }

  const chosenFrom = [...parts.fit, ...parts.order];
  const gates = program.blocks.filter(({ skippable, gate }) => skippable && !gate).length;
  const steps = options.settings ?? SETTINGS;
  const total =
    chosenFrom.length * (1 + gates) + parts.order.length * steps + parts.certify.length * (2 + steps);
  let done = 0;
  const onItems = (count: number) => {
    done += count;
    options.onProgress?.(Math.min(done, total), total);
  };

  const levers = await fitLevers(
    backend,
    program,
    chosenFrom.map((i) => items[i]!),
    onItems,
  );
  const dial = prices(steps).map((price) => ({
    price,
    heads: headsOf(settingsAt(levers, chosenFrom.length, price)),
  }));
  const judge = new Judge(backend, program, guards, metric, onItems);
  const order = await judge.full(parts.order.map((i) => items[i]!));
  // Settings that already break the rule on `order` are not worth testing; the order of the rest stands.
  const limit = budget === undefined ? 2 * maxDisagreement : 1;
  const worth: typeof dial = [];
  for (const setting of dial) {
    if (setting.heads.exits.length + setting.heads.gates.length === 0) continue;
    const { broken, multiplyAddsSkipped } = await judge.measure(setting.heads, order);
    if (count(broken) / parts.order.length > limit) break;
    worth.push(setting);
    if (budget !== undefined && 1 - multiplyAddsSkipped <= budget) break;
  }

  const certify = await judge.full(parts.certify.map((i) => items[i]!));
  const results: Measured[] = [];
  for (const { heads } of worth) results.push(await judge.measure(heads, certify));
  const settings = results.map((result, i): SettingResult => {
    const { broken, ...rest } = result;
    const events = count(broken);
    const n = parts.certify.length;
    return {
      price: worth[i]!.price,
      events,
      items: n,
      pValue: binomialPValue(events, n, maxDisagreement),
      upperBound: upperRate(events, n, 1 - confidence),
      ...rest,
    };
  });
  const passed = fixedSequenceTest(settings, 1 - confidence);
  const chosen = budget === undefined ? passed : settings.length - 1;
  options.onProgress?.(total, total);
  const result = results[chosen];
  return {
    policy: {
      version: 1,
      model: { sha256 },
      blocks: {},
      ...(chosen >= 0 && { heads: encodeHeads(worth[chosen]!.heads) }),
      ...(options.guards && { guards: [...options.guards] }),
      ...(options.labels && { labels: [...options.labels] }),
      promise: {
        metric,
        limit: maxDisagreement,
        confidence,
        certified: chosen <= passed,
        items: parts.certify.length,
        events: chosen >= 0 ? settings[chosen]!.events : 0,
        pValue: chosen >= 0 ? settings[chosen]!.pValue : 0,
        upperBound: chosen >= 0 ? settings[chosen]!.upperBound : 0,
        data: {
          sha256: fingerprint(items),
          seed,
          fit: parts.fit.length,
          order: parts.order.length,
          certify: parts.certify.length,
        },
      },
      expected: {
        multiplyAddsSkipped: result?.multiplyAddsSkipped ?? 0,
        blocksSkipped: result?.blocksSkipped ?? 0,
        latencyReduction: null,
      },
    },
    settings,
    chosen,
    classes: byClass(certify.answers, result, options.labels),
  };
}

function checkProgram({ blocks, inputs, outputs, values }: Program): void {
  if (!blocks.some(({ skippable }) => skippable)) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      'the model has no residual block that can be skipped: `inspect` shows what was found',
    );
  }
  const shape = outputs[0] && values[outputs[0].value]!.shape;
  if (inputs.length !== 1 || outputs.length !== 1 || shape?.length !== 2) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      'calibration needs a model with one input and one output of class scores, float32 [batch, classes]',
    );
  }
}

function split(items: readonly CalibrationItem[], seed: number): Record<Part, number[]> {
  const parts: Record<Part, number[]> = { fit: [], order: [], certify: [] };
  items.forEach(({ sha256 }, i) => {
    parts[partOf(sha256, seed)].push(i);
  });
  return parts;
}

function checkParts(parts: Record<Part, number[]>, limit: number, delta: number, anyway: boolean): void {
  const needed = anyway ? 1 : itemsNeeded(limit, delta);
  const { fit, order, certify } = parts;
  if (certify.length >= needed && fit.length + order.length >= LEAST_FIT && order.length > 0) return;
  const enough = Math.max(2 * needed, 2 * LEAST_FIT) + 50;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `too little data: ${certify.length} items certify, but a limit of ${limit} at confidence ${1 - delta} needs ${needed} ` +
      `even without a single disagreement, and ${fit.length + order.length} of ${LEAST_FIT} are there to fit; ` +
      `give about ${enough} images, or a higher --max-disagreement`,
  );
}

async function fitLevers(
  backend: Backend,
  program: Program,
  items: readonly CalibrationItem[],
  onItems: (count: number) => void,
): Promise<Lever[]> {
  const evaluator = new Evaluator(backend, withFeatures(program));
  try {
    const inputs = items.map(({ input }) => input);
    const outcomes = await evaluator.run(inputs, evaluator.policy(runAll), onItems);
    const full: FullPass = { items: inputs, outcomes, answers: answersOf(outcomes) };
    const levers = [...fitExits(program, full, 0), ...(await fitGates(evaluator, full, 0, onItems))];
    // In the network's order: a gate stands before its block, an exit behind it.
    const place = ({ kind, block }: Lever) =>
      2 * program.blocks.findIndex(({ name }) => name === block) + (kind === 'exit' ? 1 : 0);
    return levers.sort((a, b) => place(a) - place(b));
  } finally {
    evaluator.release();
  }
}

function answersOf(outcomes: readonly Outcome[]): number[] {
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
interface Judged {
  readonly items: readonly CalibrationItem[];
  readonly answers: readonly number[];
}

interface Measured {
  /** Whether each item broke the rule. */
  readonly broken: readonly boolean[];
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
  readonly exits: Readonly<Record<string, number>>;
  readonly skips: Readonly<Record<string, number>>;
}

/** Runs settings as they will be run, guards included, and counts what breaks the rule. */
class Judge {
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

function count(flags: readonly boolean[]): number {
  return flags.filter(Boolean).length;
}

function byClass(
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

/** SHA-256 over the sorted hashes: the same for the same set of items, however named and ordered. */
function fingerprint(items: readonly CalibrationItem[]): string {
  const hash = createHash('sha256');
  for (const sha256 of items.map((item) => item.sha256).sort()) hash.update(sha256);
  return hash.digest('hex');
}
