import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { encodeProgram } from 'lib/backends/encode.js';
import { packageRoot } from 'lib/util/version.js';
import { ProgramBuilder } from '../../helpers/programs.js';

const addon = join(packageRoot(), 'build/Release/residual_skip.node');

const CHANNELS = 64;
const SIZE = 48;

/** Convolutions that take some milliseconds together; enough to be caught in the middle. */
function slowProgram() {
  const b = new ProgramBuilder();
  const attrs = {
    strides: [1, 1],
    pads: [1, 1, 1, 1],
    dilations: [1, 1],
    group: 1,
    act: { kind: 'tanh', alpha: 0, beta: 0 },
  } as const;
  const shape = [1, CHANNELS, SIZE, SIZE];
  const weight = b.constant([CHANNELS, CHANNELS, 3, 3], new Array(CHANNELS * CHANNELS * 9).fill(1e-3));
  let x = b.input(shape);
  for (let i = 0; i < 20; i++) x = b.step('conv', attrs, [x, weight, -1, -1], shape);
  return encodeProgram(b.build([x]));
}

interface Addon {
  readonly Engine: new (
    threads: number,
    isa: string,
  ) => { compileSync(...args: unknown[]): { run(...args: unknown[]): Promise<void> } };
}

/** Runs in a worker or a process of its own: starts runs and says so; the end may come at any time. */
function startRuns(
  { Engine }: Addon,
  { words, constants, ids }: { words: Int32Array; constants: Float32Array[]; ids: Int32Array },
  length: number,
): Promise<void>[] {
  const program = new Engine(2, '').compileSync(words, constants, ids);
  return Array.from({ length: 3 }, () => {
    const arrays = [
      new Float32Array(8 * length),
      new Float32Array(8 * length),
      new Uint8Array(0),
      new Float32Array(0),
    ];
    return program.run(8, arrays, 1, 1, new Uint8Array(0), new Float32Array(0));
  });
}

const LENGTH = CHANNELS * SIZE * SIZE;

it('workers may be terminated in the middle of runs, again and again', async () => {
  const program = slowProgram();
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    (${startRuns})(require(workerData.addon), workerData.program, ${LENGTH});
    parentPort.postMessage('running');`;
  for (let round = 0; round < 8; round++) {
    const workers = Array.from(
      { length: 2 },
      () => new Worker(code, { eval: true, workerData: { addon, program } }),
    );
    await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))));
    await new Promise((resolve) => setTimeout(resolve, round));
    expect(await Promise.all(workers.map((worker) => worker.terminate()))).toEqual([1, 1]);
  }
});

it('workers may be terminated in the middle of compilations, again and again', async () => {
  const program = slowProgram();
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    const { words, constants, ids } = workerData.program;
    const { Engine } = require(workerData.addon);
    for (let i = 0; i < 6; i++) new Engine(1, '').compile(words, constants, ids);
    parentPort.postMessage('compiling');`;
  for (let round = 0; round < 8; round++) {
    const worker = new Worker(code, { eval: true, workerData: { addon, program } });
    // A worker that has ended by itself has no exit code left to terminate with, but told it when it ended.
    const ended = once(worker, 'exit');
    await new Promise((resolve) => worker.once('message', resolve));
    if (round % 2 === 1) await new Promise((resolve) => setTimeout(resolve, round / 2));
    await worker.terminate();
    expect([0, 1]).toContain((await ended)[0]);
  }
});

it('workers end by themselves when their runs have ended', async () => {
  const program = slowProgram();
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    Promise.all((${startRuns})(require(workerData.addon), workerData.program, ${LENGTH}))
      .then((results) => parentPort.postMessage(results.length));`;
  const worker = new Worker(code, { eval: true, workerData: { addon, program } });
  let ended = 0;
  worker.on('message', (runs: number) => {
    ended = runs;
  });
  expect(await new Promise((resolve) => worker.once('exit', resolve))).toBe(0);
  expect(ended).toBe(3);
});

describe('a process', () => {
  /** Runs code in a process of its own that has the slow program. */
  function run(code: string) {
    const { words, constants, ids } = slowProgram();
    const literal = JSON.stringify({ words: [...words], ids: [...ids], weights: constants[0]!.length });
    const script = `
      const { words, ids, weights } = ${literal};
      const program = { words: Int32Array.from(words), ids: Int32Array.from(ids),
                        constants: [new Float32Array(weights).fill(1e-3)] };
      const start = () => (${startRuns})(require(${JSON.stringify(addon)}), program, ${LENGTH});
      ${code}`;
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '-e', script], {
      encoding: 'utf8',
      timeout: 50000,
    });
    return { status, signal, stdout, stderr };
  }

  it('stays until its runs have ended, and not longer', () => {
    expect(run(`Promise.all(start()).then((r) => console.log(r.length));`)).toEqual({
      status: 0,
      signal: null,
      stdout: '3\n',
      stderr: '',
    });
  });

  it('may exit in the middle of runs', () => {
    const expected = { status: 7, signal: null, stdout: '', stderr: '' };
    expect(run('start(); process.exit(7);')).toEqual(expected);
    expect(run('start(); setTimeout(() => process.exit(7), 3);')).toEqual(expected);
  });

  it('may exit in the middle of a compilation', () => {
    const compile = `new (require(${JSON.stringify(addon)}).Engine)(1, '').compile(program.words, program.constants, program.ids);`;
    expect(run(`${compile} process.exit(7);`)).toEqual({ status: 7, signal: null, stdout: '', stderr: '' });
    expect(run(`${compile}.then(() => console.log('ended'));`.replace(';.', '.'))).toEqual({
      status: 0,
      signal: null,
      stdout: 'ended\n',
      stderr: '',
    });
  });

  it('may drop everything while runs are under way', () => {
    const drop = `
      let runs = start();
      const all = Promise.all(runs);
      runs = undefined;
      for (let i = 0; i < 5; i++) gc();
      all.then(() => { gc(); console.log('ended'); });`;
    expect(run(drop)).toEqual({ status: 0, signal: null, stdout: 'ended\n', stderr: '' });
  });
});
