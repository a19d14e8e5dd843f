/**
 * Certifies settings on items that were used for no choice. Settings are tested in a fixed sequence, by the p-value
 * of their worst part. The next one is tested only if all parts of the previous one hold, so the family-wise error
 * stays at delta. A setting passes only if all items together and every group pass. That is an intersection-union
 * test (Berger 1982): each part is tested at the full level, however many there are.
 */
import { isCounted, maxLoss, type Tested, type TestedGroup } from '../../skip/promise.js';
import type { ParsedOptions } from '../options.js';
import type { Choice } from '../run/items.js';
import type { Group, Grouping, Rule } from './groups.js';
import {
  binomialPValue,
  boundedPValue,
  type Changes,
  canSetOff,
  fixedSequenceTest,
  netPValue,
  upperMean,
  upperNet,
  upperRate,
} from './p-values.js';

export interface Certificate extends Tested {
  readonly groups: readonly TestedGroup[];
  /** The largest of all p-values, which belongs to "some part of the promise is wrong". */
  readonly worstPValue: number;
}

/**
 * What to promise for each limit, the lowest first. Each of several limits is tested at an equal share of the error
 * that `confidence` leaves, so by Bonferroni's inequality all promises hold together with that confidence. So is each of several
 * ladders, and whichever of those that pass is taken, its promise holds with that confidence.
 */
export function rulesOf({
  limits,
  maxGroupDisagreement,
  metric,
  confidence,
  choice,
}: Pick<ParsedOptions, 'limits' | 'maxGroupDisagreement' | 'metric' | 'confidence'> & {
  readonly choice?: Pick<Choice, 'ladders'> | undefined;
}): readonly [Rule, ...Rule[]] {
  const [lowest, ...higher] = [...new Set(limits)].sort((a, b) => a - b) as [number, ...number[]];
  const promises = 1 + higher.length;
  const ladders = choice?.ladders ?? 1;
  const ruleOf = (limit: number): Rule => ({
    ...{ metric, limit },
    groupLimit: maxGroupDisagreement ?? limit,
    delta: (1 - confidence) / promises / ladders,
    ...(promises > 1 && { joint: { promises, confidence } }),
    ...(ladders > 1 && { ladders }),
  });
  return [ruleOf(lowest), ...higher.map(ruleOf)];
}

/**
 * Whether answers gained are set off against those lost. With too few items for that test, losses alone are tested, which bound the
 * net loss as well. Nothing but the number of items decides.
 */
function setsOff({ metric, delta }: Rule, items: number, limit: number): boolean {
  return metric === 'accuracy' && canSetOff(items, limit, delta);
}

/** P-value of "the expected loss is above the limit", for losses in [0, maxLoss(metric)], or -1 for an answer gained. */
function pValueOf(losses: readonly number[], rule: Rule, limit: number, decides = limit): number {
  const { metric, delta } = rule;
  if (setsOff(rule, losses.length, decides)) return netPValue(changesOf(losses), limit, delta);
  if (isCounted(metric)) return binomialPValue(eventsOf(losses), losses.length, limit);
  const max = maxLoss(metric);
  return boundedPValue(scaled(losses, max), limit / max, delta);
}

const eventsOf = (losses: readonly number[]) => losses.filter((loss) => loss > 0).length;
const gainedOf = (losses: readonly number[]) => losses.filter((loss) => loss < 0).length;
const changesOf = (losses: readonly number[]): Changes => ({
  ...{ lost: eventsOf(losses), gained: gainedOf(losses), items: losses.length },
});
const scaled = (losses: readonly number[], max: number) =>
  max === 1 ? losses : losses.map((loss) => loss / max);

function upperBoundOf(losses: readonly number[], rule: Rule, decides: number): number {
  const { metric, delta } = rule;
  if (setsOff(rule, losses.length, decides)) return upperNet(changesOf(losses), delta);
  if (isCounted(metric)) return upperRate(eventsOf(losses), losses.length, delta);
  const max = maxLoss(metric);
  return max * upperMean(scaled(losses, max), delta);
}

/** @param decides the limit that decides whether gained answers are set off; no result may decide it */
function test(losses: readonly number[], rule: Rule, limit: number, decides = limit): Tested {
  const items = losses.length;
  const net = setsOff(rule, items, decides);
  const total = losses.reduce((sum, loss) => sum + (net ? loss : Math.max(0, loss)), 0);
  return {
    ...{ limit, items, events: eventsOf(losses), ...(net && { gained: gainedOf(losses) }) },
    risk: total / Math.max(1, items),
    pValue: pValueOf(losses, rule, limit, decides),
    upperBound: upperBoundOf(losses, rule, decides),
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

/**
 * The rules of the limits by other metrics, which hold together with the first: a setting passes only if it passes all tests, as for groups,
 * so each is tested at the full level.
 */
export function furtherRules({
  promises: [, ...others],
  maxGroupDisagreement,
  confidence,
}: Pick<ParsedOptions, 'promises' | 'maxGroupDisagreement' | 'confidence'>): readonly Rule[] {
  return others.map(({ metric, limit }) => ({
    ...{ metric, limit, groupLimit: maxGroupDisagreement ?? limit, delta: 1 - confidence },
  }));
}

/** A limit with the groups that it is for. */
export interface Ruled {
  readonly rule: Rule;
  readonly grouping: Grouping;
}

/** A limit by another metric, with the losses of each setting by that metric. */
export interface Further extends Ruled {
  readonly losses: readonly (readonly number[])[];
}

/** The result of testing one limit. */
export interface Certified extends Ruled {
  /** Index of the last setting that passed; -1 for none. */
  readonly chosen: number;
}

/**
 * Tests each limit in a fixed sequence of its own, at the limit's own level.
 * @param losses of each setting, in the order of testing
 * @param further what a setting has to pass as well
 * @returns results by limit. Limits that certify nothing, or only the setting of a lower limit, are left out unless
 * no others remain
 */
export function certifyEach(
  losses: readonly (readonly number[])[],
  limits: readonly Ruled[],
  further: readonly Further[] = [],
): readonly [Certified, ...Certified[]] {
  const worstOf = ({ rule, grouping }: Ruled, own: readonly number[]) =>
    worstPValueOf(
      own,
      grouping.tested.map(({ members }) => members.map((i) => own[i]!)),
      rule,
    );
  const all = limits.map(({ rule, grouping }): Certified => {
    const worst = losses.map((own, setting) =>
      Math.max(
        worstOf({ rule, grouping }, own),
        ...further.map((other) => worstOf(other, other.losses[setting]!)),
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
  { rule, grouping, chosen }: Ruled & Pick<Certified, 'chosen'>,
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
  const { limit } = rule;
  const tested = test(losses, rule, upperBoundOf(losses, rule, limit), limit);
  return { ...tested, worstPValue: tested.pValue, groups: [] };
}
