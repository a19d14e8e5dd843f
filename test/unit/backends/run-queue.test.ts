import { RunQueue } from 'lib/backends/run-queue.js';

/** A run that writes down what becomes of it. On workers it ends when `end` is called. */
function recorded(log: string[], name: string, { longestMs = 1, mayBeHere = true } = {}) {
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const run = {
    longestMs,
    mayBeHere,
    here: () => {
      log.push(`${name} here`);
    },
    there: () => {
      log.push(`${name} there`);
      return ended;
    },
  };
  return { run, end };
}

/** Workers that write down what they hear. */
function workers(threads: number, spareCore: boolean, log: string[] = []) {
  return {
    threads,
    spareCore,
    awaitEnd: (microseconds: number) => {
      log.push(`waits ${Math.round(microseconds)}`);
    },
    expectCaller: (comes: boolean) => {
      log.push(comes ? 'caller expected' : 'caller not expected');
    },
  };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('a run queue without a spare core', () => {
  it('executes a short run that is alone on the calling thread, in a turn of its own', async () => {
    const log: string[] = [];
    const queue = new RunQueue(workers(2, false));
    const done = queue.run(recorded(log, 'a').run);
    await Promise.resolve();
    expect(log).toEqual([]);
    await done;
    expect(log).toEqual(['a here']);
  });

  it('executes tiny runs together in one turn, up to the time of a short run', async () => {
    const log: string[] = [];
    const queue = new RunQueue(workers(2, false));
    const tiny = Array.from({ length: 100 }, (_, i) => recorded(log, `${i}`, { longestMs: 0.03 }));
    const runs = tiny.map(({ run }) => queue.run(run));
    const after = turn().then(() => log.push('turn'));
    await Promise.resolve();
    // One as usual, in a turn of its own; the others are left to workers.
    expect(log).toEqual(Array.from({ length: 33 }, (_, i) => `${67 + i} there`));
    await after;
    expect(log.slice(33)).toEqual([...Array.from({ length: 67 }, (_, i) => `${i} here`), 'turn']);
    for (const { end } of tiny) end();
    await Promise.all(runs);
  });

  it('executes tiny runs before the program is released', async () => {
    const log: string[] = [];
    const queue = new RunQueue(workers(2, false));
    const done = queue.run(recorded(log, 'a', { longestMs: 0.01 }).run);
    queue.handOver();
    expect(log).toEqual(['a here']);
    await done;
  });

  it.each([{ longestMs: 5 }, { longestMs: Number.POSITIVE_INFINITY }, { mayBeHere: false }])(
    'leaves others to the workers, at once: %j',
    async (options) => {
      const log: string[] = [];
      const { run, end } = recorded(log, 'a', options);
      const done = new RunQueue(workers(2, false)).run(run);
      expect(log).toEqual(['a there']);
      end();
      await done;
    },
  );

  it('executes one of several with few workers, and is expected until nothing more comes', async () => {
    const log: string[] = [];
    const queue = new RunQueue(workers(2, false, log));
    const others = ['b', 'c', 'd'].map((name) =>
      recorded(log, name, { longestMs: Number.POSITIVE_INFINITY }),
    );
    const all = [queue.run(recorded(log, 'a').run), ...others.map(({ run }) => queue.run(run))];
    expect(log).toEqual(['caller expected', 'b there', 'c there', 'd there']);
    await all[0];
    expect(log.slice(4)).toEqual(['a here']);
    await queue.run(recorded(log, 'e').run);
    expect(log.slice(5)).toEqual(['e here']);
    await turn();
    await turn();
    expect(log.slice(6)).toEqual(['caller not expected']);
    for (const { end } of others) end();
    await Promise.all(all);
    await queue.run(recorded(log, 'f').run);
    expect(log.slice(7)).toEqual(['f here']);
  });

  it.each([1, 5])('leaves several to %d workers, the one that waits first', async (threads) => {
    const log: string[] = [];
    const queue = new RunQueue(workers(threads, false, log));
    const [a, b] = [recorded(log, 'a'), recorded(log, 'b')];
    const both = Promise.all([queue.run(a.run), queue.run(b.run)]);
    await turn();
    expect(log).toEqual(['a there', 'b there']);
    const c = recorded(log, 'c');
    const third = queue.run(c.run);
    await turn();
    expect(log.at(-1)).toBe('c there');
    for (const each of [a, b, c]) each.end();
    await Promise.all([both, third]);
    await queue.run(recorded(log, 'd').run);
    expect(log.at(-1)).toBe('d here');
  });

  describe('beside a run on a worker', () => {
    let clock: jest.SpyInstance;
    beforeEach(() => {
      clock = jest.spyOn(process, 'hrtime').mockReturnValue([0, 100e6]);
    });
    afterEach(() => clock.mockRestore());

    /** Run b on a worker, which should take so long, then a, and at a time of the clock one turn of the event loop. */
    async function twoRuns(longestMs: number, now: number) {
      const log: string[] = [];
      const queue = new RunQueue(workers(2, false, log));
      const [a, b] = [recorded(log, 'a'), recorded(log, 'b', { longestMs, mayBeHere: false })];
      const both = Promise.all([queue.run(b.run), queue.run(a.run)]);
      clock.mockReturnValue([0, now * 1e6]);
      await turn();
      return { log, end: b.end, both };
    }

    it.each([
      { longestMs: 1, now: 100.95, microseconds: 150 },
      { longestMs: 1, now: 101.05, microseconds: 50 },
    ])('waits for its end if that is due: %j', async ({ longestMs, now, microseconds }) => {
      const { log, end, both } = await twoRuns(longestMs, now);
      expect(log).toEqual(['b there', 'caller expected', `waits ${microseconds}`]);
      end();
      await both;
      expect(log.slice(3)).toEqual(['a here']);
    });

    it.each([
      { longestMs: 1, now: 100.5 },
      { longestMs: 1, now: 101.5 },
      { longestMs: Number.POSITIVE_INFINITY, now: 101 },
    ])('does not wait otherwise: %j', async ({ longestMs, now }) => {
      const { log, end, both } = await twoRuns(longestMs, now);
      expect(log).toEqual(['b there', 'caller expected', 'a here']);
      end();
      await both;
    });
  });

  it('gives a turn of the event loop to one run only, whoever asks', async () => {
    const log: string[] = [];
    const [a, b] = [recorded(log, 'a'), recorded(log, 'b')];
    const both = Promise.all([
      new RunQueue(workers(2, false)).run(a.run),
      new RunQueue(workers(2, false)).run(b.run),
    ]);
    await turn();
    expect(log).toEqual(['b there', 'a here']);
    b.end();
    await both;
  });

  it('lets timers and other callbacks in between', async () => {
    const log: string[] = [];
    const queue = new RunQueue(workers(2, false));
    const timer = setInterval(() => log.push('timer'), 1);
    while (log.filter((each) => each === 'timer').length < 3) await queue.run(recorded(log, 'a').run);
    clearInterval(timer);
    expect(log).toContain('a here');
    expect(log).not.toContain('a there');
  });

  it('hands the waiting run over when asked to, and waits for it', async () => {
    const log: string[] = [];
    const queue = new RunQueue(workers(2, false));
    const a = recorded(log, 'a');
    const done = queue.run(a.run);
    queue.handOver();
    queue.handOver();
    await turn();
    expect(log).toEqual(['a there']);
    a.end();
    await done;
    await queue.run(recorded(log, 'b').run);
    expect(log).toEqual(['a there', 'b here']);
  });

  it('passes errors on, and goes on', async () => {
    const log: string[] = [];
    const queue = new RunQueue(workers(2, false));
    const { run } = recorded(log, 'a');
    const here = () => {
      throw new Error('here');
    };
    await expect(queue.run({ ...run, here })).rejects.toThrow('here');
    const there = () => Promise.reject(new Error('there'));
    await expect(queue.run({ ...run, mayBeHere: false, there })).rejects.toThrow('there');
    await queue.run(run);
    expect(log).toEqual(['a here']);
  });
});

describe('a run queue with a spare core', () => {
  it('executes a short run that is alone on the calling thread, and leaves several to the workers', async () => {
    for (const threads of [1, 2]) {
      const log: string[] = [];
      const queue = new RunQueue(workers(threads, true, log));
      const alone = queue.run(recorded(log, 'a').run);
      await turn();
      expect(log).toEqual(['a here']);
      await alone;
      const [b, c] = [recorded(log, 'b'), recorded(log, 'c')];
      const both = [queue.run(b.run), queue.run(c.run)];
      expect(log.slice(1)).toEqual(['b there', 'c there']);
      for (const { end } of [b, c]) end();
      await Promise.all(both);
    }
  });

  it('leaves other runs to the workers, and the event loop sleeps meanwhile', async () => {
    for (const other of [{ longestMs: 1, mayBeHere: false }, { longestMs: 30 }]) {
      const timers = [jest.spyOn(globalThis, 'setImmediate'), jest.spyOn(globalThis, 'setTimeout')];
      const log: string[] = [];
      const { run, end } = recorded(log, 'a', other);
      const done = new RunQueue(workers(1, true, log)).run(run);
      for (const timer of timers) {
        expect(timer).not.toHaveBeenCalled();
        timer.mockRestore();
      }
      expect(log).toEqual(['a there']);
      end();
      await done;
    }
  });
});
