/** The calibration report: one self-contained HTML page that shows what was tested, chosen and promised. */
import { escapeHtml, INK, renderChart } from '../report/charts.js';
import {
  type DrawnExample,
  type Figure,
  percent,
  renderExamples,
  renderGroup,
  renderPage,
  renderTable,
  type Section,
  whole,
} from '../report/page.js';
import type { Calibration, Example } from './calibration.js';
import { latencyReduction } from './latency.js';
import { wordPromise } from './wording.js';

export interface ReportOptions {
  /** Names the model to a reader. */
  readonly model: string;
  /** Images of the examples as data URIs, by the hash of the item. */
  readonly thumbnails?: ReadonlyMap<string, string>;
}

/** Rows of what is told by class or group, in the order of the classes. */
const MOST_ROWS = 60;

/** @returns HTML, without scripts and without references to the network */
export async function renderCalibrationReport(result: Calibration, options: ReportOptions): Promise<string> {
  const { promise } = result.policy;
  const sections = await Promise.all([
    curves(result),
    contributions(result),
    settings(result),
    groups(result),
    classes(result),
    examples(result, options),
    provenance(result),
  ]);
  const sentence =
    result.chosen < 0 ? 'No setting could be certified: the policy skips nothing' : wordPromise(promise!);
  return renderPage({
    title: 'What the policy promises',
    subtitle: `${options.model}: ${sentence}.`,
    figures: figures(result),
    sections: sections.filter((section) => section !== undefined),
  });
}

function figures({ policy }: Calibration): Figure[] {
  const { promise, expected } = policy;
  const { latency } = expected!;
  const times = latency
    ? [
        { value: percent(latencyReduction(latency)), meaning: 'of the latency saved (median)' },
        {
          value: `${latency.policyMs.p50.toFixed(3)} ms`,
          meaning: `median of one item; ${latency.fullMs.p50.toFixed(3)} ms in full`,
        },
      ]
    : [];
  return [
    {
      value: percent(promise!.upperBound, 2),
      meaning: 'is the most that the risk can be, at this confidence',
    },
    {
      value: `${whole(promise!.events)} of ${whole(promise!.items)}`,
      meaning: 'items that certified it had any loss',
    },
    { value: percent(expected!.multiplyAddsSkipped), meaning: 'of the multiply-adds skipped' },
    ...times,
  ];
}

/** Risk against what a setting costs: in time, and in multiply-adds. */
async function curves({ settings: tested, chosen, policy }: Calibration): Promise<Section | undefined> {
  if (tested.length === 0) return undefined;
  const { limit } = policy.promise!;
  const values = tested.map(({ risk, upperBound, latency, multiplyAddsSkipped }, i) => ({
    ...{ risk, upperBound, ms: latency.policyMs.p50, spent: 1 - multiplyAddsSkipped, limit },
    state: i === chosen ? 'chosen' : 'tested',
  }));
  const curve = (field: 'ms' | 'spent', title: string, format: string) => {
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
        data: { values },
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
  };
  return {
    title: 'Risk against cost',
    lead:
      'Each point is a setting on the items that certify; its line reaches up to the upper bound of its risk, taken alone. ' +
      'The dashed line is the limit.',
    body: renderGroup([
      await curve('ms', 'median ms of an item', '.3~f'),
      await curve('spent', 'multiply-adds spent', '.0%'),
    ]),
  };
}

async function contributions({ contributions: parts }: Calibration): Promise<Section | undefined> {
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
          title: 'block, in order; an exit stands behind its block',
          axis: { labelAngle: -50 },
        },
        xOffset: { field: 'kind', sort: ['gate', 'exit'] },
        y: {
          field: 'multiplyAddsSkipped',
          type: 'quantitative',
          title: 'multiply-adds saved',
          axis: { format: '.1%' },
        },
        color: {
          field: 'kind',
          type: 'nominal',
          title: null,
          scale: { domain: ['gate', 'exit'], range: [INK.skipped, INK.saved] },
        },
      },
    },
    'multiply-adds saved by each gate and exit',
  );
  const rows = parts.map(({ kind, block, rate, multiplyAddsSkipped }) => [
    kind === 'exit' ? `exit behind ${escapeHtml(block)}` : `gate of ${escapeHtml(block)}`,
    percent(rate),
    percent(multiplyAddsSkipped),
  ]);
  return {
    title: 'What each gate and exit saves',
    lead: 'Averaged over all items: a gate saves its block, an exit all that stands behind it.',
    body: chart + renderTable(['', '#of the items', '#multiply-adds saved'], rows),
  };
}

function settings({ settings: tested, chosen }: Calibration): Section | undefined {
  if (tested.length === 0) return undefined;
  const rows = tested.map(({ events, risk, upperBound, worstPValue, latency, ...skipped }, i) => [
    i === chosen ? 'chosen' : '',
    whole(events),
    percent(risk, 2),
    percent(upperBound, 2),
    worstPValue.toPrecision(2),
    percent(skipped.multiplyAddsSkipped),
    percent(skipped.blocksSkipped),
    latency.policyMs.p50.toFixed(3),
    percent(latencyReduction(latency)),
  ]);
  const columns = [
    '',
    '#with loss',
    '#risk',
    '#at most',
    '#p',
    '#multiply-adds',
    '#blocks',
    '#ms',
    '#time saved',
  ];
  return {
    title: 'Settings in the order of testing',
    lead: 'From careful to bold; each is tested only when all before it have passed, so what stands below the first failure is no claim.',
    body: renderTable(columns, rows),
  };
}

function groups({ policy }: Calibration): Section | undefined {
  const { groups: tested = [] } = policy.promise!;
  if (tested.length === 0) return undefined;
  const rows = tested
    .slice(0, MOST_ROWS)
    .map(({ kind, name, items, events, risk, upperBound, limit, pValue, promised }) => [
      escapeHtml(name),
      kind,
      whole(items),
      whole(events),
      percent(risk, 2),
      percent(upperBound, 2),
      pValue.toPrecision(2),
      promised ? `at most ${percent(limit, 2)}` : 'nothing: too few items',
    ]);
  return {
    title: 'Promises for groups',
    lead: "All of them hold together at the promise's confidence; p-values are adjusted by Holm's procedure.",
    body: renderTable(['group', 'kind', '#items', '#with loss', '#risk', '#at most', '#p', 'promised'], rows),
  };
}

function classes({ classes: all }: Calibration): Section | undefined {
  if (all.length < 2) return undefined;
  const rows = all
    .slice(0, MOST_ROWS)
    .map(({ label, items, events, risk, multiplyAddsSkipped }) => [
      escapeHtml(label),
      whole(items),
      whole(events),
      percent(risk, 2),
      percent(multiplyAddsSkipped),
    ]);
  const more = all.length > MOST_ROWS ? ` The first ${MOST_ROWS} of ${whole(all.length)} are shown.` : '';
  return {
    title: 'By class',
    lead: `What the policy did to the items of each class; counts, not promises.${more}`,
    body: renderTable(['class', '#items', '#with loss', '#risk', '#multiply-adds skipped'], rows),
  };
}

function examples(
  { examples: { most, least } }: Calibration,
  { thumbnails }: ReportOptions,
): Section | undefined {
  if (most.length === 0) return undefined;
  const drawn = ({ sha256, answer, fullAnswer, ran, multiplyAddsSkipped }: Example): DrawnExample => ({
    image: thumbnails?.get(sha256),
    ran,
    caption:
      `${answer}, ${percent(Math.max(0, multiplyAddsSkipped), 0)} skipped` +
      (answer === fullAnswer ? '' : ` (in full: ${fullAnswer})`),
  });
  return {
    title: 'Examples',
    body:
      renderExamples('Those that skip most', most.map(drawn)) +
      renderExamples('Those that skip least', least.map(drawn)),
  };
}

function provenance({ policy, duplicates }: Calibration): Section {
  const { promise, expected, model, guards = [] } = policy;
  const { data } = promise!;
  const { latency } = expected!;
  const guarded = guards.map(
    ({ labels, margin = 0 }) => `${labels.join(', ')}${margin > 0 ? ` within ${margin}` : ''}`,
  );
  const rows = [
    ['model', `<code>${model!.sha256}</code>`],
    ['data', `<code>${data.sha256}</code>, seed ${data.seed}`],
    [
      'parts',
      `${whole(data.fit)} fit, ${whole(data.order)} order, ${whole(data.certify)} certify; ${whole(duplicates)} copies left out`,
    ],
    ...(guarded.length > 0 ? [['guards', escapeHtml(guarded.join('; '))]] : []),
    ...(latency
      ? [
          [
            'times',
            escapeHtml(`${whole(latency.items)} items in turns, ${latency.isa}, threads: ${latency.threads}`),
          ],
        ]
      : []),
  ];
  return { title: 'Provenance', body: renderTable(['what', 'value'], rows) };
}
