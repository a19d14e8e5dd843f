import { milliseconds } from '../util/clock.js';

/** A run whose longest path takes at most this long, in milliseconds, may block the event loop. */
const SHORT_RUN_MS = 2;

/** Handing a longer run to a worker takes less CPU time than the run itself. */
const TINY_RUN_MS = 0.03;

/** If a run should end within this many milliseconds, the calling thread waits for it before it executes another. */
const SOON_MS = 0.1;

/**
 * With two to this many workers and no spare core, the calling thread also executes one of several runs, in the place of a
 * worker. With more workers it is needed to serve them.
 */
const FEW_WORKERS = 4;

/** The JS thread has one turn to give; a run of any session may wait for it. */
let turnTaken = false;

/** One run, wherever it executes. */
export interface QueuedRun {
  /** How long it takes if every block runs and no exit is taken; Infinity if unknown. */
  readonly longestMs: number;
  /** Whether it may block the event loop if it is short. */
  readonly mayBeHere: boolean;
  /** Executes it on the calling thread. */
  here(): void;
  /** Executes it on the workers. */
  there(): Promise<void>;
}

/** The threads that execute queued runs. */
export interface Workers {
  readonly threads: number;
  /** Whether the process may use a core that no worker needs. */
  readonly spareCore: boolean;
  /** Blocks the calling thread until a run has ended, for at most this many microseconds. */
  awaitEnd(microseconds: number): void;
  /** Announces whether the calling thread is about to execute runs: workers leave a core to it meanwhile. */
  expectCaller(comes: boolean): void;
}

/**
 * Decides where the runs of one backend execute. Handing a run to a worker and waking the event loop when it ends
 * takes as long as some layers of a small network, which matters for short runs.
 *
 * A single short run executes on the calling thread, with the workers' help, in a turn of the event loop of its own, so
 * that timers and I/O are served before and after it. With few workers on all cores, so does one of several runs: a worker
 * in its place would only compete with the calling thread for a core. A run that is about to end is waited for first,
 * because its worker would be idle meanwhile.
 *
 * Tiny runs share such a turn, as many as take no longer than one short run.
 *
 * Workers execute the other runs.
 */
export class RunQueue {
  #underway = 0;
  #handOver: (() => void) | undefined;
  #callerExpected = false;
  /** Tiny runs that wait for their turn, and how long they take together. */
  #tiny: (() => void)[] = [];
  #tinyMs = 0;
  /** When the runs on workers should end. */
  readonly #ends = new Set<{ readonly at: number }>();
  readonly #ended = () => {
    this.#underway--;
  };

  readonly #expectNobody = () => {
    if (!this.#handOver) this.#expectCaller(false);
  };

  constructor(private readonly workers: Workers) {}

  run(run: QueuedRun): Promise<void> {
    this.#underway++;
    const running = this.#start(run);
    running.then(this.#ended, this.#ended);
    return running;
  }

  /** Gives the run that waits for its turn, if any, to the workers, and executes the tiny ones. */
  handOver(): void {
    this.#handOver?.();
    this.#runTiny();
  }

  #start(run: QueuedRun): Promise<void> {
    const { longestMs, mayBeHere } = run;
    if (mayBeHere && longestMs <= TINY_RUN_MS && this.#tinyMs + longestMs <= SHORT_RUN_MS)
      return this.#withOthers(run);
    const { threads, spareCore } = this.workers;
    const oneOfSeveral = !spareCore && threads > 1 && threads <= FEW_WORKERS;
    if (this.#underway > 1 && !oneOfSeveral) this.#handOver?.();
    else if (!turnTaken && mayBeHere && longestMs <= SHORT_RUN_MS) return this.#inTurn(run);
    if (this.#handOver) this.#expectCaller(true);
    return this.#there(run);
  }

  #withOthers(run: QueuedRun): Promise<void> {
    if (this.#tiny.length === 0) setImmediate(() => this.#runTiny());
    this.#tinyMs += run.longestMs;
    return new Promise((resolve, reject) => {
      this.#tiny.push(() => {
        try {
          resolve(run.here());
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  #runTiny(): void {
    const all = this.#tiny;
    this.#tiny = [];
    this.#tinyMs = 0;
    for (const run of all) run();
  }

  #inTurn(run: QueuedRun): Promise<void> {
    turnTaken = true;
    if (this.#underway > 1) this.#expectCaller(true);
    return new Promise((resolve, reject) => {
      const start = (execute: () => void | Promise<void>) => {
        turnTaken = false;
        this.#handOver = undefined;
        try {
          resolve(execute());
        } catch (error) {
          reject(error);
        }
        // The caller of this run may request the next.
        if (this.#callerExpected) setImmediate(this.#expectNobody);
      };
      const here = () => start(() => run.here());
      let turn = setImmediate(() => {
        if (this.#waited()) turn = setImmediate(here);
        else here();
      });
      this.#handOver = () => {
        clearImmediate(turn);
        start(() => this.#there(run));
      };
    });
  }

  #there(run: QueuedRun): Promise<void> {
    const end = { at: milliseconds() + run.longestMs };
    const running = run.there();
    this.#ends.add(end);
    const ended = () => this.#ends.delete(end);
    running.then(ended, ended);
    return running;
  }

  /** Whether a run should have ended about now, and was waited for. */
  #waited(): boolean {
    // The others wait for a worker anyway.
    if (this.#ends.size >= this.workers.threads) return false;
    const now = milliseconds();
    for (const { at } of this.#ends) {
      if (Math.abs(at - now) > SOON_MS) continue;
      this.workers.awaitEnd(1000 * (at + SOON_MS - now));
      return true;
    }
    return false;
  }

  #expectCaller(comes: boolean): void {
    if (this.#callerExpected === comes) return;
    this.#callerExpected = comes;
    this.workers.expectCaller(comes);
  }
}
