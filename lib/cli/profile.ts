import type { Command } from 'commander';
import { findModel } from '../data/model-files.js';
import { inputShapes } from '../inspect/shapes.js';
import { loadModel } from '../model/load.js';
import { generator } from '../numeric/random.js';
import { sizeOf } from '../numeric/shapes.js';
import type { PolicyInfo } from '../session/own-policy.js';
import type { Profile, ProfileEvent } from '../session/profile.js';
import { InferenceSession } from '../session/session.js';
import type { TensorMap } from '../skip/observer.js';
import { ARRAY_OF, Tensor } from '../tensor/tensor.js';
import { wordPolicy } from './classifier.js';
import { checkWritable, writeResult } from './files.js';
import { type Io, paint } from './io.js';
import { addEngineOptions, type EngineOptions, positiveInteger } from './options.js';
import { collectShape, SHAPE_HELP, type ShapeOption, shapesOf } from './shapes.js';
import { type Column, formatTable, milliseconds, numbers, percent, plural } from './table.js';

interface ProfileOptions extends EngineOptions {
  readonly shape?: readonly ShapeOption[];
  readonly runs: number;
  readonly output?: string;
  readonly json?: boolean;
}

/** One row of `profile --json`: a step or a block. */
export interface ProfileRow {
  /** In the model; of the network that verifies an 8-bit one's answers, it ends in ` (original)`. */
  readonly name: string;
  readonly op: string | null;
  readonly block: string | null;
  /** Fraction of the items that ran it. */
  readonly ran: number;
  /** Mean over the items that ran it. */
  readonly milliseconds: number;
  /** Fraction of the total time of all items. */
  readonly share: number;
}

export interface ProfileReport {
  readonly model: string;
  readonly backend: string;
  readonly isa: string;
  readonly policy: PolicyInfo;
  readonly runs: number;
  /** Mean time of one item. */
  readonly milliseconds: number;
  readonly blocks: readonly ProfileRow[];
  readonly steps: readonly ProfileRow[];
}

/** Untimed runs before the measured ones. */
const WARM_UP = 5;

export function addProfileCommand(program: Command, io: Io): void {
  addEngineOptions(
    program
      .command('profile')
      .description('measure the time of every step and block, on random inputs')
      .argument('<model>', 'ONNX file, or a folder with one')
      .option('--runs <n>', 'runs to measure, each with new inputs', positiveInteger, 50)
      .option('--shape <shape>', SHAPE_HELP, collectShape)
      .option(
        '-o, --output <file>',
        "write the events in Chrome's trace format, for chrome://tracing or Perfetto",
      ),
  ).action((model: string, options: ProfileOptions) => profile(model, options, io));
}

async function profile(path: string, options: ProfileOptions, io: Io): Promise<void> {
  const { output, policy, original, backend, isa, threads, precision } = options;
  if (output !== undefined) await checkWritable(output);
  const files = await findModel(path);
  const shapes = await inputShapes(await loadModel(files.model), files, shapesOf(options.shape));
  const session = await InferenceSession.create(path, { policy, original, backend, isa, threads, precision });
  try {
    const random = generator(1);
    const feeds = (): TensorMap =>
      Object.fromEntries(
        [...shapes].map(([name, { dtype, dims }]) => {
          const values = Array.from({ length: sizeOf(dims) }, () => 2 * random() - 1);
          // Integers and booleans are zeros: they may be indices or lengths.
          const data = dtype === 'float32' ? Float32Array.from(values) : new ARRAY_OF[dtype](values.length);
          return [name, new Tensor(dtype, data as Float32Array, dims)];
        }),
      );
    for (let run = 0; run < WARM_UP; run++) await session.run(feeds());
    session.startProfiling();
    for (let run = 0; run < options.runs; run++) await session.run(feeds());
    const measured = session.endProfiling();
    if (output !== undefined) await writeResult(output, `${JSON.stringify(measured)}\n`);
    const report = reportOf(files.name, session.policy, measured, original !== undefined);
    io.out(options.json ? `${JSON.stringify(report, null, 2)}\n` : draw(report, output, io));
  } finally {
    await session.release();
  }
}

/** The time of one step or block over all items. */
interface Total {
  /** Tells those of an original that verifies from those of the model, which have the same names. */
  readonly suffix: string;
  readonly first: ProfileEvent;
  /** Numbers of the items that ran it: a step may have several events in one item. */
  readonly items: Set<number>;
  microseconds: number;
}

/** @param hasOriginal whether items that a guard verifies run in another network */
function reportOf(
  model: string,
  policy: PolicyInfo,
  { traceEvents, otherData }: Profile,
  hasOriginal: boolean,
): ProfileReport {
  const totals = { item: new Map<string, Total>(), block: new Map(), gate: new Map(), step: new Map() };
  let item = 0;
  let suffix = '';
  for (const event of traceEvents) {
    // An item's own event precedes those of its steps and blocks. What a guard runs again counts as the same item.
    item = event.args.item ?? item;
    if (event.cat === 'item') suffix = hasOriginal && event.name.endsWith(', verified') ? ' (original)' : '';
    const known: Map<string, Total> = totals[event.cat];
    const key = event.cat === 'item' ? 'all' : `${event.name} ${event.args.op ?? ''}${suffix}`;
    const total = known.get(key) ?? { suffix, first: event, items: new Set(), microseconds: 0 };
    known.set(key, total);
    total.items.add(item);
    total.microseconds += event.dur;
  }
  const { microseconds: whole, items: all } = totals.item.get('all')!;
  const items = all.size;
  const rows = (known: ReadonlyMap<string, Total>) =>
    [...known.values()].map(({ suffix: of, first, items: ran, microseconds }) => ({
      name: first.name + of,
      op: first.args.op ?? null,
      block: first.args.block === undefined ? null : first.args.block + of,
      ran: ran.size / items,
      milliseconds: microseconds / ran.size / 1000,
      share: microseconds / whole,
    }));
  const { backend, isa, runs } = otherData;
  return {
    ...{ model, backend, isa, policy, runs },
    milliseconds: whole / items / 1000,
    blocks: rows(totals.block),
    steps: rows(totals.step),
  };
}

const COLUMNS: readonly Column[] = [
  { title: 'step' },
  { title: 'op' },
  { title: 'block' },
  ...numbers('ran', 'ms', 'share'),
];

function draw(report: ProfileReport, output: string | undefined, io: Io): string {
  const cells = ({ name, op, block, ran, milliseconds: ms, share }: ProfileRow) => [
    name,
    op ?? '',
    block ?? '',
    percent(ran, 0),
    ms.toFixed(4),
    percent(share),
  ];
  const blocks = report.blocks.map((row) => cells({ ...row, block: row.name, name: 'whole block' }));
  return (
    `${paint(io, 'bold', report.model)}: ${milliseconds(report.milliseconds)} ms an item, mean of ` +
    `${plural(report.runs, 'run')} on random inputs; ${report.backend} backend, ${report.isa}\n${wordPolicy(report.policy)}\n\n` +
    formatTable(io, COLUMNS, [...report.steps.map(cells), ...blocks]) +
    (output === undefined ? '' : `\nevents: ${output}\n`)
  );
}
