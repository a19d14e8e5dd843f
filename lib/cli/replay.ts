import { join } from 'node:path';
import type { Command } from 'commander';
import type { AuditEntry } from '../audit/read.js';
import { type ReplayItem, type ReplayReport, replayAudit } from '../audit/replay.js';
import type { Item } from '../classify/images.js';
import { likelyFirst } from '../data/dataset.js';
import { listFolder } from '../data/files.js';
import { findModel } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import type { TimedClassifier } from '../measure/timed-classifier.js';
import { loadPolicy } from '../skip/load-policy.js';
import { hashPolicy } from '../skip/policy.js';
import type { Tensor } from '../tensor/tensor.js';
import { openClassifier, openUnlabelled } from './classifier.js';
import { readLog } from './files.js';
import { type Io, paint, startProgress } from './io.js';
import { addDataOptions, type EngineOptions, type ReadingOptions } from './options.js';
import { plural } from './table.js';

interface ReplayOptions extends EngineOptions, ReadingOptions {
  readonly data: string;
  readonly model?: string;
  readonly json?: boolean;
}

/** Differences that are printed; the JSON has all of them. */
const SHOWN = 5;

export function addReplayCommand(program: Command, io: Io): void {
  addDataOptions(
    program
      .command('replay')
      .description(
        'run the inputs of an audit log again, with its policy, and compare every decision and output bit for bit',
      )
      .argument('<trace>', 'audit log')
      .requiredOption('--data <dir>', 'the data that was recorded, as for eval')
      .option('--model <model>', 'ONNX file or folder (default: the one that the log names)'),
  ).action((trace: string, options: ReplayOptions) => replay(trace, options, io));
}

async function replay(path: string, options: ReplayOptions, io: Io): Promise<void> {
  const { entries } = await readLog(path, io);
  const model = options.model ?? entries.at(-1)?.header.model.source;
  if (!model) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `audit log '${path}': it doesn't name the path of its model; give --model`,
    );
  }
  if (entries.every(({ record }) => record.input === null)) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `${path} has no input hashes, so its items can't be found in the data; record with inputs: 'hash'`,
    );
  }
  const policy = options.policy ?? (await recordedPolicy(path, entries.at(-1)!, model));
  const precision = options.precision ?? entries.at(-1)!.header.precision ?? 'float32';
  const classifier = await openClassifier(model, { ...options, policy, precision }, io);
  try {
    const data = await openUnlabelled(classifier, options.data, options);
    const progress = startProgress(io, entries.length, 'Replaying', options.json !== true);
    const items = itemsOf(classifier, likelyFirst(data, entries.length));
    const report = await replayAudit(entries, items, classifier.session, () => progress.advance()).finally(
      () => progress.stop(),
    );
    io.out(options.json ? `${JSON.stringify(report, null, 2)}\n` : draw(path, report, io));
    if (report.differences.length > 0 || report.replayed === 0) {
      const why = report.replayed === 0 ? 'none of its items is among the data' : 'its items differ';
      throw new ResidualSkipError('INVALID_DATA', `${path} does not replay: ${why}`);
    }
    classifier.unusable.check();
  } finally {
    await classifier.release();
  }
}

/** `model`, `full` or the policy file in the model's folder that has the recorded hash. */
async function recordedPolicy(path: string, { header }: AuditEntry, model: string): Promise<string> {
  const { folder } = await findModel(model);
  const files = (await listFolder(folder)).files.filter((name) => /^policy.*\.json$/.test(name));
  for (const source of ['model', 'full', ...files.map((name) => join(folder, name))]) {
    if (hashOf(source) === header.policy.sha256) return source;
  }
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `audit log '${path}': it was recorded with the policy of SHA-256 ${header.policy.sha256}, which isn't in ${folder}; give its file ` +
      'with --policy',
  );
}

/** Undefined for a file that is no policy. */
function hashOf(source: string): string | undefined {
  try {
    return hashPolicy(loadPolicy(source));
  } catch {
    return undefined;
  }
}

async function* itemsOf(
  classifier: TimedClassifier,
  data: readonly Item<Tensor>[],
): AsyncGenerator<ReplayItem> {
  for await (const { item, tensor } of classifier.prepare(data)) {
    yield { name: item.name, feeds: classifier.feeds(tensor) };
  }
}

function draw(path: string, report: ReplayReport, io: Io): string {
  const { recorded, replayed, identical, missing, circumstances, differences } = report;
  const lines = [
    `${path}: ${plural(recorded, 'item')} recorded, ${replayed} replayed, ` +
      paint(io, differences.length === 0 ? 'green' : 'yellow', `${identical} identical bit for bit`),
  ];
  if (missing > 0) lines.push(`${plural(missing, 'item')} not among the data`);
  for (const difference of differences.slice(0, SHOWN)) {
    const { line, item, what, block, recorded: before, replayed: after } = difference;
    lines.push(
      `line ${line}, ${item}: ${what}${block ? ` of ${block}` : ''}: recorded ${before}, replayed ${after}`,
    );
  }
  if (differences.length > SHOWN) lines.push(`and ${differences.length - SHOWN} more`);
  lines.push(...circumstances);
  return `${lines.join('\n')}\n`;
}
