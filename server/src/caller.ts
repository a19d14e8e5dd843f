import { randomUUID } from 'node:crypto';
import type { Access } from './auth.js';
import { ServerError } from './errors.js';

/** Characters of an id that a client chooses: logs and records repeat it. */
export const MAX_ID = 256;

/** The id that a client gives its request, or a new one. */
export function requestIdOf(asked: unknown): string {
  const isId = typeof asked === 'string' && asked !== '' && asked.length <= MAX_ID;
  return isId ? asked : randomUUID();
}

const NOBODY: Access = { client: '', group: '', rights: new Set() };

/** Whoever waits for an answer, and may leave before it is there. Much cheaper to create than an AbortSignal. */
export class Caller {
  #reason: ServerError | undefined;
  /** Called when the caller leaves. */
  onLeave: (() => void) | undefined;

  /** @param id of its request */
  constructor(
    readonly access: Access = NOBODY,
    readonly id = '',
    /** Whether the queue had room for its request before it was read. */
    readonly admitted = false,
  ) {}

  /** With whom others share the server. */
  get client(): string {
    return this.access.client;
  }

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
