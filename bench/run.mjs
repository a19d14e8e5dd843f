// Makes the tables and the chart of docs/performance.md and docs/lab/performance.md: alternates this package with onnxruntime-node over networks,
// batches, threads and instruction sets, and times two concurrent runs. First build, export the networks
// (bench/export_models.py), and install the peers (cd bench && npm ci --ignore-scripts).
//   npm run bench                 measure everything, write bench/results.json and the page
//   npm run bench -- --page       only write the page from bench/results.json
//   npm run bench -- resnet18     only these networks; replaces their entries in results.json and doesn't write the page
//   npm run bench -- --item deit_tiny   only one item on one thread, with each instruction set; prints the tables, writes nothing
//   npm run bench -- --item --forms resnet20   the same with each form of the AVX-512 kernels
//   npm run bench -- --against COMMIT   compares this checkout with another commit, see against.mjs
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nativeInfo } from '../dist/backends/addon.js';
import { INK, renderChart } from '../dist/report/charts.js';
import { against } from './against.mjs';
import { fillPage, standalone, table } from './harness.mjs';

const BENCH = dirname(fileURLToPath(import.meta.url));
const RESULTS = join(BENCH, 'results.json');
const DOCS = join(BENCH, '..', 'docs');
const CLI = join(BENCH, '..', 'dist', 'cli', 'main.js');

const CIFAR = ['resnet20', 'resnet32', 'resnet56'];
const IMAGENET = ['resnet18', 'resnet50', 'wide_resnet50', 'resnext50', 'mobilenetv2'];
/** Transformers and ConvNeXt; NAME_at_N is the network NAME on a text of N tokens. */
const TRANSFORMERS = [
  'vit_b16',
  'deit_tiny',
  'convnext_tiny',
  'bert_base_at_128',
  'minilm_l6_at_128',
  'minilm_l6_at_16',
];
const TEXT_INPUTS = ['input_ids', 'attention_mask', 'token_type_ids'];
const ALL = [...CIFAR, ...IMAGENET, ...TRANSFORMERS];
const TITLES = {
  resnet20: 'ResNet-20 (CIFAR)',
  resnet32: 'ResNet-32 (CIFAR)',
  resnet56: 'ResNet-56 (CIFAR)',
  resnet18: 'ResNet-18 (224)',
  resnet50: 'ResNet-50 (224)',
  wide_resnet50: 'WideResNet-50-2 (224)',
  resnext50: 'ResNeXt-50 32x4d (224)',
  mobilenetv2: 'MobileNetV2 (224)',
  vit_b16: 'ViT-B/16 (224)',
  deit_tiny: 'DeiT-Ti (224)',
  convnext_tiny: 'ConvNeXt-T (224)',
  bert_base_at_128: 'BERT-base (128 tokens)',
  minilm_l6_at_128: 'MiniLM-L6 (128 tokens)',
  minilm_l6_at_16: 'MiniLM-L6 (16 tokens)',
};

/** Settings measured for every network with the best instruction set. */
const SCALING = [
  { batch: 1, threads: 1 },
  { batch: 8, threads: 1 },
  { batch: 32, threads: 1 },
  { batch: 1, threads: 2 },
  { batch: 8, threads: 2 },
];

const args = process.argv.slice(2);
if (args.includes('--against')) {
  const commit = args[args.indexOf('--against') + 1];
  process.exit((await against(commit, args.includes('--short'))) ? 0 : 1);
}
const itemOnly = args.includes('--item');

/** Settings for the other instruction sets: one item on one thread. */
function settingsOf(all) {
  // Dot products and matrices of 8-bit numbers make no difference to these networks.
  const isas = all.filter((isa) => !/vnni|dot|amx/.test(isa));
  const best = isas.at(-1);
  const settings = SCALING.slice(0, itemOnly ? 1 : undefined).map((setting) => ({ ...setting, isa: best }));
  const others = isas.filter((isa) => isa !== best && isa !== 'scalar');
  return [...settings, ...others.map((isa) => ({ batch: 1, threads: 1, isa }))];
}

/** The file of a network, and the tokens of its text if it reads one. */
function modelOf(network) {
  const [, name = network, tokens] = /^(.+)_at_(\d+)$/.exec(network) ?? [];
  return { file: join(BENCH, 'models', `${name}.onnx`), tokens };
}

function measure(network, { batch, threads, isa }, peers, rounds) {
  const { file, tokens } = modelOf(network);
  const args = [CLI, 'bench', file, '--json'];
  if (tokens) args.push(...TEXT_INPUTS.flatMap((input) => ['--shape', `${input}=1x${tokens}`]));
  args.push('--batch', batch, '--threads', threads, '--isa', isa, '--peers', peers, '--rounds', rounds);
  const report = JSON.parse(execFileSync(process.execPath, args.map(String), { encoding: 'utf8' }));
  const ratios = Object.entries(report.ratios).map(([name, ratio]) => `${ratio.toFixed(2)}x ${name}`);
  console.log(`${network} batch ${batch}, ${threads} threads, ${isa}: ${ratios.join(', ')}`);
  return { network, ...report };
}

/** Multiply-adds per item. */
function multiplyAddsOf(network) {
  const args = [CLI, 'inspect', join(BENCH, 'models', `${network}.onnx`), '--json'];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })).multiplyAdds;
}

/** Measures two concurrent runs. */
function measureConcurrency(network) {
  const model = join(BENCH, 'models', `${network}.onnx`);
  const args = [join(BENCH, 'cases.mjs'), 'concurrency', model, '--json'];
  const [one, two] = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
  const result = { oneMs: one.ms, twoMs: two.ms, throughput: (2 * one.ms) / two.ms };
  console.log(`${network}, two runs at once: ${result.throughput.toFixed(2)} times the throughput of one`);
  return { network, concurrency: result };
}

function measureAll(networks) {
  const { isas } = nativeInfo();
  const results = [];
  for (const network of networks) {
    const { file, tokens } = modelOf(network);
    if (!existsSync(file)) throw new Error(`${file} is missing: run python3 bench/export_models.py`);
    for (const setting of settingsOf(isas)) {
      results.push(measure(network, setting, 'onnxruntime-node', setting.batch === 1 ? 14 : 8));
    }
    if (!tokens && !itemOnly) results.push(measureConcurrency(network));
  }
  if (itemOnly) return results;
  if (networks.includes('resnet32')) {
    const peers = ['--peers', 'onnxruntime-node,onnxruntime-web,reference', '--rounds', '24'];
    const args = [join(BENCH, 'tfjs.mjs'), modelOf('resnet32').file, ...peers];
    results.push({
      network: 'resnet32',
      ...JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })),
      peers: true,
      multiplyAdds: multiplyAddsOf('resnet32'),
    });
  }
  return results;
}

const figure = (value) =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(3);

const ORT = 'onnxruntime-node';
const runnerOf = (result, name) => result.runners.find((runner) => runner.name === name);

const isasOf = (results) => [...new Set(results.flatMap(({ isa }) => isa ?? []))];

/** A row for each network; onnxruntime-node's time is that beside the first instruction set. */
function mainTable(results) {
  const isas = isasOf(results);
  const single = results.filter((r) => !r.peers && r.batch === 1 && r.threads === 1);
  const rows = [...new Set(single.map(({ network }) => network))].map((network) => {
    const runs = isas.map((isa) => single.find((r) => r.network === network && r.isa === isa));
    const cells = runs.flatMap((r) => [
      figure(runnerOf(r, 'native').medianMs),
      `**${r.ratios[ORT].toFixed(2)}x**`,
    ]);
    return [TITLES[network], figure(runnerOf(runs[0], ORT).medianMs), ...cells];
  });
  const head = isas.flatMap((isa) => [`\`${isa}\`, ms`, 'ratio']);
  return table(['network', `${ORT}, ms`, ...head], rows);
}

function scalingTable(results, isa) {
  const networks = [...new Set(results.map(({ network }) => network))];
  const rows = networks.map((network) => [
    TITLES[network],
    ...SCALING.map(({ batch, threads }) => {
      const result = results.find(
        (r) =>
          !r.peers && r.network === network && r.batch === batch && r.threads === threads && r.isa === isa,
      );
      return result ? `${result.ratios[ORT].toFixed(2)}x` : '';
    }),
  ]);
  const head = SCALING.map(
    ({ batch, threads }) => `batch ${batch}, ${threads === 1 ? '1 thread' : '2 threads'}`,
  );
  return table(['network', ...head], rows);
}

function concurrencyTable(results) {
  const rows = results
    .filter((r) => r.concurrency)
    .map(({ network, concurrency: { oneMs, twoMs, throughput } }) => [
      TITLES[network],
      figure(oneMs),
      figure(twoMs),
      `${throughput.toFixed(2)}x`,
    ]);
  return table(['network', 'one run, ms', 'two at once, ms', 'throughput'], rows);
}

function peersTable(results) {
  const result = results.find(({ peers }) => peers);
  if (!result) return '';
  const rows = result.runners.map(({ name, version, medianMs, p95Ms, rssMiB, loadMs }) => [
    `${name} ${version}`,
    figure(medianMs),
    figure(p95Ms),
    ((2 * result.multiplyAdds) / 1e6 / medianMs).toFixed(1),
    rssMiB.toFixed(0),
    loadMs.toFixed(0),
    name in result.ratios ? `${result.ratios[name].toFixed(2)}x` : '',
  ]);
  return table(
    [
      'ResNet-32, batch 1, one thread',
      'median, ms',
      'p95, ms',
      'GFLOP/s',
      'RSS, MiB',
      'load, ms',
      'native is',
    ],
    rows,
  );
}

function loadTable(results) {
  const rows = results
    .filter((r) => !r.peers && r.batch === 1 && r.threads === 1 && r.isa === results[0].isa)
    .map((r) => {
      const [own, peer] = [runnerOf(r, 'native'), runnerOf(r, ORT)];
      return [
        TITLES[r.network],
        own.loadMs.toFixed(0),
        peer.loadMs.toFixed(0),
        `${(peer.loadMs / own.loadMs).toFixed(2)}x`,
        own.rssMiB.toFixed(0),
        peer.rssMiB.toFixed(0),
      ];
    });
  const head = ['native load, ms', `${ORT} load, ms`, 'ratio', 'native RSS, MiB', `${ORT} RSS, MiB`];
  return table(['network', ...head], rows);
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
  const isas = isasOf(results);
  const peaks = isas.map((isa) => [isa, results.find((r) => r.isa === isa)]);
  const [{ cpu, isa: best }] = results;
  const peak = peaks
    .map(([isa, { peakGflops }]) => `${peakGflops.toFixed(0)} GFLOP/s with ${isa}`)
    .join(', ');
  fillPage(join(DOCS, 'performance.md'), {
    machine: `${cpu}, ${availableParallelism()} CPUs; peak of one core, measured in the same run: ${peak}.`,
    main: mainTable(results),
  });
  fillPage(join(DOCS, 'lab', 'performance.md'), {
    scaling: scalingTable(results, best),
    concurrency: concurrencyTable(results),
    peers: peersTable(results),
    load: loadTable(results),
  });
  writeFileSync(join(DOCS, 'lab', 'performance.svg'), await chart(results));
  const isHeadline = (r) =>
    r.network === 'resnet32' && !r.peers && r.isa === best && r.batch === 1 && r.threads === 1;
  const ratio = results.find(isHeadline)?.ratios[ORT].toFixed(2);
  if (ratio) {
    fillPage(join(DOCS, '..', 'README.md'), {
      speed: `On an ${cpu}, ResNet-32 runs [${ratio} times as fast as on ${ORT}](docs/performance.md), with every block run.`,
    });
  }
}

const named = args.filter((arg) => !arg.startsWith('--'));
if (!args.includes('--page')) {
  const networks = named.length > 0 ? named : ALL;
  if (itemOnly) {
    for (const form of args.includes('--forms') ? ['memory', 'register'] : ['']) {
      process.env.RESIDUAL_SKIP_BROADCAST = form;
      if (form) console.log(`\nBroadcast: ${form}`);
      console.log(mainTable(measureAll(networks)));
    }
    process.exit();
  }
  const kept = existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, 'utf8')) : [];
  const results = [...kept.filter(({ network }) => !networks.includes(network)), ...measureAll(networks)];
  results.sort((a, b) => ALL.indexOf(a.network) - ALL.indexOf(b.network));
  writeFileSync(RESULTS, `${JSON.stringify(results, null, 2)}\n`);
}
if (named.length === 0) await writePage(JSON.parse(readFileSync(RESULTS, 'utf8')));
