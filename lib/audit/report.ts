/** The audit report: one self-contained HTML page made from a trace. */
import { scoreHistograms, skipRateChart, skipRateMap } from '../report/blocks.js';
import { escapeHtml, INK, renderChart } from '../report/charts.js';
import {
  type Figure,
  percent,
  renderGroup,
  renderPage,
  renderTable,
  type Section,
  whole,
} from '../report/page.js';
import type { AuditEntry, AuditProblem } from './read.js';
import type { AuditEnergy } from './record.js';
import { classAgainstClass, depth, examples, exceptions, paths } from './report-paths.js';
import { type AuditSummary, MAX_CLASSES, ofLastNetwork, summarise } from './summary.js';

export interface ReportOptions {
  /** Lines of the log that are not valid records. */
  readonly problems?: readonly AuditProblem[];
  /** PNG or JPEG images of the items whose inputs are available, as data URIs, by input hash; for the examples. */
  readonly thumbnails?: ReadonlyMap<string, string>;
  /** CPU time and energy of an item both ways, if the log has them. */
  readonly energy?: AuditEnergy | null;
}

const PROBLEMS = 10;

/**
 * @param entries at least one, as readAudit returns them
 * @returns HTML, without scripts and without references to the network
 */
export async function renderAuditReport(
  entries: readonly AuditEntry[],
  options: ReportOptions = {},
): Promise<string> {
  const summary = summarise(entries);
  const { header } = summary;
  const sections = await Promise.all([
    overTime(summary),
    energyOf(options),
    byBlock(summary),
    gateScores(summary),
    byClass(summary),
    depth(summary),
    paths(summary),
    classAgainstClass(summary),
    exceptions(summary),
    examples(ofLastNetwork(entries), options.thumbnails),
    provenance(summary, options),
  ]);
  return renderPage({
    title: 'What was skipped',
    subtitle:
      `${whole(summary.items)} items from ${utc(summary.from)} to ${utc(summary.to)} UTC, ` +
      `model ${header.model.source ?? ''} ${header.model.sha256.slice(0, 12)}${wordScope(summary)}`,
    summary: inWords(summary),
    figures: figures(summary),
    sections: sections.filter((section) => section !== undefined),
  });
}

/** "2026-01-31 23:59:59" */
const utc = (time: number) => new Date(time).toISOString().slice(0, 19).replace('T', ' ');

/** That a log holds items of other networks, too, or only a sample of the items. */
export const wordScope = ({ otherItems, sample: [least, greatest] }: AuditSummary) =>
  (otherItems > 0 ? `; ${whole(otherItems)} items of other networks are left out` : '') +
  (least < 1
    ? `; a random sample: ${least < greatest ? `${percent(least)} to ` : ''}${percent(greatest)} of the items that ran were recorded`
    : '');

function inWords({ blocks, blocksSkipped, items, reasons }: AuditSummary): string {
  const left = `${percent((reasons.x ?? 0) / items)} of the items left at an early exit.`;
  if (blocks.length === 0) return `The network has no residual blocks. ${left}`;
  const ran = `Of the ${whole(blocks.length)} residual blocks an item ran ${(blocks.length * (1 - blocksSkipped)).toFixed(1)} on average.`;
  const [most] = [...blocks].sort((a, b) => b.skipRate - a.skipRate);
  if (!most || most.skipRate === 0) return `${ran} No item skipped any.`;
  const never = blocks.filter(({ skipRate }) => skipRate === 0).length;
  const others = never === 0 ? 'none was run by every item' : `${whole(never)} were run by every item`;
  return `${ran} Skipped most often was ${most.name}, by ${percent(most.skipRate, 0)} of the items; ${others}.`;
}

function figures(summary: AuditSummary): Figure[] {
  const { latencySaved, timedBothWays } = summary;
  const saved =
    latencySaved === null
      ? []
      : [
          {
            value: percent(latencySaved),
            meaning: `of the mean latency saved (${whole(timedBothWays)} items timed both ways in turns)`,
          },
        ];
  return [
    { value: percent(summary.layersSkipped), meaning: 'of the layers bypassed' },
    { value: percent(summary.multiplyAddsSkipped), meaning: 'of the multiply-adds bypassed' },
    ...saved,
    { value: `${summary.milliseconds.toFixed(3)} ms`, meaning: 'median time of an item' },
    { value: whole(summary.paths.length), meaning: 'distinct paths' },
  ];
}

async function overTime({ slices, latencySaved }: AuditSummary): Promise<Section> {
  const line = (field: keyof (typeof slices)[number], title: string, color: string, format: string) =>
    renderChart(
      {
        width: 240,
        height: 140,
        data: {
          values: slices.flatMap((slice, i) =>
            slice[field] === null ? [] : { part: (i + 0.5) / slices.length, [field]: slice[field] },
          ),
        },
        mark: { type: 'line', color, strokeWidth: 2 },
        encoding: {
          x: {
            field: 'part',
            type: 'quantitative',
            title: 'items so far',
            scale: { domain: [0, 1] },
            axis: { format: '.0%', tickCount: 4, grid: false },
          },
          y: { field, type: 'quantitative', title, axis: { format, tickCount: 5 }, scale: { zero: true } },
        },
      },
      `${title} over time`,
    );
  const charts = await Promise.all([
    line('layersSkipped', 'layers bypassed', INK.skipped, '.0%'),
    ...(latencySaved === null ? [] : [line('latencySaved', 'latency saved', INK.saved, '.0%')]),
    line('milliseconds', 'median ms an item', INK.ran, '.3~f'),
  ]);
  return {
    title: 'Over time',
    lead: `The stream in ${slices.length} slices of equal count, oldest on the left.`,
    body: renderGroup(charts),
  };
}

/** Without the counters, only CPU time is shown, under its own name. */
function energyOf({ energy }: ReportOptions): Section | undefined {
  if (!energy) return undefined;
  const row = (what: string, { full, skip }: { full: number; skip: number }, scale: number) => [
    what,
    (scale * full).toPrecision(4),
    (scale * skip).toPrecision(4),
    full > 0 ? percent(1 - skip / full) : '',
  ];
  const { items, joules, cpuSeconds } = energy;
  const rows = [
    ...(joules ? [row('energy of the processor, mJ per item', joules, 1000)] : []),
    row('CPU time, ms per item', cpuSeconds, 1000),
  ];
  return {
    title: joules ? 'Energy' : 'CPU time',
    lead:
      `Measured over ${whole(items)} items each way, in turns. ` +
      (joules
        ? 'Energy is that of all processor packages, whatever else ran on them.'
        : "The energy counters of the processor couldn't be read: CPU seconds of the process stand in their place."),
    body: renderTable(['', '#in full', '#with skipping', '#saved'], rows),
  };
}

async function byBlock({ blocks }: AuditSummary): Promise<Section | undefined> {
  if (blocks.length === 0) return undefined;
  return {
    title: 'Skip rate by block',
    lead: 'Share of the items that skipped each block; "runs" where no gate decides and nothing skipped it.',
    body: await skipRateChart(
      blocks.map((block) => ({ ...block, skippable: block.skippable && block.threshold !== null })),
    ),
  };
}

async function gateScores({ blocks }: AuditSummary): Promise<Section | undefined> {
  const gated = blocks.filter(({ scores }) => scores.length > 0);
  if (gated.length === 0) return undefined;
  return {
    title: 'Gate scores',
    lead: 'How each gate scored the items; the red line is its threshold. Scores beyond the outermost 0.5 % stand in the outermost bars.',
    body: await scoreHistograms(gated),
  };
}

async function byClass({ classes, blocks }: AuditSummary): Promise<Section | undefined> {
  if (classes.length < 2 || blocks.length === 0) return undefined;
  const names = blocks.map(({ name }) => name);
  return {
    title: 'By class and block',
    lead: 'Share of the items with each answer that skipped each block.',
    body: await skipRateMap(classes.slice(0, MAX_CLASSES), names),
  };
}

function provenance({ header, policies }: AuditSummary, { problems = [] }: ReportOptions): Section {
  const rows = [
    ['model', `${escapeHtml(header.model.source ?? '')} <code>${header.model.sha256}</code>`],
    ...policies.map(({ sha256, items }) => [
      'policy',
      `<code>${sha256}</code>${policies.length > 1 ? ` of ${whole(items)} items` : ''}`,
    ]),
    [
      'engine',
      escapeHtml(
        `residual-skip ${header.engine}, ${header.backend}, ${header.isa}, ${header.threads} threads${header.precision ? `, ${header.precision}` : ''}`,
      ),
    ],
    [
      'log',
      problems.length === 0
        ? 'every line continues the one before it'
        : `${whole(problems.length)} problems<br>${problems
            .slice(0, PROBLEMS)
            .map(({ message }) => escapeHtml(message))
            .join('<br>')}`,
    ],
  ];
  return { title: 'Provenance', body: renderTable(['what', 'value'], rows) };
}
