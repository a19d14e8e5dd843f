import type { Feeds } from './feeds.js';
import type { RunOptions, SessionOptions } from './options.js';
import type { Fetches } from './outputs.js';
import { InferenceSession } from './session.js';

/**
 * This package as a backend of onnxruntime-common, whose sessions then run here:
 *
 * ```ts
 * registerBackend('residual-skip', onnxruntimeBackend, 10);
 * const session = await InferenceSession.create(path, { executionProviders: ['residual-skip'] });
 * ```
 */
export const onnxruntimeBackend = {
  async init(): Promise<void> {},

  /** @throws ResidualSkipError what `InferenceSession.create` throws */
  async createInferenceSessionHandler(source: string | Uint8Array, options: SessionOptions = {}) {
    // The backend is already chosen, under whatever name it was registered.
    const { executionProviders: _, ...rest } = options;
    const session = await InferenceSession.create(source, rest);
    return {
      inputNames: session.inputNames,
      outputNames: session.outputNames,
      inputMetadata: session.inputMetadata,
      outputMetadata: session.outputMetadata,
      // biome-ignore lint/suspicious/noExplicitAny: onnxruntime-common makes tensors of its own class of what this returns.
      run: (feeds: Feeds, fetches: Fetches, runOptions: RunOptions): Promise<any> =>
        session.run(feeds, fetches, runOptions),
      startProfiling: () => session.startProfiling(),
      endProfiling: () => session.endProfiling(),
      dispose: () => session.release(),
    };
  },
};
