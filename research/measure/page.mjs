// Writes the sections of docs/lab/protocol.md, one for each measured data set, and their drawings.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fillPage, standalone, table } from '../../bench/harness.mjs';
import { ROOT, SETS } from '../../bench/networks.mjs';
import { mean } from '../../dist/numeric/statistics.js';
import { INK, renderChart } from '../../dist/report/charts.js';
import { averaged, familyOf, gatedWork, latencyOfRole, ofRole } from './claims.mjs';
import { OURS } from './ladders.mjs';
import { LIMITS } from './runs.mjs';

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
  return [...rows, ...gatedRows(report), ...ladderRows(report)];
}

function gatedRows(report) {
  const gated = ofRole(report, 'gated');
  if (gated.length === 0) return [];
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
  return [['gated, in full', gated.length, ...full], ['**gated**', gated.length, ...own], ...others];
}

/** Ladders, and what onnxruntime-node runs. */
function ladderRows(report) {
  const names = [...new Set((report.ladders ?? []).map(({ role }) => role))];
  const ladders = names.map((name) => {
    const runs = report.ladders.filter(({ role }) => role === name);
    const title = Object.values(OURS).includes(name) ? `**${name}**` : name;
    return [
      title,
      runs.length,
      million(averaged(runs, 'work')),
      spread(runs, 'accuracy'),
      ...ms(report.latencyMs[name]),
    ];
  });
  const peers = ['twin', 'gated', ...names].map((role) => {
    const latency = report.latencyMs[`onnxruntime ${role}`];
    return latency && [`onnxruntime-node, ${role}`, '', '', '', ...ms(latency)];
  });
  return [...ladders, ...peers.filter(Boolean)];
}

function networksTable(report) {
  const head = ['network', 'seeds', 'M multiply-adds', 'accuracy', 'p50, ms', 'mean, ms', 'p95, ms'];
  return table(head, networkRows(report));
}

function skippingTable(report) {
  const gated = ofRole(report, 'gated');
  if (gated.length === 0) return '';
  const stages = gated[0].stages.map((_, i) => percent(mean(gated.map((run) => run.stages[i])), 0));
  const milliseconds = (mode) => (1000 * report.energy.cpuSeconds[mode]).toFixed(3);
  return table(
    ['what is skipped', ''],
    [
      ['layers bypassed', spread(gated, 'layers', 1)],
      ...(gated[0].paperLayers === undefined
        ? []
        : [["layers by the papers' convention", spread(gated, 'paperLayers', 1)]]),
      ['blocks skipped', spread(gated, 'blocks', 1)],
      ['blocks skipped by stage', stages.join(', ')],
      ['multiply-adds saved', spread(gated, 'saved', 1)],
      ...(report.energy
        ? [['CPU ms in full, with the policy', ['full', 'skip'].map(milliseconds).join(', ')]]
        : []),
    ],
  );
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
    ...(gated?.curve ?? []).map(({ limit, accuracy }) =>
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
  return table([`seed ${report.seed}`, 'setting', 'accuracy', 'mean, ms'], rows);
}

function curvesChart(values) {
  const kinds = ['gated, certified limits', 'gated, one threshold', 'plain networks'];
  const quantitative = (field, title, more) => ({ field, title, type: 'quantitative', ...more });
  return {
    data: { values },
    width: 420,
    height: 220,
    mark: { type: 'line', point: true },
    encoding: {
      x: quantitative('latency', 'mean latency, ms'),
      y: quantitative('accuracy', 'accuracy', { axis: { format: '.1%' }, scale: { zero: false } }),
      color: {
        field: 'kind',
        type: 'nominal',
        title: null,
        scale: { domain: kinds, range: [INK.ran, INK.guard, INK.saved] },
      },
    },
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

const measuredOn = ({ isa, peer }, cpu) =>
  `Measured on: ${cpu}, \`isa: '${isa}'\`, one thread, batch 1${peer ? `; beside it onnxruntime-node ${peer}` : ''}.`;

/** The section of one data set: where it was measured, its claims, networks, skipping and curves. */
function section(report, { cpu, claims, missing }) {
  const { dataset } = report;
  const absent = missing.filter((name) => name.startsWith(`${dataset}/`));
  const title = titleOf(report);
  return [
    measuredOn(report, cpu),
    absent.length > 0 && `Not trained yet: ${absent.join(', ')}.`,
    claimsTable(claims.filter(({ set }) => set === title)),
    networksTable(report),
    skippingTable(report),
    `![Accuracy against mean latency on ${title}](${chartFile(report)})`,
    curvesTable(report),
  ]
    .filter(Boolean)
    .join('\n\n');
}

/** Fills the sections of ladders in docs/lab/protocol.md: their claims, and the networks and ladders that were measured together. */
export function writeLadders(docs, { reports, cpu, claims }) {
  const sections = reports.map((report) => {
    const own = claims.filter(({ set }) => set === titleOf(report));
    const parts = [measuredOn(report, cpu), claimsTable(own), networksTable(report)];
    return [`${report.dataset}-ladders`, parts.join('\n\n')];
  });
  fillPage(join(docs, 'protocol.md'), Object.fromEntries(sections));
}

const chartFile = ({ dataset }) => `protocol-${dataset}.svg`;

/** The rows of `page`'s table between the markers, those of `claims` replaced. */
function publishedTable(page, claims) {
  const kept = page.split('<!-- published -->')[1].split('<!-- /published -->')[0].trim().split('\n');
  const rows = claimsTable(claims).split('\n').slice(2);
  const claimOf = (row) => row.split(' | ').slice(0, 2).join();
  return kept.map((row) => rows.find((one) => claimOf(one) === claimOf(row)) ?? row).join('\n');
}

/** The sentence about CIFAR-10 for the README. */
function headline(report) {
  const [twins, gated] = ['twin', 'gated'].map((role) => ofRole(report, role));
  const [before, after] = ['twin', 'gated'].map((role) => latencyOfRole(report, role, LIMITS).mean);
  const [was, is] = [twins, gated].map((runs) => percent(averaged(runs, 'accuracy'), 2));
  return (
    `On CIFAR-10, early exits cut the mean latency [by ${percent(1 - after / before)}](docs/lab/protocol.md), ` +
    `with an accuracy of ${is} instead of ${was}.`
  );
}

/**
 * Fills the sections of the measured data sets in docs/lab/protocol.md, draws their curves, and replaces the rows of `published`
 * claims. Everything else on the page is kept: measuring all sets again takes days of training.
 */
export async function writePage(docs, { published, ...results }) {
  const path = join(docs, 'protocol.md');
  const sections = results.reports.map((report) => [report.dataset, section(report, results)]);
  const parts = { published: publishedTable(readFileSync(path, 'utf8'), published) };
  fillPage(path, { ...Object.fromEntries(sections), ...parts });
  const cifar = results.reports.find(({ dataset }) => dataset === 'cifar10');
  if (cifar && familyOf(cifar).includes('twin') && ofRole(cifar, 'gated').length > 0)
    fillPage(join(ROOT, 'README.md'), { skipping: headline(cifar) });
  for (const report of results.reports) {
    const chart = await renderChart(
      curvesChart(curves(report)),
      `accuracy against mean latency, ${titleOf(report)}`,
    );
    writeFileSync(join(docs, chartFile(report)), standalone(chart));
  }
}
