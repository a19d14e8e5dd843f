/** The report of `speedup`: one self-contained HTML page that shows what was tried, what lost, and what the ladder promises. */
import { figuresOf, sectionsOf, sentenceOf } from '../calibrate/report/report.js';
import { escapeHtml, INK, renderChart } from '../report/charts.js';
import { type Figure, percent, renderPage, renderTable, type Section, whole } from '../report/page.js';
import { append } from '../util/maps.js';
import type { Speedup } from './speedup.js';
import type { Tried } from './tried.js';

/** Options of `renderSpeedup`. */
export interface RenderSpeedupOptions {
  /** Name of the model in the page. */
  model?: string | undefined;
}

/** Why a ladder was chosen, or not. */
export const wordOutcome: Readonly<Record<Tried['outcome'], string>> = {
  chosen: 'chosen',
  certified: 'certified too, but slower',
  beaten: 'another is faster',
  slow: 'saves no time',
  unsafe: 'changes too many answers',
  refuted: 'not certified',
};

/** Why none was chosen. */
export function wordNothing({ tried }: Pick<Speedup, 'tried'>): string {
  return tried.some(({ outcome }) => outcome === 'refuted')
    ? 'no ladder is certified: the fastest keeps the limit on the items that order, but not on those that certify'
    : 'no ladder is faster than the network within the limit';
}

/** Most rows of a table. */
const MAX_ROWS = 100;

/**
 * Renders a page about what `speedup` tried, what answers in the ladder that it chose, and what is promised.
 * @returns HTML in one file, without scripts and without references to the network
 * @throws ResidualSkipError MISSING_DEPENDENCY without the packages vega and vega-lite
 */
export async function renderSpeedup(result: Speedup, options: RenderSpeedupOptions = {}): Promise<string> {
  const { calibration } = result;
  const { model = 'the network' } = options;
  const sections = [rungs(result), await frontier(result), ladders(result), parts(result)];
  return renderPage({
    title: 'What was tried to make it faster',
    subtitle: `${model}: ${calibration ? sentenceOf(calibration) : wordNothing(result)}.`,
    figures: calibration ? [...gained(result), ...figuresOf(calibration)] : [],
    sections: [
      ...sections.filter((section) => section !== undefined),
      ...(calibration ? await sectionsOf(calibration) : []),
    ],
  });
}

function gained({ calibration }: Speedup): Figure[] {
  const { latency } = calibration!.policy.expected!;
  if (!latency) return [];
  const { fullMs, policyMs } = latency;
  return [
    {
      value: percent(1 - policyMs.mean / fullMs.mean),
      meaning: `of the mean time saved: ${policyMs.mean.toFixed(3)} ms, in full ${fullMs.mean.toFixed(3)} ms`,
    },
  ];
}

function rungs({ rungs: all }: Speedup): Section | undefined {
  if (all.length === 0) return undefined;
  const rows = all.map(({ name, answered, events, work, time }) => [
    escapeHtml(name),
    percent(answered),
    whole(events),
    percent(work, 0),
    percent(time, 0),
  ]);
  return {
    title: 'What each rung answers',
    lead: 'On the items that certify, in the order in which they are asked. Work and time are those of an item that is answered there, as shares of the network in full; times are predicted from those of the parts.',
    body: renderTable(['rung', '#answered', '#with loss', '#work', '#time'], rows),
  };
}

/** What ladders are made of: the legend of the frontier. */
function kindOf({ rungs: names, exits }: Tried): string {
  const network = names.at(-1)!;
  const made = [...(names.length > 1 ? ['fronts'] : []), ...(exits > 0 ? ['exits'] : [])];
  return made.length === 0 ? network : `${network} with ${made.join(' and ')}`;
}

/** Time against changed answers, for each kind of ladder: no setting of that kind is better in both. */
async function frontier({ tried, calibration }: Speedup): Promise<Section | undefined> {
  const kinds = new Map<string, Tried[]>();
  for (const one of tried) append(kinds, kindOf(one), one);
  const values = [...kinds].flatMap(([kind, some]) => {
    const points = some.flatMap((one) => one.points).sort((a, b) => a.risk - b.risk || a.mean - b.mean);
    let min = Number.POSITIVE_INFINITY;
    return points.flatMap(({ risk, mean }) => {
      if (mean >= min) return [];
      min = mean;
      return [{ kind, risk, mean }];
    });
  });
  if (values.length === 0) return undefined;
  const chosen = tried.filter(({ outcome }) => outcome === 'chosen');
  const x = { field: 'risk', type: 'quantitative', title: 'risk', axis: { format: '.1%' } } as const;
  const y = {
    field: 'mean',
    type: 'quantitative',
    title: 'mean time, of the network in full',
    axis: { format: '.0%' },
    scale: { zero: false },
  } as const;
  const limit = calibration?.policy.promise?.limit;
  const chart = await renderChart(
    {
      width: 700,
      height: 260,
      layer: [
        {
          data: { values: limit === undefined ? [] : [{ risk: limit }] },
          mark: { type: 'rule', color: INK.guard, strokeDash: [4, 3] },
          encoding: { x },
        },
        {
          data: { values },
          mark: { type: 'line', interpolate: 'step-after', point: { size: 16 } },
          encoding: { x, y, color: { field: 'kind', type: 'nominal', title: null } },
        },
        {
          data: { values: chosen.map(({ risk, mean }) => ({ risk, mean })) },
          mark: { type: 'point', filled: true, size: 160, opacity: 1, color: INK.skipped },
          encoding: { x, y },
        },
      ],
    },
    'mean time against risk',
  );
  return {
    title: 'Time against promise',
    lead: 'What the settings of each kind of ladder do to the items that order: none of that kind is better in both. The dashed line is the limit; it is kept with some distance, so that it can be certified. The large point was chosen.',
    body: chart,
  };
}

function ladders({ tried }: Speedup): Section | undefined {
  if (tried.length === 0) return undefined;
  const rows = tried
    .slice(0, MAX_ROWS)
    .map((one) => [
      escapeHtml(one.rungs.join(' > ')),
      whole(one.exits),
      percent(one.risk, 2),
      percent(one.work, 0),
      percent(one.mean, 0),
      percent(one.p95, 0),
      one.measured === undefined ? '' : percent(one.measured, 0),
      wordOutcome[one.outcome],
    ]);
  const more = tried.length > MAX_ROWS ? ` ${whole(tried.length - MAX_ROWS)} more were no better.` : '';
  return {
    title: 'Ladders that were tried',
    lead: `Predicted for the items that order, as shares of the network in full; the fastest were also timed as they are.${more}`,
    body: renderTable(['rungs', '#exits', '#risk', '#work', '#mean time', '#p95', '#measured', ''], rows),
  };
}

function parts({ parts: all }: Speedup): Section | undefined {
  if (all.length === 0) return undefined;
  const rows = all
    .slice(0, MAX_ROWS)
    .map(({ name, network, time, work, risk, answers }) => [
      escapeHtml(name),
      escapeHtml(network),
      percent(time),
      percent(work),
      percent(risk, 2),
      percent(answers),
    ]);
  return {
    title: 'What they were made of',
    lead: 'Each by itself: the time and work of an item that it answers, the risk if it answered all of them, and how many it can answer before the risk is more than can be certified.',
    body: renderTable(['front or exit', 'network', '#time', '#work', '#risk', '#can answer'], rows),
  };
}
