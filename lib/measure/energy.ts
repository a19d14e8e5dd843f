import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The CPU time and energy that some work took. */
export interface Effort {
  readonly cpuSeconds: number;
  /** Of all processor packages, including other processes; null if the counters can't be read. */
  readonly joules: number | null;
}

/** Cost of one item with every block run and with skipping. */
export interface EnergyReport {
  /** Items that ran in each mode. */
  readonly items: number;
  /** CPU time of one item, in seconds, over all threads of the process. */
  readonly cpuSeconds: { readonly full: number; readonly skip: number };
  /** Of all processor packages, including other processes; null if the counters can't be read. */
  readonly joules: { readonly full: number; readonly skip: number } | null;
}

/** Most items that run in one mode before the other has its turn. */
const STRETCH = 100;
const ROUNDS = 5;
/** No further stretch begins after this time. */
const LONGEST_MS = 10_000;

interface Counter {
  readonly file: string;
  /** Microjoules at which the counter wraps to 0. */
  readonly range: number;
}

/**
 * Meter of the CPU time of this process and, if the system permits it, of the energy counters of the processor
 * packages (Linux powercap, RAPL). The counters advance about once a millisecond.
 */
export class EnergyMeter {
  readonly #counters: readonly Counter[];

  /** @param root folder of the powercap zones */
  constructor(root = '/sys/class/powercap') {
    this.#counters = findCounters(root);
  }

  /**
   * Starts a measurement; call the result to stop it. Work that takes longer than a counter's range (minutes) is
   * measured too low.
   */
  start(): () => Effort {
    const cpu = process.cpuUsage();
    const before = this.#read();
    return () => {
      const { user, system } = process.cpuUsage(cpu);
      const after = this.#read();
      const joules = this.#counters.reduce((sum, { range }, i) => {
        const spent = after[i]! - before[i]!;
        return sum + (spent < 0 ? spent + range : spent) / 1e6;
      }, 0);
      return { cpuSeconds: (user + system) / 1e6, joules: this.#counters.length > 0 ? joules : null };
    };
  }

  #read(): number[] {
    return this.#counters.map(({ file }) => readNumber(file));
  }
}

/**
 * Measures items in both modes. The modes alternate, so that other load affects both.
 * @param items their number, at least 1; each stretch is spread evenly over them, since time may not suffice for all
 * @param run runs those with these indices; `skip` follows the policy
 */
export function measureEnergy(
  items: number,
  run: (mode: 'full' | 'skip', indices: readonly number[]) => void,
  meter: Pick<EnergyMeter, 'start'> = new EnergyMeter(),
): EnergyReport {
  const spent = { full: { cpuSeconds: 0, joules: 0 }, skip: { cpuSeconds: 0, joules: 0 } };
  let readable = true;
  let measured = 0;
  const stretches = Math.ceil(items / STRETCH);
  const begin = performance.now();
  for (let i = 0; i < ROUNDS * stretches && (i === 0 || performance.now() - begin < LONGEST_MS); i++) {
    const first = i % stretches;
    const indices = Array.from(
      { length: Math.ceil((items - first) / stretches) },
      (_, k) => first + k * stretches,
    );
    for (const mode of ['full', 'skip'] as const) {
      const stop = meter.start();
      run(mode, indices);
      const { cpuSeconds, joules } = stop();
      spent[mode].cpuSeconds += cpuSeconds;
      spent[mode].joules += joules ?? 0;
      readable &&= joules !== null;
    }
    measured += indices.length;
  }
  const each = (what: 'cpuSeconds' | 'joules') => ({
    full: spent.full[what] / measured,
    skip: spent.skip[what] / measured,
  });
  return { items: measured, cpuSeconds: each('cpuSeconds'), joules: readable ? each('joules') : null };
}

/** Zones called intel-rapl:N are whole packages; their parts, intel-rapl:N:M, would count twice. */
function findCounters(root: string): Counter[] {
  try {
    return readdirSync(root)
      .filter((zone) => /^[a-z-]+-rapl:\d+$/.test(zone))
      .map((zone) => {
        const counter = {
          file: join(root, zone, 'energy_uj'),
          range: readNumber(join(root, zone, 'max_energy_range_uj')),
        };
        readNumber(counter.file);
        return counter;
      });
  } catch {
    return [];
  }
}

function readNumber(file: string): number {
  const value = Number(readFileSync(file, 'utf8'));
  if (!Number.isFinite(value)) throw new Error(`${file} doesn't hold a number`);
  return value;
}
