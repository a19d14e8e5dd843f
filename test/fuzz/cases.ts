/** Makes and runs the cases: model files, policy files and audit logs, each used as a user would. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readAudit } from 'lib/audit/read.js';
import { encodeRecord, FIRST_LINK, linkAtEnd } from 'lib/audit/record.js';
import { replayAudit } from 'lib/audit/replay.js';
import { renderAuditReport } from 'lib/audit/report.js';
import { summarise } from 'lib/audit/summary.js';
import { type Feeds, InferenceSession, ResidualSkipError, Tensor } from 'lib/index.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel, unsupportedOperators } from 'lib/model/load.js';
import { decodeModelProto, encodeModelProto } from 'lib/model/read/proto.js';
import { sizeOf } from 'lib/numeric/shapes.js';
import { bindFeeds } from 'lib/session/feeds.js';
import { describePort, type TensorMetadata } from 'lib/session/metadata.js';
import { describeBlocks } from 'lib/skip/block-info.js';
import { allocate, isBig } from 'lib/tensor/tensor.js';
import { lengthDifferences } from './lengths.js';
import { GATED, MODELS } from './models.js';
import { mutateBytes, mutateJson, mutateModel } from './mutate.js';
import { makeOpenModel } from './networks.js';
import { INPUT, POLICIES, TRACE } from './policies.js';
import { Random } from './random.js';

/** Kinds are named by file extension; `lengths.onnx` is a valid model, whose lengths are open. */
export const KINDS = ['lengths.onnx', 'onnx', 'policy.json', 'ndjson'] as const;
export type Kind = (typeof KINDS)[number];

export interface Case {
  readonly kind: Kind;
  readonly bytes: Uint8Array;
}

/**
 * Case `number` of a run with `seed`; the same two numbers always make the same case.
 * @param lengths only models whose lengths are open
 */
export function makeCase(seed: number, number: number, lengths = false): Case {
  const random = new Random(seed, number);
  if (lengths) return { kind: 'lengths.onnx', bytes: makeOpenModel(random) };
  const share = random.next();
  if (share < 0.8) return { kind: 'onnx', bytes: makeModel(random) };
  if (share < 0.93) return { kind: 'policy.json', bytes: makePolicy(random) };
  return { kind: 'ndjson', bytes: makeTrace(random) };
}

function makeModel(random: Random): Uint8Array {
  const seed = random.pick(MODELS);
  if (random.chance(0.2)) return mutateBytes(seed, random);
  const model = decodeModelProto(seed);
  mutateModel(model, random, decodeModelProto(random.pick(MODELS)));
  const bytes = encodeModelProto(model);
  return random.chance(0.05) ? mutateBytes(bytes, random) : bytes;
}

function makePolicy(random: Random): Uint8Array {
  const policy = mutateJson(structuredClone(random.pick(POLICIES)), random);
  const bytes = new TextEncoder().encode(JSON.stringify(policy) ?? '');
  return random.chance(0.1) ? mutateBytes(bytes, random) : bytes;
}

/** Most traces have valid links, as an attacker would make them. */
function makeTrace(random: Random): Uint8Array {
  const records = mutateJson(structuredClone(TRACE), random);
  let link = FIRST_LINK;
  const lines = (Array.isArray(records) ? records : [records]).map((record) => {
    const line = encodeRecord(record ?? {}, random.chance(0.05) ? FIRST_LINK : link);
    link = linkAtEnd(line);
    return line;
  });
  const bytes = Uint8Array.from(Buffer.concat(lines));
  return random.chance(0.2) ? mutateBytes(bytes, random) : bytes;
}

/** Describes an unexpected error; undefined for an error of this package that blames the input. */
export function describeFailure(error: unknown): string | undefined {
  if (error instanceof ResidualSkipError) {
    return error.code === 'INTERNAL' ? `INTERNAL: ${error.message}` : undefined;
  }
  return error instanceof Error ? (error.stack ?? String(error)) : `thrown: ${String(error)}`;
}

const folder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'residual-skip-fuzz-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** A description of the failure of `action`, if it fails with something else than an error of this package. */
async function failuresOf(action: () => unknown): Promise<string[]> {
  try {
    await action();
    return [];
  } catch (error) {
    const failure = describeFailure(error);
    return failure ? [failure] : [];
  }
}

/** Creates a session and runs nothing. */
export function createOnly(source: Uint8Array): Promise<string[]> {
  return failuresOf(async () => {
    const session = await InferenceSession.create(source, { threads: 1 });
    await session.release();
  });
}

/**
 * Uses the file as a user would.
 * @param thorough also runs slow parts: threads, reports
 * @returns a description of each failure that isn't an error of this package
 */
export async function runCase({ kind, bytes }: Case, thorough: boolean): Promise<string[]> {
  const failures: string[] = [];
  const attempt = async (action: () => unknown) => {
    failures.push(...(await failuresOf(action)));
  };
  if (kind === 'lengths.onnx') {
    for (const backend of thorough ? (['native', 'reference'] as const) : (['native'] as const)) {
      await attempt(async () => {
        failures.push(...(await lengthDifferences(bytes, backend)));
      });
    }
  } else if (kind === 'onnx') {
    let runs = true;
    await attempt(async () => {
      runs = await inspect(bytes);
    });
    await attempt(() => createAndRun(bytes, runs, thorough));
  } else {
    const path = join(folder, `case.${kind}`);
    writeFileSync(path, bytes);
    await attempt(() => (kind === 'ndjson' ? audit(path, thorough) : applyPolicy(path)));
  }
  return failures;
}

/** @returns false for a model that, by its own description, legitimately needs much time or memory to run */
async function inspect(bytes: Uint8Array): Promise<boolean> {
  const model = await loadModel(bytes, { allowUnsupported: true });
  if (unsupportedOperators(model).length > 0) return true;
  const feeds = feedsOf(model.inputs.map(describePort));
  if (!feeds) return false;
  const program = compileModel(model, bindFeeds(model, feeds).binding);
  describeBlocks(program);
  const elements = program.values.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  return program.cost.multiplyAdds <= MAX_MULTIPLY_ADDS && (elements <= MAX_ELEMENTS || elements > ENDLESS);
}

const MAX_FED = 2 ** 16;
const MAX_MULTIPLY_ADDS = 1e8;
/** Of one item. Two run at a time, and a layout of sixteen channels may hold four. */
const MAX_ELEMENTS = 2 ** 23;
/** No machine has this much memory: the model must be refused, not tried. */
const ENDLESS = 2 ** 42;

/** Tensors for a run; undefined if they would be too large. */
function feedsOf(inputs: readonly TensorMetadata[]): Feeds | undefined {
  const feeds: Record<string, Tensor> = {};
  for (const { name, type, shape } of inputs) {
    const dims = shape.map((length) => (typeof length === 'string' ? 2 : length));
    const size = sizeOf(dims);
    if (!(size <= MAX_FED)) return undefined;
    const data = allocate(type, size);
    for (let i = 0; i < size; i++) data[i] = isBig(type) ? BigInt(i % 3) : i % 3;
    feeds[name] = new Tensor(type, data as Float32Array, dims);
  }
  return feeds;
}

async function createAndRun(bytes: Uint8Array, runs: boolean, thorough: boolean): Promise<void> {
  const session = await InferenceSession.create(bytes, { threads: thorough ? 2 : 1 });
  try {
    const feeds = feedsOf(session.inputMetadata);
    if (!feeds || !runs) return;
    if (thorough) await session.run(feeds);
    const { trace } = session.runTracedSync(feeds);
    trace.items.map(({ blocks }) => blocks.length);
    session.blocks.map(({ name }) => name);
  } finally {
    await session.release();
  }
}

async function applyPolicy(path: string): Promise<void> {
  const session = await InferenceSession.create(GATED, { policy: path, threads: 1 });
  try {
    session.runTracedSync({ x: INPUT });
    session.context.blocks.length;
  } finally {
    await session.release();
  }
}

let replaying: Promise<InferenceSession> | undefined;

async function audit(path: string, thorough: boolean): Promise<void> {
  const { entries, problems, energy } = await readAudit(path);
  if (entries.length === 0) return;
  JSON.stringify(summarise(entries));
  if (thorough) await renderAuditReport(entries, { problems, energy });
  replaying ??= InferenceSession.create(GATED, { threads: 1 });
  await replayAudit(entries, [{ name: 'item', feeds: { x: INPUT } }], await replaying);
}
