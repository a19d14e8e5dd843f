/** The rate at which promises are broken over repeated calibrations. */
import { certifyEach, rulesOf, worstPValueOf } from 'lib/calibrate/certify/certify.js';
import type { Grouping, Rule } from 'lib/calibrate/certify/groups.js';
import { itemsNeeded } from 'lib/calibrate/certify/p-values.js';
import { parseOptions } from 'lib/calibrate/options.js';
import { uniform } from '../../helpers/random.js';

const NONE: Grouping = { tested: [], tooSmall: [] };

/** The binomial interval of `delta` over the repetitions: three standard errors. */
const atMost = (delta: number, repetitions: number) =>
  delta + 3 * Math.sqrt((delta * (1 - delta)) / repetitions);

/** How often, in 2,000 calibrations on fresh items, the setting that was chosen broke some part of its promise. */
function simulate(
  rule: Rule,
  groups: number,
  size: number,
  /** True mean loss of a setting in a group. */
  risk: (setting: number, group: number) => number,
  /** Loss of an item, given the mean loss and the item's own uniform number. */
  draw: (risk: number, u: number) => number,
): { broken: number; promised: number } {
  const [settings, repetitions] = [6, 2000];
  const risks = Array.from({ length: settings }, (_, s) =>
    Array.from({ length: groups }, (_, g) => risk(s, g)),
  );
  const random = uniform(Math.round(1e6 * rule.limit));
  const total = (row: readonly number[]) => row.reduce((a, b) => a + b, 0);
  let [broken, promised] = [0, 0];
  for (let repetition = 0; repetition < repetitions; repetition++) {
    // One number for each item: settings are tested on the same ones.
    const items = Array.from({ length: groups }, () => new Float64Array(size).map(random));
    const passes = (row: readonly number[]) => {
      const parts = items.map((own, g) => [...own.map((u) => draw(row[g]!, u))]);
      return worstPValueOf(parts.flat(), parts, rule) <= rule.delta;
    };
    const failure = risks.findIndex((row) => !passes(row));
    const chosen = failure < 0 ? settings - 1 : failure - 1;
    if (chosen < 0) continue;
    promised++;
    const truth = risks[chosen]!;
    if (total(truth) / groups > rule.limit || truth.some((r) => r > rule.groupLimit)) broken++;
  }
  return { broken: broken / repetitions, promised: promised / repetitions };
}

test.each([0.005, 0.01, 0.02])(
  'a promise for groups is broken in at most delta of 2,000 repetitions, epsilon = %d',
  (epsilon) => {
    const rule: Rule = { metric: 'disagreement', limit: epsilon, groupLimit: epsilon, delta: 0.05 };
    // Setting by setting the second group comes first to its limit, as every group does in the end.
    const risk = (setting: number, group: number) => (epsilon * setting * (group === 1 ? 1.2 : 0.6)) / 4;
    const size = 2 * itemsNeeded(epsilon, 0.05);
    const { broken, promised } = simulate(rule, 2, size, risk, (p, u) => (u < p ? 1 : 0));
    expect(broken).toBeLessThanOrEqual(atMost(0.05, 2000));
    expect(promised).toBeGreaterThan(0.5);
  },
);

test('ten groups tested at the full level break a promise in at most delta of 2,000 repetitions', () => {
  const rule: Rule = { metric: 'disagreement', limit: 0.02, groupLimit: 0.02, delta: 0.05 };
  // The worst case of an intersection-union test: from the fourth setting on, one group alone is just above its limit.
  const risk = (setting: number, group: number) => (group === 0 && setting > 2 ? 0.0201 : 0.0005 * setting);
  const { broken, promised } = simulate(rule, 10, 400, risk, (p, u) => (u < p ? 1 : 0));
  expect(broken).toBeLessThanOrEqual(atMost(0.05, 2000));
  // As near to the level as counts allow: P(Bin(400, 0.0201) <= 3) = 0.041.
  expect(broken).toBeGreaterThan(0.02);
  expect(promised).toBeGreaterThan(0.9);
});

test.each<[Rule['metric'], number]>([
  ['probability', 0.01],
  ['probability', 0.02],
  ['cosine', 0.05],
  ['relative', 0.05],
  ['recall@10', 0.02],
  ['missed@0.5', 0.02],
  ['excess@0.1', 0.03],
  ['pixels', 0.05],
  ['boxes@0.5', 0.05],
])(
  'a promise on a bounded loss, %s, is broken in at most delta of 2,000 repetitions, epsilon = %d',
  (metric, epsilon) => {
    const rule: Rule = { metric, limit: epsilon, groupLimit: epsilon, delta: 0.05 };
    // From the third setting on, the risk is just above the limit: the worst case.
    const risk = (setting: number) => (setting < 2 ? 0.25 : 1.001) * epsilon;
    const draws: Record<string, (p: number, u: number) => number> = {
      // A tenth of the items has all of the loss, evenly spread.
      probability: (p, u) => (u < 0.1 ? 10 * u * 20 * p : 0),
      // Two in a hundred vectors are turned round, most are not moved: the largest variance.
      cosine: (p, u) => (u < p / 2 ? 2 : 0),
      // All losses are alike.
      relative: (p, u) => (0.5 + u) * p,
      // A count.
      'missed@0.5': (p, u) => (u < p ? 1 : 0),
      // Hardly any item is beyond the tolerance, but far: the largest variance of a bounded loss.
      'excess@0.1': (p, u) => (u < p ? 1 : 0),
      // In half of the images nothing changes.
      pixels: (p, u) => (u < 0.5 ? 0 : 4 * (u - 0.5) * 2 * p),
      // One box of a few, in some images.
      'boxes@0.5': (p, u) => (u < 5 * p ? (u < 2.5 * p ? 0.1 : 0.3) : 0),
      // A neighbour or two of ten.
      'recall@10': (p, u) => (u < 4 * p ? (u < p * 2 ? 0.2 : 0.3) : 0),
    };
    const { broken, promised } = simulate(rule, 1, 600, risk, draws[metric]!);
    expect(broken).toBeLessThanOrEqual(atMost(0.05, 2000));
    expect(promised).toBeGreaterThan(0.5);
  },
);

describe('several limits at once', () => {
  const LIMITS = [0.005, 0.01, 0.02, 0.05];
  const ruleFor = (limit: number, delta: number): Rule => ({
    ...{ metric: 'disagreement', limit, groupLimit: limit, delta },
  });

  /** How often any of the promises is broken where, beyond each limit, the next setting's risk is just above it. */
  function broken(delta: number, repetitions: number): number {
    const [items, risks] = [2000, [0.001, ...LIMITS.map((limit) => limit * 1.001)]];
    const random = uniform(7);
    const limits = LIMITS.map((limit) => ({ rule: ruleFor(limit, delta), grouping: NONE }));
    let count = 0;
    for (let repetition = 0; repetition < repetitions; repetition++) {
      // Losses of settings are independent here: the worst case of a union bound.
      const drawn = risks.map((risk) => Array.from({ length: items }, () => (random() < risk ? 1 : 0)));
      const certified = certifyEach(drawn, limits);
      if (certified.some(({ rule, chosen }) => chosen >= 0 && risks[chosen]! > rule.limit)) count++;
    }
    return count / repetitions;
  }

  test('all promises hold together in at least the confidence of 1,000 repetitions', () => {
    const [rule] = rulesOf(parseOptions({ limits: LIMITS }));
    expect(rule.delta).toBeCloseTo(0.05 / 4, 12);
    const share = broken(rule.delta, 1000);
    expect(share).toBeLessThanOrEqual(atMost(0.05, 1000));
    // Not by being idle, and not where each limit is tested at the full level.
    expect(share).toBeGreaterThan(0.01);
    expect(broken(0.05, 300)).toBeGreaterThan(atMost(0.05, 300));
  });
});
