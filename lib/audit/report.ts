/** The audit report: one self-contained HTML page made from a trace. */
import { escapeHtml, INK, renderChart } from '../report/charts.js';
import {
  type Figure,
  renderGroup,
  renderPage,
  renderPath,
  renderTable,
  type Section,
} from '../report/page.js';
import type { AuditEntry, AuditProblem } from './read.js';
import { type AuditSummary, type BlockSummary, summarise } from './summary.js';

export interface ReportOptions {
  /** Lines of the log that are no records. */
  readonly problems?: readonly AuditProblem[];
  /** PNG or JPEG of the items whose inputs are at hand, as data URIs, by input hash; for the examples. */
  readonly thumbnails?: ReadonlyMap<string, string>;
}

const percent = (fraction: number, digits = 1) => `${(100 * fraction).toFixed(digits)} %`;
const EXAMPLES = 5;
const PATHS = 12;
const PROBLEMS = 10;
/** Rows of what is told by class, the most frequent first. */
const MOST_CLASSES = 40;
/** Points that a score histogram is drawn from. */
const BINS = 24;

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
    byBlock(summary),
    scoreHistograms(summary),
    byClass(summary),
    depth(summary),
    paths(summary),
    classAgainstClass(summary),
    exceptions(summary),
    examples(entries, options),
    provenance(summary, options),
  ]);
  return renderPage({
    title: 'What was skipped',
    subtitle:
      `${summary.items.toLocaleString('en')} items from ${new Date(summary.from).toISOString()} to ` +
      `${new Date(summary.to).toISOString()}, model ${header.model.source ?? ''} ${header.model.sha256.slice(0, 12)}`,
    figures: figures(summary),
    sections: sections.filter((section) => section !== undefined),
  });
}

function figures(summary: AuditSummary): Figure[] {
  const { latencySaved, timedInFull } = summary;
  const saved =
    latencySaved === null
      ? []
      : [
          {
            value: percent(latencySaved),
            meaning: `of the latency saved (median of ${timedInFull.toLocaleString('en')} items timed both ways)`,
          },
        ];
  return [
    { value: percent(summary.layersSkipped), meaning: 'of the layers bypassed' },
    { value: percent(summary.multiplyAddsSkipped), meaning: 'of the multiply-adds bypassed' },
    ...saved,
    { value: `${summary.milliseconds.toFixed(3)} ms`, meaning: 'median time of an item' },
    { value: summary.paths.length.toLocaleString('en'), meaning: 'distinct paths' },
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

/** Blocks in order; every name is turned so that long ones have room. */
function blockAxis(field: string) {
  return { field, type: 'nominal', sort: null, title: 'block, in order', axis: { labelAngle: -50 } } as const;
}

async function byBlock({ blocks }: AuditSummary): Promise<Section> {
  const values = blocks.map(({ name, skipRate, skippable }) => ({
    name,
    skipRate,
    label: skippable || skipRate > 0 ? percent(skipRate, 0) : 'runs',
  }));
  const x = blockAxis('name');
  const chart = await renderChart(
    {
      width: 860,
      height: 180,
      data: { values },
      layer: [
        {
          mark: { type: 'bar', color: INK.skipped },
          encoding: {
            x,
            y: {
              field: 'skipRate',
              type: 'quantitative',
              title: 'skip rate',
              scale: { domain: [0, 1] },
              axis: { format: '.0%', tickCount: 5 },
            },
          },
        },
        {
          mark: { type: 'text', dy: -6, fontSize: 10, color: 'currentColor' },
          encoding: { x, y: { field: 'skipRate', type: 'quantitative' }, text: { field: 'label' } },
        },
      ],
    },
    'skip rate by block',
  );
  return {
    title: 'Skip rate by block',
    lead: 'Share of the items that skipped each block; "runs" stands where nothing can skip it.',
    body: chart,
  };
}

function histogram({ name, scores, threshold }: BlockSummary) {
  const sorted = [...scores].sort((a, b) => a - b);
  const at = (q: number) => sorted[Math.floor(q * (sorted.length - 1))]!;
  const [low, high] = [at(0.005), at(0.995)];
  const width = (high - low) / BINS || 1;
  const counts = new Array<number>(BINS).fill(0);
  for (const score of scores) counts[Math.min(BINS - 1, Math.max(0, Math.floor((score - low) / width)))]!++;
  return counts.map((count, i) => ({
    block: name,
    from: low + i * width,
    to: low + (i + 1) * width,
    share: count / scores.length,
    threshold,
  }));
}

async function scoreHistograms({ blocks }: AuditSummary): Promise<Section | undefined> {
  const gated = blocks.filter(({ scores }) => scores.length > 0);
  if (gated.length === 0) return undefined;
  const chart = await renderChart(
    {
      data: { values: gated.flatMap(histogram) },
      facet: { field: 'block', type: 'nominal', title: null, sort: gated.map(({ name }) => name) },
      columns: 4,
      resolve: { scale: { x: 'independent', y: 'independent' } },
      spec: {
        width: 195,
        height: 70,
        layer: [
          {
            mark: { type: 'bar', color: INK.ran },
            encoding: {
              x: {
                field: 'from',
                type: 'quantitative',
                title: null,
                bin: { binned: true },
                axis: { tickCount: 3 },
              },
              x2: { field: 'to' },
              y: { field: 'share', type: 'quantitative', title: null, axis: null },
            },
          },
          {
            mark: { type: 'rule', color: INK.guard, strokeWidth: 2 },
            encoding: { x: { aggregate: 'min', field: 'threshold', type: 'quantitative' } },
          },
        ],
      },
    },
    'distribution of gate scores',
  );
  return {
    title: 'Gate scores',
    lead: 'How each gate scored the items; the red line is its threshold. Scores beyond the outermost 0.5 % stand in the outermost bars.',
    body: chart,
  };
}

async function byClass({ classes, blocks }: AuditSummary): Promise<Section | undefined> {
  if (classes.length < 2) return undefined;
  const shown = classes.slice(0, MOST_CLASSES);
  const values = shown.flatMap(({ label, skipRates }) =>
    skipRates.map((skipRate, i) => ({ label, block: blocks[i]!.name, skipRate })),
  );
  const chart = await renderChart(
    {
      width: 760,
      height: { step: 18 },
      data: { values },
      mark: 'rect',
      encoding: {
        x: blockAxis('block'),
        y: { field: 'label', type: 'nominal', sort: null, title: 'answer' },
        color: {
          field: 'skipRate',
          type: 'quantitative',
          title: 'skip rate',
          scale: { domain: [0, 1], scheme: 'viridis' },
          legend: { format: '.0%' },
        },
      },
    },
    'skip rate by answer and block',
  );
  return { title: 'By class and block', body: chart };
}

async function depth({ depths }: AuditSummary): Promise<Section> {
  const x = {
    field: 'depth',
    type: 'ordinal',
    title: 'blocks that ran',
    axis: { labelAngle: 0, labelOverlap: true },
  } as const;
  const charts = await Promise.all([
    renderChart(
      {
        width: 400,
        height: 160,
        data: { values: [...depths] },
        mark: 'bar',
        encoding: { x, y: { field: 'items', type: 'quantitative', title: 'items' } },
      },
      'distribution of depth',
    ),
    renderChart(
      {
        width: 400,
        height: 160,
        data: { values: depths.filter(({ confidence }) => confidence !== null) },
        mark: { type: 'line', point: true },
        encoding: {
          x,
          y: {
            field: 'confidence',
            type: 'quantitative',
            title: 'mean confidence',
            scale: { zero: false },
            axis: { format: '.0%' },
          },
        },
      },
      'confidence against depth',
    ),
  ]);
  return {
    title: 'Depth',
    lead: 'How many blocks ran, and how sure the answers were at each depth.',
    body: renderGroup(charts),
  };
}

function paths({ paths: all, items }: AuditSummary): Section {
  const rows = all
    .slice(0, PATHS)
    .map(({ ran, count }) => [renderPath(ran), count.toLocaleString('en'), percent(count / items)]);
  return {
    title: 'Most frequent paths',
    lead: `${all.length.toLocaleString('en')} distinct paths; a filled cell is a block that ran, a hollow one was skipped.`,
    body: renderTable(['path', '#items', '#share'], rows),
  };
}

/** The two classes, among those seen often enough, whose skip rates differ most. */
async function classAgainstClass({ classes, blocks, items }: AuditSummary): Promise<Section | undefined> {
  const often = classes.filter((c) => c.items >= Math.max(10, items / 200));
  let best: { a: number; b: number; distance: number } | undefined;
  for (let a = 0; a < often.length; a++) {
    for (let b = a + 1; b < often.length; b++) {
      const distance = blocks.reduce(
        (sum, _, i) => sum + Math.abs(often[a]!.skipRates[i]! - often[b]!.skipRates[i]!),
        0,
      );
      if (!best || distance > best.distance) best = { a, b, distance };
    }
  }
  if (!best) return undefined;
  const pair = [often[best.a]!, often[best.b]!];
  const values = pair.flatMap(({ label, skipRates }) =>
    skipRates.map((skipRate, i) => ({ label, block: blocks[i]!.name, skipRate })),
  );
  const chart = await renderChart(
    {
      width: 860,
      height: 160,
      data: { values },
      mark: { type: 'line', point: true },
      encoding: {
        x: blockAxis('block'),
        y: { field: 'skipRate', type: 'quantitative', title: 'skip rate', axis: { format: '.0%' } },
        color: { field: 'label', type: 'nominal', title: null, scale: { range: [INK.ran, INK.skipped] } },
      },
    },
    `skip rates of ${pair[0]!.label} and ${pair[1]!.label}`,
  );
  return {
    title: 'One class against another',
    lead: `The two answers whose paths differ most: ${pair[0]!.label} and ${pair[1]!.label}.`,
    body: chart,
  };
}

/** Items that were not left to their gates. */
function exceptions({ reasons, items, exceptions: classes, exits }: AuditSummary): Section | undefined {
  const kinds = [
    ['v', 'guarded: the answer made the item run in full'],
    ['x', 'left at an early exit'],
    ['t', 'ran in full because the monitor had tripped'],
  ] as const;
  const rows = kinds.flatMap(([letter, meaning]) => {
    const count = reasons[letter] ?? 0;
    return count > 0 ? [[meaning, count.toLocaleString('en'), percent(count / items)]] : [];
  });
  if (rows.length === 0) return undefined;
  const number = (count: number) => count.toLocaleString('en');
  const byAnswer = classes
    .slice(0, MOST_CLASSES)
    .map(({ label, guarded, exited }) => [escapeHtml(label), number(guarded), number(exited)]);
  const byExit = exits.map(({ after, items: left }) => [
    escapeHtml(after),
    number(left),
    percent(left / items),
  ]);
  return {
    title: 'Guards, exits and trips',
    lead: 'Items whose path was not left to the gates alone.',
    body: renderGroup([
      renderTable(['what happened', '#items', '#share'], rows),
      ...(byAnswer.length > 0 ? [renderTable(['answer', '#guarded', '#left early'], byAnswer)] : []),
      ...(byExit.length > 0 ? [renderTable(['exit behind', '#items', '#share'], byExit)] : []),
    ]),
  };
}

function examples(entries: readonly AuditEntry[], { thumbnails }: ReportOptions): Section {
  const depthOf = ({ record }: AuditEntry) => [...record.ran].filter((digit) => digit === '1').length;
  const known = thumbnails ? entries.filter(({ record }) => thumbnails.has(record.input ?? '')) : [];
  const ordered = [...(known.length >= 2 * EXAMPLES ? known : entries)].sort(
    (a, b) => depthOf(a) - depthOf(b),
  );
  const draw = ({ header, record }: AuditEntry) => {
    const image = thumbnails?.get(record.input ?? '');
    const [index, probability] = record.top[0] ?? [-1, 0];
    const label = index < 0 ? '' : `${header.labels?.[index] ?? `class ${index}`} ${percent(probability, 0)}`;
    return (
      `<figure>${image ? `<img alt="" src="${image}">` : ''}${renderPath(record.ran)}` +
      `<figcaption>${escapeHtml(label)}</figcaption></figure>`
    );
  };
  const part = (title: string, some: readonly AuditEntry[]) =>
    `<h3>${title}</h3><div class="examples">${some.map(draw).join('')}</div>`;
  return {
    title: 'Examples',
    body:
      part('Shortest paths', ordered.slice(0, EXAMPLES)) +
      part('Longest paths', ordered.slice(-EXAMPLES).reverse()),
  };
}

function provenance({ header }: AuditSummary, { problems = [] }: ReportOptions): Section {
  const rows = [
    ['model', `${escapeHtml(header.model.source ?? '')} <code>${header.model.sha256}</code>`],
    ['policy', `<code>${header.policy.sha256}</code>`],
    [
      'engine',
      escapeHtml(
        `residual-skip ${header.engine}, ${header.backend}, ${header.isa}, ${header.threads} threads`,
      ),
    ],
    [
      'log',
      problems.length === 0
        ? 'every line continues the one before it'
        : `${problems.length.toLocaleString('en')} problems<br>${problems
            .slice(0, PROBLEMS)
            .map(({ message }) => escapeHtml(message))
            .join('<br>')}`,
    ],
  ];
  return { title: 'Provenance', body: renderTable(['what', 'value'], rows) };
}
