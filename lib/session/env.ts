import { packageVersion } from '../util/version.js';

/** Settings of the process, with onnxruntime's names. */
export interface Env {
  /** From `error` on, onnxruntime's options that have no effect here cause no warning. */
  logLevel: 'verbose' | 'info' | 'warning' | 'error' | 'fatal';
  /** Both are the version of this package. */
  readonly versions: { readonly common: string; readonly node: string };
}

/** Settings of the process, and the version of this package. */
export const env: Env = {
  logLevel: 'warning',
  versions: { common: packageVersion(), node: packageVersion() },
};
