/**
 * Runs cases one after another: `child.js '{"seed":1,"from":0,"step":1,"end":1000,"progress":"FILE"}'`. Before each case it
 * writes the case's number into the file, which outlives a crash; it sends what it finds to its parent.
 */
import { openSync, writeSync } from 'node:fs';
import { makeCase, runCase } from './cases.js';

/** Of so many cases one also does what is slow. */
const THOROUGH = { onnx: 16, 'policy.json': 1, ndjson: 256 };

/** Faults made on purpose, to see that they are found. */
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
};
export type Fault = keyof typeof FAULTS;

export interface ChildTask {
  readonly seed: number;
  readonly from: number;
  readonly step: number;
  readonly end: number;
  /** As Date.now() has it: no case begins later. */
  readonly deadline: number | null;
  readonly progress: string;
  /** MiB that the process may come to. */
  readonly memory: number;
  readonly fault?: Fault | undefined;
}

export interface Finding {
  readonly number: number;
  readonly problem: string;
}

const { seed, from, step, end, deadline, progress, memory, fault } = JSON.parse(
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

async function main(): Promise<void> {
  for (; number < end && Date.now() < (deadline ?? Number.POSITIVE_INFINITY); number += step) {
    writeSync(file, `${number}`.padStart(16), 0);
    if (fault) await FAULTS[fault]();
    const made = makeCase(seed, number);
    for (const failure of await runCase(made, number % THOROUGH[made.kind] === 0)) report(failure);
    const peak = process.resourceUsage().maxRSS / 1024;
    if (peak > memory) {
      report(`memory: ${Math.round(peak)} MiB, the limit is ${memory}`);
      process.exit(1);
    }
  }
  process.send!('done', () => process.disconnect());
}

void main();
