/** The parts of the audit report about paths: depth, frequent paths, classes, exceptions, examples. */
import { skipRateLines } from '../report/blocks.js';
import { escapeHtml, renderChart } from '../report/charts.js';
import {
  percent,
  renderExamples,
  renderGroup,
  renderPath,
  renderTable,
  type Section,
  whole,
} from '../report/page.js';
import type { AuditEntry } from './read.js';
import { type AuditSummary, depthOf, MAX_CLASSES } from './summary.js';

const EXAMPLES = 5;
const PATHS = 12;

export async function depth({ depths, blocks }: AuditSummary): Promise<Section | undefined> {
  if (blocks.length === 0) return undefined;
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

export function paths({ paths: all, items, blocks }: AuditSummary): Section | undefined {
  if (blocks.length === 0) return undefined;
  const rows = all
    .slice(0, PATHS)
    .map(({ ran, count }) => [renderPath(ran), whole(count), percent(count / items)]);
  return {
    title: 'Most frequent paths',
    lead: `${whole(all.length)} distinct paths; a filled cell is a block that ran, a hollow one was skipped.`,
    body: renderTable(['path', '#items', '#share'], rows),
  };
}

/** The two classes, among those with enough items, whose skip rates differ most. */
export async function classAgainstClass({
  classes,
  blocks,
  items,
}: AuditSummary): Promise<Section | undefined> {
  const often = classes.filter((c) => c.items >= Math.max(10, items / 200));
  let best: { a: number; b: number; distance: number } | undefined;
  for (let a = 0; a < often.length; a++) {
    for (let b = a + 1; b < often.length; b++) {
      const distance = blocks.reduce(
        (sum, _, i) => sum + Math.abs(often[a]!.skipRates[i]! - often[b]!.skipRates[i]!),
        0,
      );
      if (distance > (best?.distance ?? 0)) best = { a, b, distance };
    }
  }
  if (!best) return undefined;
  const pair = [often[best.a]!, often[best.b]!];
  return {
    title: 'One class against another',
    lead: `The two answers whose paths differ most: ${pair[0]!.label} and ${pair[1]!.label}.`,
    body: await skipRateLines(
      pair,
      blocks.map(({ name }) => name),
    ),
  };
}

/** Items whose gates did not decide, or a statement that there were none. */
export function exceptions({ guards, reasons, items, exceptions: classes, exits }: AuditSummary): Section {
  const kinds = [
    ['v', 'guarded: the answer made the item run in full'],
    ['x', 'left at an early exit'],
    ['t', 'ran in full because the monitor had tripped'],
  ] as const;
  const rows = kinds.flatMap(([letter, meaning]) => {
    const count = reasons[letter] ?? 0;
    return count > 0 ? [[meaning, whole(count), percent(count / items)]] : [];
  });
  const lead = [
    guards.length > 0
      ? `The policy guards the answers ${guards.join(', ')}.`
      : 'The policy guards no answer.',
    ...(guards.length > 0 && !reasons.v ? ['No item came to a guard.'] : []),
    rows.length > 0
      ? 'These items did not take the path that their gates chose:'
      : 'Every item took the path that its gates chose: none was guarded, left at an early exit, or ran in full because the monitor had tripped.',
  ].join(' ');
  const byAnswer = classes
    .slice(0, MAX_CLASSES)
    .map(({ label, guarded, exited }) => [escapeHtml(label), whole(guarded), whole(exited)]);
  const byExit = exits.map(({ after, items: left }) => [
    escapeHtml(after),
    whole(left),
    percent(left / items),
  ]);
  return {
    title: 'Guards, exits and trips',
    lead,
    body: renderGroup([
      ...(rows.length > 0 ? [renderTable(['what happened', '#items', '#share'], rows)] : []),
      ...(byAnswer.length > 0 ? [renderTable(['answer', '#guarded', '#left early'], byAnswer)] : []),
      ...(byExit.length > 0 ? [renderTable(['exit behind', '#items', '#share'], byExit)] : []),
    ]),
  };
}

export function examples(
  entries: readonly AuditEntry[],
  thumbnails: ReadonlyMap<string, string> | undefined,
): Section {
  const known = thumbnails ? entries.filter(({ record }) => thumbnails.has(record.input ?? '')) : [];
  const ordered = [...(known.length >= 2 * EXAMPLES ? known : entries)].sort(
    (a, b) => depthOf(a) - depthOf(b),
  );
  const draw = ({ header, record }: AuditEntry) => {
    const [index = -1, probability = null] = record.top[0] ?? [];
    return {
      image: thumbnails?.get(record.input ?? ''),
      ran: record.ran,
      caption:
        probability === null
          ? ''
          : `${header.labels?.[index] ?? `class ${index}`} ${percent(probability, 0)}`,
    };
  };
  return {
    title: 'Examples',
    body:
      renderExamples('Shortest paths', ordered.slice(0, EXAMPLES).map(draw)) +
      renderExamples('Longest paths', ordered.slice(-EXAMPLES).reverse().map(draw)),
  };
}
