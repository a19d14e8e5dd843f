import type { ItemTrace, Tensor } from 'residual-skip';
import type { ServerError } from '../errors.js';
import type { ServedModel } from '../models/model.js';
import type { Setting } from '../models/settings.js';

/** Values of the protocol's `parameters`. */
export type Parameters = Readonly<Record<string, string | number | boolean>>;

/** One input of a request: a tensor, or image files or texts (datatype BYTES). In JSON, files are base64 and texts are themselves. */
export interface RequestInput {
  readonly name: string;
  readonly shape: readonly number[];
  readonly content: Tensor | readonly (Uint8Array | string)[];
}

export interface RequestedOutput {
  readonly name: string;
  readonly parameters: Parameters;
}

/** An inference request, independent of the protocol. */
export interface InferRequest {
  readonly model: string;
  readonly version: string;
  readonly id: string;
  readonly parameters: Parameters;
  readonly inputs: readonly RequestInput[];
  /** Empty for all outputs. */
  readonly outputs: readonly RequestedOutput[];
  /** The caller's W3C trace context. */
  readonly traceparent?: string | undefined;
  /** When it came, if it had to wait for room before it was read. */
  readonly started?: number | undefined;
}

export interface ResponseOutput {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  /** BYTES elements for the classification extension. */
  readonly content: Tensor | readonly Uint8Array[];
}

export interface InferResponse {
  readonly model: string;
  readonly version: string;
  readonly id: string;
  /** The setting that ran, its promise, and what was skipped. */
  readonly parameters: Parameters;
  readonly outputs: readonly ResponseOutput[];
}

/** An answered request, for watchers. */
export interface Finished {
  readonly request: InferRequest;
  /** Time of receipt, as `performance.now()`. */
  readonly started: number;
  readonly model: ServedModel;
  readonly setting: Setting;
  readonly items: readonly ItemTrace[];
  /** Multiply-adds of one item at full depth. */
  readonly multiplyAdds: number;
  /** Time to decode and prepare its inputs, and that it waited for room to. */
  readonly inputMs: number;
  readonly queueMs: number;
  /** Duration of the engine's call, which may have included other requests. */
  readonly callMs: number;
  /** Number of items in that call. */
  readonly callItems: number;
  readonly feeds: Readonly<Record<string, Tensor>>;
  readonly outputs: Readonly<Record<string, Tensor>>;
}

/** A failed request, for watchers. */
export interface Failed {
  /** Null if the model is unknown. */
  readonly model: ServedModel | null;
  readonly error: ServerError;
  /** Null if the request was refused before it was read. */
  readonly request: InferRequest | null;
  readonly started: number;
}
