// What a shipped network claims: the figures of its card, the promises of its policies, and how much time skipping saves: CPU
// time, which is the latency on one thread of an idle machine, and which a busy machine hardly changes.
import { binomialPValue } from '../dist/calibrate/certify/p-values.js';
import { pairedChange } from '../dist/measure/statistics.js';
import { cutOf } from './intervals.mjs';

/** By how much a share may be off: accuracy by one image in a thousand, which rounding may turn; work by half a point. */
const OFF = { accuracy: 0.001, saved: 0.005 };
/** A promise is contradicted by test items on which so many losses would have at most this probability. */
const CONTRADICTED = 0.05;

const percent = (value, digits = 2) => `${(100 * value).toFixed(digits)} %`;
const share = (cell) => Number(/[\d.]+/.exec(cell)[0]) / 100;

/** { plain, full, skipping }: `accuracy` and `saved` in the table of a model card. */
export function cardFigures(card) {
  const rows = {
    plain: /^\| plain twin \|(.*)\|$/m,
    full: /^\| this network in full \|(.*)\|$/m,
    skipping: /^\| this network(?:, gated| with `policy\.json`) \|(.*)\|$/m,
  };
  return Object.fromEntries(
    Object.entries(rows).map(([name, row]) => {
      const [accuracy, saved] = row.exec(card)[1].split('|').map(share);
      return [name, { accuracy, saved }];
    }),
  );
}

/** Whether `losses` of `items` contradict that at most a share of `limit` has one; with `gained` ones, that of the difference. */
const contradicts = ({ losses, gained, items, limit }) =>
  gained === undefined
    ? 1 - (losses === 0 ? 0 : binomialPValue(losses - 1, items, limit)) <= CONTRADICTED
    : pairedChange(items, gained, losses).ci95[1] < -100 * limit;

/** [{ claim, measured, holds }] for one data set's report, which reproduce.mjs makes. */
export function claimsOf({ card, runs, promises, decisions, cut }) {
  const claims = Object.entries(card).map(([name, { accuracy }]) => [
    `accuracy of ${runs[name].title}: ${percent(accuracy)}`,
    percent(runs[name].accuracy),
    Math.abs(runs[name].accuracy - accuracy) <= OFF.accuracy + 1e-9,
  ]);
  claims.push([
    `multiply-adds saved: ${percent(card.skipping.saved, 1)}`,
    percent(runs.skipping.saved, 1),
    runs.skipping.saved >= card.skipping.saved - OFF.saved,
  ]);
  const measured = cutOf(...[runs.plain, runs.skipping].map(({ turns }) => turns.map(({ cpuMs }) => cpuMs)));
  const [low, high] = measured.ci95;
  claims.push([
    `the mean CPU time is cut by at least ${percent(cut, 0)}`,
    `${percent(measured.value, 1)} (${percent(low, 1)} to ${percent(high, 1)})`,
    low >= cut - 1e-9,
  ]);
  for (const promise of promises) {
    const { file, what, losses, gained, items, limit } = promise;
    const less = gained === undefined ? '' : `, less ${gained} gained`;
    claims.push([
      `${file}: at most ${percent(limit)} of the answers are ${what}, which the test items don't contradict`,
      `${losses} of ${items}${less}`,
      !contradicts(promise),
    ]);
  }
  if (decisions) {
    claims.push([
      'decisions are those of PyTorch, but for scores within 1e-4 of the threshold',
      `${decisions.unexplained} of ${decisions.images} items differ (${decisions.near} have such a score)`,
      decisions.unexplained === 0,
    ]);
  }
  return claims.map(([claim, measured, holds]) => ({ claim, measured, holds }));
}
