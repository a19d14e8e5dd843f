/**
 * Benchmark of one model on several runtimes. Each runner has its own process, so that thread pools and memory don't
 * mix. The parent runs them in turns, one at a time, in slices so short that drift of the machine affects all of them
 * alike. Between two slices nothing runs until threads that spin after a batch have gone to sleep: they would take a
 * core from the next runner. Ratios are of medians over the same rounds.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { cpus } from 'node:os';
import { setTimeout } from 'node:timers/promises';
import { type ErrorCode, ResidualSkipError } from '../errors.js';
import type { Precision } from '../model/program/program.js';
import { median, quantile } from '../numeric/statistics.js';
import type { RunnerConfig } from './runner.js';
import type { WorkerReply, WorkerRequest } from './worker.js';

export interface BenchOptions {
  /** Script and arguments that end in `serveBenchWorker()`. */
  readonly worker: { readonly script: string; readonly args: readonly string[] };
  readonly model: string;
  readonly batch: number;
  readonly threads: number;
  readonly isa: string;
  /** Of this package's native runner; float32 where it is left out. */
  readonly precision?: Precision | undefined;
  readonly inputs: RunnerConfig['inputs'];
  /** Runners to alternate; `native` is first. */
  readonly runners: readonly string[];
  readonly peerFolders: readonly string[];
  readonly peakGflops: number;
  readonly rounds: number;
  /** Called after each round. */
  readonly onRound?: (round: number) => void;
}

export interface RunnerResult {
  readonly name: string;
  readonly version: string;
  readonly medianMs: number;
  readonly p95Ms: number;
  readonly itemsPerSecond: number;
  /** Largest resident size of its process after a slice. */
  readonly rssMiB: number;
  /** Milliseconds to create a session, median over several processes; loading modules doesn't count. */
  readonly loadMs: number;
}

export interface BenchReport {
  readonly model: string;
  readonly batch: number;
  readonly threads: number;
  readonly isa: string;
  readonly precision?: Precision | undefined;
  readonly cpu: string;
  readonly peakGflops: number;
  readonly runners: readonly RunnerResult[];
  /** Median of the runner divided by the median of native: above 1, native is faster. */
  readonly ratios: Readonly<Record<string, number>>;
}

/** Longest slice of one runner in one round; a slower runner does one batch. */
const SLICE_MS = 150;
/** Most batches in one slice. */
const SLICE_BATCHES = 200;
/** Pause between two slices. Threads of onnxruntime spin for about 30 ms after a batch. */
const REST_MS = 60;
/** A runner whose batch takes longer than this skips some rounds, so that the others get more of them. */
const SLOW_BATCH_MS = 500;

/** Processes that load the model, one after another, for each runner; the last one also runs it. */
const LOADS = 3;

export async function runBench(options: BenchOptions): Promise<BenchReport> {
  const workers: Worker[] = [];
  try {
    const loads = options.runners.map((): number[] => []);
    for (let round = 1; round <= LOADS; round++) {
      for (const [i, runner] of options.runners.entries()) {
        const worker = await Worker.start(runner, options, loads[i]!);
        if (round < LOADS) worker.stop();
        else workers.push(worker);
      }
    }
    // Two untimed rounds as warm-up.
    for (let warm = 0; warm < 2; warm++) {
      for (const worker of workers) if (warm === 0 || !worker.slow) await worker.slice(false);
    }
    for (let round = 0; round < options.rounds; round++) {
      for (const worker of workers) if (!worker.slow || round % 8 === 0) await worker.slice(true);
      options.onRound?.(round + 1);
    }
  } finally {
    for (const worker of workers) worker.stop();
  }
  const runners = workers.map((worker) => worker.result(options.batch));
  const native = runners.find(({ name }) => name === 'native');
  const ratios = Object.fromEntries(
    native
      ? runners.filter((r) => r !== native).map(({ name, medianMs }) => [name, medianMs / native.medianMs])
      : [],
  );
  const { model, batch, threads, isa, precision, peakGflops } = options;
  return {
    model,
    batch,
    threads,
    isa,
    precision,
    cpu: cpus()[0]?.model ?? 'unknown',
    peakGflops,
    runners,
    ratios,
  };
}

class Worker {
  readonly #times: number[] = [];
  #rssMiB = 0;
  slow: boolean;

  private constructor(
    private readonly name: string,
    private readonly child: ChildProcess,
    private readonly ready: { version: string; firstMs: number },
    private readonly loads: readonly number[],
  ) {
    this.slow = ready.firstMs > SLOW_BATCH_MS;
  }

  /** @param loads load times of earlier processes in milliseconds; this one adds its own */
  static async start(runner: string, options: BenchOptions, loads: number[]): Promise<Worker> {
    const { worker, model, threads, isa, precision, inputs, peerFolders } = options;
    const child = fork(worker.script, worker.args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    try {
      const reply = await ask(child, {
        load: { runner, model, threads, isa, precision, inputs, peerFolders },
      });
      if (!('ready' in reply)) throw unexpected(runner);
      loads.push(reply.ready.loadMs);
      return new Worker(runner, child, reply.ready, loads);
    } catch (error) {
      child.kill();
      throw error;
    }
  }

  async slice(counts: boolean): Promise<void> {
    await setTimeout(REST_MS);
    const reply = await ask(this.child, { run: { batches: SLICE_BATCHES, milliseconds: SLICE_MS } });
    if (!('times' in reply)) throw unexpected(this.name);
    this.slow = Math.min(...reply.times) > SLOW_BATCH_MS;
    if (!counts) return;
    this.#times.push(...reply.times);
    this.#rssMiB = Math.max(this.#rssMiB, reply.rssMiB);
  }

  result(batch: number): RunnerResult {
    const medianMs = median(this.#times);
    return {
      name: this.name,
      version: this.ready.version,
      medianMs,
      p95Ms: quantile(this.#times, 0.95),
      itemsPerSecond: (batch * 1000) / medianMs,
      rssMiB: this.#rssMiB,
      loadMs: median(this.loads),
    };
  }

  stop(): void {
    if (this.child.connected) this.child.disconnect();
    this.child.kill();
  }
}

function unexpected(name: string): ResidualSkipError {
  return new ResidualSkipError('INTERNAL', `benchmark worker of '${name}': it gave an unexpected answer`);
}

/** Sends one request and waits for its reply; rejects on an error reply or the child's exit. */
function ask(child: ChildProcess, request: WorkerRequest): Promise<WorkerReply> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null, signal: string | null) =>
      reject(
        new ResidualSkipError('INTERNAL', `benchmark worker: it ended (${signal ?? `exit code ${code}`})`),
      );
    child.once('exit', ended);
    child.once('message', (reply: WorkerReply) => {
      child.off('exit', ended);
      if ('error' in reply) {
        const { code, message } = reply.error;
        reject(new ResidualSkipError(code as ErrorCode, message));
      } else {
        resolve(reply);
      }
    });
    child.send(request);
  });
}
