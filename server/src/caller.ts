import { ServerError } from './errors.js';

/** Whoever waits for an answer, and may leave before it is there. Much cheaper to create than an AbortSignal. */
export class Caller {
  #reason: ServerError | undefined;
  /** Called when the caller leaves. */
  onLeave: (() => void) | undefined;

  /** Why the caller left; undefined while it waits. */
  get reason(): ServerError | undefined {
    return this.#reason;
  }

  /** Of a client that closed its connection or cancelled its request. */
  disconnect(): void {
    this.leave(new ServerError('CANCELLED', 'request: its client disconnected'));
  }

  leave(reason: ServerError): void {
    if (this.#reason) return;
    this.#reason = reason;
    this.onLeave?.();
  }
}
