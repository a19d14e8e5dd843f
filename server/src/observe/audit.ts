import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  type AuditLog,
  type AuditLogStats,
  auditLog,
  type Checkpoint,
  type RunEvent,
  type RunObserver,
} from 'residual-skip';
import { ServerError } from '../errors.js';
import type { GroupedRequest } from '../models/promise-monitor.js';
import type { ParsedOptions } from '../options.js';

/** Names of files, whatever a model's folder is called. */
const FILE = 'trace.ndjson';

/**
 * The audit logs of a server, one for each version of a model: FOLDER/MODEL/VERSION/trace.ndjson. A log outlives reloads of its model:
 * two sessions may write to it while requests end on the instance that they began with.
 */
export class AuditLogs {
  readonly #options: NonNullable<ParsedOptions['audit']>;
  readonly #log: ParsedOptions['log'];
  readonly #logs = new Map<string, AuditLog>();

  constructor(options: NonNullable<ParsedOptions['audit']>, log: ParsedOptions['log']) {
    this.#options = options;
    this.#log = log;
  }

  /**
   * An observer for a session of the model. It records the items of requests, not runs for tests and trials, of which no answer is sent.
   * @throws ServerError INVALID_ARGUMENT for an unusable folder or key
   */
  observer(model: string, version: string): RunObserver {
    const log = this.#logOf(model, version);
    return {
      keepsInputs: false,
      onAttach: (control) => log.onAttach(control),
      onRun: (event) => (isAnswered(event) ? log.onRun(event) : undefined),
      stats: () => log.stats(),
    };
  }

  /** Writes what waits, and that this is all. */
  async close(): Promise<void> {
    await Promise.all([...this.#logs.values()].map((log) => log.onRelease()));
  }

  /** Items and inputs that couldn't be written. */
  lost(): number {
    return this.#sum(({ lost, inputsLost }) => lost + inputsLost);
  }

  /** Rotated files that were removed, by age or size. */
  removed(): number {
    return this.#sum(({ removed }) => removed);
  }

  #sum(count: (stats: AuditLogStats) => number): number {
    return [...this.#logs.values()].reduce((sum, log) => sum + count(log.stats().auditLog), 0);
  }

  #logOf(model: string, version: string): AuditLog {
    const { folder, ...options } = this.#options;
    const own = join(folder, model, version);
    const known = this.#logs.get(own);
    if (known) return known;
    try {
      mkdirSync(own, { recursive: true });
      const log = auditLog({
        ...options,
        path: join(own, FILE),
        keepWithin: folder,
        onCheckpoint: ({ time, link, signature }: Checkpoint) =>
          this.#log?.({
            event: 'checkpoint',
            model,
            version,
            signed: new Date(time).toISOString(),
            link,
            signature,
          }),
      });
      this.#logs.set(own, log);
      return log;
    } catch (cause) {
      const { message } = cause as Error;
      throw new ServerError('INVALID_ARGUMENT', `audit folder ${folder}: it can't be used (${message})`, {
        cause,
      });
    }
  }
}

function isAnswered({ requests }: RunEvent): boolean {
  return requests !== undefined && (requests[0] as GroupedRequest | undefined)?.trial !== true;
}
