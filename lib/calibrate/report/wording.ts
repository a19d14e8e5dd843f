import { percent } from '../../report/page.js';
import type { Promised } from '../../skip/promise.js';

/** The promise as a sentence without its full stop. */
export function wordPromise({ metric, limit, confidence, gained, groups = [] }: Promised): string {
  const atMost = (rate: number) =>
    `at most ${gained === undefined ? percent(rate, 2) : `${(100 * rate).toFixed(2)} points`}`;
  const lost = gained === undefined ? 'of the items lose their right answer' : 'of accuracy are lost';
  const what = {
    disagreement: `${atMost(limit)} of the answers change`,
    accuracy: `${atMost(limit)} ${lost}`,
    probability: `the class probabilities move by ${atMost(limit)} on average`,
    cosine: `the mean cosine distance of the vectors is at most ${limit}`,
    relative: `the mean relative error of the output is ${atMost(limit)}`,
  };
  const said =
    metric in what
      ? what[metric as keyof typeof what]
      : `on average ${atMost(limit)} of the ${metric.slice('recall@'.length)} nearest neighbours change`;
  const [first, ...others] = groups.filter(({ promised }) => promised);
  const whose = others.length > 0 ? `each of ${others.length + 1} groups` : `the group ${first?.name}`;
  const each = first ? `, and ${atMost(first.limit)} in ${whose}` : '';
  return `${said}${each}, with ${wordConfidence(confidence)} confidence`;
}

/** Never rounded up to 100 %. */
export function wordConfidence(confidence: number): string {
  return percent(confidence, Math.abs(100 * confidence - Math.round(100 * confidence)) < 1e-9 ? 0 : 2);
}

/** How many items had a loss, and of accuracy how many were gained. */
export function wordEvents(events: string, gained: number | undefined): string {
  return gained === undefined ? events : `${events}, ${gained} gained`;
}
