import type { Command } from 'commander';
import { hashItem } from '../audit/hash.js';
import type { AuditEntry } from '../audit/read.js';
import type { AuditEnergy } from '../audit/record.js';
import { renderAuditReport } from '../audit/report.js';
import { type AuditSummary, depthOf, summarise } from '../audit/summary.js';
import { openDataset, takeEvenly } from '../data/dataset.js';
import { encodeThumbnail } from '../data/image.js';
import { ResidualSkipError } from '../errors.js';
import { Classifier } from './classifier.js';
import { checkWritable, readLog, writeResult } from './files.js';
import { type Io, paint, startProgress } from './io.js';
import { type Column, formatTable, percent, plural } from './table.js';

interface AuditOptions {
  readonly output?: string;
  readonly data?: string;
  readonly model?: string;
  readonly json?: boolean;
}

export function addAuditCommand(program: Command, io: Io): void {
  program
    .command('audit')
    .description('summarise an audit log, or write a report of it')
    .argument('<trace>', 'audit log')
    .option('-o, --output <file>', 'HTML report to write, in one file')
    .option('--data <dir>', 'the data that was recorded: the report then shows images')
    .option('--model <model>', 'ONNX file or folder (default: the one that the log names)')
    .option('--json', 'print JSON')
    .action((trace: string, options: AuditOptions) => audit(trace, options, io));
}

async function audit(path: string, options: AuditOptions, io: Io): Promise<void> {
  if (options.output) await checkWritable(options.output);
  const { entries, problems, energy } = await readLog(path, io);
  if (entries.length === 0) throw new ResidualSkipError('INVALID_DATA', `${path} holds no item yet`);
  const summary = summarise(entries);
  if (options.output) {
    const thumbnails = options.data ? await thumbnailsOf(entries, options, io) : undefined;
    await writeResult(options.output, await renderAuditReport(entries, { problems, thumbnails, energy }));
  }
  if (options.json) io.out(`${JSON.stringify(publicSummary(summary, energy, problems.length), null, 2)}\n`);
  else io.out(draw(path, summary, options.output, io));
}

/** Small pictures of the items with the shortest and the longest paths, found by the hash of their input. */
async function thumbnailsOf(
  entries: readonly AuditEntry[],
  { data, model }: AuditOptions,
  io: Io,
): Promise<Map<string, string>> {
  const ordered = [...entries].sort((a, b) => depthOf(a) - depthOf(b));
  const wanted = new Set([...ordered.slice(0, 24), ...ordered.slice(-24)].map(({ record }) => record.input));
  const source = model ?? entries.at(-1)!.header.model.source;
  if (!source)
    throw new ResidualSkipError('INVALID_ARGUMENT', "the log doesn't say where its model is; give --model");
  const classifier = await Classifier.open(source, { backend: 'reference' }, io);
  const found = new Map<string, string>();
  try {
    const { samples } = await openDataset(data!, classifier.labels);
    // Where the log has the items in the order of the data, they are found at once.
    const inOrder = takeEvenly(samples, Math.min(entries.length, samples.length));
    const likely = inOrder.filter((_, i) => wanted.has(entries[i]!.record.input));
    const progress = startProgress(io, samples.length, 'Finding images', true);
    for await (const { image, tensor } of classifier.prepare([...likely, ...samples])) {
      const hash = hashItem(classifier.feeds(tensor), 0, 1);
      if (wanted.delete(hash)) found.set(hash, await encodeThumbnail(await image.load()));
      progress.advance();
      if (wanted.size === 0) break;
    }
    progress.stop();
  } finally {
    await classifier.release();
  }
  return found;
}

function publicSummary(summary: AuditSummary, energy: AuditEnergy | null, problems: number) {
  const { items, from, to, blocksSkipped, layersSkipped, multiplyAddsSkipped, reasons } = summary;
  return {
    items,
    from: new Date(from).toISOString(),
    to: new Date(to).toISOString(),
    blocksSkipped,
    layersSkipped,
    multiplyAddsSkipped,
    distinctPaths: summary.paths.length,
    blocks: summary.blocks.map(({ scores: _, ...block }) => block),
    paths: summary.paths.slice(0, 20),
    classes: summary.classes,
    depths: summary.depths,
    reasons,
    energy: energy && { items: energy.items, cpuSeconds: energy.cpuSeconds, joules: energy.joules },
    problems,
  };
}

const COLUMNS: readonly Column[] = [
  { title: 'block' },
  { title: 'skip rate', align: 'right' },
  { title: '' },
  { title: 'threshold', align: 'right' },
];
const BAR = 30;

function draw(path: string, summary: AuditSummary, output: string | undefined, io: Io): string {
  const { items, layersSkipped, multiplyAddsSkipped, paths, blocks } = summary;
  const rows = blocks.map(({ name, skipRate, threshold }) => [
    name,
    percent(skipRate),
    '█'.repeat(Math.round(skipRate * BAR)),
    threshold === null ? '' : String(threshold),
  ]);
  const head =
    `${paint(io, 'bold', path)}: ${plural(items, 'item')}, ${percent(layersSkipped)} of the layers and ` +
    `${percent(multiplyAddsSkipped)} of the multiply-adds bypassed, ${plural(paths.length, 'distinct path')}`;
  return `${head}\n\n${formatTable(io, COLUMNS, rows)}${output ? `\nreport: ${output}\n` : ''}`;
}
