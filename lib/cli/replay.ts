import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { storedInputs } from '../audit/inputs.js';
import type { AuditEntry } from '../audit/read.js';
import { type ReplayItem, type ReplayReport, replayAudit } from '../audit/replay.js';
import type { Item } from '../classify/images.js';
import { likelyFirst } from '../data/dataset.js';
import { kindOf, listFolder } from '../data/files.js';
import { findModel } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import type { TimedClassifier } from '../measure/timed-classifier.js';
import type { Precision } from '../model/program/program.js';
import { InferenceSession } from '../session/session.js';
import { loadPolicy, type PolicySource } from '../skip/load-policy.js';
import { hashPolicy, type SkipPolicy } from '../skip/policy.js';
import type { Tensor } from '../tensor/tensor.js';
import { openClassifier, openUnlabelled } from './classifier.js';
import { checkUntouched, readLog } from './files.js';
import { type Io, paint, startProgress } from './io.js';
import { addDataOptions, type EngineOptions, type ReadingOptions } from './options.js';
import { plural } from './table.js';

interface ReplayOptions extends EngineOptions, ReadingOptions {
  readonly data?: string;
  readonly model?: string;
  readonly key?: string;
  readonly json?: boolean;
}

/** Differences that are printed; the JSON has all of them. */
const SHOWN = 5;

export function addReplayCommand(program: Command, io: Io): void {
  addDataOptions(
    program
      .command('replay')
      .description(
        'run the inputs of an audit log again with its policy; compare every decision and output bit for bit',
      )
      .argument('<trace>', 'audit log, or a folder with one and its rotated files')
      .option(
        '--data <dir>',
        'the data that was recorded, as for eval (default: the inputs stored beside the log)',
      )
      .option('--key <file>', 'public key (PEM) to check the signatures of the log with')
      .option('--model <model>', 'ONNX file or folder (default: the one that the log names)'),
    'log',
  ).action((trace: string, options: ReplayOptions) => replay(trace, options, io));
}

async function replay(path: string, options: ReplayOptions, io: Io): Promise<void> {
  const log = await readLog(path, io, options);
  const { entries: all } = log;
  const model = options.model ?? all.at(-1)?.header.model.source;
  if (!model) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `audit log '${path}': it doesn't name the path of its model; give --model`,
    );
  }
  if (all.every(({ record }) => record.input === null)) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `${path} has no input hashes, so its items can't be found in the data; record with inputs: 'hash'`,
    );
  }
  const policies = await policiesFor(model, options.policy);
  const precision = options.precision ?? precisionOf(all.at(-1)!);
  const last = all.findLast((entry) => precisionOf(entry) === precision) ?? all.at(-1)!;
  const policy = options.policy ?? recordedPolicy(path, last, policies, model);
  const { session, items, check, close } = await openData(
    path,
    model,
    { ...options, policy, precision },
    all,
    io,
  );
  try {
    const entries = await entriesOf(session, all, path, io);
    const progress = startProgress(io, entries.length, 'Replaying', options.json !== true);
    const known = options.policy === undefined ? policies : undefined;
    const report = await replayAudit(entries, items, session, () => progress.advance(), known).finally(() =>
      progress.stop(),
    );
    io.out(options.json ? `${JSON.stringify(report, null, 2)}\n` : draw(path, report, io));
    if (report.differences.length > 0 || report.replayed === 0) {
      const why = report.replayed === 0 ? 'none of its items is among the data' : 'its items differ';
      throw new ResidualSkipError('INVALID_DATA', `${path} does not replay: ${why}`);
    }
    checkUntouched(path, log);
    check?.();
  } finally {
    await close();
  }
}

/** A session of the model, and the inputs to run: those of `--data`, or else those that are stored beside the log. */
async function openData(
  path: string,
  model: string,
  options: Omit<ReplayOptions, 'policy'> & { readonly policy: PolicySource },
  entries: readonly AuditEntry[],
  io: Io,
): Promise<{
  readonly session: InferenceSession;
  readonly items: AsyncIterable<ReplayItem> | Iterable<ReplayItem>;
  /** Throws if some of the data couldn't be used. */
  readonly check?: () => void;
  readonly close: () => Promise<void>;
}> {
  const { data } = options;
  if (data !== undefined) {
    const classifier = await openClassifier(model, options, io);
    try {
      const list = likelyFirst(await openUnlabelled(classifier, data, options), entries.length);
      return {
        session: classifier.session,
        items: itemsOf(classifier, list),
        check: () => classifier.unusable.check(),
        close: () => classifier.release(),
      };
    } catch (error) {
      await classifier.release();
      throw error;
    }
  }
  if (entries.every(({ header }) => header.inputs !== 'store')) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `audit log '${path}': its inputs weren't stored; give the data that was recorded with --data`,
    );
  }
  const { policy, original, precision, backend, isa, threads } = options;
  const session = await InferenceSession.create(model, {
    policy,
    original,
    precision,
    backend,
    isa,
    threads,
  });
  const folder = (await kindOf(path)) === 'folder' ? path : dirname(path);
  const hashes = new Set(entries.flatMap(({ record }) => record.input ?? []));
  return { session, items: storedInputs(folder, hashes), close: () => session.release() };
}

const precisionOf = ({ header }: AuditEntry): Precision => header.precision ?? 'float32';

/** The entries of the session's model and precision, with a note if there are others; all if there are none. */
async function entriesOf(
  session: InferenceSession,
  all: readonly AuditEntry[],
  path: string,
  io: Io,
): Promise<readonly AuditEntry[]> {
  const sha256 = await session.sha256();
  const left = (
    entries: readonly AuditEntry[],
    what: string,
    option: string,
    own: (entry: AuditEntry) => boolean,
    nameOf: (entry: AuditEntry) => string,
  ): readonly AuditEntry[] => {
    const others = entries.filter((entry) => !own(entry));
    if (others.length === 0 || others.length === entries.length) return entries;
    const names = [...new Set(others.map(nameOf))].join(', ');
    io.err(
      `note: ${path}: ${plural(others.length, 'item')} ${what} (${names}) are left out; replay them with ${option}\n`,
    );
    return entries.filter(own);
  };
  const ofModel = left(
    all,
    'of other models',
    '--model',
    ({ header }) => header.model.sha256 === sha256,
    ({ header }) => header.model.source ?? 'without a name',
  );
  const inPrecision = (entry: AuditEntry) => precisionOf(entry) === session.precision;
  return left(ofModel, 'in other precisions', '--precision', inPrecision, precisionOf);
}

/** By their SHA-256: `model`, `full`, and the policies in the model's folder or in a file, with all their settings. */
async function policiesFor(model: string, file: string | undefined): Promise<Map<string, PolicySource>> {
  const { folder } = await findModel(model);
  const files = (await listFolder(folder)).files.filter((name) => /^policy.*\.json$/.test(name));
  const sources = ['model', 'full', ...files.map((name) => join(folder, name)), ...(file ? [file] : [])];
  const found = new Map<string, PolicySource>();
  for (const source of sources) {
    const policy = loadedPolicy(source);
    if (!policy) continue;
    if (!found.has(hashPolicy(policy))) found.set(hashPolicy(policy), source);
    // A server runs each setting of a file as a policy of its own.
    const { settings = [], ...own } = policy;
    for (const given of settings.length > 0 ? [own, ...settings] : []) {
      const setting = loadPolicy(given);
      if (!found.has(hashPolicy(setting))) found.set(hashPolicy(setting), setting);
    }
  }
  return found;
}

/** The policy of an item. */
function recordedPolicy(
  path: string,
  { header }: AuditEntry,
  policies: ReadonlyMap<string, PolicySource>,
  model: string,
): PolicySource {
  const { sha256 } = header.policy;
  const policy = policies.get(sha256);
  if (policy !== undefined) return policy;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `audit log '${path}': it was recorded with the policy of SHA-256 ${sha256}, which isn't in the folder of '${model}'; give its file ` +
      'with --policy',
  );
}

/** Undefined for a file that is no policy. */
function loadedPolicy(source: string): SkipPolicy | undefined {
  try {
    return loadPolicy(source);
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
