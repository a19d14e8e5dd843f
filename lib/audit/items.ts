/** What a run left behind as records of the audit log. */
import type { RunEvent } from '../skip/observer.js';
import type { SkipReason } from '../skip/trace.js';
import type { TensorData } from '../tensor.js';
import { sha256Of } from './hash.js';
import { type AuditHeader, type AuditItem, shortFloat } from './record.js';
import { softmaxTop } from './top.js';

/** One item of a run that is to be recorded. */
export interface Recorded {
  readonly time: number;
  readonly run: number;
  readonly item: number;
  /** What its hash is over; null when it isn't recorded. */
  readonly input: readonly TensorData[] | null;
  /** Its parts of the outputs, in name order. */
  readonly output: readonly TensorData[];
  /** Its trace is built only when the item is encoded, off the hot path. */
  readonly event: RunEvent;
}

const LETTERS: Record<SkipReason, string> = {
  gate: 'g',
  confidence: 'c',
  policy: 'p',
  fixed: 'f',
  tripped: 't',
  exit: 'x',
  guard: 'v',
};

export function headerOf(
  { time, item, event: { context, trace } }: Recorded,
  { inputs, sample, labels }: Pick<AuditHeader, 'inputs' | 'sample'> & { labels: readonly string[] | null },
): AuditHeader {
  const { blocks } = trace.items[item]!;
  const { version, sha256, source, policySha256, backend, isa, threads, multiplyAdds, layers } = context;
  return {
    type: 'header',
    schema: 1,
    time: new Date(time).toISOString(),
    engine: version,
    model: { sha256, source },
    policy: { sha256: policySha256 },
    backend,
    isa,
    threads,
    inputs,
    sample,
    labels: labels ? [...labels] : null,
    multiplyAdds,
    layers,
    blocks: context.blocks.map((block, i) => ({
      name: block.name,
      shortcut: block.shortcut,
      skippable: block.skippable,
      multiplyAdds: block.multiplyAdds,
      layers: block.layers,
      threshold: shortFloat(blocks[i]!.threshold),
    })),
  };
}

/** @param top how many of the best classes are recorded */
export function itemOf({ time, run, item, input, output, event }: Recorded, top: number): AuditItem {
  const { blocks, exits, multiplyAddsSkipped } = event.trace.items[item]!;
  let [ran, reasons] = ['', ''];
  let ofBlocks = 0;
  const scores: (number | null)[] = [];
  for (const block of blocks) {
    ran += block.ran ? '1' : '0';
    if (!block.ran) ofBlocks += event.context.blocks[block.index]!.multiplyAdds;
    reasons += LETTERS[block.reason];
    scores.push(shortFloat(block.score));
  }
  const logits = output[logitsIndex(event)];
  return {
    type: 'item',
    time,
    run,
    item,
    input: input && sha256Of(input),
    ran,
    reasons,
    scores,
    exits: exits.map(({ after, score }) => [after, shortFloat(score)!]),
    output: sha256Of(output),
    top: logits ? softmaxTop(logits as Float32Array, top) : [],
    milliseconds: Number((event.milliseconds / event.items).toFixed(4)),
    ...(multiplyAddsSkipped !== ofBlocks && { multiplyAddsSkipped }),
  };
}

/** Where the first float32 output is among the outputs in name order; -1 when there is none. */
function logitsIndex({ outputs }: RunEvent): number {
  const names = Object.keys(outputs);
  const name = names.find((known) => outputs[known]!.type === 'float32');
  return name === undefined ? -1 : names.sort().indexOf(name);
}
