import { percent } from '../report/page.js';
import type { Promised } from '../skip/promise.js';

/** What is promised, as a sentence without its full stop. */
export function wordPromise({ metric, limit, confidence, groups = [] }: Promised): string {
  const most = (rate: number) => `at most ${percent(rate, 2)}`;
  const what = {
    disagreement: `${most(limit)} of the answers change`,
    accuracy: `${most(limit)} of the images lose their right answer`,
    probability: `the class probabilities move by ${most(limit)} on average`,
  }[metric];
  const promised = groups.filter((group) => group.promised);
  const each = promised[0] ? `, and ${most(promised[0].limit)} in each of ${promised.length} groups` : '';
  return `${what}${each}, with ${percent(confidence, 0)} confidence`;
}
