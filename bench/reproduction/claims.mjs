// The claims for every data set, and whether the measurements support them.
const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const points = (value) => `${value < 0 ? '' : '+'}${value.toFixed(2)}`;
export const interval = ({ points: value, ci95: [low, high] }) =>
  `${points(value)} (${points(low)} to ${points(high)})`;

/** Reduction of the median latency relative to the plain twin. */
export const latencyCut = ({ latencyMs }) => 1 - latencyMs.gated.p50 / latencyMs.plain.p50;

/** [{ claim, measured, holds }] for one data set's report. */
export function claimsOf(report) {
  const { bypassed, gatedMinusPlain, gatedMinusStatic, decisions } = report;
  const cut = latencyCut(report);
  const claims = [
    ['at least 22 % of the layers are bypassed', percent(bypassed.layers), bypassed.layers >= 0.22],
    ['the median latency is cut by at least 30 %', percent(cut), cut >= 0.3],
    [
      'accuracy is not more than 0.2 points below the plain twin',
      `${interval(gatedMinusPlain)} points`,
      gatedMinusPlain.points >= -0.2 - 1e-9,
    ],
    [
      'more accurate than the best static choice of the same cost',
      `${interval(gatedMinusStatic)} points`,
      gatedMinusStatic.points > 0,
    ],
    [
      'decisions are those of PyTorch, but for scores within 1e-4 of the threshold',
      decisions
        ? `${decisions.unexplained} of ${decisions.images} images differ (${decisions.near} have such a score)`
        : 'not compared',
      decisions?.unexplained === 0,
    ],
  ];
  return claims.map(([claim, measured, holds]) => ({ claim, measured, holds }));
}
