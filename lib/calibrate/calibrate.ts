/**
 * Calibration of a frozen network: fits heads, orders settings from "no skipping" to the most aggressive, and
 * certifies the furthest one that keeps its promise. See docs/calibration.md.
 */
import type { Backend } from '../backends/backend.js';
import type { Program } from '../model/program.js';
import type { Heads } from '../skip/attach.js';
import { resolveGuards } from '../skip/guards.js';
import { encodeHeads } from '../skip/heads.js';
import { type Budget, budgetOf } from './budget.js';
import type { Calibration, CalibrationItem, CalibrationOptions, SettingResult } from './calibration.js';
import { boundOf, certificateOf, promiseOf, trivialCertificate } from './certify.js';
import { checkProgram, distinctItems, ruleOf } from './checks.js';
import { Dial, headsOf, moreCareful, prices } from './dial.js';
import { byClass, contributionsOf, examplesOf } from './examine.js';
import { fitLevers, fittingWork } from './fit.js';
import { checkGroups, className, groupsOf } from './groups.js';
import { Judge, type Judged, type Measured } from './judge.js';
import { latencyReduction, Stopwatch } from './latency.js';
import { fixedSequenceTest } from './risk.js';
import { checkParts, fingerprint, type Part, split } from './split.js';

const SETTINGS = 64;
const COPIES = 15;
/** Timing of every setting that was tested, and of the one that was chosen. */
const QUICK = { items: 50, milliseconds: 500 };
const THOROUGH = { items: 400, milliseconds: 4000 };

/**
 * @param program of the model at the shape of the items, one float32 input and one float32 output [N, classes]
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (too little data, NaN logits, labels missing),
 * UNSUPPORTED_MODEL (nothing to skip)
 */
export async function calibrate(
  backend: Backend,
  program: Program,
  sha256: string,
  given: readonly CalibrationItem[],
  options: CalibrationOptions = {},
): Promise<Calibration> {
  const { seed = 0, copies = COPIES, labels } = options;
  const rule = ruleOf(options);
  checkProgram(program);
  const guards = resolveGuards(options.guards ?? [], labels);
  const items = distinctItems(given, program, options);
  const parts = split(items, seed);
  const unlimited = options.budget !== undefined || options.budgetMs !== undefined;
  checkParts(parts, rule, unlimited);

  const chosenFrom = [...parts.fit, ...parts.order];
  const steps = options.settings ?? SETTINGS;
  const total =
    fittingWork(program, chosenFrom.length, copies) +
    parts.order.length * (1 + steps) +
    parts.certify.length * (1 + steps);
  let done = 0;
  const onItems = (count: number) => {
    done += count;
    options.onProgress?.(Math.min(done, total), total);
  };

  const judge = new Judge(backend, program, guards, rule.metric, onItems);
  const take = (part: Part) => parts[part].map((i) => items[i]!);
  // Of the items that certify, nothing but the sizes of groups matters before settings are tested.
  const certify = await judge.full(take('certify'));
  const labelled = items.every(({ label }) => label !== undefined);
  const classes = certify.answers.map((answer, i) => (labelled ? certify.items[i]!.label! : answer));
  const grouping = checkGroups(groupsOf(certify.items, classes, options), rule.groupLimit, rule.delta);

  const levers = await fitLevers(
    backend,
    program,
    chosenFrom.map((i) => items[i]!),
    { seed, copies },
    (index) => className(index, labels),
    onItems,
  );
  const dial = settingsOf(new Dial(levers), steps);
  const order = await judge.full(take('order'));
  const stopwatch = new Stopwatch(backend, program, guards);
  try {
    const budget = budgetOf(
      options,
      stopwatch,
      order.items.map(({ input }) => input),
    );
    const worth = await worthTesting(dial, judge, order, unlimited ? 1 : 2 * rule.limit, budget);
    const results: Measured[] = [];
    for (const { heads } of worth) results.push(await judge.measure(heads, certify));
    const inputs = certify.items.map(({ input }) => input);
    const settings = results.map(
      ({ byItem, profiles: _, ...rest }, i): SettingResult => ({
        price: worth[i]!.price,
        ...rest,
        ...certificateOf(byItem.losses, rule, grouping),
        latency: stopwatch.time(worth[i]!.heads, inputs, QUICK),
      }),
    );
    // A budget has chosen before `certify` was seen: what that one setting's risk is at most is what is promised.
    const worst = settings.map(({ worstPValue }) => worstPValue);
    const chosen = budget ? settings.length - 1 : fixedSequenceTest(worst, rule.delta);
    const [setting, result] = [worth[chosen], results[chosen]];
    const certificate =
      chosen < 0
        ? trivialCertificate(certify.items.length, rule, grouping)
        : budget
          ? boundOf(result!.byItem.losses, rule)
          : settings[chosen]!;
    const latency = setting && stopwatch.time(setting.heads, inputs, THOROUGH);
    options.onProgress?.(total, total);
    return {
      policy: {
        version: 1,
        model: { sha256 },
        blocks: {},
        ...(setting && { heads: encodeHeads(setting.heads) }),
        ...(options.guards && { guards: [...options.guards] }),
        ...(labels && { labels: [...labels] }),
        promise: promiseOf(certificate, rule, {
          sha256: fingerprint(items),
          seed,
          fit: parts.fit.length,
          order: parts.order.length,
          certify: parts.certify.length,
        }),
        expected: {
          multiplyAddsSkipped: result?.multiplyAddsSkipped ?? 0,
          blocksSkipped: result?.blocksSkipped ?? 0,
          latencyReduction: latency ? latencyReduction(latency) : 0,
          ...(latency && { latency }),
          ...(result && { scores: result.profiles.gate, exits: result.profiles.exit }),
        },
      },
      settings,
      chosen,
      contributions: contributionsOf(program, setting?.heads, result),
      classes: byClass(classes, result, labels),
      examples: examplesOf(certify, result, labels),
      duplicates: given.length - items.length,
    };
  } finally {
    stopwatch.release();
  }
}

/** A setting of the dial. */
interface Setting {
  readonly price: number;
  readonly heads: Heads;
}

/**
 * Shares of what the dearest price skips, tested before it: where the fitting items show no changed answer, no price is
 * dear enough to be careful, and a sequence that fails at its first setting promises nothing.
 */
const CAREFUL_SHARES = [1 / 16, 1 / 8, 1 / 4, 1 / 2];

/** The settings that skip anything, from careful to bold; those that set the same thresholds as the one before are left out. */
function settingsOf(dial: Dial, steps: number): Setting[] {
  const priced = prices(steps)
    .map((price) => ({ price, pulled: dial.at(price) }))
    .filter(({ pulled }) => pulled.length > 0);
  const careful = priced
    .slice(0, 1)
    .flatMap(({ price, pulled }) =>
      CAREFUL_SHARES.map((share) => ({ price: price / share, pulled: moreCareful(pulled, share) })),
    );
  const settings: Setting[] = [];
  let before = '';
  for (const { price, pulled } of [...careful, ...priced]) {
    const thresholds = JSON.stringify(
      pulled.map(({ lever, threshold }) => [lever.kind, lever.block, threshold]),
    );
    if (thresholds !== before) settings.push({ price, heads: headsOf(pulled) });
    before = thresholds;
  }
  return settings;
}

/**
 * The settings to test, in the dial's order: up to the first that breaks the rule on `order`, which is not worth testing,
 * or that keeps within the budget.
 * @throws ResidualSkipError INVALID_ARGUMENT when none keeps within the budget
 */
async function worthTesting(
  dial: readonly Setting[],
  judge: Judge,
  order: Judged,
  limit: number,
  budget: Budget | undefined,
): Promise<Setting[]> {
  const worth: Setting[] = [];
  let spent = Number.POSITIVE_INFINITY;
  for (const setting of dial) {
    const measured = await judge.measure(setting.heads, order);
    if (measured.risk > limit) break;
    worth.push(setting);
    if (budget) spent = budget.spent(setting.heads, measured);
    if (budget && spent <= budget.most) return worth;
  }
  if (budget) throw budget.outOfReach(spent);
  return worth;
}
