import type { Command } from 'commander';
import { openDataset, takeEvenly } from '../data/dataset.js';
import type { DataLimits } from '../data/limits.js';
import type { EnergyReport } from '../measure/energy.js';
import { argMax } from '../numeric/softmax.js';
import type { Tensor } from '../tensor.js';
import { Classifier, MOST_MEASURED } from './classifier.js';
import { type Io, paint, startProgress } from './io.js';
import { addImageOptions, type EngineOptions, positiveInteger } from './options.js';
import { type Latency, latencyOf, type PairedChange, pairedChange } from './statistics.js';
import { formatTable, milliseconds, percent, plural } from './table.js';

interface EvalOptions extends EngineOptions, DataLimits {
  readonly data: string;
  readonly limit?: number;
  readonly json?: boolean;
}

/** The answer of `eval --json`. Fractions are 0 to 1, averaged over items. */
export interface EvalReport {
  readonly items: number;
  readonly full: { readonly accuracy: number; readonly latencyMs: Latency };
  readonly skip: {
    readonly accuracy: number;
    /** Items for which skipping and the full network name the same class. */
    readonly agreement: number;
    readonly latencyMs: Latency;
    /** Of all residual blocks. */
    readonly blocksSkipped: number;
    /** Of all convolutions and fully connected layers. */
    readonly layersSkipped: number;
    /** Of the network's multiply-adds. */
    readonly multiplyAddsSkipped: number;
  };
  /** 1 - skip.p50 / full.p50. */
  readonly latencyReduction: number;
  readonly accuracyChange: PairedChange;
  /** Measured apart from the latency, over runs of one mode in a row. */
  readonly energy: EnergyReport;
}

export function addEvalCommand(program: Command, io: Io): void {
  addImageOptions(
    program
      .command('eval')
      .description(
        'measure accuracy, latency and skipped work on labelled images, against running every block',
      )
      .argument('<model>', 'ONNX file, or a folder with one')
      .requiredOption(
        '--data <dir>',
        "folder with a folder of images per class, with IDX files, or with CIFAR-10's binary batches",
      )
      .option('--limit <n>', 'items to use, spread evenly over the data', positiveInteger),
  ).action((model: string, options: EvalOptions) => evaluate(model, options, io));
}

async function evaluate(model: string, options: EvalOptions, io: Io): Promise<void> {
  const classifier = await Classifier.open(model, options, io);
  try {
    const report = await measure(classifier, options, io);
    io.out(
      options.json ? `${JSON.stringify(report, null, 2)}\n` : draw(classifier, options.data, report, io),
    );
    classifier.unusable.check();
  } finally {
    await classifier.release();
  }
}

async function measure(classifier: Classifier, options: EvalOptions, io: Io): Promise<EvalReport> {
  const { samples } = await openDataset(options.data, classifier.labels, options);
  const chosen = takeEvenly(samples, options.limit ?? samples.length);
  const tally = new Tally();
  const measured: Tensor[] = [];
  const every = Math.ceil(chosen.length / MOST_MEASURED);
  const progress = startProgress(io, chosen.length, 'Evaluating', options.json !== true);
  try {
    for await (const { image, tensor } of classifier.prepare(chosen)) {
      if (tally.items === 0) classifier.warmUp(tensor);
      const { trace, multiplyAdds, layers } = classifier.classify(tensor);
      // Whichever comes second finds warmer caches; taking turns gives that to both.
      const order = tally.items % 2 === 0 ? (['full', 'skip'] as const) : (['skip', 'full'] as const);
      const timed = {
        [order[0]]: classifier.time(tensor, order[0]),
        [order[1]]: classifier.time(tensor, order[1]),
      };
      if (tally.items % every === 0) measured.push(tensor);
      tally.add(image.label, timed.full!, timed.skip!, {
        blocks: trace.blocks.filter(({ ran }) => !ran).length / Math.max(1, trace.blocks.length),
        layers: trace.layersSkipped / Math.max(1, layers),
        multiplyAdds: trace.multiplyAddsSkipped / Math.max(1, multiplyAdds),
      });
      progress.advance();
    }
  } finally {
    progress.stop();
  }
  if (tally.items === 0) classifier.unusable.check('no image is left');
  return { ...tally.report(), energy: classifier.measureEnergy(measured) };
}

interface Timed {
  readonly scores: ArrayLike<number>;
  readonly milliseconds: number;
}

class Tally {
  items = 0;
  #right = { full: 0, skip: 0 };
  #gained = 0;
  #lost = 0;
  #agreed = 0;
  readonly #skipped = { blocks: 0, layers: 0, multiplyAdds: 0 };
  readonly #times = { full: [] as number[], skip: [] as number[] };

  add(
    label: number,
    full: Timed,
    skip: Timed,
    skipped: { blocks: number; layers: number; multiplyAdds: number },
  ) {
    this.items++;
    const answers = { full: argMax(full.scores), skip: argMax(skip.scores) };
    const right = { full: answers.full === label, skip: answers.skip === label };
    if (right.full) this.#right.full++;
    if (right.skip) this.#right.skip++;
    if (right.skip && !right.full) this.#gained++;
    if (right.full && !right.skip) this.#lost++;
    if (answers.full === answers.skip) this.#agreed++;
    for (const kind of ['blocks', 'layers', 'multiplyAdds'] as const) this.#skipped[kind] += skipped[kind];
    this.#times.full.push(full.milliseconds);
    this.#times.skip.push(skip.milliseconds);
  }

  report(): Omit<EvalReport, 'energy'> {
    const { items } = this;
    const latency = { full: latencyOf(this.#times.full), skip: latencyOf(this.#times.skip) };
    return {
      items,
      full: { accuracy: this.#right.full / items, latencyMs: latency.full },
      skip: {
        accuracy: this.#right.skip / items,
        agreement: this.#agreed / items,
        latencyMs: latency.skip,
        blocksSkipped: this.#skipped.blocks / items,
        layersSkipped: this.#skipped.layers / items,
        multiplyAddsSkipped: this.#skipped.multiplyAdds / items,
      },
      latencyReduction: 1 - latency.skip.p50 / latency.full.p50,
      accuracyChange: pairedChange(items, this.#gained, this.#lost),
    };
  }
}

function energyRow({ joules, cpuSeconds }: EnergyReport): string[] {
  const [title, { full, skip }] = joules
    ? (['energy of the processor, mJ', joules] as const)
    : (['CPU time, ms', cpuSeconds] as const);
  return [title, milliseconds(1000 * full), milliseconds(1000 * skip), ''];
}

function draw({ name, backend }: Classifier, data: string, report: EvalReport, io: Io): string {
  const { full, skip, accuracyChange, latencyReduction } = report;
  const signed = (points: number) => `${points < 0 ? '-' : '+'}${Math.abs(points).toFixed(2)}`;
  const [low, high] = accuracyChange.ci95;
  const change = `${signed(accuracyChange.points)} points (95 % interval ${signed(low)} to ${signed(high)})`;
  const latency = (key: keyof Latency, title: string, note: string) => [
    title,
    milliseconds(full.latencyMs[key]),
    milliseconds(skip.latencyMs[key]),
    note,
  ];
  const rows = [
    ['accuracy', percent(full.accuracy, 2), percent(skip.accuracy, 2), change],
    ['agreement', '', percent(skip.agreement, 2), ''],
    latency('mean', 'latency, mean, ms', ''),
    latency('p50', '  median', paint(io, 'bold', `${percent(latencyReduction)} less with skipping`)),
    latency('p95', '  95th percentile', ''),
    energyRow(report.energy),
    ['blocks skipped', '', percent(skip.blocksSkipped), ''],
    ['layers skipped', '', percent(skip.layersSkipped), ''],
    ['multiply-adds skipped', '', percent(skip.multiplyAddsSkipped), ''],
  ];
  const columns = [
    { title: '' },
    { title: 'full', align: 'right' as const },
    { title: 'skip', align: 'right' as const },
    { title: '' },
  ];
  const heading = `${paint(io, 'bold', name)} on ${data}: ${plural(report.items, 'image')}, ${backend} backend, one at a time`;
  return `${heading}\n\n${formatTable(io, columns, rows)}`;
}
