import type { CompiledProgram } from '../backends/backend.js';
import type { Program } from '../model/program/program.js';
import { append } from '../util/maps.js';
import { packageVersion } from '../util/version.js';

/** A complete event of Chrome's trace format (Duerig and others, "Trace Event Format", phase X). */
export interface ProfileEvent {
  /** Of a step or block, its name in the model. */
  readonly name: string;
  /** What the event is about. */
  readonly cat: 'item' | 'block' | 'gate' | 'step';
  readonly ph: 'X';
  /** Microseconds since the beginning of the profile. */
  readonly ts: number;
  /** Microseconds. */
  readonly dur: number;
  /** Process ID. */
  readonly pid: number;
  /** Items that ran at the same time have different numbers. */
  readonly tid: number;
  readonly args: {
    /** Of a step: what it computes, such as `conv`. */
    readonly op?: string;
    /** Of a step or gate: the block that contains it. */
    readonly block?: string;
    /** Of an item: its number in the profile. If a guard ran it again in full, it has a second event with the same number. */
    readonly item?: number;
  };
}

/** Returned by `endProfiling`: written as JSON, a file for chrome://tracing or https://ui.perfetto.dev. */
export interface Profile {
  /** One for each item, block, gate and step that ran. */
  readonly traceEvents: readonly ProfileEvent[];
  readonly displayTimeUnit: 'ms';
  readonly otherData: {
    readonly producer: string;
    readonly backend: string;
    readonly isa: string;
    readonly runs: number;
    /** Runs that were not recorded because the profile was full. */
    readonly runsLeftOut: number;
  };
}

interface ProfiledRun {
  readonly program: Program;
  readonly work: Int32Array;
  readonly items: number;
  readonly times: Float64Array;
  readonly again: Again | undefined;
}

/** Items of an earlier run that a guard has run again. */
interface Again {
  /** What `begin` returned for that run. */
  readonly of: Float64Array;
  /** Their indices in it. */
  readonly items: readonly number[];
}

/** Numbers that a profile holds; further runs are left out. 64 MB. */
const MAX_TIMES = 2 ** 23;

/** Times of the runs of a session, collected until `endProfiling`. */
export class Profiler {
  readonly #runs: ProfiledRun[] = [];
  #size = 0;
  #leftOut = 0;

  /** Where a run of `items` records its times; undefined if there is no room left or the backend can't measure. */
  begin(
    program: Program,
    { profiled }: CompiledProgram,
    items: number,
    again?: Again,
  ): Float64Array | undefined {
    const size = 2 * items * (profiled?.length ?? 0);
    if (!profiled || this.#size + size > MAX_TIMES) {
      this.#leftOut++;
      return undefined;
    }
    this.#size += size;
    const times = new Float64Array(size);
    this.#runs.push({ program, work: profiled, items, times, again });
    return times;
  }

  end({ name, isa }: { readonly name: string; readonly isa: string }): Profile {
    const first = new Map<Float64Array, number>();
    let count = 0;
    const items = this.#runs.flatMap((run) => {
      const { again, times } = run;
      if (!again) {
        first.set(times, count);
        count += run.items;
      }
      return Array.from({ length: run.items }, (_, item) => {
        const index = again?.items[item] ?? item;
        return eventsOf(run, item, {
          name: again ? `item ${index}, verified` : `item ${index}`,
          args: { item: first.get(again?.of ?? times)! + index },
        });
      });
    });
    const ran = items.filter((events) => events.length > 0).sort((a, b) => a[0]!.ts - b[0]!.ts);
    const start = ran[0]?.[0]?.ts ?? 0;
    const lanes = lanesOf(ran.map(([whole]) => whole!));
    return {
      traceEvents: ran.flatMap((events, i) =>
        events.map((event) => ({ ...event, ts: event.ts - start, pid: process.pid, tid: lanes[i]! })),
      ),
      displayTimeUnit: 'ms',
      otherData: {
        producer: `residual-skip ${packageVersion()}`,
        backend: name,
        isa,
        runs: first.size,
        runsLeftOut: this.#leftOut,
      },
    };
  }
}

type Timed = Omit<ProfileEvent, 'pid' | 'tid'>;

/** The item as a whole, its blocks and gates, and their steps; without those that did not run. */
function eventsOf(
  { program, work, times }: ProfiledRun,
  item: number,
  whole: Pick<Timed, 'name' | 'args'>,
): Timed[] {
  const places = placesOf(program);
  const steps: Timed[] = [];
  const groups = new Map<Group, Timed[]>();
  for (const [i, value] of work.entries()) {
    const at = 2 * (item * work.length + i);
    const [ts, end] = [times[at]!, times[at + 1]!];
    if (value < 0 || ts === 0) continue;
    const { op, group } = places.get(value) ?? {};
    const args = { ...(op && { op }), ...(group && { block: group.block }) };
    const step: Timed = { name: program.values[value]!.name, cat: 'step', ph: 'X', ts, dur: end - ts, args };
    steps.push(step);
    if (group) append(groups, group, step);
  }
  if (steps.length === 0) return [];
  const around = [...groups].map(([{ cat, block }, inner]) =>
    spanning(inner, { name: block, cat, args: {} }),
  );
  return [spanning(steps, { ...whole, cat: 'item' }), ...around, ...steps];
}

function spanning(inner: readonly Timed[], what: Pick<Timed, 'name' | 'cat' | 'args'>): Timed {
  const ts = Math.min(...inner.map((each) => each.ts));
  const end = Math.max(...inner.map((each) => each.ts + each.dur));
  return { ...what, ph: 'X', ts, dur: end - ts };
}

/** The body of a block, or its gate. */
interface Group {
  readonly cat: 'block' | 'gate';
  readonly block: string;
}

/** The operation and group that computes each value. */
function placesOf({ steps, blocks }: Program): Map<number, { op: string; group: Group | undefined }> {
  const groups = new Array<Group | undefined>(steps.length);
  for (const { name, gateFirst, first, end } of blocks) {
    groups.fill({ cat: 'gate', block: name }, gateFirst, first);
    groups.fill({ cat: 'block', block: name }, first, end);
  }
  return new Map(
    steps.flatMap(({ op, outputs }, i) => outputs.map((value) => [value, { op, group: groups[i] }] as const)),
  );
}

/** For each event, in order of their beginning, the lowest number that no event in progress has. */
function lanesOf(events: readonly Timed[]): number[] {
  const busyUntil: number[] = [];
  return events.map(({ ts, dur }) => {
    const free = busyUntil.findIndex((end) => end <= ts);
    const lane = free < 0 ? busyUntil.length : free;
    busyUntil[lane] = ts + dur;
    return lane;
  });
}
