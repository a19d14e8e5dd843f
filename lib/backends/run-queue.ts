/** A run that is expected to take no longer than this, in milliseconds, may hold the event loop. */
const SHORT_RUN_MS = 2;

/**
 * After so many times what was expected, and so many milliseconds, a run is late: its worker may want the very core that
 * the event loop turns on.
 */
const LATE = 1.25;
const LATE_MS = 0.1;

/** A run that should end within so many milliseconds is waited for before the calling thread goes on with another. */
const SOON_MS = 0.1;

/**
 * With at most so many workers, and two at least, the calling thread is one more that executes runs, in the place of a
 * worker. With more of them it is needed for what they ask for.
 */
const FEW_WORKERS = 4;

/** How long a turn of the event loop waits for runs to end, in microseconds. A turn that does nothing leaves garbage. */
const TURN_US = 50;

/** The JS thread has one turn to give: a run of any session may be waiting for it. */
let turnTaken = false;

/** One run, wherever it executes. */
export interface QueuedRun {
  /** Infinity where it isn't known. */
  readonly expectedMs: number;
  /** Whether it may hold the event loop if it is short. */
  readonly mayBeHere: boolean;
  /** Executes it on the calling thread. */
  here(): void;
  /** Executes it on the workers. */
  there(): Promise<void>;
}

/** The threads that runs are left to. */
export interface Workers {
  readonly threads: number;
  /** Whether the process may use a core that none of them needs. */
  readonly spareCore: boolean;
  /** Holds the calling thread until a run has ended, for at most so many microseconds. */
  awaitEnd(microseconds: number): void;
  /** The calling thread is going to execute runs, or is not any more: workers leave it a core until then. */
  expectCaller(comes: boolean): void;
}

/**
 * Where the runs of one backend execute. Handing a run to a worker and waking the event loop when it ends takes as long
 * as some layers of a small network, which short runs notice.
 *
 * Where the workers leave a core to the calling thread, they execute all runs, and the event loop keeps turning instead of
 * sleeping shortly before one should end, which for a short one is all the time.
 *
 * Where they don't, a short run that is alone executes on the calling thread, with the workers' help: in a turn of the
 * event loop of its own, at most one in each turn, so that timers and I/O are served before and after it. With few workers
 * so does one of several: a worker in its place would only compete with the calling thread for a core. A run that is about
 * to end is waited for first, because its worker would have nothing to do meanwhile.
 */
export class RunQueue {
  #underway = 0;
  #turning = false;
  #until = 0;
  #handOver: (() => void) | undefined;
  #callerExpected = false;
  /** When the runs that workers execute should end. */
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

  /** Lets the workers have the run that waits for its turn, if there is one. */
  handOver(): void {
    this.#handOver?.();
  }

  #start(run: QueuedRun): Promise<void> {
    const { threads, spareCore } = this.workers;
    const few = threads > 1 && threads <= FEW_WORKERS;
    const alone = this.#underway === 1;
    if (!alone && !few) this.handOver();
    else if (!spareCore && !turnTaken && run.mayBeHere && run.expectedMs <= SHORT_RUN_MS)
      return this.#inTurn(run);
    if (this.#handOver) this.#expectCaller(true);
    const running = this.#there(run);
    if (spareCore && run.expectedMs < Number.POSITIVE_INFINITY) this.#beAwakeAfter(run.expectedMs);
    return running;
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
        // Whoever waited for this run may ask for the next.
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
    const end = { at: performance.now() + run.expectedMs };
    const running = run.there();
    this.#ends.add(end);
    const ended = () => this.#ends.delete(end);
    running.then(ended, ended);
    return running;
  }

  /** Whether a run should have ended about now, and was waited for. */
  #waited(): boolean {
    // Others wait for a worker anyway.
    if (this.#ends.size >= this.workers.threads) return false;
    const now = performance.now();
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

  #beAwakeAfter(milliseconds: number): void {
    this.#until = performance.now() + LATE * milliseconds + LATE_MS;
    // Timers go by whole milliseconds and come up to one late.
    const asleep = Math.floor(milliseconds - 1);
    if (asleep < 1) this.#keepTurning();
    else setTimeout(() => this.#keepTurning(), asleep).unref();
  }

  /** Until the last run that began should have ended, or none is under way. Each turn serves whatever comes. */
  #keepTurning(): void {
    if (this.#turning) return;
    this.#turning = true;
    const turn = () => {
      this.#turning = this.#underway > 0 && performance.now() < this.#until;
      if (!this.#turning) return;
      this.workers.awaitEnd(TURN_US);
      setImmediate(turn);
    };
    setImmediate(turn);
  }
}
