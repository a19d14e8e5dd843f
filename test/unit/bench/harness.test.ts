import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const ROOT = join(__dirname, '../../..');

/** What a script prints that imports the benchmarks' harness as `harness`; time passes where it adds to `now`, in microseconds. */
function run(script: string): unknown {
  const text = `import * as harness from ${JSON.stringify(`file://${ROOT}/bench/harness.mjs`)};
    let now = 0;
    process.cpuUsage = () => ({ user: now, system: 0 });
    performance.now = () => now / 1000;
    ${script}`;
  return JSON.parse(
    execFileSync(process.execPath, ['--input-type=module', '-e', text], { encoding: 'utf8' }),
  );
}

describe('the harness of the benchmarks', () => {
  it('gives no lead to either of two equal sessions whose first run after the other takes longer', () => {
    const found = run(`let last;
      const session = () => ({ runSync() { now += last === this ? 2000 : 6000; last = this; } });
      console.log(JSON.stringify(harness.compareSessions([session(), session()], {}, 7)));`);
    expect(found).toEqual({ firstMs: 2, secondMs: 2, ratio: 1 });
  });

  it.each([2, 3])('lets each of %i variants begin and end equally many rounds', (count) => {
    const calls = run(`const calls = [];
      const variants = Array.from({ length: ${count} }, (_, at) => ({
        runs(count) { calls.push(at); now += 1000 * count; },
      }));
      await harness.takeTurns(variants, { rounds: ${2 * count} });
      console.log(JSON.stringify(calls));`) as number[];
    // Two calls of each variant find out how long it takes; in a round, each has one untimed call before the timed one.
    const timed = calls.slice(2 * count).filter((_, i) => i % 2 === 1);
    for (let place = 0; place < count; place++) {
      const at = timed.filter((_, i) => i % count === place);
      expect(at.toSorted()).toEqual(Array.from({ length: 2 * count }, (_, i) => i >> 1));
    }
  });
});
