/**
 * Runs cases one after another: `child.js '{"seed":1,"from":0,"step":1,"end":1000,"progress":"FILE"}'`. Before each case, it
 * writes the case's number to the file, which survives a crash. It sends its findings to the parent.
 */
import { openSync, writeSync } from 'node:fs';
import * as proof from 'lib/model/length-proof.js';
import { createOnly, makeCase, runCase } from './cases.js';
import { CRAFTED } from './crafted.js';

/** One in this many cases also runs the slow parts. */
const THOROUGH = { 'lengths.onnx': 16, onnx: 16, 'policy.json': 1, ndjson: 256 };

/** What a crafted file may take: their weights are small. */
const CRAFTED_MIB = 512;

/** Deliberate faults, to check that they are found. */
const FAULTS = {
  crash: () => process.abort(),
  exit: () => process.exit(0),
  hang: () => {
    for (;;);
  },
  wait: () => new Promise(() => setInterval(() => {}, 1000)),
  memory: () => Buffer.alloc(2 ** 31, 1),
  error: () => {
    throw new TypeError('made on purpose');
  },
  /** Programs are interpolated whenever four samples look alike. */
  unproven: () => Object.defineProperty(proof, 'isLinear', { value: areAlike }),
};
function areAlike(_graph: unknown, outlines: readonly proof.Outline[]): boolean {
  const ranks = outlines.map(({ values }) => `${values.map(({ shape }) => shape.length)}`);
  return ranks.every((list) => list === ranks[0]);
}

export type Fault = keyof typeof FAULTS;

export interface ChildTask {
  readonly seed: number;
  readonly lengths: boolean;
  readonly from: number;
  readonly step: number;
  readonly end: number;
  /** In milliseconds, as Date.now(). No case starts later. */
  readonly deadline: number | null;
  readonly progress: string;
  /** Memory limit of the process in MiB. */
  readonly memory: number;
  readonly fault?: Fault | undefined;
  /** The numbers are those of crafted files. */
  readonly crafted: boolean;
}

export interface Finding {
  readonly number: number;
  readonly problem: string;
}

const { seed, lengths, from, step, end, deadline, progress, memory, fault, crafted } = JSON.parse(
  process.argv[2]!,
) as ChildTask;
const file = openSync(progress, 'w');
let number = from;

const report = (problem: string) => process.send!({ number, problem } satisfies Finding);
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    report(`${event}: ${error instanceof Error ? error.stack : String(error)}`);
    process.exit(1);
  });
}

const peakMiB = () => process.resourceUsage().maxRSS / 1024;

function checkMemory(used: number, limit: number): void {
  if (used <= limit) return;
  report(`memory: ${Math.round(used)} MiB, the limit is ${limit}`);
  process.exit(1);
}

async function main(): Promise<void> {
  for (; number < end && Date.now() < (deadline ?? Number.POSITIVE_INFINITY); number += step) {
    // Making a crafted file takes time of its own.
    const source = crafted ? Object.values(CRAFTED)[number]!() : undefined;
    const before = peakMiB();
    writeSync(file, `${number}`.padStart(16), 0);
    if (source !== undefined) {
      for (const failure of await createOnly(source)) report(failure);
      checkMemory(peakMiB() - before, CRAFTED_MIB);
      continue;
    }
    if (fault) await FAULTS[fault]();
    const made = makeCase(seed, number, lengths);
    for (const failure of await runCase(made, number % THOROUGH[made.kind] === 0)) report(failure);
    checkMemory(peakMiB(), memory);
  }
  process.send!('done', () => process.disconnect());
}

void main();
