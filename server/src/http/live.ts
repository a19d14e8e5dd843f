import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { ServerError } from '../errors.js';
import type { Inference } from '../inference/infer.js';
import type { Failed, Finished } from '../inference/messages.js';
import { type Thumbnail, thumbnailOf } from '../inference/thumbnail.js';
import type { SettingChange } from '../models/elastic.js';
import type { ServedModel } from '../models/model.js';
import type { ModelRepository } from '../models/repository.js';
import { CONTROL } from './rest.js';

/** What the page shows for the period since the previous snapshot. */
export interface Snapshot {
  readonly time: number;
  readonly queued: number;
  readonly running: number;
  readonly models: readonly ModelSnapshot[];
  /** Newest last. */
  readonly changes: readonly SettingChange[];
}

interface ModelSnapshot {
  readonly name: string;
  readonly version: string;
  readonly itemsPerSecond: number;
  readonly failuresPerSecond: number;
  /** Latency in milliseconds (queue and compute); null if no request ended. */
  readonly latencyMs: { readonly p50: number; readonly p99: number } | null;
  readonly setting: string;
  readonly settings: readonly { readonly name: string; readonly allowed: boolean }[];
  readonly promise: { readonly limit: number; readonly confidence: number } | null;
  readonly tripped: boolean;
  /** Share of the multiply-adds saved by skipping. */
  readonly saved: number | null;
  /** Skip rate of each block. */
  readonly blocks: readonly { readonly name: string; readonly skipped: number }[];
  readonly recent: readonly Recent[];
}

/** A recent answer and its path, one character per block: `#` ran, `.` skipped. */
interface Recent {
  readonly answer: string;
  readonly path: string;
  readonly image: Thumbnail | null;
}

class Tally {
  items = 0;
  failures = 0;
  saved = 0;
  full = 0;
  latencies: number[] = [];
  blocks = new Map<string, { met: number; skipped: number }>();
  recent: Recent[] = [];
  /** When the last of them ended. */
  seen = Number.NEGATIVE_INFINITY;
}

const INTERVAL_MS = 500;
const RECENT = 8;
const CHANGES = 20;
const LATENCIES = 4000;
/** Pages that watch at a time: each is sent the last ten minutes, which it may never read. */
const VIEWERS = 64;
/** Snapshots of the last ten minutes, for a page that is opened after a problem. */
const HISTORY = (10 * 60 * 1000) / INTERVAL_MS;

/** Of a snapshot, what the charts show. */
interface Moment {
  readonly time: number;
  readonly models: readonly Pick<
    ModelSnapshot,
    'name' | 'version' | 'itemsPerSecond' | 'latencyMs' | 'saved'
  >[];
}

/** A page that shows the snapshots. */
interface Viewer {
  /** Whether it shows what the last images were: only pages whose users asked for it. */
  readonly images: boolean;
  readonly send: (text: string) => void;
}

/** The live page and its stream of snapshots. Answers and images are kept only while somebody watches. */
export class LivePage {
  readonly #repository: ModelRepository;
  readonly #inference: () => Inference;
  readonly #tallies = new Map<ServedModel, Tally>();
  readonly #changes: SettingChange[] = [];
  readonly #viewers = new Set<Viewer>();
  readonly #history: Moment[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(repository: ModelRepository, inference: () => Inference) {
    this.#repository = repository;
    this.#inference = inference;
  }

  finished(finished: Finished): void {
    const { model, items, multiplyAdds, queueMs, callMs } = finished;
    const tally = this.#tallyOf(model);
    tally.items += items.length;
    tally.full += items.length * multiplyAdds;
    if (tally.latencies.length < LATENCIES) tally.latencies.push(queueMs + callMs);
    for (const { blocks, multiplyAddsSkipped } of items) {
      tally.saved += multiplyAddsSkipped;
      for (const { block, ran } of blocks) {
        const counts = tally.blocks.get(block) ?? { met: 0, skipped: 0 };
        counts.met++;
        if (!ran) counts.skipped++;
        tally.blocks.set(block, counts);
      }
    }
    const now = performance.now();
    if (this.#viewers.size === 0 || now - tally.seen < INTERVAL_MS / RECENT) return;
    tally.seen = now;
    const { outputs } = finished;
    const { classifier } = model;
    const scored = classifier && outputs[classifier.output];
    const pictured = [...this.#viewers].some(({ images }) => images);
    const scores = scored && classifier.scoresOf(outputs, scored.dims[0] ?? 1);
    for (const [i, { blocks }] of items.slice(0, RECENT).entries()) {
      const path = blocks.map(({ ran }) => (ran ? '#' : '.')).join('');
      tally.recent.push({
        answer: answerOf(model, scores?.[i]),
        path,
        image: pictured ? thumbnailOf(finished.feeds, i, items.length) : null,
      });
    }
    tally.recent.splice(0, tally.recent.length - RECENT);
  }

  failed({ model }: Failed): void {
    if (model) this.#tallyOf(model).failures++;
  }

  changed(change: SettingChange): void {
    this.#changes.push(change);
    if (this.#changes.length > CHANGES) this.#changes.shift();
  }

  start(): void {
    this.#timer = setInterval(() => this.#publish(), INTERVAL_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const { send } of this.#viewers) send('');
  }

  async addRoutes(app: FastifyInstance): Promise<void> {
    const charts = require.resolve('uplot/dist/uPlot.iife.min.js');
    const files = [
      ['/', 'text/html; charset=utf-8', page('index.html')],
      ['/page.css', 'text/css; charset=utf-8', page('page.css')],
      ['/page.js', 'text/javascript; charset=utf-8', page('page.js')],
      ['/uplot.js', 'text/javascript; charset=utf-8', charts],
      ['/uplot.css', 'text/css; charset=utf-8', charts.replace('uPlot.iife.min.js', 'uPlot.min.css')],
    ] as const;
    for (const [path, type, file] of files) {
      const content = await readFile(file);
      app.get(path, CONTROL, (_request, reply) =>
        reply.type(type).header('cache-control', 'no-cache').send(content),
      );
    }
    app.get<{ Querystring: { images?: string } }>('/events', CONTROL, (request, reply) => {
      if (this.#viewers.size >= VIEWERS) {
        const message = `live page: ${VIEWERS} pages watch it, and no more may; close one of them`;
        throw new ServerError('BUSY', message, { retryAfter: 10 });
      }
      reply.hijack();
      const { raw } = reply;
      raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
      // Drop snapshots for a viewer that doesn't read, instead of buffering them.
      const send = (text: string) => {
        if (text === '') raw.end();
        else if (!raw.writableNeedDrain) raw.write(text);
      };
      const viewer = { images: request.query.images === '1', send };
      send(`event: history\ndata: ${JSON.stringify(this.#history)}\n\n`);
      this.#viewers.add(viewer);
      request.raw.on('close', () => this.#viewers.delete(viewer));
    });
  }

  #tallyOf(model: ServedModel): Tally {
    const tally = this.#tallies.get(model) ?? new Tally();
    this.#tallies.set(model, tally);
    return tally;
  }

  #publish(): void {
    const loaded = this.#repository.loaded();
    const snapshot = this.#snapshot(loaded);
    this.#history.push(momentOf(snapshot));
    if (this.#history.length > HISTORY) this.#history.shift();
    const tallies = [...this.#tallies];
    this.#tallies.clear();
    for (const [model, { recent, seen }] of tallies) {
      if (loaded.includes(model)) this.#tallies.set(model, Object.assign(new Tally(), { recent, seen }));
    }
    const texts = new Map<boolean, string>();
    for (const { images, send } of this.#viewers) {
      const text =
        texts.get(images) ?? `data: ${JSON.stringify(images ? snapshot : withoutImages(snapshot))}\n\n`;
      texts.set(images, text);
      send(text);
    }
  }

  #snapshot(models: readonly ServedModel[]): Snapshot {
    const { queue } = this.#inference();
    return {
      time: Date.now(),
      queued: queue.length,
      running: queue.running,
      models: models.map((model) => snapshotOf(model, this.#tallyOf(model))),
      changes: this.#changes,
    };
  }
}

function momentOf({ time, models }: Snapshot): Moment {
  const shown = models.map(({ name, version, itemsPerSecond, latencyMs, saved }) => ({
    ...{ name, version, itemsPerSecond, latencyMs, saved },
  }));
  return { time, models: shown };
}

function withoutImages(snapshot: Snapshot): Snapshot {
  const models = snapshot.models.map((model) => ({
    ...model,
    recent: model.recent.map((one) => ({ ...one, image: null })),
  }));
  return { ...snapshot, models };
}

function snapshotOf(model: ServedModel, tally: Tally): ModelSnapshot {
  const perSecond = 1000 / INTERVAL_MS;
  const sorted = [...tally.latencies].sort((a, b) => a - b);
  const quantile = (q: number) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
  const { promise } = model.setting;
  return {
    name: model.name,
    version: model.version,
    itemsPerSecond: tally.items * perSecond,
    failuresPerSecond: tally.failures * perSecond,
    latencyMs: sorted.length > 0 ? { p50: quantile(0.5), p99: quantile(0.99) } : null,
    setting: model.setting.name,
    settings: model.settings.map(({ name }, i) => ({ name, allowed: i <= model.boldest })),
    promise: promise && { limit: promise.limit, confidence: promise.confidence },
    tripped: model.isTripped,
    saved: tally.full > 0 ? tally.saved / tally.full : null,
    blocks: [...tally.blocks].map(([name, { met, skipped }]) => ({ name, skipped: skipped / met })),
    recent: tally.recent,
  };
}

function answerOf({ classifier }: ServedModel, scores: ArrayLike<number> | undefined): string {
  if (!classifier || !scores) return '';
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[best]!) best = i;
  return classifier.labels[best]!;
}

function page(name: string): string {
  return join(__dirname, '..', '..', 'page', name);
}
