/** Callers that no program should have: each has a process of its own, which must neither crash nor hang. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeProgram } from 'lib/backends/encode.js';
import { packageRoot } from 'lib/util/version.js';
import { cases } from '../../helpers/cases.js';
import { ProgramBuilder } from '../../helpers/programs.js';

const addon = join(packageRoot(), 'build', 'Release', 'residual_skip.node');

/** Runs code that has `Engine` and `compile`, the arguments of a small program; returns what it printed. */
function run(code: string, env: Record<string, string> = {}): string {
  const b = new ProgramBuilder();
  const act = { kind: 'tanh', alpha: 0, beta: 0 } as const;
  const attrs = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], group: 1, act } as const;
  const x = b.input([1, 4, 4, 4]);
  const weight = b.constant([4, 4, 3, 3], new Array(144).fill(0.1));
  const { words, ids } = encodeProgram(b.build([b.step('conv', attrs, [x, weight, -1, -1], [1, 4, 4, 4])]));
  const script = `
    const { Engine } = require(${JSON.stringify(addon)});
    const compile = [Int32Array.of(${words}), [new Float32Array(144).fill(0.1)], Int32Array.of(${ids})];
    const arrays = () => [new Float32Array(64), new Float32Array(64), new Uint8Array(0), new Float32Array(0)];
    const tail = [1, 1, new Uint8Array(0), new Float32Array(0)];
    /** A list whose element 'at' runs a function before it is read. */
    const trapped = (list, at, trap) => {
      const value = list[at];
      return Object.defineProperty(list, at, { get: () => { trap(); return value; } });
    };
    const code = (call) => { try { call(); return 'ok'; } catch (error) { return error.code ?? error; } };
    ${code}`;
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, ...env },
  });
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
  return stdout;
}

it('worker threads may be terminated while they load the addon or make sessions', () => {
  const worker = `
    const { parentPort, workerData } = require('node:worker_threads');
    parentPort.postMessage(0);
    const { Engine } = require(workerData);
    for (;;) {
      const engine = new Engine(2, '');
      try { new Engine(1, 'none'); } catch {}
      engine.release();
    }`;
  const terminations = cases(160);
  const printed = run(`
    const { Worker } = require('node:worker_threads');
    const one = async (i) => {
      const worker = new Worker(${JSON.stringify(worker)}, { eval: true, workerData: ${JSON.stringify(addon)} });
      await new Promise((resolve) => worker.once('message', resolve));
      for (const end = performance.now() + (i % 40) / 20; performance.now() < end; );
      await worker.terminate();
    };
    (async () => {
      for (let i = 0; i < ${terminations}; i += 4) await Promise.all([i, i + 1, i + 2, i + 3].map(one));
      console.log('ended');
    })();`);
  expect(printed).toBe('ended\n');
});

it('times of a profile have to fit, and stay while the run needs them', () => {
  const printed = run(`
    const program = new Engine(2, '').compileSync(...compile);
    const codes = program.profiled.length;
    for (const times of [new Float64Array(2 * codes - 1), new Float64Array(2 * codes), new Float32Array(2 * codes), 7]) {
      console.log(code(() => program.runSync(1, arrays(), ...tail, times)));
    }
    const detached = new Float64Array(2 * codes);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    console.log(code(() => program.runSync(1, arrays(), ...tail, detached)));
    (async () => {
      const times = new Float64Array(2 * codes);
      await program.run(1, arrays(), ...tail, times);
      console.log(times.some((time) => time > 0));
    })();`);
  const refused = 'INVALID_ARGUMENT';
  expect(printed.trim().split('\n')).toEqual([refused, 'ok', refused, refused, 'ok', 'true']);
});

it('getters in the arguments may release the program or the engine', () => {
  const printed = run(`
    for (const method of ['run', 'runSync']) {
      for (const at of [0, 3]) {
        for (const what of ['program', 'engine', 'both']) {
          const engine = new Engine(2, '');
          const program = engine.compileSync(...compile);
          const trap = () => {
            if (what !== 'program') engine.release();
            if (what !== 'engine') program.release();
          };
          console.log(what, code(() => program[method](1, trapped(arrays(), at, trap), ...tail)));
        }
      }
    }
    const engine = new Engine(2, '');
    const [words, constants, ids] = compile;
    console.log(code(() => engine.compileSync(words, trapped([...constants], 0, () => engine.release()), ids)));
    const other = new Engine(2, '');
    console.log(code(() => other.compile(words, trapped([...constants], 0, () => other.release()), ids)));`);
  const lines = ['program ok', 'engine SESSION_RELEASED', 'both SESSION_RELEASED'];
  const expected = [...lines, ...lines, ...lines, ...lines, 'SESSION_RELEASED', 'SESSION_RELEASED'];
  expect(printed.trim().split('\n')).toEqual(expected);
});

it('getters in the arguments may detach a buffer that was read before', () => {
  const printed = run(`
    const program = new Engine(2, '').compileSync(...compile);
    const list = arrays();
    console.log(code(() => program.runSync(1, trapped(list, 3, () => structuredClone(0, { transfer: [list[1].buffer] })), ...tail)));`);
  expect(printed).toBe('INVALID_ARGUMENT\n');
});

it('a progress of another length is refused', () => {
  const printed = run(`
    console.log(code(() => new Engine(1, '').compile(...compile, new Int32Array(1))));
    console.log(code(() => new Engine(1, '').compile(...compile, new Float64Array(2))));`);
  expect(printed).toBe('INVALID_ARGUMENT\nINVALID_ARGUMENT\n');
});

const linux = process.platform === 'linux' ? it : it.skip;

linux('a program too large to be copied is refused by both ways to compile', () => {
  const printed = run(`
    const fs = require('node:fs');
    const engine = new Engine(1, '');
    const words = new Int32Array(2 ** 28); // 1 GiB, never touched
    const pages = Number(fs.readFileSync('/proc/self/statm', 'utf8').split(' ')[0]);
    require('node:child_process').execFileSync('prlimit', ['--pid', String(process.pid), '--as=' + (pages * 4096 + 2 ** 29)]);
    console.log(code(() => engine.compileSync(words, [], new Int32Array(0))));
    console.log(code(() => engine.compile(words, [], new Int32Array(0))));`);
  expect(printed).toBe('OUT_OF_MEMORY\nOUT_OF_MEMORY\n');
});

describe('without memory', () => {
  const folder = mkdtempSync(join(tmpdir(), 'residual-skip-'));
  const library = join(folder, 'failing_new.so');
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  linux('every compilation settles, whichever allocation fails', () => {
    const source = join(packageRoot(), 'test/helpers/failing_new.cc');
    execFileSync(process.env.CXX ?? 'c++', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl']);
    for (const at of [1, 2, 3, 5, 8, 13, 21]) {
      const printed = run(
        `new Engine(1, '').compile(...compile).then(() => console.log('ok'), (error) => console.log(error.code));`,
        { LD_PRELOAD: library, FAIL_AT: String(at) },
      );
      expect(printed).toBe('OUT_OF_MEMORY\n');
    }
  });
});
