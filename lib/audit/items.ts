/** Converts the results of a run into records of the audit log. */
import { isReduced } from '../model/program/program.js';
import { widenFloat16 } from '../numeric/float16.js';
import { sizeOf } from '../numeric/shapes.js';
import type { ItemRequest, RunContext, RunEvent } from '../skip/observer.js';
import { type Meaning, topClasses } from '../skip/scores.js';
import type { ItemDecisions, SkipReason } from '../skip/trace.js';
import type { TensorData } from '../tensor/tensor.js';
import { DIGEST_BYTES } from './hash.js';
import { type LineText, shortFloat } from './line.js';
import { AUDIT_SCHEMA_VERSION, type AuditHeader } from './record.js';

/** One item of a run to record. */
export interface Recorded {
  readonly time: number;
  readonly run: number;
  readonly item: number;
  /** The data that its input hash covers; null if the input isn't recorded. */
  readonly input: readonly TensorData[] | null;
  /** Its parts of the outputs, in name order. */
  readonly output: readonly TensorData[];
  /** Its decisions are read only when the item is encoded, off the hot path. */
  readonly event: RunEvent;
}

/** Offsets in `digests` of the SHA-256 of an item's input (null if it isn't recorded) and output. */
export interface ItemHashes {
  readonly digests: Uint8Array;
  readonly input: number | null;
  readonly output: number;
}

const LETTERS: Record<SkipReason, string> = {
  gate: 'g',
  policy: 'p',
  fixed: 'f',
  tripped: 't',
  exit: 'x',
  guard: 'v',
};

export function headerOf(
  { time, item, event }: Recorded,
  {
    inputs,
    sample,
    labels,
    continues,
    writer,
    lost,
  }: Pick<AuditHeader, 'inputs' | 'sample' | 'continues' | 'writer' | 'lost'> & {
    labels: readonly string[] | null;
  },
): AuditHeader {
  const decisions = event.decisionsOf(item);
  const {
    version,
    sha256,
    source,
    policySha256,
    guards,
    backend,
    isa,
    threads,
    precision,
    multiplyAdds,
    layers,
    blocks,
  } = event.context;
  return {
    type: 'header',
    schema: AUDIT_SCHEMA_VERSION,
    time: new Date(time).toISOString(),
    engine: version,
    model: { sha256, source },
    policy: { sha256: policySha256, guards: [...guards] },
    continues,
    writer,
    lost,
    backend,
    isa,
    threads,
    ...(isReduced(precision) && { precision }),
    inputs,
    sample,
    labels: labels ? [...labels] : null,
    multiplyAdds,
    layers,
    blocks: blocks.map((block, i) => ({
      name: block.name,
      shortcut: block.shortcut,
      skippable: block.skippable,
      multiplyAdds: block.multiplyAdds,
      layers: block.layers,
      threshold: shortFloat(decisions.threshold(i)),
    })),
  };
}

/**
 * Writes one item, as `AuditItem` describes it.
 * @param top number of best classes to record
 */
export function writeItem(
  line: LineText,
  { time, run, item, output, event }: Recorded,
  { digests, input, output: outputHash }: ItemHashes,
  top: number,
): void {
  line.ascii('{"type":"item","time":');
  line.fixed(time, 0);
  line.ascii(',"run":');
  line.fixed(run, 0);
  line.ascii(',"item":');
  line.fixed(item, 0);
  writeHash(line, ',"input":', digests, input);
  const decisions = event.decisionsOf(item);
  writeDecisions(line, decisions, event.context.blocks.length);
  writeOutcome(line, decisions, event.context.blocks.length);
  if (event.requests) writeRequest(line, event.requests[item]!);
  writeHash(line, ',"output":', digests, outputHash);
  line.ascii(',"top":[');
  const scores = scoresOf(event, output);
  const best = scores ? topClasses(scores.data, scores.meaning, top) : [];
  for (let i = 0; i < best.length; i++) {
    line.ascii(i === 0 ? '[' : ',[');
    line.fixed(best[i]![0], 0);
    line.ascii(',');
    line.fixed(best[i]![1], 6);
    line.ascii(']');
  }
  line.ascii('],"milliseconds":');
  line.fixed(event.milliseconds / event.items, 4);
  const saved = savedBy(decisions, event.context.blocks);
  if (saved !== undefined) {
    line.ascii(',"multiplyAddsSkipped":');
    line.fixed(saved, 0);
  }
  line.ascii('}');
}

/** Of encoded items, in their order, the recorded hashes of their inputs. */
export function inputHashesIn(lines: Uint8Array): string[] {
  const text = Buffer.from(lines.buffer, lines.byteOffset, lines.length).toString('latin1');
  return Array.from(
    text.matchAll(/^\{"type":"item","time":\d+,"run":\d+,"item":\d+,"input":"([0-9a-f]{64})"/gm),
    ([, hash]) => hash!,
  );
}

/** Multiply-adds that an item saved; undefined if that is the sum over the skipped blocks. */
export function savedBy(decisions: ItemDecisions, blocks: RunContext['blocks']): number | undefined {
  if (!decisions.spentMore()) return undefined;
  const saved = decisions.multiplyAddsSkipped();
  const skipped = blocks.reduce(
    (sum, { multiplyAdds }, block) => (decisions.ran(block) ? sum : sum + multiplyAdds),
    0,
  );
  return saved === skipped ? undefined : saved;
}

function writeHash(line: LineText, key: string, digests: Uint8Array, at: number | null): void {
  line.ascii(key);
  if (at === null) {
    line.ascii('null');
    return;
  }
  line.ascii('"');
  line.hex(digests, at, at + DIGEST_BYTES);
  line.ascii('"');
}

function writeDecisions(line: LineText, decisions: ItemDecisions, blocks: number): void {
  line.ascii(',"ran":"');
  for (let i = 0; i < blocks; i++) line.ascii(decisions.ran(i) ? '1' : '0');
  line.ascii('","reasons":"');
  for (let i = 0; i < blocks; i++) line.ascii(LETTERS[decisions.reason(i)]);
  line.ascii('","scores":[');
  for (let i = 0; i < blocks; i++) {
    if (i > 0) line.ascii(',');
    line.float(decisions.score(i));
  }
  line.ascii('],"exits":[');
  writeExits(line, decisions);
  line.ascii(']');
}

/** What became of an item, in a field after a comma, where no block's reason shows it. */
export function writeOutcome(line: LineText, decisions: ItemDecisions, blocks: number): void {
  const { exits, inFull } = decisions;
  if (inFull) {
    const isShown = Array.from({ length: blocks }, (_, i) => decisions.reason(i)).includes(inFull);
    if (!isShown) line.ascii(`,"inFull":"${inFull}"`);
    return;
  }
  const last = exits.at(-1);
  if (!last?.taken || (blocks > 0 && decisions.reason(blocks - 1) === 'exit')) return;
  line.ascii(',"answeredBy":');
  line.json(last.after);
}

/** Longest ids in characters: clients choose them, and each of a request's items has them. */
const MAX_ID = 128;

/** The fields of an item's request, each after a comma. */
export function writeRequest(line: LineText, { caller, id, clientId }: ItemRequest): void {
  const field = (key: string, value: string) => {
    line.ascii(key);
    line.json(value.slice(0, MAX_ID));
  };
  field(',"caller":', caller);
  field(',"request":', id);
  if (clientId) field(',"clientRequest":', clientId);
}

/** The exits that an item reached, without the enclosing brackets. */
export function writeExits(line: LineText, { exits }: ItemDecisions): void {
  for (const [i, { after, score }] of exits.entries()) {
    line.ascii(i === 0 ? '[' : ',[');
    line.json(after);
    line.ascii(',');
    line.float(score);
    line.ascii(']');
  }
}

/**
 * An item's class scores; undefined if the model has none, or if an item has several rows of them.
 * @param output the item's parts of the outputs, in name order
 */
export function scoresOf(
  { context: { classScores }, outputs }: RunEvent,
  output: readonly TensorData[],
): { readonly data: Float32Array; readonly meaning: Meaning } | undefined {
  if (!classScores) return undefined;
  const index = Object.keys(outputs).sort().indexOf(classScores.name);
  const { type, dims } = outputs[classScores.name]!;
  const scores = output[index]!;
  // A batch that runs as one item has several rows of scores, and none of them is its answer.
  if (scores.length !== sizeOf(dims.slice(1))) return undefined;
  const data = type === 'float16' ? widenFloat16(scores as Uint16Array) : (scores as Float32Array);
  return { data, meaning: classScores.meaning };
}
