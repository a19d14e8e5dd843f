/** Less than a batch is encoded after this time. */
const BATCH_MS = 20;

/** A call after BATCH_MS, or in the next turn of the event loop if it is urgent. */
export class Later {
  readonly done: Promise<void>;
  #resolve: () => void = () => {};
  readonly #timer: NodeJS.Timeout;
  #turn: NodeJS.Immediate | undefined;
  #due = false;

  constructor(private readonly call: () => void) {
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#timer = setTimeout(() => {
      this.#due = true;
      call();
    }, BATCH_MS).unref();
  }

  /** Whether BATCH_MS have passed. */
  get due(): boolean {
    return this.#due;
  }

  hurry(): void {
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      this.call();
    });
  }

  /** Cancels the call: its work is done. */
  end(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#turn);
    this.#resolve();
  }
}
