/** How far long work has come. */
export interface Progress {
  /**
   * `loading` and `packing` are those of `create`: the file is read and decoded, weights are brought into the order in which kernels read
   * them. `reading` (images), `calibrating`, `evaluating` and `searching` are those of `calibrate`, `speedup`, `evaluate` and `renderAudit`; `observing`,
   * `choosing` and `comparing` those of `quantize`.
   */
  readonly stage:
    | 'loading'
    | 'packing'
    | 'reading'
    | 'calibrating'
    | 'evaluating'
    | 'searching'
    | 'observing'
    | 'choosing'
    | 'comparing';
  /** Steps that are done: models, weights, images; of `calibrating`, images of all passes over the data together. */
  readonly done: number;
  /** Steps of the stage; null for a source of unknown length. */
  readonly total: number | null;
  /** Of `speedup`, which has these stages for each network that it tries: the network's name. */
  readonly network?: string;
}

/** Packing as Progress, each state once; what the callback throws is kept, since it is called from a timer. */
export class PackingReport {
  #error: { readonly thrown: unknown } | undefined;
  #last = -1;

  constructor(private readonly onProgress: (progress: Progress) => void) {}

  readonly onPacked = (done: number, total: number): void => {
    if (this.#error || done === this.#last || total === 0) return;
    this.#last = done;
    try {
      this.onProgress({ stage: 'packing', done, total });
    } catch (thrown) {
      this.#error = { thrown };
    }
  };

  /** Throws what the callback has thrown. */
  check(): void {
    if (this.#error) throw this.#error.thrown;
  }
}
