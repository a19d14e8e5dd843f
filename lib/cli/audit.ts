import type { Command } from 'commander';
import type { AuditTrace } from '../audit/read.js';
import { renderAudit } from '../audit/render.js';
import { wordScope } from '../audit/report.js';
import { type AuditSummary, summarise } from '../audit/summary.js';
import { ResidualSkipError } from '../errors.js';
import { checkUntouched, checkWritable, readLog, writeResult } from './files.js';
import { type Io, paint, watchWork } from './io.js';
import { type Column, formatTable, numbers, percent, plural } from './table.js';

interface AuditOptions {
  readonly output?: string;
  readonly data?: string;
  readonly model?: string;
  readonly key?: string;
  readonly json?: boolean;
}

export function addAuditCommand(program: Command, io: Io): void {
  program
    .command('audit')
    .description('summarise an audit log, or write a report about it')
    .argument('<trace>', 'audit log, or a folder with one and its rotated files')
    .option('-o, --output <file>', 'HTML report to write, in one file')
    .option('--data <dir>', 'the data that was recorded: the report then shows images')
    .option('--model <model>', 'ONNX file or folder (default: the one that the log names)')
    .option('--key <file>', 'public key (PEM) of whoever signed the log: its signatures are checked')
    .option('--json', 'print JSON')
    .action((trace: string, options: AuditOptions) => audit(trace, options, io));
}

async function audit(path: string, options: AuditOptions, io: Io): Promise<void> {
  const { output, data: images, model } = options;
  if (output) await checkWritable(output);
  const log = await readLog(path, io, options);
  if (log.entries.length === 0)
    throw new ResidualSkipError('INVALID_DATA', `audit log '${path}': it holds no item yet`);
  if (output) {
    const work = watchWork(io, true);
    const page = await renderAudit(log, { images, model, ...work.options }).finally(work.stop);
    await writeResult(output, page);
  }
  const summary = summarise(log.entries);
  const answer = publicSummary(summary, log);
  io.out(options.json ? `${JSON.stringify(answer, null, 2)}\n` : draw(path, summary, log, output, io));
  checkUntouched(path, log);
}

function publicSummary(summary: AuditSummary, { energy, problems, hadEarlier, signed }: AuditTrace) {
  const { items, otherItems, sample, from, to, blocksSkipped, layersSkipped, multiplyAddsSkipped, reasons } =
    summary;
  return {
    items,
    otherItems,
    sample,
    from: new Date(from).toISOString(),
    to: new Date(to).toISOString(),
    blocksSkipped,
    layersSkipped,
    multiplyAddsSkipped,
    policies: summary.policies,
    distinctPaths: summary.paths.length,
    blocks: summary.blocks.map(({ scores: _, ...block }) => block),
    paths: summary.paths.slice(0, 20),
    classes: summary.classes,
    depths: summary.depths,
    exits: summary.exits,
    reasons,
    energy: energy && { items: energy.items, cpuSeconds: energy.cpuSeconds, joules: energy.joules },
    problems: problems.length,
    // Where lines were changed, removed or inserted.
    tampered: problems.filter(({ kind }) => kind === 'tampered'),
    // Where the reader says that lines are missing, and why.
    gaps: problems.filter(({ kind }) => kind === 'unfinished' || kind === 'lost'),
    hadEarlier,
    signed: signed && { ...signed, time: new Date(signed.time).toISOString() },
  };
}

const COLUMNS: readonly Column[] = [
  { title: 'block' },
  { title: 'skip rate', align: 'right' },
  { title: '' },
  { title: 'threshold', align: 'right' },
];
const BAR = 30;
const EXIT_COLUMNS: readonly Column[] = [{ title: 'exit behind' }, ...numbers('items', 'share')];

function draw(
  path: string,
  summary: AuditSummary,
  { signed }: AuditTrace,
  output: string | undefined,
  io: Io,
): string {
  const { items, layersSkipped, multiplyAddsSkipped, paths, blocks, exits } = summary;
  const rows = blocks.map(({ name, skipRate, threshold }) => [
    name,
    percent(skipRate),
    '█'.repeat(Math.round(skipRate * BAR)),
    threshold === null ? '' : String(threshold),
  ]);
  const head =
    `${paint(io, 'bold', path)}: ${plural(items, 'item')}, ${percent(layersSkipped)} of the layers and ` +
    `${percent(multiplyAddsSkipped)} of the multiply-adds bypassed, ${plural(paths.length, 'distinct path')}${wordScope(summary)}`;
  const until =
    signed &&
    `signed on ${new Date(signed.time).toISOString()}, ${plural(signed.itemsAfter, 'item')} since then\n`;
  const left = exits.map(({ after, items: some }) => [
    after,
    some.toLocaleString('en'),
    percent(some / items),
  ]);
  const tables = [
    ...(rows.length > 0 ? [formatTable(io, COLUMNS, rows)] : []),
    ...(left.length > 0 ? [formatTable(io, EXIT_COLUMNS, left)] : []),
  ];
  return `${head}\n${until ?? ''}\n${tables.join('\n')}${output ? `\nreport: ${output}\n` : ''}`;
}
