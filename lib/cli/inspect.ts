import type { Command } from 'commander';
import { findModel, type ModelFiles } from '../data/model-files.js';
import { compileModel } from '../model/compile.js';
import type { Dimension, ModelPort } from '../model/graph.js';
import { loadModel, unsupportedOperators } from '../model/load.js';

import type { Model } from '../model/model.js';
import type { Exit, Program, ValueId } from '../model/program.js';

import { type BlockInfo, describeBlocks } from '../skip/block-info.js';
import { type Io, paint } from './io.js';
import { bindingOf, collectShape, SHAPE_HELP, type ShapeOption } from './shapes.js';
import { type Column, count, formatTable, percent, plural } from './table.js';

interface InspectOptions {
  readonly shape?: readonly ShapeOption[];
  readonly json?: boolean;
}

interface PortReport {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly Dimension[];
}

interface BlockReport extends Omit<BlockInfo, 'layers'> {
  /** Names of the tensors before and behind the block, in the graph where they are there. */
  readonly input: string;
  readonly output: string;
}

interface ExitReport {
  readonly after: string;
  readonly threshold: number;
  /** Of one item, part of no block's and not of the model's. */
  readonly multiplyAdds: number;
}

/** The answer of `inspect --json`. */
export interface InspectReport {
  readonly model: string;
  readonly sha256: string;
  readonly opset: number;
  readonly inputs: readonly PortReport[];
  readonly outputs: readonly PortReport[];
  readonly parameters: number;
  /** Of one item; null when operators are unsupported. */
  readonly multiplyAdds: number | null;
  readonly blocks: readonly BlockReport[];
  /** Early exits in the graph: an item leaves behind the block when its score is at least the threshold. */
  readonly exits: readonly ExitReport[];
  /** Operators that can't be run, by name. */
  readonly unsupported: readonly string[];
  /** Only there when the graph mixes the items of a batch, so that a batch runs as one item: what mixes them. */
  readonly mixesBatch?: string;
}

export function addInspectCommand(program: Command, io: Io): void {
  program
    .command('inspect')
    .description("show a model's residual blocks, gates, costs and unsupported operators")
    .argument('<model>', 'ONNX file, or a folder with one')
    .option('--shape <shape>', SHAPE_HELP, collectShape)
    .option('--json', 'print JSON')
    .action((model: string, options: InspectOptions) => inspect(model, options, io));
}

async function inspect(path: string, options: InspectOptions, io: Io): Promise<void> {
  const files = await findModel(path);
  const model = await loadModel(files.model, { allowUnsupported: true });
  const report = describe(model, files, options.shape ?? []);
  io.out(options.json ? `${JSON.stringify(report, null, 2)}\n` : draw(report, model, io));
}

function describe(model: Model, files: ModelFiles, shapes: readonly ShapeOption[]): InspectReport {
  const unsupported = unsupportedOperators(model).map(({ op }) => op);
  const program = unsupported.length > 0 ? undefined : compileModel(model, bindingOf(model, files, shapes));
  return {
    model: files.model,
    sha256: model.sha256,
    opset: model.opset,
    inputs: model.inputs.map(portReport),
    outputs: model.outputs.map(portReport),
    parameters: model.parameters,
    multiplyAdds: program?.cost.multiplyAdds ?? null,
    blocks: program ? blockReports(program) : [],
    exits: program?.exits?.list.map(exitReport) ?? [],
    unsupported,
    ...(model.batching === 'whole' && { mixesBatch: model.batchingReason ?? 'the graph' }),
  };
}

function portReport({ name, dtype, shape }: ModelPort): PortReport {
  return { name, dtype, shape };
}

function blockReports(program: Program): InspectReport['blocks'] {
  const nameOf = (id: ValueId) => program.values[id]!.name;
  return describeBlocks(program).map(({ layers: _, ...block }, i) => {
    const { input, output } = program.blocks[i]!;
    return { ...block, input: nameOf(input), output: nameOf(output) };
  });
}

function exitReport({ after, threshold, cost }: Exit): ExitReport {
  return { after, threshold, multiplyAdds: cost.multiplyAdds };
}

function draw(report: InspectReport, model: Model, io: Io): string {
  const { blocks, unsupported, multiplyAdds } = report;
  const ports = (list: readonly PortReport[]) =>
    list.map(({ name, dtype, shape }) => `${name} ${dtype} [${shape.join(', ')}]`).join('; ');
  const facts = [
    ['model', report.model],
    ['sha256', report.sha256],
    ['opset', String(report.opset)],
    ['input', ports(report.inputs)],
    ['output', ports(report.outputs)],
    ['parameters', count(report.parameters)],
    ...(multiplyAdds === null ? [] : [['multiply-adds', `${count(multiplyAdds)} per item`]]),
    [
      'batch',
      model.batching === 'item'
        ? 'each item takes its own path'
        : `runs as one item, because the graph mixes the batch: ${report.mixesBatch}`,
    ],
    ...(unsupported.length > 0 ? [['unsupported', paint(io, 'yellow', unsupported.join(', '))]] : []),
  ];
  const head = facts.map(([name, value]) => `${paint(io, 'dim', name!.padEnd(14))}${value}\n`).join('');
  if (unsupported.length > 0) return `${head}\nThis model can't be run, because operators are unsupported.\n`;
  if (blocks.length === 0) return `${head}\nNo residual block was found.\n`;
  const exits = report.exits.map((exit) => `${exitLine(exit)}\n`).join('');
  return `${head}\n${formatTable(io, COLUMNS, blocks.map(blockRow))}\n${blockSummary(blocks)}\n${exits}`;
}

const COLUMNS: readonly Column[] = [
  { title: '#', align: 'right' },
  { title: 'block' },
  { title: 'shortcut' },
  { title: 'skippable' },
  { title: 'gate' },
  { title: 'multiply-adds', align: 'right' },
  { title: 'share', align: 'right' },
];
const COMPARE = { gt: '>', ge: '>=', lt: '<', le: '<=' } as const;

function blockRow(block: BlockReport): string[] {
  const { index, name, shortcut, skippable, gate, multiplyAdds, share } = block;
  return [
    String(index),
    name,
    shortcut,
    skippable ? 'yes' : 'no',
    gate ? `${gate.form}: score ${COMPARE[gate.compare]} ${Number(gate.threshold.toPrecision(4))}` : '-',
    count(multiplyAdds),
    percent(share),
  ];
}

function exitLine({ after, threshold, multiplyAdds }: ExitReport): string {
  return `exit after ${after}: score >= ${Number(threshold.toPrecision(4))}, ${count(multiplyAdds)} multiply-adds`;
}

function blockSummary(blocks: InspectReport['blocks']): string {
  const skippable = blocks.filter((block) => block.skippable);
  const gated = skippable.filter(({ gate }) => gate !== null);
  const share = (some: InspectReport['blocks']) => percent(some.reduce((sum, block) => sum + block.share, 0));
  return (
    `${plural(blocks.length, 'block')}: ${skippable.length} can be skipped (${share(skippable)} of the multiply-adds), ` +
    `${gated.length} by a gate of the model (${share(gated)})`
  );
}
