// Writes docs/reproduction.md and its drawings from the reports of all data sets.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { INK, renderChart } from '../../dist/report/charts.js';
import { fillPage, standalone, table } from '../page.mjs';
import { claimsOf, interval, latencyCut } from './claims.mjs';
import { DATASETS } from './networks.mjs';

const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const titleOf = ({ dataset }) => DATASETS[dataset].title;

export function mainTable(reports) {
  const rows = [
    ['network', (r) => `ResNet-${r.networks.plain.split('resnet').at(-1)}`],
    ['test images', (r) => r.items.toLocaleString('en-US')],
    ['accuracy: plain twin', (r) => percent(r.accuracy.plain, 2)],
    ['accuracy: gated network in full', (r) => percent(r.accuracy.full, 2)],
    ['**accuracy: gated network**', (r) => `**${percent(r.accuracy.gated, 2)}**`],
    ['  minus the twin, points (95 % interval)', (r) => interval(r.gatedMinusPlain)],
    ['**layers bypassed**', (r) => `**${percent(r.bypassed.layers)}**`],
    ['multiply-adds bypassed', (r) => percent(r.bypassed.multiplyAdds)],
    ['p50 latency: plain twin, ms', (r) => r.latencyMs.plain.p50.toFixed(3)],
    ['p50 latency: gated network, ms', (r) => r.latencyMs.gated.p50.toFixed(3)],
    ['**p50 latency cut**', (r) => `**${percent(latencyCut(r))}**`],
    ['mean latency cut', (r) => percent(meanCut(r))],
    ['p50, onnxruntime-node on the twin, ms', (r) => r.latencyMs['onnxruntime plain']?.p50.toFixed(3) ?? ''],
    [
      'p50, onnxruntime-node on the gated file, ms',
      (r) => r.latencyMs['onnxruntime gated']?.p50.toFixed(3) ?? '',
    ],
    ['accuracy: best static choice of the same cost', (r) => percent(r.accuracy.static, 2)],
    ['  gated minus static, points (95 % interval)', (r) => interval(r.gatedMinusStatic)],
    ['accuracy: random choice of as many blocks', (r) => percent(r.accuracy.random, 2)],
    ['distinct paths', (r) => String(r.paths)],
  ];
  return table(
    ['', ...reports.map(titleOf)],
    rows.map(([name, cell]) => [name, ...reports.map(cell)]),
  );
}

function claimsTable(reports) {
  const rows = reports.flatMap((report) =>
    claimsOf(report).map(({ claim, measured, holds }) => [
      titleOf(report),
      claim,
      measured,
      holds ? 'holds' : '**fails**',
    ]),
  );
  return table(['', 'claim', 'measured', ''], rows);
}

function dialChart(reports) {
  const values = reports.flatMap((report) => [
    ...report.dial.map(({ latency, accuracy, threshold }) => ({
      set: titleOf(report),
      latency,
      accuracy,
      kind: threshold === 0 ? 'as trained' : 'another offset',
    })),
    { set: titleOf(report), latency: 1, accuracy: report.accuracy.plain, kind: 'plain twin' },
  ]);
  const x = {
    field: 'latency',
    type: 'quantitative',
    title: 'mean latency, share of the plain twin',
    scale: { zero: true },
  };
  const y = {
    field: 'accuracy',
    type: 'quantitative',
    title: 'accuracy',
    axis: { format: '.1%' },
    scale: { zero: false },
  };
  return {
    data: { values },
    facet: { column: { field: 'set', title: null, sort: reports.map(titleOf) } },
    spec: {
      width: 220,
      height: 200,
      layer: [
        {
          transform: [{ filter: "datum.kind != 'plain twin'" }],
          mark: { type: 'line', color: INK.ran },
          encoding: { x, y },
        },
        {
          mark: { type: 'point', filled: true, size: 60, opacity: 1 },
          encoding: {
            x,
            y,
            color: {
              field: 'kind',
              type: 'nominal',
              title: null,
              scale: {
                domain: ['as trained', 'another offset', 'plain twin'],
                range: [INK.guard, INK.ran, INK.saved],
              },
            },
          },
        },
      ],
    },
    resolve: { scale: { y: 'independent' } },
  };
}

function heatMap(reports) {
  return {
    hconcat: reports.map((report) => ({
      title: titleOf(report),
      width: { step: 24 },
      height: { step: 18 },
      data: { values: report.skipRates },
      mark: 'rect',
      encoding: {
        x: { field: 'block', type: 'ordinal', title: 'gated block', axis: { labelAngle: 0 } },
        y: { field: 'label', type: 'nominal', sort: null, title: null },
        color: {
          field: 'rate',
          type: 'quantitative',
          title: 'skipped',
          scale: { domain: [0, 1], scheme: 'blues' },
          legend: { format: '.0%' },
        },
      },
    })),
  };
}

const CELL = { width: 96, height: 112, image: 56, left: 150, top: 30 };

/**
 * For each data set, a row of images with the shortest paths and one with the longest: picture, answer, and the path as
 * filled (ran) and hollow (skipped) cells.
 */
function drawExtremes(reports) {
  const rows = reports.flatMap((report) =>
    [
      ['shortest', report.extremes.shortest],
      ['longest', report.extremes.longest],
    ].map(([end, examples]) => ({ title: titleOf(report), end, examples, labels: report.labels })),
  );
  const columns = Math.max(...rows.map(({ examples }) => examples.length));
  const drawn = rows.map(({ title, end, examples, labels }, row) => {
    const y = CELL.top + row * CELL.height;
    const cells = examples.map(({ png, label, answer, path }, column) => {
      const x = CELL.left + column * CELL.width;
      const bits = [...path].map((ran, i) => {
        const fill = ran === '1' ? `fill="${INK.ran}"` : `fill="none" stroke="${INK.skipped}"`;
        return `<rect x="${x + i * 9}" y="${y + CELL.image + 6}" width="7" height="9" rx="2" ${fill}/>`;
      });
      const wrong = label === answer ? '' : ` (${labels[label]})`;
      return (
        `<image x="${x}" y="${y}" width="${CELL.image}" height="${CELL.image}" style="image-rendering:pixelated" href="data:image/png;base64,${png}"/>` +
        `${bits.join('')}<text x="${x}" y="${y + CELL.image + 30}">${labels[answer]}${wrong}</text>`
      );
    });
    return `<text x="10" y="${y + 26}">${title}</text><text x="10" y="${y + 44}">${end} path</text>${cells.join('')}`;
  });
  const width = CELL.left + columns * CELL.width;
  const height = CELL.top + rows.length * CELL.height;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12" fill="#24292f">
<title>Images that took the shortest and the longest paths</title>
<rect width="${width}" height="${height}" rx="8" fill="#fff"/>
${drawn.join('\n')}
</svg>
`;
}

function exampleNote(reports) {
  return reports
    .map(({ networks, extremes: { shortest, longest }, gates }) => {
      const ran = ({ path }) => [...path].filter((bit) => bit === '1').length;
      return `* \`${networks.gated}\`: the shortest path runs ${ran(shortest[0])} of ${gates.length} gated blocks, the longest ${ran(longest[0])}.`;
    })
    .join('\n');
}

const meanCut = ({ latencyMs }) => 1 - latencyMs.gated.mean / latencyMs.plain.mean;

/** Fills docs/reproduction.md and writes the drawings beside it. */
export async function writePage(docs, reports, machine) {
  fillPage(join(docs, 'reproduction.md'), {
    machine,
    results: mainTable(reports),
    claims: claimsTable(reports),
    dial: '![Accuracy against latency](reproduction-dial.svg)',
    classes: '![Skip rate by class and block](reproduction-classes.svg)',
    drawn: '![Shortest and longest paths](reproduction-paths.svg)',
    paths: exampleNote(reports),
  });
  const chart = async (name, spec, label) =>
    writeFileSync(join(docs, `${name}.svg`), standalone(await renderChart(spec, label)));
  await chart('reproduction-dial', dialChart(reports), 'accuracy against latency as one offset moves');
  await chart('reproduction-classes', heatMap(reports), 'skip rate by class and block');
  writeFileSync(join(docs, 'reproduction-paths.svg'), drawExtremes(reports));
}
