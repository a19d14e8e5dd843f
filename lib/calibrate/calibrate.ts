/**
 * Calibration of a frozen network: fits heads, orders settings from "no skipping" to the most aggressive, and
 * certifies the furthest one that keeps its promise. See docs/calibration.md.
 */
import type { Backend } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program.js';
import { resolveGuards } from '../skip/guards.js';
import { encodeHeads } from '../skip/heads.js';
import type { Calibration, CalibrationItem, CalibrationOptions, SettingResult } from './calibration.js';
import { boundOf, certificateOf, promiseOf, trivialCertificate } from './certify.js';
import { checkProgram, distinctItems, ruleOf } from './checks.js';
import { headsOf, prices, settingsAt } from './dial.js';
import { byClass, examplesOf } from './examine.js';
import { fitLevers } from './fit.js';
import { checkGroups, className, groupsOf } from './groups.js';
import { Judge, type Measured } from './judge.js';
import { fixedSequenceTest } from './risk.js';
import { checkParts, fingerprint, split } from './split.js';

const SETTINGS = 24;

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
  const { seed = 0, budget, labels } = options;
  const rule = ruleOf(options);
  checkProgram(program);
  const guards = resolveGuards(options.guards ?? [], labels);
  const items = distinctItems(given, program, options);
  const parts = split(items, seed);
  checkParts(parts, rule, budget !== undefined);

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
    (index) => className(index, labels),
    onItems,
  );
  const dial = prices(steps).map((price) => ({
    price,
    heads: headsOf(settingsAt(levers, chosenFrom.length, price)),
  }));
  const judge = new Judge(backend, program, guards, rule.metric, onItems);
  const order = await judge.full(parts.order.map((i) => items[i]!));
  // Settings that already break the rule on `order` are not worth testing; the order of the rest stands.
  const limit = budget === undefined ? 2 * rule.limit : 1;
  const worth: typeof dial = [];
  let spent = 1;
  for (const setting of dial) {
    if (setting.heads.exits.length + setting.heads.gates.length === 0) continue;
    const { risk, multiplyAddsSkipped } = await judge.measure(setting.heads, order);
    if (risk > limit) break;
    worth.push(setting);
    spent = 1 - multiplyAddsSkipped;
    if (budget !== undefined && spent <= budget) break;
  }
  if (budget !== undefined && spent > budget) throw outOfReach(budget, spent);

  const certify = await judge.full(parts.certify.map((i) => items[i]!));
  const classes = certify.answers.map((answer, i) =>
    items.every(({ label }) => label !== undefined) ? certify.items[i]!.label! : answer,
  );
  const grouping = checkGroups(groupsOf(certify.items, classes, options), rule.groupLimit, rule.delta);
  const results: Measured[] = [];
  for (const { heads } of worth) results.push(await judge.measure(heads, certify));
  const settings = results.map(
    ({ byItem, ...rest }, i): SettingResult => ({
      price: worth[i]!.price,
      ...rest,
      ...certificateOf(byItem.losses, rule, grouping),
    }),
  );
  // A budget has chosen before `certify` was seen: what that one setting's risk is at most is what is promised.
  const chosen =
    budget === undefined
      ? fixedSequenceTest(
          settings.map(({ worstPValue }) => worstPValue),
          rule.delta,
        )
      : settings.length - 1;
  const certificate =
    chosen < 0
      ? trivialCertificate(certify.items.length, rule, grouping)
      : budget === undefined
        ? settings[chosen]!
        : boundOf(results[chosen]!.byItem.losses, rule);
  options.onProgress?.(total, total);
  const result = results[chosen];
  return {
    policy: {
      version: 1,
      model: { sha256 },
      blocks: {},
      ...(chosen >= 0 && { heads: encodeHeads(worth[chosen]!.heads) }),
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
        latencyReduction: null,
      },
    },
    settings,
    chosen,
    classes: byClass(classes, result, labels),
    examples: examplesOf(certify, result, labels),
    duplicates: given.length - items.length,
  };
}

function outOfReach(budget: number, spent: number): ResidualSkipError {
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    `budget: no setting spends at most ${budget} of the multiply-adds; the boldest one spends ${spent.toFixed(3)}`,
  );
}
