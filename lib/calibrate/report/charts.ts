/** Charts of the calibration report: risk against cost, and what each exit and gate saves. */
import { escapeHtml, INK, renderChart } from '../../report/charts.js';
import { percent, renderGroup, renderTable, type Section } from '../../report/page.js';
import type { Calibration } from './result.js';

/** Risk against the cost of a setting, in time and in multiply-adds. */
export async function curves({
  settings: tested,
  chosen,
  bolder,
  policy,
}: Calibration): Promise<Section | undefined> {
  if (tested.length === 0) return undefined;
  const { limit, metric, also = [] } = policy.promise!;
  const values = tested.map(({ risk, upperBound, latency, multiplyAddsSkipped }, i) => ({
    ...{ risk, upperBound, ms: latency.policyMs.p50, spent: 1 - multiplyAddsSkipped, limit },
    state: i === chosen || bolder.includes(i) ? 'chosen' : 'tested',
  }));
  return {
    title: 'Risk against cost',
    lead:
      'Each point is a setting on the items that certify; its line reaches up to the upper bound of its risk, taken alone. ' +
      `The dashed line is the limit${also.length > 0 ? ` of ${metric}, whose risk this is` : ''}.`,
    body: renderGroup([
      await curve(values, 'ms', 'median ms of an item', '.3~r'),
      await curve(values, 'spent', 'multiply-adds spent', '.0%'),
    ]),
  };
}

/** One chart: risk and its upper bound against a field of the values. */
function curve(
  values: readonly object[],
  field: 'ms' | 'spent',
  title: string,
  format: string,
): Promise<string> {
  const x = {
    field,
    type: 'quantitative',
    title,
    scale: { zero: false },
    axis: { format, tickCount: 5 },
  } as const;
  const y = { field: 'risk', type: 'quantitative', title: 'risk', axis: { format: '.1%' } } as const;
  return renderChart(
    {
      width: 390,
      height: 220,
      data: { values: [...values] },
      layer: [
        {
          mark: { type: 'rule', color: INK.guard, strokeDash: [4, 3] },
          encoding: { y: { aggregate: 'min', field: 'limit', type: 'quantitative' } },
        },
        {
          mark: { type: 'rule', color: INK.ran, opacity: 0.5 },
          encoding: { x, y, y2: { field: 'upperBound' } },
        },
        {
          mark: { type: 'point', filled: true, opacity: 1 },
          encoding: {
            x,
            y,
            color: {
              field: 'state',
              type: 'nominal',
              title: null,
              scale: { domain: ['tested', 'chosen'], range: [INK.ran, INK.skipped] },
            },
            size: { condition: { test: "datum.state === 'chosen'", value: 160 }, value: 40 },
          },
        },
      ],
    },
    `risk against ${title}`,
  );
}

export async function contributions({ contributions: parts }: Calibration): Promise<Section | undefined> {
  if (parts.length === 0) return undefined;
  const chart = await renderChart(
    {
      width: 780,
      height: 200,
      data: { values: parts.map((part) => ({ ...part })) },
      mark: 'bar',
      encoding: {
        x: {
          field: 'block',
          type: 'nominal',
          sort: null,
          title: 'exit: its block, or its front',
          axis: { labelAngle: -50 },
        },
        y: {
          field: 'multiplyAddsSkipped',
          type: 'quantitative',
          title: 'multiply-adds saved',
          axis: { format: '.1%' },
        },
        color: { value: INK.saved },
      },
    },
    'multiply-adds saved by each exit',
  );
  const rows = parts.map(({ block, rate, multiplyAddsSkipped }) => [
    `exit ${escapeHtml(block)}`,
    percent(rate),
    percent(multiplyAddsSkipped),
  ]);
  return {
    title: 'What each exit saves',
    lead: 'Averaged over all items: all that is behind it for those that leave, less what its head costs for those that come to it.',
    body: chart + renderTable(['', '#of the items', '#multiply-adds saved'], rows),
  };
}
