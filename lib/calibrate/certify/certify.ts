/**
 * Certifies settings on items that were used for no choice. Settings are tested in a fixed sequence, by the p-value
 * of their worst part. The next one is tested only if all parts of the previous one hold, so the family-wise error
 * stays at delta. A setting passes only if all items together and every group pass. That is an intersection-union
 * test (Berger 1982): each part is tested at the full level, however many there are.
 */
import { isCounted, maxLoss, type Tested, type TestedGroup } from '../../skip/promise.js';
import type { ParsedOptions } from '../options.js';
import type { Group, Grouping, Rule } from './groups.js';
import { bettingPValue, binomialPValue, fixedSequenceTest, upperMean, upperRate } from './p-values.js';

export interface Certificate extends Tested {
  readonly groups: readonly TestedGroup[];
  /** The largest of all p-values, which belongs to "some part of the promise is wrong". */
  readonly worstPValue: number;
}

/**
 * What to promise for each limit, the lowest first. Each of several limits is tested at an equal share of the error
 * that `confidence` leaves, so by Bonferroni's inequality all promises hold together with that confidence.
 */
export function rulesOf({
  limits,
  maxGroupDisagreement,
  metric,
  confidence,
}: Pick<ParsedOptions, 'limits' | 'maxGroupDisagreement' | 'metric' | 'confidence'>): readonly [
  Rule,
  ...Rule[],
] {
  const [lowest, ...higher] = [...new Set(limits)].sort((a, b) => a - b) as [number, ...number[]];
  const promises = 1 + higher.length;
  const ruleOf = (limit: number): Rule => ({
    ...{ metric, limit },
    groupLimit: maxGroupDisagreement ?? limit,
    delta: (1 - confidence) / promises,
    ...(promises > 1 && { joint: { promises, confidence } }),
  });
  return [ruleOf(lowest), ...higher.map(ruleOf)];
}

/** P-value of "the expected loss is above the limit", for losses in [0, maxLoss(metric)]. */
function pValueOf(losses: readonly number[], { metric, delta }: Rule, limit: number): number {
  if (isCounted(metric)) return binomialPValue(eventsOf(losses), losses.length, limit);
  const max = maxLoss(metric);
  return bettingPValue(scaled(losses, max), limit / max, delta);
}

const eventsOf = (losses: readonly number[]) => losses.filter((loss) => loss > 0).length;
const scaled = (losses: readonly number[], max: number) =>
  max === 1 ? losses : losses.map((loss) => loss / max);

function upperBoundOf(losses: readonly number[], { metric, delta }: Rule): number {
  if (isCounted(metric)) return upperRate(eventsOf(losses), losses.length, delta);
  const max = maxLoss(metric);
  return max * upperMean(scaled(losses, max), delta);
}

function test(losses: readonly number[], rule: Rule, limit: number): Tested {
  const items = losses.length;
  return {
    ...{ limit, items, events: eventsOf(losses) },
    risk: losses.reduce((a, b) => a + b, 0) / Math.max(1, items),
    pValue: pValueOf(losses, rule, limit),
    upperBound: upperBoundOf(losses, rule),
  };
}

/**
 * P-value of "some part of the promise is wrong": the largest of those of all items together and of each tested
 * group.
 * @param all losses of the items, and `groups` those of each group
 */
export function worstPValueOf(
  all: readonly number[],
  groups: readonly (readonly number[])[],
  rule: Rule,
): number {
  return Math.max(
    pValueOf(all, rule, rule.limit),
    ...groups.map((group) => pValueOf(group, rule, rule.groupLimit)),
  );
}

/** The test of one setting, by its losses. */
export function certificateOf(
  losses: readonly number[],
  rule: Rule,
  { tested, tooSmall }: Grouping,
): Certificate {
  const ofGroup = ({ members }: Group) => members.map((i) => losses[i]!);
  const evaluated = (groups: readonly Group[], promised: boolean) =>
    groups.map((group) => {
      const { kind, name } = group;
      return { kind, name, promised, ...test(ofGroup(group), rule, rule.groupLimit) };
    });
  return {
    ...test(losses, rule, rule.limit),
    worstPValue: worstPValueOf(losses, tested.map(ofGroup), rule),
    groups: [...evaluated(tested, true), ...evaluated(tooSmall, false)],
  };
}

/** The result of testing one limit. */
export interface Certified {
  readonly rule: Rule;
  readonly grouping: Grouping;
  /** Index of the last setting that passed; -1 for none. */
  readonly chosen: number;
}

/**
 * Tests each limit in a fixed sequence of its own, at the limit's own level.
 * @param losses of each setting, in the order of testing
 * @returns results by limit. Limits that certify nothing, or only the setting of a lower limit, are left out unless
 * no others remain
 */
export function certifyEach(
  losses: readonly (readonly number[])[],
  limits: readonly { readonly rule: Rule; readonly grouping: Grouping }[],
): readonly [Certified, ...Certified[]] {
  const all = limits.map(({ rule, grouping }): Certified => {
    const worst = losses.map((own) =>
      worstPValueOf(
        own,
        grouping.tested.map(({ members }) => members.map((i) => own[i]!)),
        rule,
      ),
    );
    return { rule, grouping, chosen: fixedSequenceTest(worst, rule.delta) };
  });
  const bolder = all.filter(({ chosen }, i) => chosen > (all[i - 1]?.chosen ?? -1));
  return (bolder.length > 0 ? bolder : all.slice(0, 1)) as [Certified, ...Certified[]];
}

/**
 * The certificate of what a limit allows: of its last setting that passed, or of skipping nothing, whose answers are the full
 * network's own.
 * @param losses of each setting, for `items` items
 */
export function certificateFor(
  { rule, grouping, chosen }: Certified,
  losses: readonly (readonly number[])[],
  items: number,
): Certificate {
  if (chosen >= 0) return certificateOf(losses[chosen]!, rule, grouping);
  const none = { items, events: 0, risk: 0, pValue: 0, upperBound: 0 };
  const promised = ({ kind, name, members }: Group) => ({
    ...{ kind, name, promised: true, limit: rule.groupLimit },
    ...{ ...none, items: members.length },
  });
  const groups = [...grouping.tested, ...grouping.tooSmall].map(promised);
  return { limit: rule.limit, ...none, worstPValue: 0, groups };
}

/** The promise for a setting that was chosen without the items of `losses`: the upper bound of its risk. */
export function boundOf(losses: readonly number[], rule: Rule): Certificate {
  const tested = test(losses, rule, upperBoundOf(losses, rule));
  return { ...tested, worstPValue: tested.pValue, groups: [] };
}
