// The claims about the protocol's networks, and whether the measurements support them.

import { SETS } from '../../bench/networks.mjs';
import { mean } from '../../dist/numeric/statistics.js';

/** Minimum accuracy of the plain twin, averaged over seeds. */
const STRONG = { cifar10: 0.93, 'fashion-mnist': 0.935, imagenette: 0.9 };
const Z95 = 1.959963984540054;

const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const signed = (value) => `${value < 0 ? '' : '+'}${value.toFixed(2)}`;
export const interval = ({ points, ci95: [low, high] }) =>
  `${signed(points)} (${signed(low)} to ${signed(high)}) points`;

/**
 * Change of accuracy from `before` to `after`, in points; each image counts with its mean over the seeds. The 95 % interval
 * is that of a mean of paired differences; it covers the choice of images, not of seeds.
 */
export function change(before, after) {
  const rate = (runs, i) => mean(runs.map(({ right }) => Number(right[i])));
  const differences = after[0].right.map((_, i) => rate(after, i) - rate(before, i));
  const center = mean(differences);
  const variance = mean(differences.map((value) => (value - center) ** 2));
  const half = Z95 * Math.sqrt(variance / differences.length);
  return { points: 100 * center, ci95: [100 * (center - half), 100 * (center + half)] };
}

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

function beatsStatic(report, gated, costOf, gatedCost, unit) {
  const roles = familyOf(report);
  const points = roles.map((role) => ({
    role,
    cost: costOf(role),
    accuracy: averaged(ofRole(report, role), 'accuracy'),
  }));
  const cheaper = points.filter(({ cost }) => cost <= gatedCost);
  const cheapest = points.reduce((a, b) => (b.cost < a.cost ? b : a));
  const best = cheaper.reduce((a, b) => (b.accuracy > a.accuracy ? b : a), cheaper[0] ?? cheapest);
  const difference = change(ofRole(report, best.role), gated);
  const above = averaged(gated, 'accuracy') - staticAt(points, gatedCost);
  return [
    [
      `at its mean ${unit}, no plain network of the family is more accurate`,
      `${interval(difference)} against ${best.role}`,
      difference.points >= 0,
    ],
    [
      `at its mean ${unit}, it is above the line through the plain networks`,
      `${signed(100 * above)} points`,
      above >= 0,
    ],
  ];
}

/** [{ claim, measured, holds }] of one data set's report; `measured` is missing if a network is missing. */
export function claimsOf(report, limits) {
  const { dataset } = report;
  const [twins, gated] = ['twin', 'gated'].map((role) => ofRole(report, role));
  const both = twins.length > 0 && gated.length > 0;
  const layers = both && averaged(gated, 'layers');
  const times = both && ['twin', 'gated'].map((role) => latencyOfRole(report, role, limits).mean);
  const cut = both && 1 - times[1] / times[0];
  const difference = both && change(twins, gated);
  const twin = twins.length > 0 && averaged(twins, 'accuracy');
  const work = (role) => averaged(ofRole(report, role), 'multiplyAdds');
  const latency = (role) => latencyOfRole(report, role, limits).mean;
  const claims = [
    ['at least 30 % of the layers are bypassed', both && percent(layers), layers >= 0.3],
    ['the mean latency is cut by at least 35 %', both && percent(cut), cut >= 0.35],
    [
      'accuracy is not more than 0.2 points below the plain twin',
      both && interval(difference),
      difference.points >= -0.2 - 1e-9,
    ],
    ...(dataset in STRONG
      ? [
          [
            `the plain twin is right on at least ${percent(STRONG[dataset])}`,
            twins.length > 0 && percent(twin, 2),
            twin >= STRONG[dataset],
          ],
        ]
      : []),
    ...(both
      ? [
          ...beatsStatic(report, gated, work, gatedWork(gated), 'multiply-adds'),
          ...beatsStatic(report, gated, latency, times[1], 'latency'),
        ]
      : [['at its mean cost, no plain network of the family is more accurate', false, false]]),
  ];
  return claims.map(([claim, measured, holds]) => ({
    set: SETS[dataset].title,
    claim,
    measured: measured || undefined,
    holds: Boolean(measured && holds),
  }));
}
