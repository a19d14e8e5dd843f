import type { Command } from 'commander';
import {
  type InspectedBlock,
  type InspectedExit,
  type InspectedPort,
  type Inspection,
  inspect,
} from '../inspect/inspect.js';
import { type Io, paint } from './io.js';
import { collectShape, SHAPE_HELP, type ShapeOption, shapesOf } from './shapes.js';
import { type Column, count, formatTable, numbers, percent, plural, shortened } from './table.js';

interface InspectOptions {
  readonly shape?: readonly ShapeOption[];
  readonly json?: boolean;
}

export function addInspectCommand(program: Command, io: Io): void {
  program
    .command('inspect')
    .description("show a model's residual blocks, gates, costs and unsupported operators")
    .argument('<model>', 'ONNX file, or a folder with one')
    .option('--shape <shape>', SHAPE_HELP, collectShape)
    .option('--json', 'print JSON')
    .action((model: string, options: InspectOptions) => run(model, options, io));
}

async function run(path: string, options: InspectOptions, io: Io): Promise<void> {
  const report = await inspect(path, { shapes: shapesOf(options.shape) });
  io.out(options.json ? `${JSON.stringify(report, null, 2)}\n` : draw(report, io));
}

function draw(report: Inspection, io: Io): string {
  const { blocks, unsupported, multiplyAdds } = report;
  const ports = (list: readonly InspectedPort[]) =>
    list.map(({ name, dtype, shape }) => `${name} ${dtype} [${shape.join(', ')}]`).join('; ');
  const facts = [
    ['model', report.model!],
    ['sha256', report.sha256],
    ['opset', String(report.opset)],
    ...writerOf(report),
    ['input', ports(report.inputs)],
    ['output', ports(report.outputs)],
    ['parameters', count(report.parameters)],
    ...(multiplyAdds === null
      ? []
      : [['multiply-adds', `${count(multiplyAdds)} per item${openShapes(report)}`]]),
    [
      'batch',
      report.mixesBatch === undefined
        ? 'each item takes its own path'
        : `runs as one item, because the graph mixes the batch: ${report.mixesBatch}`,
    ],
    ...(unsupported.length > 0 ? [['unsupported', paint(io, 'yellow', unsupported.join(', '))]] : []),
  ];
  const head = facts.map(([name, value]) => `${paint(io, 'dim', name!.padEnd(14))}${value}\n`).join('');
  if (unsupported.length > 0) return `${head}\nThis model can't be run, because operators are unsupported.\n`;
  const gates = report.unusableGates.map(
    ({ node, reason }) => `${paint(io, 'yellow', "gate that can't be used")}: ${node}: ${reason}\n`,
  );
  if (blocks.length === 0) return `${head}\nNo residual block was found.\n${gates.join('')}`;
  const exits = report.exits.map((exit) => `${exitLine(exit)}\n`).join('');
  return `${head}\n${formatTable(io, COLUMNS, blocks.map(blockRow))}\n${blockSummary(blocks)}\n${exits}${gates.join('')}`;
}

/** What the file's writer says about it, a row for each thing that it says. */
function writerOf({ metadata }: Inspection): string[][] {
  const { producer, producerVersion, version, description, custom } = metadata;
  const rows = [
    ['written by', [producer, producerVersion].filter(Boolean).join(' ')],
    ['version', version > 0 ? String(version) : ''],
    ['description', description],
    ...Object.entries(custom),
  ];
  return rows.filter(([, value]) => value).map(([name, value]) => [shortened(name!), shortened(value!)]);
}

/** What was taken for inputs that leave more than the batch open. */
function openShapes({ inputs, shapes }: Inspection): string {
  const open = inputs.filter(({ shape }) => shape.slice(1).some((length) => typeof length === 'string'));
  return open.length === 0
    ? ''
    : `, for ${open.map(({ name }) => `${name} [${shapes[name]!.join(', ')}]`).join('; ')}`;
}

const COLUMNS: readonly Column[] = [
  { title: '#', align: 'right' },
  { title: 'block' },
  { title: 'shortcut' },
  { title: 'skippable' },
  { title: 'gate' },
  ...numbers('multiply-adds', 'share'),
];
const COMPARE = { gt: '>', ge: '>=', lt: '<', le: '<=' } as const;

function blockRow(block: InspectedBlock): string[] {
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

function exitLine({ after, threshold, multiplyAdds }: InspectedExit): string {
  return `exit after ${after}: score >= ${Number(threshold.toPrecision(4))}, ${count(multiplyAdds)} multiply-adds`;
}

function blockSummary(blocks: Inspection['blocks']): string {
  const skippable = blocks.filter((block) => block.skippable);
  const gated = skippable.filter(({ gate }) => gate !== null);
  const share = (some: Inspection['blocks']) => percent(some.reduce((sum, block) => sum + block.share, 0));
  return (
    `${plural(blocks.length, 'block')}: ${skippable.length} can be skipped (${share(skippable)} of the multiply-adds), ` +
    `${gated.length} by a gate of the model (${share(gated)})`
  );
}
