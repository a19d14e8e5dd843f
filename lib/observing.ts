import type { Call } from './call.js';
import type { Contexts } from './contexts.js';
import { InputCopies } from './input-copies.js';
import {
  notify,
  type RunEvent,
  type RunObserver,
  type SessionControl,
  type TensorMap,
} from './skip/observer.js';
import type { SkipTrace } from './skip/trace.js';
import type { TensorData } from './tensor.js';

interface ToTell {
  /** Whether the inputs are copies that `copyInput` made. */
  readonly inputsKept: boolean;
  readonly outputs: TensorMap;
  readonly milliseconds: number;
  readonly trace: () => SkipTrace;
}

/** A session's observers, and the copies of inputs that wait until they are through with them. */
export class Observing {
  readonly #observers: readonly RunObserver[];
  readonly #contexts: Contexts;
  readonly #copies = new InputCopies();
  /** Whether copies may be used again once the observers' promises are settled. */
  readonly #givenBack: boolean;

  constructor(observers: readonly RunObserver[], contexts: Contexts) {
    this.#observers = [...observers];
    this.#contexts = contexts;
    this.#givenBack = this.#observers.every(({ keepsInputs }) => keepsInputs === false);
  }

  attach(control: SessionControl): void {
    void notify(this.#observers, (observer) => observer.onAttach?.(control));
  }

  async release(): Promise<void> {
    await notify(this.#observers, (observer) => observer.onRelease?.());
  }

  stats(): Readonly<Record<string, unknown>> {
    return Object.assign({}, ...this.#observers.map((observer) => observer.stats?.() ?? {}));
  }

  copyInput(data: TensorData): TensorData {
    return this.#copies.copy(data);
  }

  /** Tells the observers of a run that has ended well. */
  tell(call: Call, { inputsKept, outputs, milliseconds, trace }: ToTell): void {
    const { specialization, request, feeds, policy } = call;
    let going: Promise<unknown> | undefined;
    if (this.#observers.length > 0) {
      const event: RunEvent = {
        context: this.#contexts.of(specialization.program, policy),
        inputs: feeds.tensors,
        inputsKept,
        outputs,
        items: request.items,
        milliseconds,
        get trace() {
          return trace();
        },
      };
      going = notify(this.#observers, (observer) => observer.onRun?.(event));
    }
    if (!inputsKept || !this.#givenBack) return;
    if (going) void going.then(() => this.#copies.reuse(request.inputs));
    else this.#copies.reuse(request.inputs);
  }
}
