import type { Tensor } from '../tensor.js';
import type { SkipTrace } from './trace.js';

/** Tensors by the name of an input or output. */
export type TensorMap = { readonly [name: string]: Tensor };

/** One run that has ended well. The tensors are shared with the caller: read them before returning. */
export interface RunEvent {
  /** Hex SHA-256 of the model file. */
  readonly sha256: string;
  readonly inputs: TensorMap;
  /** The outputs that were asked for. */
  readonly outputs: TensorMap;
  readonly trace: SkipTrace;
  /** Wall-clock time in the backend, waiting for a free worker included. */
  readonly milliseconds: number;
}

/** Sees every run of a session. What it throws becomes a process warning and never reaches the caller of `run`. */
export interface RunObserver {
  onRun?(event: RunEvent): void | Promise<void>;
}

function warn(error: unknown): void {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.emitWarning(`a run observer failed: ${text}`, { code: 'RESIDUAL_SKIP_OBSERVER' });
}

/** Hands `event` to each observer, in order, without waiting for promises. */
export function notify(observers: readonly RunObserver[], event: RunEvent): void {
  for (const observer of observers) {
    try {
      Promise.resolve(observer.onRun?.(event)).catch(warn);
    } catch (error) {
      warn(error);
    }
  }
}
