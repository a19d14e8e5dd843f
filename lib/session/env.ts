import { packageVersion } from '../util/version.js';

/** Options of the process, with onnxruntime's names. */
export interface Env {
  /** From `error` on, onnxruntime's options that have no effect here cause no warning. */
  logLevel: 'verbose' | 'info' | 'warning' | 'error' | 'fatal';
  /** Both are the version of this package. */
  readonly versions: { readonly common: string; readonly node: string };
}

/** Options of the process, and the version of this package. */
export const env: Env = {
  logLevel: 'warning',
  versions: { common: packageVersion(), node: packageVersion() },
};
