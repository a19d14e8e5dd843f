import { packageVersion } from '../version.js';

/** Settings of the process, with onnxruntime's names. */
export interface Env {
  /** From `error` on, there is no warning of onnxruntime's options that have no effect here. */
  logLevel: 'verbose' | 'info' | 'warning' | 'error' | 'fatal';
  /** Both are the version of this package. */
  readonly versions: { readonly common: string; readonly node: string };
}

export const env: Env = {
  logLevel: 'warning',
  versions: { common: packageVersion(), node: packageVersion() },
};
