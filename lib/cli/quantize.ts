import type { Command } from 'commander';
import { type Quantization, quantize } from '../quantize/quantize.js';
import { checkWritable, writeResult } from './files.js';
import { type Io, watchWork } from './io.js';
import {
  addBackendOptions,
  addReadingOptions,
  type BackendOptions,
  positiveInteger,
  type ReadingOptions,
} from './options.js';
import { milliseconds, percent, plural } from './table.js';

interface QuantizeOptions extends BackendOptions, ReadingOptions {
  readonly data: string;
  readonly output: string;
  readonly float?: readonly string[];
  readonly seed: number;
  readonly json?: boolean;
}

export function addQuantizeCommand(program: Command, io: Io): void {
  addReadingOptions(
    addBackendOptions(
      program
        .command('quantize')
        .description('make an 8-bit network from a float one, with images or texts without labels')
        .argument('<model>', 'ONNX file, or a folder with one')
        .requiredOption(
          '--data <path>',
          'images: any folder of them, or what eval takes; or a file of texts; a few hundred are enough',
        )
        .requiredOption('-o, --output <file>', 'ONNX file to write')
        .option('--float <layer...>', 'layers that stay in float, by the names of their nodes')
        .option('--seed <n>', 'seed of the choice of items for each purpose', positiveInteger, 1),
    ),
  ).action((model: string, options: QuantizeOptions) => run(model, options, io));
}

async function run(path: string, options: QuantizeOptions, io: Io): Promise<void> {
  const { output, data, json, ...asked } = options;
  await checkWritable(output);
  const work = watchWork(io, json !== true);
  const result = await quantize(path, data, { ...asked, ...work.options }).finally(work.stop);
  await writeResult(output, result.model);
  const { model: _, ...report } = result;
  io.out(json ? `${JSON.stringify({ file: output, ...report }, null, 2)}\n` : draw(result, output));
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(2)} MB`;

function draw(
  { bytes, layers, answers, decisions, latencyMs, ...chosen }: Quantization,
  output: string,
): string {
  const share = ({ items, changed }: { items: number; changed: number }) =>
    `${changed} of ${items.toLocaleString('en')} (${percent(changed / items, 2)})`;
  const compared = answers.items > 0;
  const lines = [
    `file: ${output}`,
    `size: ${megabytes(bytes.int8)} instead of ${megabytes(bytes.float)}`,
    `layers: ${layers.int8} with 8 bits; in float: ${layers.float.join(', ') || 'none'}`,
    `chosen on ${plural(chosen.images.choice, 'item')}: ranges of activations by ${WORDED[chosen.range]}` +
      `${chosen.biasCorrected ? ', biases corrected' : ''}${chosen.equalised ? ', layers equalised' : ''}`,
    ...(compared ? [`answers changed: ${share(answers)}`] : []),
    ...(decisions.items > 0 ? [`decisions of gates changed: ${share(decisions)}`] : []),
    ...(compared
      ? [
          `time of one item: ${milliseconds(latencyMs.int8)} ms instead of ${milliseconds(latencyMs.float)} ms`,
        ]
      : ['compared: nothing, since no item was left']),
  ];
  return `${lines.join('\n')}\n`;
}

const WORDED: Readonly<Record<Quantization['range'], string>> = {
  error: 'least squared error',
  percentile: 'percentiles',
  max: 'extremes',
};
