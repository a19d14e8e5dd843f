import { type Command, InvalidArgumentError } from 'commander';
import { findModel, type ModelFiles } from '../data/model-files.js';
import { Preprocessor } from '../data/preprocess.js';
import { ResidualSkipError } from '../errors.js';
import { bindFeeds, declaredBinding } from '../feeds.js';
import { type BlockInfo, describeBlocks } from '../metadata.js';
import { loadModel } from '../model/load.js';
import { compileModel } from '../model/lower.js';
import type { Binding, Dimension, Model, ModelInput, ModelPort } from '../model/model.js';
import type { Program } from '../model/program.js';
import { allocate, Tensor, type TensorLike } from '../tensor.js';
import { type Io, paint } from './io.js';
import { type Column, count, formatTable, percent, plural } from './table.js';

interface InspectOptions {
  readonly shape?: readonly ShapeOption[];
  readonly json?: boolean;
}

/** `--shape 1x3x224x224`, or `--shape NAME=1x3x224x224` for a model with several inputs. */
interface ShapeOption {
  readonly input?: string;
  readonly dims: readonly number[];
}

interface PortReport {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly Dimension[];
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
  readonly blocks: readonly Omit<BlockInfo, 'layers'>[];
  /** Operators that can't be run, by name. */
  readonly unsupported: readonly string[];
  /** Only there when the graph mixes the items of a batch, so that a batch runs as one item: what mixes them. */
  readonly mixesBatch?: string;
}

/** Elements of the largest input that a shape may ask for. */
const MOST_ELEMENTS = 2 ** 28;

export function addInspectCommand(program: Command, io: Io): void {
  program
    .command('inspect')
    .description("show a model's residual blocks, gates, costs and unsupported operators")
    .argument('<model>', 'ONNX file, or a folder with one')
    .option('--shape <shape>', 'shape for open dimensions: 1x3x224x224, or INPUT=1x3x224x224', collectShape)
    .option('--json', 'print JSON')
    .action((model: string, options: InspectOptions) => inspect(model, options, io));
}

function collectShape(text: string, previous: readonly ShapeOption[] = []): ShapeOption[] {
  const match = /^(?:(.*)=)?(\d+(?:[x,]\d+)*)$/.exec(text);
  const dims = match?.[2]?.split(/[x,]/).map(Number);
  if (!match || !dims || dims.includes(0) || dims.reduce((a, b) => a * b, 1) > MOST_ELEMENTS) {
    throw new InvalidArgumentError('Expected lengths above 0, such as 1x3x224x224 or INPUT=1x3x224x224.');
  }
  return [...previous, { input: match[1], dims }];
}

async function inspect(path: string, options: InspectOptions, io: Io): Promise<void> {
  const files = await findModel(path);
  const model = await loadModel(files.model, { allowUnsupported: true });
  const report = describe(model, files, options.shape ?? []);
  io.out(options.json ? `${JSON.stringify(report, null, 2)}\n` : draw(report, model, io));
}

function describe(model: Model, files: ModelFiles, shapes: readonly ShapeOption[]): InspectReport {
  const program =
    model.unsupported.length > 0 ? undefined : compileModel(model, bindingOf(model, files, shapes));
  return {
    model: files.model,
    sha256: model.sha256,
    opset: model.opset,
    inputs: model.inputs.map(portReport),
    outputs: model.outputs.map(portReport),
    parameters: model.parameters,
    multiplyAdds: program?.cost.multiplyAdds ?? null,
    blocks: program ? blockReports(program) : [],
    unsupported: model.unsupported,
    ...(model.batching === 'whole' && { mixesBatch: model.batchingReason ?? 'the graph' }),
  };
}

function portReport({ name, dtype, shape }: ModelPort): PortReport {
  return { name, dtype, shape };
}

function blockReports(program: Program): InspectReport['blocks'] {
  return describeBlocks(program).map(({ layers: _, ...block }) => block);
}

/** Shapes from the options, or else as the model declares them, open height and width as images are prepared. */
function bindingOf(model: Model, files: ModelFiles, shapes: readonly ShapeOption[]): Binding {
  if (shapes.length === 0) {
    const declared = declaredBinding(model);
    if (declared !== undefined) return declared;
  }
  const unused = new Set(shapes);
  const feeds: Record<string, TensorLike> = {};
  for (const input of model.inputs) {
    const given = shapes.find(
      (shape) => shape.input === input.name || (!shape.input && model.inputs.length === 1),
    );
    if (given) unused.delete(given);
    const dims = given?.dims ?? assumedShape(input, files);
    feeds[input.name] = new Tensor(
      input.dtype,
      allocate(
        input.dtype,
        dims.reduce((a, b) => a * b, 1),
      ),
      dims,
    ) as TensorLike;
  }
  for (const { input, dims } of unused) {
    const names = model.inputs.map(({ name }) => name).join(', ');
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `--shape ${input ? `${input}=` : ''}${dims.join('x')} fits no input; write INPUT=SHAPE for one of: ${names}`,
    );
  }
  return bindFeeds(model, feeds).binding;
}

function assumedShape(input: ModelInput, { preprocessor, model }: ModelFiles): number[] {
  const [, channels, height, width] = input.shape;
  let size: { height: number; width: number } | undefined;
  if (preprocessor && input.shape.length === 4 && typeof channels === 'number') {
    const known = (length: Dimension | undefined) => (typeof length === 'number' ? length : undefined);
    const image = { channels, height: known(height), width: known(width) };
    size = new Preprocessor(preprocessor.config, image, preprocessor.source).outputSize;
  }
  return input.shape.map((dim, axis) => {
    if (typeof dim === 'number') return dim;
    if (axis === 0) return 1;
    const length = axis === 2 ? size?.height : axis === 3 ? size?.width : undefined;
    if (length !== undefined) return length;
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${model}: input '${input.name}' leaves [${input.shape.join(', ')}] open; give --shape, such as ` +
        `--shape ${input.name}=${input.shape.map((d, i) => (typeof d === 'number' ? d : i === 0 ? 1 : 224)).join('x')}`,
    );
  });
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
  return `${head}\n${formatTable(io, COLUMNS, blocks.map(blockRow))}\n${blockSummary(blocks)}\n`;
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

function blockRow(block: Omit<BlockInfo, 'layers'>): string[] {
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

function blockSummary(blocks: InspectReport['blocks']): string {
  const skippable = blocks.filter((block) => block.skippable);
  const gated = skippable.filter(({ gate }) => gate !== null);
  const share = (some: InspectReport['blocks']) => percent(some.reduce((sum, block) => sum + block.share, 0));
  return (
    `${plural(blocks.length, 'block')}: ${skippable.length} can be skipped (${share(skippable)} of the multiply-adds), ` +
    `${gated.length} by a gate of the model (${share(gated)})`
  );
}
