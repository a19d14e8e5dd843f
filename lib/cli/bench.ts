import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { nativeInfo } from '../backends/addon.js';
import { findModel } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import { bindingOf, inputShapes } from '../inspect/shapes.js';
import { type BenchReport, runBench } from '../measure/bench.js';
import { PEERS } from '../measure/peers.js';
import { serveBenchWorker } from '../measure/worker.js';
import { compileModel } from '../model/compile.js';
import { loadModel } from '../model/load.js';
import type { Precision } from '../model/program/program.js';
import { ISAS, type Isa } from '../session/options.js';
import { packageRoot } from '../util/version.js';
import { type Io, paint, startProgress } from './io.js';
import { positiveInteger, precisionOption } from './options.js';
import { collectShape, SHAPE_HELP, type ShapeOption, shapesOf } from './shapes.js';
import { type Column, formatTable, milliseconds, numbers, speedup } from './table.js';

interface BenchCommandOptions {
  readonly batch: number;
  readonly threads?: number;
  readonly isa?: Isa;
  readonly precision?: Precision;
  readonly peers?: readonly string[];
  readonly rounds: number;
  readonly shape?: readonly ShapeOption[];
  readonly json?: boolean;
}

/** Hidden command that the child processes of a benchmark run. */
const WORKER_COMMAND = 'bench-worker';

export function addBenchCommand(program: Command, io: Io): void {
  program
    .command('bench')
    .description('time a model with every block run, in alternation with other runtimes')
    .argument('<model>', 'ONNX file, or a folder with one')
    .option('--batch <n>', 'items in a batch', positiveInteger, 1)
    .option(
      '--threads <n>',
      'threads of every runtime (default: as many cores as the process may use)',
      positiveInteger,
    )
    .addOption(
      new Option(
        '--isa <name>',
        'best instruction set that native may use (default: the best of this machine)',
      ).choices(ISAS),
    )
    .addOption(precisionOption('float32'))
    .option(
      '--peers <names>',
      `runtimes to compare with, separated by commas: ${PEERS.join(', ')}`,
      peerNames,
    )
    .option('--rounds <n>', 'turns of each runtime', positiveInteger, 40)
    .option('--shape <shape>', SHAPE_HELP, collectShape)
    .option('--json', 'print JSON')
    .action((model: string, options: BenchCommandOptions) => bench(model, options, io));
  program.command(WORKER_COMMAND, { hidden: true }).action(() => serveBenchWorker());
}

function peerNames(text: string): string[] {
  const names = text.split(',').filter((name) => name !== '');
  const unknown = names.filter((name) => !(PEERS as readonly string[]).includes(name));
  if (unknown.length === 0) return names;
  if (unknown.includes('tfjs-wasm')) {
    throw new InvalidArgumentError(
      'The peer tfjs-wasm has moved: node bench/tfjs.mjs MODEL, in a checkout of residual-skip.',
    );
  }
  throw new InvalidArgumentError(`There is no peer ${unknown.join(', ')}; expected ${PEERS.join(', ')}.`);
}

async function bench(path: string, options: BenchCommandOptions, io: Io): Promise<void> {
  const files = await findModel(path);
  const model = await loadModel(files.model);
  const { batch, rounds, peers = [] } = options;
  const shapes = [...(await inputShapes(model, files, shapesOf(options.shape)))];
  if (batch > 1 && !shapes.some(([, { batched }]) => batched)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `batch: ${files.name} runs a batch as one item (${model.batchingReason ?? 'the graph mixes it'}); give the whole shape with --shape`,
    );
  }
  const inputs = shapes.map(([name, { dtype, dims, batched }]) => ({
    name,
    type: dtype,
    dims: batched ? [batch, ...dims.slice(1)] : dims,
  }));
  const { best, peakGflops } = nativeInfo();
  const isa = options.isa ?? (best as Isa);
  const progress = startProgress(io, rounds, 'Alternating', options.json !== true);
  let report: BenchReport;
  try {
    report = await runBench({
      worker: { script: process.argv[1]!, args: [WORKER_COMMAND] },
      model: files.model,
      batch,
      threads: options.threads ?? availableParallelism(),
      isa,
      precision: options.precision,
      inputs,
      runners: ['native', ...peers],
      peerFolders: [process.cwd(), dirname(files.model), join(packageRoot(), 'bench')],
      peakGflops: peakGflops(isa),
      rounds,
      onRound: () => progress.advance(),
    });
  } finally {
    progress.stop();
  }
  if (options.json) {
    io.out(`${JSON.stringify(report, null, 2)}\n`);
    return;
  }
  const { cost } = compileModel(model, await bindingOf(model, files, shapesOf(options.shape)));
  io.out(draw(report, 2 * cost.multiplyAdds, io));
}

const COLUMNS: readonly Column[] = [
  { title: 'runtime' },
  { title: 'version' },
  ...numbers('median ms', 'p95 ms', 'items/s', 'GFLOP/s', 'RSS MiB', 'load ms', 'native is'),
];

/** @param flops floating-point operations of one item, two for each multiply-add of the plain algorithm */
function draw(report: BenchReport, flops: number, io: Io): string {
  const { batch, threads, isa, cpu, peakGflops, runners, ratios } = report;
  const rows = runners.map((runner) => [
    runner.name,
    runner.version,
    milliseconds(runner.medianMs),
    milliseconds(runner.p95Ms),
    runner.itemsPerSecond.toFixed(runner.itemsPerSecond < 10 ? 2 : 0),
    ((runner.itemsPerSecond * flops) / 1e9).toFixed(1),
    runner.rssMiB.toFixed(0),
    runner.loadMs.toFixed(0),
    runner.name in ratios ? paint(io, 'bold', speedup(ratios[runner.name]!)) : '',
  ]);
  const conditions = `batch ${batch}, ${threads === 1 ? 'one thread' : `${threads} threads`}, ${isa}${report.precision ? `, ${report.precision}` : ''}`;
  return (
    `${paint(io, 'bold', report.model)}: ${conditions}, every block run\n` +
    `${cpu}; peak of one core ${peakGflops.toFixed(0)} GFLOP/s\n\n${formatTable(io, COLUMNS, rows)}`
  );
}
