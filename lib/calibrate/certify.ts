/**
 * Certifies settings on items that chose nothing. Settings are tested in a fixed sequence, by the p-value of their worst
 * part; as the next one is tested only when all parts of the one before hold, the family-wise error stays at delta.
 * Across groups the p-values are adjusted by Holm's procedure.
 */
import type { Metric, Promised, Tested, TestedGroup } from '../skip/promise.js';
import type { Group, Grouping } from './groups.js';
import { binomialPValue, hoeffdingBentkusPValue, holmAdjusted, upperMean, upperRate } from './risk.js';

/** What is promised. */
export interface Rule {
  readonly metric: Metric;
  readonly limit: number;
  /** For every group. */
  readonly groupLimit: number;
  /** 1 - confidence. */
  readonly delta: number;
}

export interface Certificate extends Tested {
  readonly groups: readonly TestedGroup[];
  /** The largest of all p-values, those of groups adjusted: of "some part of the promise is wrong". */
  readonly worstPValue: number;
}

/** Losses of some items, summed up. */
export type Tally = Pick<Tested, 'items' | 'events' | 'risk'>;

/** @param losses of the items, in [0, 1]; 0 or 1 but for the metric `probability` */
function tallyOf(losses: readonly number[]): Tally {
  const items = losses.length;
  const events = losses.filter((loss) => loss > 0).length;
  return { items, events, risk: losses.reduce((a, b) => a + b, 0) / Math.max(1, items) };
}

/** Of "the expected loss is above the limit". */
function pValueOf({ items, events, risk }: Tally, metric: Metric, limit: number): number {
  return metric === 'probability'
    ? hoeffdingBentkusPValue(risk, items, limit)
    : binomialPValue(events, items, limit);
}

function test(tally: Tally, { metric, delta }: Rule, limit: number): Tested {
  const { items, events, risk } = tally;
  const upperBound =
    metric === 'probability' ? upperMean(risk, items, delta) : upperRate(events, items, delta);
  return { limit, ...tally, pValue: pValueOf(tally, metric, limit), upperBound };
}

/**
 * Of all items together, of each group (adjusted), and of "some part of the promise is wrong": the largest of them.
 * @param groups those that are tested
 */
export function pValuesOf(
  all: Tally,
  groups: readonly Tally[],
  { metric, limit, groupLimit }: Rule,
): { all: number; groups: number[]; worst: number } {
  const own = pValueOf(all, metric, limit);
  const adjusted = holmAdjusted(groups.map((group) => pValueOf(group, metric, groupLimit)));
  return { all: own, groups: adjusted, worst: Math.max(own, ...adjusted) };
}

/** One setting, judged by its losses. */
export function certificateOf(
  losses: readonly number[],
  rule: Rule,
  { tested, tooSmall }: Grouping,
): Certificate {
  const part = ({ members }: Group) => tallyOf(members.map((i) => losses[i]!));
  const [all, parts] = [tallyOf(losses), tested.map(part)];
  const pValues = pValuesOf(all, parts, rule);
  return {
    ...test(all, rule, rule.limit),
    worstPValue: pValues.worst,
    groups: [
      ...tested.map(({ kind, name }, i) => ({
        kind,
        name,
        promised: true,
        ...test(parts[i]!, rule, rule.groupLimit),
        pValue: pValues.groups[i]!,
      })),
      ...tooSmall.map((group) => ({
        kind: group.kind,
        name: group.name,
        promised: false,
        ...test(part(group), rule, rule.groupLimit),
      })),
    ],
  };
}

/** What holds when nothing is skipped: the answers are the full network's own. */
export function trivialCertificate(items: number, rule: Rule, { tested, tooSmall }: Grouping): Certificate {
  const none = { events: 0, risk: 0, pValue: 0, upperBound: 0 };
  return {
    limit: rule.limit,
    items,
    ...none,
    worstPValue: 0,
    groups: [...tested, ...tooSmall].map(({ kind, name, members }) => ({
      kind,
      name,
      promised: true,
      limit: rule.groupLimit,
      items: members.length,
      ...none,
    })),
  };
}

/** What a setting that was chosen without the items of `losses` can promise: the upper bound of its risk. */
export function boundOf(losses: readonly number[], rule: Rule): Certificate {
  const tally = tallyOf(losses);
  const tested = test(tally, rule, test(tally, rule, rule.limit).upperBound);
  return { ...tested, worstPValue: tested.pValue, groups: [] };
}

export function promiseOf(
  { groups, worstPValue: _, ...tested }: Certificate,
  { metric, delta }: Rule,
  data: Promised['data'],
): Promised {
  return {
    metric,
    confidence: 1 - delta,
    limit: tested.limit,
    items: tested.items,
    events: tested.events,
    risk: tested.risk,
    pValue: tested.pValue,
    upperBound: tested.upperBound,
    ...(groups.length > 0 && { groups: [...groups] }),
    data,
  };
}
