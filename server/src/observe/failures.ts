import { inspect as describe } from 'node:util';
import type { ServerError } from '../errors.js';
import type { ParsedOptions } from '../options.js';

/** A request that was not answered as it asked. */
export interface Failure {
  readonly protocol: 'rest' | 'grpc';
  readonly error: ServerError;
  /** Its method and path; the path alone for gRPC. */
  readonly request: string;
  /** Of the request, if it has one. */
  readonly id?: string | undefined;
}

export type ReportFailure = (failure: Failure) => void;

/** Lines of one code in a second; further ones are counted, and the next line says how many they were. */
const MAX_LINES = 10;

/**
 * Counts every failed request and logs it: what the server is to blame for, with what caused it (`failure`), and what clients or the
 * server's state cause (`refusal`).
 */
export class Failures {
  readonly counts = new Map<string, { readonly labels: { protocol: string; code: string }; count: number }>();
  readonly #log: ParsedOptions['log'];
  readonly #lines = new Map<string, { since: number; lines: number; left: number }>();

  constructor(log: ParsedOptions['log']) {
    this.#log = log;
  }

  readonly report: ReportFailure = ({ protocol, error, request, id }) => {
    const { code, http: status } = error;
    const key = `${protocol} ${code}`;
    const known = this.counts.get(key) ?? { labels: { protocol, code }, count: 0 };
    known.count++;
    this.counts.set(key, known);
    if (!this.#log) return;
    const left = this.#room(key);
    if (left === undefined) return;
    const of = { request, ...(id && { id }), code, status, ...(left > 0 && { left }) };
    // Without a cause, a 5xx is an answer on purpose: of a server that drains, for a model that isn't loaded.
    const own = status >= 500 && (code === 'INTERNAL' || error.cause !== undefined);
    if (own) this.#log({ event: 'failure', ...of, error: describe(error.cause ?? error) });
    else this.#log({ event: 'refusal', ...of, error: error.message });
  };

  /** How many lines were left out before this one; undefined if this one is left out too. */
  #room(key: string): number | undefined {
    const now = performance.now();
    let second = this.#lines.get(key);
    if (!second || now - second.since >= 1000) {
      second = { since: now, lines: 0, left: second?.left ?? 0 };
      this.#lines.set(key, second);
    }
    if (second.lines >= MAX_LINES) {
      second.left++;
      return undefined;
    }
    second.lines++;
    const { left } = second;
    second.left = 0;
    return left;
  }
}
