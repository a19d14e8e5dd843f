// The claims about the protocol's networks, and whether the measurements support them.

import { bootstrapOf, cutOf } from '../../bench/intervals.mjs';
import { SETS } from '../../bench/networks.mjs';
import { mean } from '../../dist/numeric/statistics.js';
import { OURS, PLAIN_INT8 } from './ladders.mjs';

/** What ladders of networks with exits must cut off the twin's mean latency. */
const CUTS = {
  [OURS.float]: { cifar10: 0.6, 'fashion-mnist': 0.72, imagenette: 0.5 },
  [OURS.int8]: { cifar10: 0.82, 'fashion-mnist': 0.88, imagenette: 0.72 },
};

/** Minimum accuracy of the plain twin, averaged over seeds. */
const STRONG = { cifar10: 0.93, 'fashion-mnist': 0.935, imagenette: 0.9 };

const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const signed = (value) => `${value < 0 ? '' : '+'}${value.toFixed(2)}`;
const points = ({ value, ci95: [low, high] }) =>
  `${signed(100 * value)} (${signed(100 * low)} to ${signed(100 * high)}) points`;
const share = ({ value, ci95: [low, high] }, digits = 1) =>
  `${percent(value, digits)} (${percent(low, digits)} to ${percent(high, digits)})`;

/** A claim that something is at least `least` holds when all of its 95 % interval is. */
const shown = ({ ci95: [low] }, least) => low >= least - 1e-12;

export const ofRole = ({ networks }, role) => networks.filter((network) => network.role === role);
export const familyOf = ({ networks }) =>
  [...new Set(networks.map(({ role }) => role))].filter((role) => role !== 'gated');
export const averaged = (runs, key) => mean(runs.map((run) => run[key]));

/** Mean multiply-adds of the gated network, including its exits. */
export const gatedWork = (gated) => mean(gated.map(({ multiplyAdds, saved }) => multiplyAdds * (1 - saved)));

/** Mean latency of the report's network in this role, in milliseconds. */
export function latencyOfRole({ dataset, latencyMs }, role, limits) {
  return latencyMs[role === 'gated' ? `limit ${limits[dataset][0]}` : role];
}

/**
 * Accuracy of the plain networks at a given cost: linear interpolation between the two nearest costs; outside their range,
 * that of the cheapest or the most expensive network. A network doesn't count if one that costs no more is more accurate.
 */
function staticAt(points, cost) {
  const beats = (other, point) => other.cost <= point.cost && other.accuracy > point.accuracy;
  const best = points.filter((point) => !points.some((other) => beats(other, point)));
  const sorted = best.toSorted((a, b) => a.cost - b.cost);
  const above = sorted.findIndex((point) => point.cost >= cost);
  if (above < 0) return sorted.at(-1).accuracy;
  if (above === 0) return sorted[0].accuracy;
  const [low, high] = [sorted[above - 1], sorted[above]];
  return low.accuracy + ((high.accuracy - low.accuracy) * (cost - low.cost)) / (high.cost - low.cost);
}

/** The plain network with the least cost of at least `cost`: it has no less to spend. If none has, the one with the most. */
function nearestAbove(points, cost) {
  const enough = points.filter((point) => point.cost >= cost);
  return enough.length > 0
    ? enough.reduce((a, b) => (b.cost < a.cost ? b : a))
    : points.reduce((a, b) => (b.cost > a.cost ? b : a));
}

/** Costs count as measured; the intervals are those of accuracies. */
function beatsStatic(report, estimate, costOf, gatedCost, unit) {
  const costs = familyOf(report).map((role) => ({ role, cost: costOf(role) }));
  const { role } = nearestAbove(costs, gatedCost);
  const difference = estimate((of) => of('gated') - of(role));
  const line = (of) =>
    staticAt(
      costs.map((one) => ({ ...one, accuracy: of(one.role) })),
      gatedCost,
    );
  const above = estimate((of) => of('gated') - line(of));
  const [seeds, all] = [role, 'gated'].map((one) => ofRole(report, one).length);
  const fewer = seeds < all ? `, which has ${seeds} of ${all} seeds` : '';
  return [
    [
      `at its mean ${unit}, it is more accurate than the plain network of the same or the next higher cost`,
      `${points(difference)} against ${role}${fewer}`,
      shown(difference, 0),
    ],
    [`at its mean ${unit}, it is above the line through the plain networks`, points(above), shown(above, 0)],
  ];
}

/**
 * Claims about one ladder: its accuracy and times beside the twin's, and the rivals that cost less. Those in 8 bits count beside the
 * ladder in 8 bits.
 */
function ladderClaims({ dataset, networks, ladders, latencyMs }, name) {
  const estimate = bootstrapOf([...networks, ...ladders]);
  const [twin, own] = ['twin', name].map((role) => latencyMs[role]);
  const least = CUTS[name][dataset];
  const cut = cutOf(twin.turns, own.turns);
  const difference = estimate((of) => of(name) - of('twin'));
  const ours = Object.values(OURS);
  const all = [...networks, ...ladders];
  const work = (role) =>
    mean(all.filter((one) => one.role === role).map((one) => one.work ?? one.multiplyAdds));
  const rivals = [...new Set(all.map(({ role }) => role))].filter(
    (role) => role !== 'gated' && !ours.includes(role) && (name === OURS.int8 || role !== PLAIN_INT8),
  );
  const undercut = (costOf, unit) => {
    const cheaper = rivals.filter((role) => costOf(role) <= costOf(name));
    const above = cheaper.map((role) => ({ role, ...estimate((of) => of(name) - of(role)) }));
    const nearest = above.toSorted((a, b) => a.ci95[0] - b.ci95[0])[0];
    return [
      `no rival of a lower mean ${unit} is as accurate`,
      nearest ? `${points(nearest)} against ${nearest.role}` : 'no rival costs less',
      !nearest || shown(nearest, 0),
    ];
  };
  return [
    ...(least
      ? [[`the mean latency is cut by at least ${percent(least, 0)}`, share(cut), shown(cut, least)]]
      : []),
    [
      'accuracy is not more than 0.2 points below the plain twin',
      points(difference),
      shown(difference, -0.002),
    ],
    [
      "the 95th percentile is at most a tenth above the plain twin's",
      `${signed(100 * (own.p95 / twin.p95 - 1))} %`,
      own.p95 <= 1.1 * twin.p95,
    ],
    undercut((role) => latencyMs[role]?.mean ?? Number.POSITIVE_INFINITY, 'latency'),
    // An 8-bit multiply-add is no float one.
    ...(name === OURS.float ? [undercut(work, 'multiply-adds')] : []),
  ].map(([claim, ...rest]) => [`${name}: ${claim}`, ...rest]);
}

/** [{ claim, measured, holds }] of one data set's report; `measured` is missing if a network is missing. */
export function claimsOf(report, limits) {
  const { dataset } = report;
  const [twins, gated] = ['twin', 'gated'].map((role) => ofRole(report, role));
  const both = twins.length > 0 && gated.length > 0;
  const estimate = bootstrapOf(report.networks);
  const layers = gated.length > 0 && bootstrapOf(gated, 'layersEach')((of) => of('gated'));
  const turns = both && ['twin', 'gated'].map((role) => latencyOfRole(report, role, limits).turns);
  const cut = both && cutOf(...turns);
  const difference = both && estimate((of) => of('gated') - of('twin'));
  const twin = twins.length > 0 && estimate((of) => of('twin'));
  const work = (role) => averaged(ofRole(report, role), 'multiplyAdds');
  const latency = (role) => latencyOfRole(report, role, limits).mean;
  const claims = [
    ['at least 30 % of the layers are bypassed', both && share(layers), both && shown(layers, 0.3)],
    ['the mean latency is cut by at least 35 %', both && share(cut), both && shown(cut, 0.35)],
    [
      'accuracy is not more than 0.2 points below the plain twin',
      both && points(difference),
      both && shown(difference, -0.002),
    ],
    ...(dataset in STRONG
      ? [
          [
            `the plain twin is right on at least ${percent(STRONG[dataset])}`,
            twin && share(twin, 2),
            twin && shown(twin, STRONG[dataset]),
          ],
        ]
      : []),
    ...(both
      ? [
          ...beatsStatic(report, estimate, work, gatedWork(gated), 'multiply-adds'),
          ...beatsStatic(report, estimate, latency, latency('gated'), 'latency'),
        ]
      : [
          [
            'at its mean cost, it is more accurate than the plain network of the same or the next higher cost',
            false,
            false,
          ],
        ]),
  ];
  return [...listed(dataset, claims), ...(both ? claimsOfLadders(report) : [])];
}

/** The claims about the ladders of a report that has the twin. */
export function claimsOfLadders(report) {
  const made = Object.values(OURS).filter((name) => report.ladders?.some(({ role }) => role === name));
  return listed(
    report.dataset,
    made.flatMap((name) => ladderClaims(report, name)),
  );
}

const listed = (dataset, claims) =>
  claims.map(([claim, measured, holds]) => ({
    set: SETS[dataset].title,
    claim,
    measured: measured || undefined,
    holds: Boolean(measured && holds),
  }));
