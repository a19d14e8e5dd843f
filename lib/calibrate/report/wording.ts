import { percent } from '../../report/page.js';
import { type Promised, partsOf } from '../../skip/promise.js';
import type { SettingResult } from './result.js';

/** The promise as a sentence without its full stop. */
export function wordPromise({ also = [], confidence, ...first }: Promised): string {
  const { outputs, notPromised } = first;
  const others = notPromised
    ? `, of ${outputs?.join(', ')} (nothing is promised of ${notPromised.join(', ')})`
    : '';
  const said = [wordLimit(first, others), ...also.map((one) => wordLimit(one))];
  return `${said.join(', and ')}, with ${wordConfidence(confidence)} confidence`;
}

/** What is promised by one metric, of all items and of each group. */
function wordLimit(
  { metric, limit, gained, groups = [] }: Pick<Promised, 'metric' | 'limit' | 'gained' | 'groups'>,
  others = '',
): string {
  const atMost = (rate: number) =>
    `at most ${gained === undefined ? percent(rate, 2) : `${(100 * rate).toFixed(2)} points`}`;
  const lost = gained === undefined ? 'of the items lose their right answer' : 'of accuracy are lost';
  const { name, at } = partsOf(metric);
  const most = atMost(limit);
  const what: Readonly<Record<typeof name, string>> = {
    disagreement: `${most} of the answers change`,
    accuracy: `${most} ${lost}`,
    probability: `the class probabilities move by ${most} on average`,
    ordinal: `the grades move by ${most} of the scale on average`,
    cosine: `the mean cosine distance of the vectors is at most ${limit}`,
    relative:
      at === undefined
        ? `the mean relative error of the output is ${most}`
        : `the relative error is above ${percent(at, 2)} in ${most} of the items`,
    recall: `on average ${most} of the ${at} nearest neighbours change`,
    absolute: `a number is off by more than ${at} in ${most} of the items`,
    excess: `the largest error of an item exceeds ${at} by ${most} of that on average`,
    labels: `the set of labels changes in ${most} of the items`,
    missed: `a label is missing in ${most} of the items`,
    added: `a label is added in ${most} of the items`,
    pixels: `${most} of an image's pixels change on average`,
    miou: `1 - mIoU is ${most} on average`,
    boxes: `on average ${most} of the boxes have no partner at an IoU of ${at}`,
    tokens: `${most} of an item's tokens change on average`,
    ctc: `the error rate of the sequence is ${most} on average`,
    ranking: `the order of ${most} of the pairs of a list changes on average`,
    custom: `the mean loss is at most ${limit}`,
  };
  const [first, ...more] = groups.filter(({ promised }) => promised);
  const whose = more.length > 0 ? `each of ${more.length + 1} groups` : `the group ${first?.name}`;
  const each = first ? `, and ${atMost(first.limit)} in ${whose}` : '';
  return `${what[name]}${others}${each}`;
}

/** Never rounded up to 100 %. */
export function wordConfidence(confidence: number): string {
  return percent(confidence, Math.abs(100 * confidence - Math.round(100 * confidence)) < 1e-9 ? 0 : 2);
}

/** The title of a column of items with a loss. */
export const titleOfEvents = (metric: string | undefined): string =>
  metric === 'accuracy' ? 'lost' : 'changed';

/** How many items had a loss, and of accuracy how many were gained. */
export function wordEvents(events: string, gained: number | undefined): string {
  return gained === undefined ? events : `${events}, ${gained} gained`;
}

/** Cells of a tested setting: its risk and bound, the risk by each further metric, its p-value, and what it skips. */
export function settingCells({
  risk,
  upperBound,
  also = [],
  worstPValue,
  multiplyAddsSkipped,
  blocksSkipped,
}: Pick<
  SettingResult,
  'risk' | 'upperBound' | 'also' | 'worstPValue' | 'multiplyAddsSkipped' | 'blocksSkipped'
>): string[] {
  return [
    percent(risk, 2),
    percent(upperBound, 2),
    ...also.map((other) => percent(other.risk, 2)),
    worstPValue.toPrecision(2),
    percent(multiplyAddsSkipped),
    percent(blocksSkipped),
  ];
}
