import { Caller } from '../../server/src/caller.js';
import { Lobby } from '../../server/src/inference/lobby.js';
import { type Job, JobQueue, type QueueOptions } from '../../server/src/inference/queue.js';
import { DepthController, type Load } from '../../server/src/models/controller.js';

/** Of tests that don't depend on real times: each call takes 10 ms. */
let clock = 0;

/** A queue whose calls end when they are told to; `calls` are the names of the jobs in each. */
function heldQueue(options: Partial<QueueOptions> = {}) {
  const calls: string[][] = [];
  const ends: (() => void)[] = [];
  const queue = new JobQueue<string>(
    { capacity: 100, concurrency: 1, maxItems: 4, longestJoinedMs: 60_000, ...options },
    async (jobs) => {
      calls.push(jobs.map(({ work }) => work));
      await new Promise<void>((end) => ends.push(end));
      return [];
    },
  );
  const push = (work: string, job: Partial<Job<string>> = {}) =>
    queue.push({ key: 'a', model: 'a', priority: 10, items: 1, work, caller: new Caller(), ...job });
  const endAll = async () => {
    while (ends.length > 0) {
      clock += 10;
      ends.shift()!();
      await new Promise(setImmediate);
    }
  };
  return { queue, calls, push, endAll };
}

describe('the queue', () => {
  test('runs a job at once while a call is free, and joins jobs only where calls are scarce', async () => {
    const { calls, push, endAll } = heldQueue({ concurrency: 2 });
    const jobs = ['1', '2', '3', '4', '5', '6'].map((work) => push(work));
    expect(calls).toEqual([['1'], ['2']]);
    await endAll();
    await Promise.all(jobs);
    expect(calls.slice(2)).toEqual([['3', '4', '5', '6']]);
  });

  test('joins jobs of one key alone, and at most so many items', async () => {
    const { calls, push, endAll } = heldQueue();
    const jobs = [push('1'), push('2'), push('3', { key: 'b' }), push('4', { items: 3 }), push('5')];
    await endAll();
    await Promise.all(jobs);
    expect(calls).toEqual([['1'], ['2', '4'], ['3'], ['5']]);
  });

  test('parts of long requests leave a call to requests with one job', async () => {
    const { calls, push, endAll } = heldQueue({ concurrency: 3, maxItems: 1 });
    const long = [0, 1].map(() => new Caller());
    const jobs = long.flatMap((caller, i) => [1, 2].map((at) => push(`${i}.${at}`, { caller, more: true })));
    expect(calls).toHaveLength(2);
    jobs.push(push('single'));
    expect(calls).toHaveLength(3);
    expect(calls[2]).toEqual(['single']);
    await endAll();
    await Promise.all(jobs);
    expect(calls).toHaveLength(5);
  });

  test('has as many requests waiting as have not begun, however many jobs they have', async () => {
    const { queue, push, endAll } = heldQueue();
    const [long, short] = [new Caller(), new Caller()];
    const jobs = [
      push('1', { caller: long, more: true }),
      push('2', { caller: long, more: true, later: true }),
      push('3', { caller: short }),
    ];
    expect(queue.length).toBe(1);
    await endAll();
    await Promise.all(jobs);
    expect(queue.length).toBe(0);
  });

  test('joins no jobs into a call that would be long', async () => {
    const { calls, push, endAll } = heldQueue({ longestJoinedMs: 0 });
    const first = push('1');
    await new Promise((later) => setTimeout(later, 2));
    await endAll();
    await first;
    const jobs = ['2', '3', '4'].map((work) => push(work));
    await endAll();
    await Promise.all(jobs);
    expect(calls).toEqual([['1'], ['2'], ['3'], ['4']]);
  });

  test('serves priorities first and models fairly', async () => {
    const { calls, push, endAll } = heldQueue({ maxItems: 1 });
    const jobs = [push('a1'), push('a2'), push('a3')];
    jobs.push(push('b1', { model: 'b', key: 'b' }), push('urgent', { priority: 1 }));
    await endAll();
    await Promise.all(jobs);
    expect(calls.flat()).toEqual(['a1', 'urgent', 'b1', 'a2', 'a3']);
  });

  test('refuses what is too much, lets go of what nobody waits for, and drains', async () => {
    const { queue, calls, push, endAll } = heldQueue({ capacity: 2 });
    const first = push('1');
    const caller = new Caller();
    const left = push('2', { caller });
    const third = push('3');
    expect(() => push('4')).toThrow(
      expect.objectContaining({ code: 'BUSY', options: { retryAfter: expect.any(Number) } }),
    );
    caller.disconnect();
    await expect(left).rejects.toBe(caller.reason);
    const drained = queue.drain();
    expect(() => push('5')).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
    await endAll();
    await Promise.all([first, third, drained]);
    expect(calls.flat()).toEqual(['1', '3']);
  });
});

describe('clients', () => {
  // Calls take equal times.
  beforeEach(() => {
    jest.spyOn(performance, 'now').mockImplementation(() => clock);
  });
  afterEach(() => jest.restoreAllMocks());

  const callerOf = (client: string) => new Caller({ client, group: '', rights: new Set() });

  test('have equal shares of the engine, by the items that they run', async () => {
    const { calls, push, endAll } = heldQueue({ maxItems: 1 });
    const jobs = ['a', 'b', 'c'].flatMap((client) =>
      Array.from({ length: 5 }, (_, i) => push(`${client}${i}`, { items: 500, caller: callerOf(client) })),
    );
    jobs.push(push('honest', { caller: callerOf('d') }));
    await endAll();
    await Promise.all(jobs);
    // One job of each client runs before the second of any.
    expect(calls.flat().slice(0, 4).sort()).toEqual(['a0', 'b0', 'c0', 'honest']);
  });

  test('that come back have no claim to what they did not use', async () => {
    const { calls, push, endAll } = heldQueue({ maxItems: 1 });
    const run = async (client: string, count: number) => {
      const jobs = Array.from({ length: count }, (_, i) =>
        push(`${client}${i}`, { items: 100, caller: callerOf(client) }),
      );
      await endAll();
      await Promise.all(jobs);
    };
    await run('a', 10);
    calls.splice(0);
    const jobs = [push('a', { caller: callerOf('a') })];
    for (let i = 0; i < 5; i++) jobs.push(push(`new${i}`, { caller: callerOf('new') }));
    for (let i = 0; i < 2; i++) jobs.push(push(`a${i}`, { caller: callerOf('a') }));
    await endAll();
    await Promise.all(jobs);
    expect(calls.flat().indexOf('a0')).toBeLessThan(calls.flat().indexOf('new4'));
  });

  test('give places in a full queue to those who have fewer', async () => {
    const { queue, calls, push, endAll } = heldQueue({ capacity: 4, maxItems: 1 });
    const greedy = Array.from({ length: 5 }, (_, i) =>
      push(`${i}`, { caller: callerOf('greedy') }).catch(({ code }) => code),
    );
    expect(() => push('5', { caller: callerOf('greedy') })).toThrow(
      expect.objectContaining({ code: 'BUSY' }),
    );
    expect(queue.retryAfter('greedy')).toBeGreaterThan(0);
    expect(queue.retryAfter('honest')).toBeUndefined();
    const honest = [1, 2].map((i) => push(`honest ${i}`, { caller: callerOf('honest') }));
    expect(() => push('honest 3', { caller: callerOf('honest') })).toThrow(
      expect.objectContaining({ code: 'BUSY' }),
    );
    await endAll();
    expect(await Promise.all(greedy)).toEqual([undefined, undefined, undefined, 'BUSY', 'BUSY']);
    await Promise.all(honest);
    expect(calls.flat()).toHaveLength(5);
  });
});

describe('the depth controller', () => {
  const calm: Load = {
    ...{ now: 0, queued: 0, ageMs: 0, p99Ms: 1, itemsPerSecond: 100, maxItems: 1, calls: 2 },
    itemMs: (setting) => [4, 3, 2][setting],
  };
  const overloaded: Load = { ...calm, queued: 50, ageMs: 15, p99Ms: 19, itemsPerSecond: 900 };

  test('goes bolder step by step while the target is in danger, never beyond what is allowed', () => {
    const controller = new DepthController({ targetP99Ms: 20 });
    const taken = Array.from(
      { length: 10 },
      (_, i) => controller.tick({ ...calm, ageMs: 10, now: 1000 + 200 * i }, 2).setting,
    );
    expect(taken.slice(0, 3)).toEqual([1, 2, 2]);
    expect(Math.max(...taken)).toBe(2);
    expect(controller.tick({ ...overloaded, now: 4000 }, 0).setting).toBe(0);
  });

  test('is as bold as allowed at once when the target is almost missed', () => {
    const controller = new DepthController({ targetP99Ms: 20 });
    expect(controller.tick({ ...overloaded, now: 1000 }, 2).setting).toBe(2);
  });

  test('returns to full depth one step at a time while the load is moderate, and at once when it has gone', () => {
    const steps = (itemsPerSecond: number) => {
      const controller = new DepthController({ targetP99Ms: 20 }, 2);
      const taken = Array.from(
        { length: 60 },
        (_, i) => controller.tick({ ...calm, itemsPerSecond, now: 100 * i }, 2).setting,
      );
      return taken.filter((setting, i) => setting !== taken[i - 1]);
    };
    // 4 ms each on two threads: 50 % of them, and 20 %.
    expect(steps(250)).toEqual([1, 0]);
    expect(steps(100)).toEqual([0]);
  });

  test('returns to full depth when the load has gone, whatever an item took in it under load', () => {
    const controller = new DepthController({ targetP99Ms: 100 });
    controller.tick({ ...overloaded, now: 1000 }, 2);
    // 20 ms each on two threads: 100 items a second would take all of them.
    const itemMs = (setting: number) => [20, 3, 2][setting];
    for (let now = 1100; now < 4000; now += 100) controller.tick({ ...calm, itemMs, now }, 2);
    expect(controller.setting).toBe(0);
  });

  test('a high latency on idle threads counts only where the runs or the queue explain it', () => {
    const settingAt = (load: Partial<Load>) =>
      new DepthController({ targetP99Ms: 50 }).tick({ ...calm, now: 1000, ...load }, 2).setting;
    expect(settingAt({ p99Ms: 45 })).toBe(0);
    expect(settingAt({ p99Ms: 45, itemsPerSecond: 300 })).toBe(2);
    expect(settingAt({ p99Ms: 45, maxItems: 8 })).toBe(2);
    expect(settingAt({ p99Ms: 45, itemMs: () => undefined })).toBe(2);
    expect(settingAt({ ageMs: 45 })).toBe(2);
    expect(settingAt({ queued: 20 })).toBe(2);
  });

  test('stays where a more careful setting would not bear the load', () => {
    const controller = new DepthController({ targetP99Ms: 20 }, 2);
    // 3 ms each on two threads: 500 items a second would take 75 % of them.
    for (let now = 0; now < 20_000; now += 100) controller.tick({ ...calm, itemsPerSecond: 500, now }, 2);
    expect(controller.setting).toBe(2);
  });

  test('does not return to a setting at a load that was too much for it, for a while', () => {
    const controller = new DepthController({ targetP99Ms: 20 });
    controller.tick({ ...calm, ageMs: 10, itemsPerSecond: 300, now: 0 }, 1);
    const at = (now: number, itemsPerSecond: number) =>
      controller.tick({ ...calm, itemsPerSecond, now }, 1).setting;
    expect(at(20_000, 290)).toBe(1);
    expect(at(20_100, 200)).toBe(0);
    controller.tick({ ...calm, ageMs: 10, itemsPerSecond: 300, now: 30_000 }, 1);
    expect(at(59_000, 290)).toBe(1);
    expect(at(61_000, 290)).toBe(0);
  });

  test('does not flutter: the way back becomes slower each time it had to be undone', () => {
    const controller = new DepthController({ targetP99Ms: 20 });
    const changes: number[] = [];
    let before = 0;
    // A load that the careful setting can't bear, and that looks bearable from the bold one.
    for (let now = 0; now < 120_000; now += 50) {
      const load = controller.setting === 0 ? { ...overloaded, now } : { ...calm, now };
      const { setting } = controller.tick(load, 1);
      if (setting !== before) changes.push(now);
      before = setting;
    }
    const early = changes.filter((at) => at < 20_000).length;
    const late = changes.filter((at) => at >= 100_000).length;
    expect(late).toBeLessThan(early / 2);
  });

  test('follows a queue length where that is the target', () => {
    const controller = new DepthController({ targetQueue: 10 });
    expect(controller.tick({ ...calm, queued: 5, now: 1000 }, 1).setting).toBe(0);
    expect(controller.tick({ ...calm, queued: 11, now: 2000 }, 1)).toEqual({
      setting: 1,
      reason: '11 requests wait',
    });
  });
});

describe('the lobby', () => {
  const nobody = () => {};
  const full = (targetMs?: number) => {
    const room = new Set<string>();
    const retryAfter = (client: string) => (room.has(client) ? undefined : 3);
    const queue = {
      retryAfter,
      isHalfEmpty: false,
      onRoom: undefined as (() => void) | undefined,
    };
    return { room, queue, lobby: new Lobby(queue, targetMs) };
  };

  test('lets in one request for each place, the oldest for which there is room', async () => {
    const { room, queue, lobby } = full();
    expect(lobby.retryAfter('a')).toBe(3);
    const entered: string[] = [];
    const wait = async (name: string, client: string) => {
      if (await lobby.wait({}, client, nobody)) entered.push(name);
    };
    const all = [wait('a1', 'a'), wait('b1', 'b'), wait('b2', 'b')];
    room.add('b');
    for (const expected of [['b1'], ['b1', 'b2'], ['b1', 'b2']]) {
      queue.onRoom!();
      await new Promise(setImmediate);
      expect(entered).toEqual(expected);
    }
    room.add('a');
    // Those that wait come before others of the same client.
    expect(['a', 'b'].map((client) => lobby.retryAfter(client))).toEqual([1, undefined]);
    queue.isHalfEmpty = true;
    expect(lobby.retryAfter('a')).toBeUndefined();
    queue.onRoom!();
    await Promise.all(all);
    expect(lobby.size).toBe(0);
  });

  test('has one request of a connection, as long as its client is there, for a second', async () => {
    const { lobby } = full();
    const connection = {};
    let leave = nobody;
    const left = lobby.wait(connection, 'a', (given) => {
      leave = given;
    });
    expect(await lobby.wait(connection, 'a', nobody)).toBe(false);
    leave();
    expect(await left).toBe(false);
    jest.useFakeTimers();
    const late = lobby.wait(connection, 'a', nobody);
    jest.advanceTimersByTime(1000);
    expect(await late).toBe(false);
    jest.useRealTimers();
    expect(lobby.size).toBe(0);
  });

  test('has none for longer than the target of the latency', async () => {
    const { lobby } = full(50);
    jest.useFakeTimers();
    const late = lobby.wait({}, 'a', nobody);
    jest.advanceTimersByTime(49);
    expect(lobby.size).toBe(1);
    jest.advanceTimersByTime(1);
    expect(await late).toBe(false);
    jest.useRealTimers();
  });
});
