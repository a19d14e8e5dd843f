/** A run that is expected to take no longer than this, in milliseconds, may hold the event loop. */
const SHORT_RUN_MS = 2;

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

/**
 * Where the runs of one backend execute. Handing a run to a worker and waking the event loop when it ends takes as long
 * as some layers of a small network, which short runs notice.
 *
 * Where the workers leave a core to the calling thread, they execute all runs, and the event loop keeps turning instead of
 * sleeping shortly before one should end, which for a short one is all the time.
 *
 * Where they don't, a short run that is alone executes on the calling thread, with the workers' help: in a turn of the
 * event loop of its own, at most one in each turn, so that timers and I/O are served before and after it. Another run that
 * is asked for before that turn sends both to the workers.
 */
export class RunQueue {
  #underway = 0;
  #turning = false;
  #handOver: (() => void) | undefined;

  /** @param spareCore whether the process may use a core that no worker needs */
  constructor(private readonly spareCore: boolean) {}

  async run(run: QueuedRun): Promise<void> {
    this.#underway++;
    try {
      await this.#start(run);
    } finally {
      this.#underway--;
    }
  }

  /** Lets the workers have the run that waits for its turn, if there is one. */
  handOver(): void {
    this.#handOver?.();
  }

  #start(run: QueuedRun): Promise<void> {
    const alone = this.#underway === 1;
    if (!alone) this.handOver();
    const here = run.mayBeHere && run.expectedMs <= SHORT_RUN_MS && !this.spareCore;
    if (here && alone && !turnTaken) return this.#inTurn(run);
    const ended = run.there();
    if (this.spareCore && run.expectedMs < Number.POSITIVE_INFINITY) this.#beAwakeAfter(run.expectedMs);
    return ended;
  }

  #inTurn(run: QueuedRun): Promise<void> {
    turnTaken = true;
    return new Promise((resolve, reject) => {
      const start = (execute: () => void | Promise<void>) => {
        turnTaken = false;
        this.#handOver = undefined;
        try {
          resolve(execute());
        } catch (error) {
          reject(error);
        }
      };
      const turn = setImmediate(() => start(() => run.here()));
      this.#handOver = () => {
        clearImmediate(turn);
        start(() => run.there());
      };
    });
  }

  #beAwakeAfter(milliseconds: number): void {
    const until = performance.now() + milliseconds + SHORT_RUN_MS;
    // Timers go by whole milliseconds and come up to one late.
    const asleep = Math.floor(milliseconds - 1);
    if (asleep < 1) this.#keepTurning(until);
    else setTimeout(() => this.#keepTurning(until), asleep).unref();
  }

  /** Until then, or until no run is under way. Each turn serves whatever comes. */
  #keepTurning(until: number): void {
    if (this.#turning) return;
    this.#turning = true;
    const turn = () => {
      this.#turning = this.#underway > 0 && performance.now() < until;
      if (this.#turning) setImmediate(turn);
    };
    setImmediate(turn);
  }
}
