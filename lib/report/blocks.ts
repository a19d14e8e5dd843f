/** Charts of the residual blocks of a network, which reports of different kinds share. */
import { INK, renderChart } from './charts.js';
import { percent } from './page.js';

/** Number of points that a score histogram is drawn from. */
const BINS = 24;

/** The data drawn for one block. */
export interface DrawnBlock {
  readonly name: string;
  /** Whether anything may skip it. */
  readonly skippable: boolean;
  /** Share of the items that skipped it, 0 to 1. */
  readonly skipRate: number;
}

/** Scores of one block's gate, at least one, and the threshold. */
export interface DrawnScores {
  readonly name: string;
  readonly scores: readonly number[];
  readonly threshold: number | null;
}

/** How often each block was skipped among the items of one kind; in the order of the blocks. */
export interface DrawnRates {
  readonly label: string;
  readonly skipRates: readonly number[];
}

/** Blocks in order; names are rotated so that long ones fit. */
function blockAxis(field: string) {
  return { field, type: 'nominal', sort: null, title: 'block, in order', axis: { labelAngle: -50 } } as const;
}

/** A bar for each block, in order. */
export function skipRateChart(blocks: readonly DrawnBlock[]): Promise<string> {
  const values = blocks.map(({ name, skipRate, skippable }) => ({
    name,
    skipRate,
    label: skippable || skipRate > 0 ? percent(skipRate, 0) : 'runs',
  }));
  const x = blockAxis('name');
  return renderChart(
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
}

function histogram({ name, scores, threshold }: DrawnScores) {
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

/** A small histogram for each gate, with a red line at its threshold. */
export function scoreHistograms(gated: readonly DrawnScores[]): Promise<string> {
  return renderChart(
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
}

function cellsOf(rows: readonly DrawnRates[], names: readonly string[]) {
  return rows.flatMap(({ label, skipRates }) =>
    skipRates.map((skipRate, i) => ({ label, block: names[i]!, skipRate })),
  );
}

/** A heat map: a row for each kind of item, a column for each block. */
export function skipRateMap(rows: readonly DrawnRates[], names: readonly string[]): Promise<string> {
  return renderChart(
    {
      width: 760,
      height: { step: 18 },
      data: { values: cellsOf(rows, names) },
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
}

/** A line for each kind of item over the blocks, in one colour per kind. */
export function skipRateLines(rows: readonly DrawnRates[], names: readonly string[]): Promise<string> {
  return renderChart(
    {
      width: 860,
      height: 160,
      data: { values: cellsOf(rows, names) },
      mark: { type: 'line', point: true },
      encoding: {
        x: blockAxis('block'),
        y: { field: 'skipRate', type: 'quantitative', title: 'skip rate', axis: { format: '.0%' } },
        color: { field: 'label', type: 'nominal', title: null, scale: { range: [INK.ran, INK.skipped] } },
      },
    },
    `skip rates of ${rows.map(({ label }) => label).join(' and ')}`,
  );
}
