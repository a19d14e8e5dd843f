// The tables and the chart of docs/performance.md: alternates this package with onnxruntime-node over networks,
// batches, threads and instruction sets. Build first; export the networks (bench/export_models.py) and install the
// peers (cd bench && npm ci --ignore-scripts) first, too.
//   npm run bench                 measure everything, write bench/results.json, then the page
//   npm run bench -- --page       only write the page from bench/results.json
//   npm run bench -- resnet18     only these networks; the page is not written
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nativeInfo } from '../dist/esm/backends/native.js';
import { INK, renderChart } from '../dist/esm/report/charts.js';
import { fillPage, standalone, table } from './page.mjs';

const BENCH = dirname(fileURLToPath(import.meta.url));
const RESULTS = join(BENCH, 'results.json');
const DOCS = join(BENCH, '..', 'docs');
const CLI = join(BENCH, '..', 'dist', 'esm', 'cli', 'main.js');

const CIFAR = ['resnet20', 'resnet32', 'resnet56'];
const IMAGENET = ['resnet18', 'resnet50', 'wide_resnet50', 'resnext50', 'mobilenetv2'];
const TITLES = {
  resnet20: 'ResNet-20 (CIFAR)',
  resnet32: 'ResNet-32 (CIFAR)',
  resnet56: 'ResNet-56 (CIFAR)',
  resnet18: 'ResNet-18 (224)',
  resnet50: 'ResNet-50 (224)',
  wide_resnet50: 'WideResNet-50-2 (224)',
  resnext50: 'ResNeXt-50 32x4d (224)',
  mobilenetv2: 'MobileNetV2 (224)',
};

/** What is measured of one network, on one thread: its best instruction set at two batches, then the others. */
function settingsOf(isas) {
  const best = isas.at(-1);
  const settings = [
    { batch: 1, threads: 1, isa: best },
    { batch: 8, threads: 1, isa: best },
  ];
  const others = isas.filter((isa) => isa !== best && isa !== 'scalar');
  return [...settings, ...others.map((isa) => ({ batch: 1, threads: 1, isa }))];
}

function measure(network, { batch, threads, isa }, peers, rounds) {
  const args = [CLI, 'bench', join(BENCH, 'models', `${network}.onnx`), '--json'];
  args.push('--batch', batch, '--threads', threads, '--isa', isa, '--peers', peers, '--rounds', rounds);
  const report = JSON.parse(execFileSync(process.execPath, args.map(String), { encoding: 'utf8' }));
  const ratios = Object.entries(report.ratios).map(([name, ratio]) => `${ratio.toFixed(2)}x ${name}`);
  console.log(`${network} batch ${batch}, ${threads} threads, ${isa}: ${ratios.join(', ')}`);
  return { network, ...report };
}

function measureAll(networks) {
  const { isas } = nativeInfo();
  const results = [];
  for (const network of networks) {
    if (!existsSync(join(BENCH, 'models', `${network}.onnx`))) {
      throw new Error(`bench/models/${network}.onnx is missing: run python3 bench/export_models.py`);
    }
    for (const setting of settingsOf(isas)) {
      results.push(measure(network, setting, 'onnxruntime-node', 14));
    }
  }
  if (networks.includes('resnet32')) {
    const all = 'onnxruntime-node,onnxruntime-web,tfjs-wasm,reference';
    results.push({
      ...measure('resnet32', { batch: 1, threads: 1, isa: isas.at(-1) }, all, 24),
      peers: true,
    });
  }
  return results;
}

const figure = (value) =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(3);

const ORT = 'onnxruntime-node';
const runnerOf = (result, name) => result.runners.find((runner) => runner.name === name);

function mainTable(results, isa) {
  const rows = results
    .filter((r) => !r.peers && r.batch === 1 && r.threads === 1 && r.isa === isa)
    .map((r) => {
      const [own, peer] = [runnerOf(r, 'native'), runnerOf(r, ORT)];
      return [
        TITLES[r.network],
        figure(own.medianMs),
        figure(peer.medianMs),
        `**${r.ratios[ORT].toFixed(2)}x**`,
      ];
    });
  return table(['network', 'native, ms', `${ORT}, ms`, 'ratio'], rows);
}

function scalingTable(results, isa) {
  const settings = [1, 8];
  const networks = [...new Set(results.map(({ network }) => network))];
  const rows = networks.map((network) => [
    TITLES[network],
    ...settings.map((batch) => {
      const result = results.find(
        (r) => !r.peers && r.network === network && r.batch === batch && r.threads === 1 && r.isa === isa,
      );
      return result ? `${result.ratios[ORT].toFixed(2)}x` : '';
    }),
  ]);
  const head = settings.map((batch) => `batch ${batch}`);
  return table(['network', ...head], rows);
}

function peersTable(results) {
  const result = results.find(({ peers }) => peers);
  if (!result) return '';
  const rows = result.runners.map(({ name, version, medianMs, p95Ms, rssMiB, loadMs }) => [
    `${name} ${version}`,
    figure(medianMs),
    figure(p95Ms),
    rssMiB.toFixed(0),
    loadMs.toFixed(0),
    name in result.ratios ? `${result.ratios[name].toFixed(2)}x` : '',
  ]);
  return table(
    ['ResNet-32, batch 1, one thread', 'median, ms', 'p95, ms', 'RSS, MiB', 'load, ms', 'native is'],
    rows,
  );
}

function loadTable(results) {
  const rows = results
    .filter((r) => !r.peers && r.batch === 8 && r.threads === 1)
    .map((r) => {
      const [own, peer] = [runnerOf(r, 'native'), runnerOf(r, ORT)];
      const of = (runner, key) => runner[key].toFixed(0);
      return [
        TITLES[r.network],
        of(own, 'loadMs'),
        of(peer, 'loadMs'),
        of(own, 'rssMiB'),
        of(peer, 'rssMiB'),
      ];
    });
  return table(['network', 'native load, ms', `${ORT} load, ms`, 'native RSS, MiB', `${ORT} RSS, MiB`], rows);
}

async function chart(results) {
  const values = results
    .filter((r) => !r.peers && r.batch === 1 && r.threads === 1)
    .map((r) => ({ network: TITLES[r.network], isa: r.isa, ratio: r.ratios[ORT] }));
  const svg = await renderChart(
    {
      width: 620,
      height: { step: 14 },
      data: { values },
      layer: [
        {
          mark: 'bar',
          encoding: {
            y: { field: 'network', type: 'nominal', sort: null, title: null },
            yOffset: { field: 'isa' },
            x: {
              field: 'ratio',
              type: 'quantitative',
              title: `speed relative to ${ORT}, batch 1, one thread`,
            },
            color: { field: 'isa', type: 'nominal', title: null, scale: { range: [INK.skipped, INK.ran] } },
          },
        },
        { mark: { type: 'rule', strokeDash: [4, 3], color: INK.muted }, encoding: { x: { datum: 1 } } },
      ],
    },
    `speed relative to ${ORT}`,
  );
  return standalone(svg);
}

async function writePage(results) {
  const isas = [...new Set(results.map(({ isa }) => isa))];
  const [{ cpu, peakGflops, isa: best }] = results;
  fillPage(join(DOCS, 'performance.md'), {
    machine: `${cpu}; peak of one core with ${best}: ${peakGflops.toFixed(0)} GFLOP/s, measured in the same run.`,
    main: isas.map((isa) => `With \`isa: '${isa}'\`:\n\n${mainTable(results, isa)}`).join('\n\n'),
    scaling: scalingTable(results, best),
    peers: peersTable(results),
    load: loadTable(results),
  });
  writeFileSync(join(DOCS, 'performance.svg'), await chart(results));
}

const args = process.argv.slice(2);
const named = args.filter((arg) => !arg.startsWith('--'));
if (!args.includes('--page')) {
  const results = measureAll(named.length > 0 ? named : [...CIFAR, ...IMAGENET]);
  if (named.length === 0) writeFileSync(RESULTS, `${JSON.stringify(results, null, 2)}\n`);
}
if (named.length === 0) await writePage(JSON.parse(readFileSync(RESULTS, 'utf8')));
