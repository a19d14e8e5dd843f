import type { Backend } from 'lib/backends/backend.js';
import { Programs } from 'lib/calibrate/run/evaluator.js';
import { QUICK, Stopwatch } from 'lib/calibrate/run/latency.js';
import { buildProgram } from 'lib/model/compile.js';
import { IrBuilder } from '../../helpers/ir-builder.js';

const WIDTH = 3;

/** A clock that only runs of a backend move, so that what else the machine does is no part of a test. */
function ownClock() {
  let now = 0;
  jest.spyOn(performance, 'now').mockImplementation(() => now);
  const cpuUsage = (before = { user: 0, system: 0 }) => ({ user: 1000 * now - before.user, system: 0 });
  jest.spyOn(process, 'cpuUsage').mockImplementation(cpuUsage);
  return {
    spend: (milliseconds: number) => {
      now += milliseconds;
    },
  };
}

afterEach(() => jest.restoreAllMocks());

function programFor({ length }: { length: number }) {
  const b = new IrBuilder();
  return buildProgram(b.build(b.act(b.input([1, length / WIDTH, WIDTH]))));
}

test('texts of many lengths are timed without the first run of each program', () => {
  const FIRST_MS = 20;
  const clock = ownClock();
  const backend = {
    isa: 'test',
    threads: 1,
    compileSync: () => {
      let first = true;
      const runSync = () => {
        clock.spend(first ? FIRST_MS : 0);
        first = false;
      };
      return { runSync, release: () => {} };
    },
  } as unknown as Backend;
  const texts = Array.from({ length: 8 }, (_, i) => new Float32Array((i + 1) * WIDTH));
  const programs = new Programs(programFor(texts[0]!), { programFor, inputsOf: (input) => [input] });
  const stopwatch = new Stopwatch(backend, programs, []);
  // The full network has programs that ran before, those of a setting are new.
  for (let setting = 0; setting < 2; setting++) {
    const { fullMs, policyMs } = stopwatch.time([], texts, QUICK);
    expect(Math.max(fullMs.p50, policyMs.p50)).toBeLessThan(FIRST_MS / 2);
  }
  stopwatch.release();
});

test('a pause of the machine in one of the rounds is no time of an item', () => {
  const PAUSE_MS = 20;
  const clock = ownClock();
  const ITEMS = 10;
  let runs = 0;
  const backend = {
    isa: 'test',
    threads: 1,
    compileSync: () => ({
      // No item meets a pause in each of its rounds.
      runSync: () => {
        clock.spend(runs++ % 11 === 0 ? PAUSE_MS : 0);
      },
      release: () => {},
    }),
  } as unknown as Backend;
  const inputs = Array.from({ length: ITEMS }, () => new Float32Array(WIDTH));
  const stopwatch = new Stopwatch(backend, programFor(inputs[0]!), []);
  const effort = { items: ITEMS, milliseconds: 1000, rounds: 3 };
  const { items, fullMs, policyMs } = stopwatch.time([], inputs, effort);
  expect(items).toBe(ITEMS);
  expect(Math.max(fullMs.mean, policyMs.mean)).toBeLessThan(PAUSE_MS / ITEMS);
  expect(runs).toBeGreaterThan(2 * 3 * ITEMS);
  stopwatch.release();
});

const WAIT_MS = 20;
/** Medians of runs that only wait. */
function timesOfWaiting(threads: number): readonly number[] {
  const sleeping = new Int32Array(new SharedArrayBuffer(4));
  const backend = {
    ...{ isa: 'test', threads },
    compileSync: () => ({ runSync: () => Atomics.wait(sleeping, 0, 0, WAIT_MS), release: () => {} }),
  } as unknown as Backend;
  const inputs = Array.from({ length: 5 }, () => new Float32Array(WIDTH));
  const stopwatch = new Stopwatch(backend, programFor(inputs[0]!), []);
  const { fullMs, policyMs } = stopwatch.time([], inputs, QUICK);
  stopwatch.release();
  return [fullMs.p50, policyMs.p50];
}

const onUnix = process.platform === 'win32' ? test.skip : test;
onUnix('the time that a run waits for a processor is not its own', () => {
  expect(Math.max(...timesOfWaiting(1))).toBeLessThan(WAIT_MS / 2);
});

test('with several threads all time counts, so that a network on one of them has no advantage', () => {
  expect(Math.min(...timesOfWaiting(2))).toBeGreaterThan(WAIT_MS / 2);
});

test('no run counts that finds the weights of the other network in the caches', () => {
  const [WARM_MS, COLD_MS] = [0.2, 2];
  const clock = ownClock();
  let last: object | undefined;
  const backend = {
    isa: 'test',
    threads: 1,
    compileSync: () => {
      const own = {};
      const runSync = () => {
        clock.spend(last === own ? WARM_MS : COLD_MS);
        last = own;
      };
      return { runSync, release: () => {} };
    },
  } as unknown as Backend;
  const inputs = Array.from({ length: 20 }, () => new Float32Array(WIDTH));
  const stopwatch = new Stopwatch(backend, programFor(inputs[0]!), []);
  const { fullMs, policyMs } = stopwatch.time([], inputs, { ...QUICK, milliseconds: 1000 });
  // A single run that counts wrongly adds 0.09.
  for (const { mean } of [fullMs, policyMs]) expect(mean).toBeLessThan(WARM_MS + 0.08);
  stopwatch.release();
});
