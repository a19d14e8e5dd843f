/** Times of exits and fronts on a machine that is busy for a while. */
import type { Backend } from 'lib/backends/backend.js';
import { Programs } from 'lib/calibrate/run/evaluator.js';
import type { Task } from 'lib/calibrate/task.js';
import type { Program } from 'lib/model/program/program.js';
import { timesOf } from 'lib/speedup/times.js';
import { fakeCompile, fakeModel } from '../../helpers/fake-backend.js';

const [FULL_MS, INT8_MS] = [0.4, 0.2];

function spin(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end) Math.hypot(1, 2);
}

test('while a core is busy with other work, an 8-bit network takes longer; its least time counts', () => {
  const [float, int8] = [0, 1].map(() => fakeCompile(fakeModel(), new Map([['x', { shape: [1, 2] }]])));
  let compiled = 0;
  const backend = {
    ...{ name: 'native', isa: 'amx', threads: 1 },
    compileSync(program: Program) {
      if (program !== float) compiled++;
      // It is compiled anew whenever it is timed.
      return {
        runSync: () => spin(program === float ? FULL_MS : compiled > 1 ? INT8_MS : 1.8 * INT8_MS),
        release: () => {},
      };
    },
  } as unknown as Backend;
  const [programs, original] = [new Programs(int8!), new Programs(float!)];
  const inputs = Array.from({ length: 10 }, () => new Float32Array(2));
  const { times, whole } = timesOf(backend, { programs, original } as unknown as Task, [[]], inputs);
  expect(times).toEqual([]);
  expect(whole).toBeGreaterThan(0.4);
  expect(whole).toBeLessThan(0.65);
});
