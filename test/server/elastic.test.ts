import { resolve } from 'node:path';
import { Tensor } from 'residual-skip';
import { Client, type Inference } from 'residual-skip/client';
import { createServer } from 'residual-skip-server';
import { Caller } from '../../server/src/caller.js';
import type { Finished } from '../../server/src/inference/messages.js';
import { JobQueue } from '../../server/src/inference/queue.js';
import { ElasticDepth, type SettingChange } from '../../server/src/models/elastic.js';
import { FULL, type Setting } from '../../server/src/models/settings.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { promising } from '../helpers/policies.js';
import { uniform } from '../helpers/random.js';

const MODEL = 'mnist-resnet20-gates';

/** Three settings; the bold ones really are quicker. */
const policy = {
  ...promising(0.01, { default: 'gate' }),
  settings: [promising(0.05, { default: 'skip' })],
};
const files = folderOf({ 'policy.json': JSON.stringify(policy) });
const policyFile = resolve(files, 'policy.json');
afterAll(removeFolders);

function digits(items: number, seed: number): Tensor<'float32'> {
  const next = uniform(seed);
  return new Tensor('float32', Float32Array.from({ length: items * 784 }, next), [items, 1, 28, 28]);
}

type Entry = Readonly<Record<string, unknown>>;

/** A server of the test's model, its log, and a client. */
async function serverWith(options: object) {
  const log: Entry[] = [];
  const server = await createServer({
    folders: [resolve('models', MODEL)],
    ...{ port: 0, grpcPort: null, policies: [policyFile], log: (entry: Entry) => log.push(entry) },
    ...options,
  });
  const metrics = async () => (await fetch(`${server.url}/metrics`)).text();
  return { server, log, metrics, client: new Client(server.url) };
}

async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await what())) await new Promise((resolve) => setTimeout(resolve, 20));
}

describe('a server with a target', () => {
  test('goes bolder while requests wait, says so everywhere, and returns to full depth', async () => {
    const { server, log, metrics, client } = await serverWith({
      targetQueue: 6,
      threads: 1,
      maxItems: 1,
      shadow: 0,
    });
    const answers: Inference[] = [];
    const flood = async () => {
      while (!answers.some(({ policy }) => policy === '0.05'))
        answers.push(await client.infer(MODEL, { input: digits(32, answers.length) }));
    };
    await Promise.all(Array.from({ length: 13 }, flood));
    const promises = { full: 0, 0.01: 0.01, 0.05: 0.05 };
    for (const { policy, promise } of answers) {
      expect(promise).toEqual({
        limit: promises[policy as keyof typeof promises],
        confidence: policy === 'full' ? 1 : 0.95,
        metric: 'disagreement',
      });
    }
    await until(async () => /setting_active\{.*setting="full"\} 1/.test(await metrics()));
    expect((await client.infer(MODEL, { input: digits(1, 0) })).policy).toBe('full');
    await server.close();

    // On a busy machine the queue may run empty in between.
    const changes = log.filter(({ event }) => event === 'setting');
    const moves = changes.map(({ from, to }) => [from, to]);
    expect(moves[0]).toEqual(['full', '0.01']);
    const bold = moves.findIndex(([, to]) => to === '0.05');
    expect(moves[bold]).toEqual(['0.01', '0.05']);
    expect(moves.at(-1)![1]).toBe('full');
    const reason = expect.stringMatching(/requests wait/);
    expect(changes[bold]).toMatchObject({ model: MODEL, promise: { limit: 0.05 }, reason });
  });

  test('the metrics name each setting, its promise, and its items', async () => {
    const { server, metrics, client } = await serverWith({ targetP99: 1e6, shadow: 0.5 });
    await client.infer(MODEL, { input: digits(3, 1) }, { policy: '0.05' });
    const text = await metrics();
    await server.close();
    const labels = (setting: string) => `{model="${MODEL}",version="1",setting="${setting}"}`;
    for (const [setting, limit, active] of [
      ['full', 0, 1],
      ['0.01', 0.01, 0],
      ['0.05', 0.05, 0],
    ] as const) {
      expect(text).toContain(`residual_skip_promised_limit${labels(setting)} ${limit}\n`);
      expect(text).toContain(`residual_skip_setting_active${labels(setting)} ${active}\n`);
    }
    expect(text).toContain(`residual_skip_items_total${labels('0.05')} 3\n`);
    expect(text).toContain(`residual_skip_monitor_tripped${labels('0.05')} 0\n`);
  });
});

test('a broken promise forbids the bold settings: the model runs in full from then on', async () => {
  const { server, log, metrics, client } = await serverWith({ shadow: 1 });
  const input = () => ({ input: digits(64, log.length + Math.random() * 1e6) });
  // What runs in full says nothing of the bold setting, and must not hide what it does.
  for (let i = 0; i < 20; i++) await client.infer(MODEL, input(), { policy: 'full' });
  await until(async () => {
    await client.infer(MODEL, input());
    return log.length > 0;
  });
  expect(log[0]).toMatchObject({ event: 'trip', model: MODEL, setting: '0.05', limit: 0.05 });
  const { checks, disagreements } = log[0] as { checks: number; disagreements: number };
  expect(disagreements / checks).toBeGreaterThan(0.05);
  expect(log[1]).toMatchObject({ event: 'setting', from: '0.05', to: 'full', promise: { limit: 0 } });
  const after = await client.infer(MODEL, input());
  expect(after).toMatchObject({ policy: 'full', promise: { limit: 0 }, blocksSkipped: 0 });
  for (const bold of ['0.05', '0.01']) {
    await expect(client.infer(MODEL, input(), { policy: bold })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('suspended'),
    });
  }
  expect(await metrics()).toMatch(/monitor_tripped\{.*setting="0.05"\} 1/);
  await server.close();
});

describe('simulated load', () => {
  beforeEach(() => {
    jest.useFakeTimers();
  });
  afterEach(() => {
    jest.useRealTimers();
  });

  const TARGET_MS = 40;
  const THREADS = 2;
  /** Of an item, by setting: two threads bear 500, 667 and 909 items a second. */
  const ITEM_MS = [4, 3, 2.2];
  const CAPACITY = (1000 * THREADS) / ITEM_MS[0]!;
  const SETTINGS: Setting[] = [FULL, '0.01', '0.05'].map((one) =>
    typeof one === 'string' ? named(one) : one,
  );

  function named(name: string): Setting {
    return {
      name,
      policy: 'full',
      file: null,
      promise: { limit: Number(name), confidence: 0.95, metric: 'disagreement' },
    };
  }

  interface Work {
    readonly setting: Setting;
    readonly callMs: number;
    readonly callItems: number;
  }

  /** A queue in front of threads whose speed is that of the setting, on the test's clock. */
  function simulation(elasticOn: boolean) {
    const model = {
      name: 'simulated',
      settings: SETTINGS,
      boldest: SETTINGS.length - 1,
      current: 0,
      get setting() {
        return this.settings[Math.min(this.current, this.boldest)]!;
      },
    };
    const changes: SettingChange[] = [];
    // When each thread will be free.
    const free: number[] = Array(THREADS).fill(0);
    const queue = new JobQueue<Work>(
      { capacity: 5000, concurrency: THREADS + 1, maxItems: 8, longestJoinedMs: 2 },
      async (jobs) => {
        const now = performance.now();
        const [soonest] = free.sort((a, b) => a - b);
        const ms = jobs.length * ITEM_MS[SETTINGS.indexOf(model.setting)]!;
        free[0] = Math.max(now, soonest!) + ms;
        const callMs = free[0] - now;
        for (const { work } of jobs)
          Object.assign(work, { setting: model.setting, callMs, callItems: jobs.length });
        await new Promise((resolve) => setTimeout(resolve, callMs));
        return [];
      },
    );
    const elastic = new ElasticDepth(
      { loaded: () => [model] } as never,
      { queue } as never,
      { targetP99Ms: TARGET_MS },
      (_model, change) => changes.push(change),
    );
    if (elasticOn) elastic.start();
    const request = async (heldUpMs: number) => {
      const work: Work = { setting: FULL, callMs: 0, callItems: 0 };
      const start = performance.now() - heldUpMs;
      await queue.push({
        ...{ key: '', model: model.name, priority: 10, items: 1, work, caller: new Caller() },
      });
      const ms = performance.now() - start;
      elastic.finished({ ...work, model, items: [{}], started: start } as unknown as Finished);
      return ms;
    };
    return { model, changes, request, stop: () => elastic.stop() };
  }

  /**
   * Poisson arrivals at `load` times the capacity of full depth, for `ms`; latencies of the requests, in order.
   * @param heldUp whether something else than the load delays every 25th request by most of the target
   */
  async function arrivals(
    request: (heldUpMs: number) => Promise<number>,
    load: number,
    ms: number,
    next: () => number,
    heldUp = false,
  ) {
    const latencies: Promise<number>[] = [];
    let [now, due] = [0, 0];
    for (;;) {
      due += (-Math.log(1 - next()) * 1000) / (load * CAPACITY);
      if (due > ms) break;
      await jest.advanceTimersByTimeAsync(due - now);
      now = due;
      latencies.push(request(heldUp && latencies.length % 25 === 0 ? 0.9 * TARGET_MS : 0));
    }
    await jest.advanceTimersByTimeAsync(ms - now);
    return latencies;
  }

  const p99 = (values: readonly number[]) =>
    [...values].sort((a, b) => a - b)[Math.floor(0.99 * values.length)]!;

  test('the target holds up to 1.4 times the load of full depth, which fails it; then depth is full again', async () => {
    const outcome = async (elasticOn: boolean, load: number) => {
      const { model, changes, request, stop } = simulation(elasticOn);
      const next = uniform(7);
      await arrivals(request, 0.2, 3000, next);
      expect(model.setting.name).toBe('full');
      // What happens while the setting follows a jump of the load is not what the target is for.
      await arrivals(request, load, 2000, next);
      const latencies = await arrivals(request, load, 8000, next);
      await arrivals(request, 0.2, 10_000, next);
      await jest.advanceTimersByTimeAsync(60_000);
      stop();
      return { p99: p99(await Promise.all(latencies)), setting: model.setting.name, changes };
    };
    const elastic = await outcome(true, 1.4);
    expect(elastic.p99).toBeLessThan(TARGET_MS);
    expect(elastic.setting).toBe('full');
    expect(elastic.changes[0]).toMatchObject({ from: 'full', to: '0.01', promise: { limit: 0.01 } });
    expect(elastic.changes.at(-1)).toMatchObject({ from: '0.05', to: 'full' });
    const fixed = await outcome(false, 1.4);
    expect(fixed.p99).toBeGreaterThan(TARGET_MS);
    expect(fixed.changes).toEqual([]);
  });

  test('a calm server stays in full depth', async () => {
    const { changes, request, stop } = simulation(true);
    const next = uniform(11);
    const latencies = await arrivals(request, 0.4, 10_000, next);
    stop();
    expect(p99(await Promise.all(latencies))).toBeLessThan(TARGET_MS);
    expect(changes).toEqual([]);
  });

  test('what holds requests up on an idle server does not change the depth', async () => {
    const { changes, request, stop } = simulation(true);
    const latencies = await arrivals(request, 0.2, 10_000, uniform(13), true);
    await jest.advanceTimersByTimeAsync(1000);
    stop();
    expect(p99(await Promise.all(latencies))).toBeGreaterThan(0.8 * TARGET_MS);
    expect(changes).toEqual([]);
  });

  test.each([1.2, 1.6, 2])(
    'when %f times the load of full depth has gone, depth is full within 5 s and stays so, whatever holds requests up',
    async (load) => {
      const { model, changes, request, stop } = simulation(true);
      const next = uniform(17);
      for (let part = 0.2; part < load; part += 0.2) await arrivals(request, part, 3000, next);
      await arrivals(request, load, 5000, next);
      expect(model.setting.name).not.toBe('full');
      await arrivals(request, 0.2, 5000, next, true);
      expect(model.setting.name).toBe('full');
      const before = changes.length;
      await arrivals(request, 0.2, 30_000, next, true);
      stop();
      expect(changes.slice(before)).toEqual([]);
    },
  );

  test('a load on the edge of what full depth bears changes the setting a few times a minute', async () => {
    const { changes, request, stop } = simulation(true);
    const latencies = await arrivals(request, 0.95, 60_000, uniform(19));
    await jest.advanceTimersByTimeAsync(1000);
    stop();
    expect(p99(await Promise.all(latencies))).toBeLessThan(TARGET_MS);
    expect(changes.length).toBeGreaterThan(0);
    expect(changes.length).toBeLessThan(12);
  });
});
