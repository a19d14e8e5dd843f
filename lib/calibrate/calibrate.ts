/**
 * Calibration of a frozen network: fits heads, orders settings from "no skipping" to the most aggressive, and
 * certifies the furthest one that keeps its promise. See docs/calibration.md.
 */
import type { Backend } from '../backends/backend.js';
import type { Program } from '../model/program.js';
import { resolveGuards } from '../skip/guards.js';
import { encodeHeads } from '../skip/heads.js';
import { budgetOf } from './budget.js';
import type { Calibration, CalibrationItem, CalibrationOptions, SettingResult } from './calibration.js';
import { boundOf, certificateOf, promiseOf, trivialCertificate } from './certify.js';
import { checkProgram, distinctItems, ruleOf } from './checks.js';
import { byClass, contributionsOf, examplesOf } from './examine.js';
import { fitLevers, fittingWork } from './fit.js';
import { checkGroups, className, groupsOf } from './groups.js';
import { Judge, type Measured } from './judge.js';
import { latencyReduction, Stopwatch } from './latency.js';
import { fixedSequenceTest } from './risk.js';
import { bestSettings, settingsTried, worthTesting } from './settings.js';
import { checkParts, fingerprint, type Part, split } from './split.js';

const SETTINGS = 96;
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
    parts.order.length * (1 + settingsTried(steps)) +
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
    { order: parts.fit.length, seed, copies },
    (index) => className(index, labels),
    onItems,
  );
  const order = await judge.full(take('order'));
  const settings = await bestSettings(levers, judge, order, rule.limit, steps);
  const stopwatch = new Stopwatch(backend, program, guards);
  try {
    const budget = budgetOf(
      options,
      stopwatch,
      order.items.map(({ input }) => input),
    );
    const worth = await worthTesting(settings, judge, order, unlimited ? 1 : 2 * rule.limit, budget);
    const results: Measured[] = [];
    for (const { heads } of worth) results.push(await judge.measure(heads, certify));
    const inputs = certify.items.map(({ input }) => input);
    const tested = results.map(
      ({ byItem, profiles: _, ...rest }, i): SettingResult => ({
        price: worth[i]!.price,
        ...rest,
        ...certificateOf(byItem.losses, rule, grouping),
        latency: stopwatch.time(worth[i]!.heads, inputs, QUICK),
      }),
    );
    // A budget has chosen before `certify` was seen: what that one setting's risk is at most is what is promised.
    const worst = tested.map(({ worstPValue }) => worstPValue);
    const chosen = budget ? tested.length - 1 : fixedSequenceTest(worst, rule.delta);
    const [setting, result] = [worth[chosen], results[chosen]];
    const certificate =
      chosen < 0
        ? trivialCertificate(certify.items.length, rule, grouping)
        : budget
          ? boundOf(result!.byItem.losses, rule)
          : tested[chosen]!;
    const latency = setting && stopwatch.time(setting.heads, inputs, THOROUGH);
    options.onProgress?.(total, total);
    return {
      policy: {
        version: 1,
        model: { sha256 },
        blocks: {},
        // Without heads a policy would leave the model its own exits, which nothing has certified.
        ...((setting || program.exits) && { heads: encodeHeads(setting?.heads ?? { exits: [], gates: [] }) }),
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
      settings: tested,
      chosen,
      contributions: contributionsOf(program, setting?.heads, result),
      classes: byClass(classes, result, labels),
      examples: examplesOf(certify, result, labels),
      certifiedOn: certify.items.map((item) => item.sha256),
      duplicates: given.length - items.length,
    };
  } finally {
    stopwatch.release();
  }
}
