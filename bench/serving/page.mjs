// Writes the measurements in docs/serving.md and its chart.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { INK, renderChart } from '../../dist/report/charts.js';
import { median, standalone, table } from '../harness.mjs';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');
const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
const ms = (value) => (Number.isFinite(value) ? value.toFixed(1) : '-');

/** The highest load up to which every step met the target and refused nothing; 0 if the first step failed. */
function keptUpTo(steps, targetMs) {
  const broken = steps.findIndex(({ p99Ms, refused }) => !(p99Ms <= targetMs) || refused > 0);
  return (broken < 0 ? steps.at(-1) : steps[broken - 1])?.load ?? 0;
}

function bearsTable(measured) {
  const rows = measured.map(
    ({ title, inProcess, capacity, serviceMs, halfP99Ms, cpuUs, over, requests, wrong }) => [
      title,
      inProcess.toFixed(0),
      `${capacity.toFixed(0)} (${percent(capacity / inProcess)})`,
      [cpuUs.alone, cpuUs.server, cpuUs.load].map((us) => us.toFixed(0)).join(', '),
      `${ms(halfP99Ms)} ms (${(halfP99Ms / serviceMs).toFixed(1)} service times)`,
      `${over.goodput.toFixed(0)} (${percent(over.goodput / capacity)})`,
      percent(median(over.rounds)),
      `${over.memoryMiB.afterAThird.toFixed(0)}, ${over.memoryMiB.atTheEnd.toFixed(0)}`,
      requests.toLocaleString('en'),
      String(wrong),
    ],
  );
  return table(
    [
      'network',
      '`session.run`, items/s',
      'served, items/s',
      'CPU time per item, µs: `session.run`, server, load',
      'p99 at half load',
      `answered at three times the load, items/s`,
      "for a second of the server's CPU time",
      'MiB after a third, at the end',
      'requests',
      'wrong answers',
    ],
    rows,
  );
}

/** Status 0 means that a request had no answer. */
function overload({ title, over }) {
  const counts = Object.entries(over.statuses).map(
    ([status, count]) => `${count.toLocaleString('en')} times ${status === '0' ? 'no answer' : status}`,
  );
  return `${title} ${counts.join(', ')} in ${over.seconds} s`;
}

function rampTable({ elastic, fixed }) {
  const rows = elastic.steps.map((step, i) => {
    const full = fixed.steps[i];
    const [setting] = Object.entries(step.settings).sort((a, b) => b[1] - a[1])[0] ?? ['-'];
    return [
      percent(step.load),
      ms(full.p99Ms),
      percent(full.refused, 1),
      ms(step.p99Ms),
      percent(step.refused, 1),
      setting,
      percent(step.saved),
    ];
  });
  const head = ['load', 'full: p99, ms', 'full: refused', 'elastic: p99, ms', 'elastic: refused'];
  return table([...head, 'most frequent setting', 'multiply-adds skipped'], rows);
}

async function chart({ targetMs, ramp: { elastic, fixed } }) {
  const lines = [
    ['full depth', fixed],
    ['elastic depth', elastic],
  ].flatMap(([server, { steps }]) => steps.map(({ load, p99Ms }) => ({ server, load, p99Ms })));
  const names = [...new Set(elastic.steps.flatMap(({ settings }) => Object.keys(settings)))];
  const shares = elastic.steps.flatMap(({ load, settings }) =>
    names.map((setting) => ({ load, setting, share: settings[setting] ?? 0 })),
  );
  const x = {
    field: 'load',
    type: 'quantitative',
    title: 'load, relative to what full depth bears',
    axis: { format: '%' },
  };
  const svg = await renderChart(
    {
      vconcat: [
        {
          width: 620,
          height: 220,
          layer: [
            {
              data: { values: lines },
              mark: { type: 'line', point: true },
              encoding: {
                x,
                y: {
                  field: 'p99Ms',
                  type: 'quantitative',
                  scale: { type: 'log' },
                  title: '99th percentile of latency, ms',
                },
                color: {
                  field: 'server',
                  type: 'nominal',
                  title: null,
                  scale: { domain: ['full depth', 'elastic depth'], range: [INK.skipped, INK.ran] },
                },
              },
            },
            {
              data: { values: [{ targetMs }] },
              mark: { type: 'rule', strokeDash: [4, 3], color: INK.guard },
              encoding: { y: { field: 'targetMs', type: 'quantitative' } },
            },
          ],
        },
        {
          width: 620,
          height: 110,
          data: { values: shares },
          mark: { type: 'area', interpolate: 'step' },
          encoding: {
            x,
            y: {
              field: 'share',
              type: 'quantitative',
              stack: 'normalize',
              title: 'answers by setting',
              axis: { format: '%' },
            },
            color: {
              field: 'setting',
              type: 'ordinal',
              title: 'setting',
              scale: { scheme: 'blues' },
            },
          },
        },
      ],
      resolve: { scale: { color: 'independent' } },
    },
    'latency and settings while the load grows',
  );
  return standalone(svg);
}

/** The script writes everything from the last heading of the page on. */
const HEADING = '\n## Measurements\n';

function section({ threads, cpu, busy, warmSeconds, targetMs, measured, ramp }) {
  const [full, elastic] = [ramp.fixed, ramp.elastic].map(({ steps }) => keptUpTo(steps, targetMs));
  const single = ramp.elastic.each.map((steps, i) => {
    const [bold, whole] = [steps, ramp.fixed.each[i]].map((one) => keptUpTo(one, targetMs));
    return `${percent(whole)} and ${percent(bold)}`;
  });
  const { changes, after, requests, wrong } = ramp.elastic;
  return [
    `\`node bench/serving.mjs DATA\` on ${cpu}, ${threads} CPUs. \`session.run\` has them alone, in one process and without HTTP; it and the server are measured in turn, and the medians of the rounds are given. The server shares them with the program that generates the load, and has warmed up for ${warmSeconds} s. In the minute before, ${busy.toFixed(1)} other programs ran or waited for a core, on average. Every answer was compared with that of \`session.run\` in the same setting.`,
    bearsTable(measured),
    `A service time is that of one run on one thread. By the server's CPU time, which leaves out the generator and other programs, the answers under overload are a share of those at the highest load that is served, in ${measured[0].over.rounds.length} rounds of each in turn. At three times the load: ${measured.map(overload).join('; ')}.`,
    `${measured[0].title} with its own policy, \`--target-p99 ${targetMs}ms\`, and a load that grows steadily, three times with each in turn; by the medians of each step, full depth keeps the target up to ${percent(full)} of what it serves at most, elastic depth up to ${percent(elastic)}, ${(elastic / full).toFixed(2)} times as much (the single ramps: ${single.join('; ')}; a stall of the machine of 40 ms is enough for one step to miss the target). The setting changed ${changes.join(', ')} times, and was ${after.join(', ')} when the load had gone. ${requests.toLocaleString('en')} requests, ${wrong} wrong answers.`,
    '![Latency and settings while the load grows](serving.svg)',
    rampTable(ramp),
  ].join('\n\n');
}

export async function writePage(results) {
  const path = join(DOCS, 'lab', 'serving.md');
  const [written] = readFileSync(path, 'utf8').split(HEADING);
  writeFileSync(path, `${written}${HEADING}\n${section(results)}\n`);
  writeFileSync(join(DOCS, 'lab', 'serving.svg'), await chart(results));
}
