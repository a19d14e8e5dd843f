// Writes docs/protocol.md and its drawing from the reports of all data sets.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { mean } from '../../dist/numeric/statistics.js';
import { INK, renderChart } from '../../dist/report/charts.js';
import { fillPage, standalone, table } from '../page.mjs';
import { averaged, familyOf, gatedWork, latencyOfRole, ofRole } from './claims.mjs';
import { LIMITS, SETS } from './runs.mjs';

const percent = (value, digits = 1) => (value === undefined ? '' : `${(100 * value).toFixed(digits)} %`);
const million = (value) => (value / 1e6).toFixed(1);
const titleOf = ({ dataset }) => SETS[dataset].title;

/** Mean over seeds; with the smallest and largest if there are several. */
function spread(runs, key, digits = 2) {
  const values = runs.map((run) => run[key]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return values.length > 1
    ? `${percent(mean(values), digits)} (${percent(low, digits)} to ${percent(high, digits)})`
    : percent(values[0], digits);
}

const ms = (latency) =>
  latency ? [latency.p50, latency.mean, latency.p95].map((value) => value.toFixed(3)) : ['', '', ''];

function networkRows(report) {
  const rows = familyOf(report).map((role) => {
    const runs = ofRole(report, role);
    const work = million(averaged(runs, 'multiplyAdds'));
    return [role, runs.length, work, spread(runs, 'accuracy'), ...ms(latencyOfRole(report, role, LIMITS))];
  });
  const gated = ofRole(report, 'gated');
  if (gated.length === 0) return rows;
  const full = [
    million(averaged(gated, 'multiplyAdds')),
    spread(gated, 'inFull'),
    ...ms(report.latencyMs['gated in full']),
  ];
  const own = [
    million(gatedWork(gated)),
    spread(gated, 'accuracy'),
    ...ms(latencyOfRole(report, 'gated', LIMITS)),
  ];
  const others = ['static', 'random'].map((name) => {
    const choices = gated.map((run) => run[name]);
    const work = mean(gated.map((run, i) => run.multiplyAdds * (1 - choices[i].saved)));
    return [`gated, ${name} choice`, gated.length, million(work), spread(choices, 'accuracy'), '', '', ''];
  });
  const peers = ['twin', 'gated'].map((role) => {
    const latency = report.latencyMs[`onnxruntime ${role}`];
    return latency && [`onnxruntime-node, ${role}`, '', '', '', ...ms(latency)];
  });
  return [
    ...rows,
    ['gated, in full', gated.length, ...full],
    ['**gated**', gated.length, ...own],
    ...others,
    ...peers.filter(Boolean),
  ];
}

function networksTable(report) {
  const head = ['network', 'seeds', 'M multiply-adds', 'accuracy', 'p50, ms', 'mean, ms', 'p95, ms'];
  return `### ${titleOf(report)}\n\n${table(head, networkRows(report))}`;
}

function skippingTable(reports) {
  const rows = reports
    .map((report) => [report, ofRole(report, 'gated')])
    .filter(([, gated]) => gated.length > 0)
    .map(([report, gated]) => [
      titleOf(report),
      spread(gated, 'layers', 1),
      spread(gated, 'paperLayers', 1),
      spread(gated, 'blocks', 1),
      spread(gated, 'saved', 1),
      gated[0].stages
        .map((_, stage) => percent(mean(gated.map(({ stages }) => stages[stage])), 0))
        .join(', '),
      report.energy
        ? `${['full', 'skip'].map((mode) => (1000 * report.energy.cpuSeconds[mode]).toFixed(3)).join(', ')}`
        : '',
    ]);
  const head = [
    '',
    'layers bypassed',
    "layers by the papers' convention",
    'blocks skipped',
    'multiply-adds saved',
  ];
  return table([...head, 'skipped by stage', 'CPU ms in full, with the policy'], rows);
}

/** Points of the curves: accuracy and mean latency of everything measured with the first seed. */
export function curves(report) {
  const { latencyMs, seed } = report;
  const own = report.networks.filter((network) => network.seed === seed);
  const gated = own.find(({ role }) => role === 'gated');
  const point = (kind, name, accuracy, key) => ({ kind, name, accuracy, latency: latencyMs[key].mean });
  return [
    ...own
      .filter(({ role }) => role !== 'gated')
      .map(({ role, accuracy }) => point('plain networks', role, accuracy, role)),
    ...(gated?.dial ?? []).map(({ limit, accuracy }) =>
      point('gated, certified limits', `limit ${limit}`, accuracy, `limit ${limit}`),
    ),
    ...(gated?.oneThreshold ?? []).map(({ threshold, accuracy }) =>
      point('gated, one threshold', `threshold ${threshold}`, accuracy, `threshold ${threshold}`),
    ),
  ];
}

function curvesTable(report) {
  const rows = curves(report).map(({ kind, name, accuracy, latency }) => [
    kind,
    name,
    percent(accuracy, 2),
    latency.toFixed(3),
  ]);
  return `${titleOf(report)}, seed ${report.seed}:\n\n${table(['', 'setting', 'accuracy', 'mean, ms'], rows)}`;
}

function curvesChart(reports) {
  const values = reports.flatMap((report) =>
    curves(report).map((point) => ({ ...point, set: titleOf(report) })),
  );
  const kinds = ['gated, certified limits', 'gated, one threshold', 'plain networks'];
  const x = { field: 'latency', type: 'quantitative', title: 'mean latency, ms' };
  const y = {
    field: 'accuracy',
    type: 'quantitative',
    title: 'accuracy',
    axis: { format: '.1%' },
    scale: { zero: false },
  };
  const color = {
    field: 'kind',
    type: 'nominal',
    title: null,
    scale: { domain: kinds, range: [INK.ran, INK.guard, INK.saved] },
  };
  return {
    data: { values },
    facet: { column: { field: 'set', title: null, sort: reports.map(titleOf) } },
    spec: { width: 220, height: 200, mark: { type: 'line', point: true }, encoding: { x, y, color } },
    resolve: { scale: { x: 'independent', y: 'independent' } },
  };
}

export const claimsTable = (claims) =>
  table(
    ['', 'claim', 'measured', ''],
    claims.map(({ set, claim, measured, holds }) => [
      set,
      claim,
      measured ?? 'not measured yet',
      measured === undefined ? 'open' : holds ? 'holds' : '**fails**',
    ]),
  );

/** Fills docs/protocol.md and draws its curves. */
export async function writePage(docs, { cpu, reports, claims, missing }) {
  const [first] = reports;
  const peer = reports.find((report) => report.peer)?.peer;
  const beside = peer ? `; beside it onnxruntime-node ${peer}` : '';
  const none = 'No network is finished.';
  fillPage(join(docs, 'protocol.md'), {
    machine: first ? `Measured on: ${cpu}, \`isa: '${first.isa}'\`, one thread, batch 1${beside}.` : none,
    missing:
      missing.length > 0
        ? `Not trained yet: ${missing.join(', ')}.`
        : 'All networks of the plan are measured.',
    claims: claimsTable(claims),
    networks: reports.map(networksTable).join('\n\n') || none,
    skipping: first ? skippingTable(reports) : none,
    curves: first
      ? ['![Accuracy against mean latency](protocol-curves.svg)', ...reports.map(curvesTable)].join('\n\n')
      : none,
  });
  if (!first) return;
  const chart = await renderChart(curvesChart(reports), 'accuracy against mean latency');
  writeFileSync(join(docs, 'protocol-curves.svg'), standalone(chart));
}
