import { type ItemTrace, type SkipTrace, Tensor, type TensorMap } from 'residual-skip';
import type { Caller } from '../caller.js';
import type { ServedModel } from '../models/model.js';
import type { GroupedRequest } from '../models/promise-monitor.js';
import type { Setting } from '../models/settings.js';
import type { Job, JobQueue } from './queue.js';

/** A request's input for the engine, and its result. */
export interface Work {
  readonly model: ServedModel;
  /** Undefined: the model's setting for its group when the call begins. */
  readonly setting: Setting | undefined;
  readonly feeds: Readonly<Record<string, Tensor>>;
  readonly fetches: readonly string[];
  readonly request: GroupedRequest;
  readonly queued: number;
  /** Time to decode and prepare its inputs, and that it waited for room to, in milliseconds. */
  readonly inputMs: number;
  result?: Result;
}

interface Result {
  readonly setting: Setting;
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly items: readonly ItemTrace[];
  readonly multiplyAdds: number;
  readonly queueMs: number;
  readonly callMs: number;
  readonly callItems: number;
}

/** Joins tensors into one batch. */
export function concat(tensors: readonly Tensor[]): Tensor {
  const [first] = tensors;
  if (tensors.length === 1) return first!;
  const length = tensors.reduce((sum, { size }) => sum + size, 0);
  const data = new (first!.data.constructor as Float32ArrayConstructor)(length);
  let at = 0;
  for (const tensor of tensors) {
    data.set(tensor.data as Float32Array, at);
    at += tensor.size;
  }
  const items = tensors.reduce((sum, { dims }) => sum + dims[0]!, 0);
  return new Tensor(first!.type as 'float32', data, [items, ...first!.dims.slice(1)]);
}

/** Items `from` to `end` of a batch of `items`, as a view of the same memory. */
function slice(tensor: Tensor, from: number, end: number, items: number): Tensor {
  const each = tensor.size / items;
  const data = (tensor.data as Float32Array).subarray(from * each, end * each);
  return new Tensor(tensor.type as 'float32', data, [end - from, ...tensor.dims.slice(1)]);
}

/** Jobs of one request that wait or run at a time. */
const JOBS_AT_A_TIME = 2;

/**
 * Runs a request's work through the queue; then it has its result. If its items run one by one anyway, many of them run in parts, so
 * that other clients' requests come between.
 * @param feeds of each text, which have lengths of their own; otherwise of all items together
 * @throws ServerError as JobQueue.push
 */
export function runQueued(
  queue: JobQueue<Work>,
  work: Work,
  feeds: readonly TensorMap[],
  { priority, caller }: Pick<Job<Work>, 'priority' | 'caller'>,
): Promise<void> {
  const model = work.model.name;
  const size = queue.partOf(model);
  const parts = feeds.flatMap((one) => partsOf(work.model, one, size));
  if (parts.length === 1) {
    const items = work.model.itemsOf(work.feeds);
    const key = joinKey(work, items);
    return queue.push({ priority, caller, more: false, later: false, model, key, items, work });
  }
  return runParts(work, parts, (part, later) => {
    const items = part.model.itemsOf(part.feeds);
    const key = joinKey(part, items);
    return queue.push({ priority, caller, more: true, later, model, key, items, work: part });
  });
}

async function runParts(
  work: Work,
  parts: readonly TensorMap[],
  push: (part: Work, later: boolean) => Promise<void>,
): Promise<void> {
  // One answer names one setting.
  const { setting = work.model.settingFor(work.request.group) } = work;
  const done: Work[] = [];
  const rest = parts.entries();
  const next = async () => {
    for (const [i, feeds] of rest) {
      const queued = i === 0 ? work.queued : performance.now();
      done[i] = { ...work, setting, feeds, queued };
      await push(done[i], i > 0);
    }
  };
  await Promise.all(Array.from({ length: JOBS_AT_A_TIME }, next));
  work.result = joined(done.map(({ result }) => result!));
}

function partsOf(model: ServedModel, feeds: TensorMap, size: number): TensorMap[] {
  const items = model.itemsOf(feeds);
  if (items <= size || !splits(model, feeds, items)) return [feeds];
  return Array.from({ length: Math.ceil(items / size) }, (_, i) =>
    Object.fromEntries(
      Object.entries(feeds).map(([name, tensor]) => [
        name,
        slice(tensor, i * size, Math.min((i + 1) * size, items), items),
      ]),
    ),
  );
}

function joined(results: readonly Result[]): Result {
  const [first] = results;
  const sum = (value: (result: Result) => number) => results.reduce((all, one) => all + value(one), 0);
  const names = Object.keys(first!.outputs);
  return {
    ...first!,
    outputs: Object.fromEntries(
      names.map((name) => [name, concat(results.map(({ outputs }) => outputs[name]!))]),
    ),
    items: results.flatMap(({ items }) => items),
    callMs: sum(({ callMs }) => callMs),
    callItems: sum(({ callItems }) => callItems),
  };
}

/** Whether the items may run in different calls. A model that mixes the items of a batch never shares a call. */
function splits(model: ServedModel, feeds: TensorMap, items: number): boolean {
  return model.itemwise && Object.values(feeds).every(({ dims }) => dims[0] === items);
}

let lone = 0;

/** Jobs with the same key may run as one batch. */
function joinKey(work: Work, items: number): string {
  const { model, setting, feeds, fetches, request } = work;
  const tensors = Object.entries(feeds);
  const shapes = tensors.map(([name, { type, dims }]) => [name, type, ...dims.slice(1)]);
  return JSON.stringify([
    model.name,
    model.version,
    setting?.name ?? null,
    request.group,
    shapes,
    fetches,
    splits(model, feeds, items) ? 0 : ++lone,
  ]);
}

/**
 * Calls of at most this many milliseconds may have several jobs, since handing one over takes a few percent of this, and
 * aren't aborted, since listening for it costs more.
 */
export const SHORT_MS = 5;

/** Runs jobs of one key in one call, see RunJobs. */
export async function runTogether(
  jobs: readonly Job<Work>[],
  expectedMs?: number,
): Promise<readonly unknown[]> {
  const [{ work, caller, more }] = jobs as [Job<Work>];
  const { model, fetches } = work;
  const { group } = work.request;
  const short = expectedMs !== undefined && expectedMs <= SHORT_MS;
  try {
    const { setting = model.settingFor(group) } = work;
    const feeds = jobs.length === 1 ? work.feeds : batchOf(jobs);
    const start = performance.now();
    // A shared call continues when one of its callers leaves, a part of a request too.
    const signal = jobs.length === 1 && !short && !more ? signalOf(caller) : undefined;
    const requests =
      model.audit || group !== ''
        ? jobs.flatMap(({ work, items }) => Array<GroupedRequest>(items).fill(work.request))
        : undefined;
    const { outputs, trace } = await model.run(setting, feeds, fetches, { group, signal, requests });
    share(jobs, { setting, outputs, trace, start, callMs: performance.now() - start });
    return [];
  } catch (error) {
    if (jobs.length === 1) return [caller.reason ?? error];
    // One job may have caused the error: run each alone, so that the others succeed.
    const alone: unknown[] = [];
    for (const job of jobs) alone.push((await runTogether([job]))[0]);
    return alone;
  }
}

function batchOf(jobs: readonly Job<Work>[]): TensorMap {
  const names = Object.keys(jobs[0]!.work.feeds);
  return Object.fromEntries(
    names.map((name) => [name, concat(jobs.map(({ work: { feeds } }) => feeds[name]!))]),
  );
}

function signalOf(caller: Caller): AbortSignal {
  const controller = new AbortController();
  if (caller.reason) controller.abort(caller.reason);
  caller.onLeave = () => controller.abort(caller.reason);
  return controller.signal;
}

interface Call {
  readonly setting: Setting;
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly trace: SkipTrace;
  readonly start: number;
  readonly callMs: number;
}

/** Gives each job its part of the call's results. */
function share(jobs: readonly Job<Work>[], { setting, outputs, trace, start, callMs }: Call): void {
  const callItems = jobs.reduce((sum, { items }) => sum + items, 0);
  let from = 0;
  for (const { work, items } of jobs) {
    const end = from + items;
    const own =
      jobs.length === 1
        ? outputs
        : Object.fromEntries(
            Object.entries(outputs).map(([name, tensor]) => [name, slice(tensor, from, end, callItems)]),
          );
    work.result = {
      setting,
      outputs: own,
      items: jobs.length === 1 ? trace.items : trace.items.slice(from, end),
      multiplyAdds: trace.multiplyAdds,
      queueMs: start - work.queued,
      callMs,
      callItems,
    };
    from = end;
  }
}
