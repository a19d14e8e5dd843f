import type { Drift } from 'lib/audit/drift-monitor.js';
import { type Watch, watch } from 'lib/audit/watch.js';
import type { WatchOptions } from 'lib/audit/watch-options.js';
import type { RunEvent, SessionControl, TensorMap } from 'lib/skip/observer.js';
import type { Metric, Promised } from 'lib/skip/promise.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { runContext, runEvent } from '../../helpers/run-event.js';

/** A session whose full network always answers with class 1. */
class FakeSession implements SessionControl {
  fullDepth = false;
  runs = 0;
  async runAgain(): Promise<TensorMap> {
    throw new Error('not asked for');
  }

  async runFull(_: TensorMap): Promise<TensorMap> {
    this.runs++;
    return { logits: new Tensor('float32', Float32Array.of(0, 1), [1, 2]) };
  }
  setFullDepth(on: boolean): void {
    this.fullDepth = on;
  }
}

const context = runContext();
/** A skipped run that answers with `answer`. */
function skipped(answer: number) {
  const event = runEvent(context, [[1, -1, 1]]);
  const logits = new Tensor('float32', Float32Array.of(1 - answer, answer), [1, 2]);
  return { ...event, outputs: { logits } };
}

const promiseOf = (metric: Metric, limit: number): Promised => ({
  ...{ metric, limit, confidence: 0.95, items: 1000, events: 0, risk: 0, pValue: 0.01, upperBound: limit },
  data: { sha256: 'f'.repeat(64), seed: 1, fit: 0, order: 100, certify: 1000 },
});

test('answers that differ trip the session to full depth, once, and rearm undoes it', async () => {
  const session = new FakeSession();
  const monitor = watch({ shadow: 1, maxDisagreement: 0.05 });
  const trips: unknown[] = [];
  monitor.on('trip', (stats) => trips.push(stats));
  monitor.onAttach(session);
  for (let i = 0; i < 60 && !session.fullDepth; i++) {
    monitor.onRun(skipped(i % 2));
    await monitor.settled();
  }
  expect(session.fullDepth).toBe(true);
  expect(trips).toHaveLength(1);
  expect(monitor.stats().watch.disagreement[0]).toBeGreaterThan(0.05);
  const { runs } = session;
  monitor.onRun(skipped(0));
  await monitor.settled();
  expect(session.runs).toBe(runs);
  monitor.rearm();
  expect(session.fullDepth).toBe(false);
  expect(monitor.stats().watch).toMatchObject({ checks: 0, tripped: false, armings: 2 });
});

test('answers that agree never trip', async () => {
  const session = new FakeSession();
  const monitor = watch({ shadow: 1 });
  monitor.onAttach(session);
  for (let i = 0; i < 200; i++) {
    monitor.onRun(skipped(1));
    await monitor.settled();
  }
  expect(monitor.stats().watch).toMatchObject({ checks: 200, disagreements: 0, tripped: false });
});

test("'warn' leaves the session as it is", async () => {
  const session = new FakeSession();
  const monitor = watch({ shadow: 1, onTrip: 'warn' });
  monitor.onAttach(session);
  const tripped = new Promise((resolve) => monitor.once('trip', resolve));
  for (let i = 0; i < 20; i++) {
    monitor.onRun(skipped(0));
    await monitor.settled();
  }
  await tripped;
  expect(session.fullDepth).toBe(false);
});

test('an item that ran in full is not run again, and counts as agreeing', async () => {
  const session = new FakeSession();
  const monitor = watch({ shadow: 1 });
  monitor.onAttach(session);
  monitor.onRun(runEvent(context, [[1, 1, 1]]));
  await monitor.settled();
  expect(session.runs).toBe(0);
  expect(monitor.stats().watch).toMatchObject({ checks: 1, disagreements: 0 });
});

test('an item that another monitor had run in full says nothing', async () => {
  const monitor = watch({ shadow: 1 });
  monitor.onAttach(new FakeSession());
  const event = runEvent(context, [[1, 1, 1]]);
  const [item] = event.trace.items;
  const tripped = { ...item!, inFull: 'tripped' as const };
  monitor.onRun({ ...event, trace: { ...event.trace, items: [tripped] } });
  await monitor.settled();
  expect(monitor.stats().watch.checks).toBe(0);
});

test("runs with a policy of their own say nothing about the session's promise, but count for a limit of the caller's", async () => {
  const promise = promiseOf('disagreement', 0.05);
  for (const [maxDisagreement, items] of [
    [undefined, 1],
    [0.05, 3],
  ]) {
    const monitor = watch({ shadow: 1, maxDisagreement });
    monitor.onAttach(Object.assign(new FakeSession(), { policy: context.policy, promise }));
    monitor.onRun(runEvent({ ...context, policy: { default: 'run', blocks: {} } }, [[1, 1, 1]]));
    monitor.onRun({ ...skipped(0), context: { ...context, policy: { blocks: {} } } });
    monitor.onRun(skipped(1));
    await monitor.settled();
    expect(monitor.stats().watch).toMatchObject({ items, checks: items });
  }
});

test('an exit behind the last block answers for itself, and is checked', async () => {
  const session = new FakeSession();
  const monitor = watch({ shadow: 1 });
  monitor.onAttach(session);
  monitor.onRun(cameToExit(0.95, true));
  await monitor.settled();
  expect(session.runs).toBe(1);
});

test('of a stream that is too fast, what is let go does not depend on what it did', async () => {
  const monitor = watch({ shadow: 1 });
  monitor.onAttach(new FakeSession());
  for (let i = 0; i < 100; i++) monitor.onRun(i % 2 ? skipped(1) : runEvent(context, [[1, 1, 1]]));
  await monitor.settled();
  expect(monitor.stats().watch).toMatchObject({ items: 100, checks: 16 });
});

test('it belongs to one session at a time', async () => {
  const monitor = watch({ shadow: 1 });
  monitor.onAttach(new FakeSession());
  expect(() => monitor.onAttach(new FakeSession())).toThrow(/another session/);
  await monitor.onRelease();
  monitor.onAttach(new FakeSession());
});

test('listeners that throw become warnings; the monitor goes on', async () => {
  const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const session = new FakeSession();
  const monitor = watch({ shadow: 1, window: 50 });
  monitor.onAttach(session);
  monitor.on('trip', () => {
    throw new Error('broken alarm');
  });
  monitor.on('drift', () => {
    throw new Error('broken chart');
  });
  for (let i = 0; i < 20; i++) {
    monitor.onRun(skipped(0));
    await monitor.settled();
  }
  expect(monitor.stats().watch).toMatchObject({ tripped: true, failures: 0 });
  expect(session.fullDepth).toBe(true);
  expect(warned.mock.calls.map(([text]) => text)).toEqual([expect.stringContaining('broken alarm')]);
  // Two windows in one batch, and the rest of the batch behind the second.
  monitor.onRun(
    runEvent(
      context,
      Array.from({ length: 120 }, (_, i) => [i < 30 ? 1 : 5, 1, 1]),
    ),
  );
  expect(warned.mock.calls.at(-1)![0]).toContain('broken chart');
  expect(monitor.stats().watch.items).toBe(140);
  warned.mockRestore();
});

test('scores that move raise drift; scores that stay do not', () => {
  const monitor = watch({ shadow: 0, window: 100 });
  const drifts: string[][] = [];
  monitor.on('drift', (blocks) => drifts.push(blocks.map(({ block }) => block)));
  const window = (shift: number) => {
    for (let i = 0; i < 100; i++)
      monitor.onRun(runEvent(context, [[Math.sin(i), Math.cos(i), Math.sin(i) + shift]]));
  };
  window(0);
  window(0);
  expect(drifts).toEqual([]);
  window(1);
  expect(drifts).toEqual([['block2']]);
});

/** A run of an item that came to the exit behind block 0, and may have left there. */
function cameToExit(score: number, taken: boolean) {
  const event = runEvent(context, [[1, 1, 1]]);
  const [item] = event.trace.items;
  const exits = [{ after: 'block0', score, threshold: 0.9, taken }];
  const blocks = item!.blocks.map((block) => ({ ...block, score: null, threshold: null }));
  return { ...event, trace: { ...event.trace, items: [{ ...item!, blocks, exits }] } };
}

/** The drift in windows of 100 that raise one, of `rounds` windows of items. */
function driftsOf(monitor: Watch, rounds: number, item: (i: number, round: number) => RunEvent): Drift[][] {
  const drifts: Drift[][] = [];
  monitor.on('drift', (drift) => drifts.push([...drift]));
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < 100; i++) monitor.onRun(item(i, round));
  }
  return drifts;
}

test('confidences of exits that move raise drift', () => {
  const monitor = watch({ shadow: 0, window: 100 });
  const drifts = driftsOf(monitor, 3, (i, round) => cameToExit(round < 2 ? i / 100 : i / 200, false));
  expect(drifts).toEqual([[expect.objectContaining({ kind: 'exit', block: 'block0', skipRate: 0 })]]);
  expect(drifts[0]![0]!.psi).toBeGreaterThan(0.25);
});

test('a skip rate that moves raises drift where the scores stay', () => {
  const exitScores = { block0: { edges: [0.5], shares: [0.5, 0.5], skipRate: 0.1 } };
  const monitor = watch({ shadow: 0, window: 100, exitScores });
  const drifts = driftsOf(monitor, 2, (i, round) => cameToExit(i / 100, i < (round === 0 ? 10 : 40)));
  expect(drifts).toHaveLength(1);
  const [{ psi, skipRatePsi, skipRate }] = drifts[0]! as [Drift];
  expect(psi).toBeCloseTo(0, 12);
  expect(skipRate).toBe(0.4);
  expect(skipRatePsi).toBeCloseTo(0.3 * Math.log(4) - 0.3 * Math.log(6 / 9), 12);
});

test.each([
  [{ profile: {} }, "unknown key 'profile'; it is called 'scores' now"],
  [{ exitProfile: {} }, "unknown key 'exitProfile'; it is called 'exitScores' now"],
])('an old name %j', (options, message) => {
  expect(() => watch(options as WatchOptions)).toThrow(message);
});

test('few scores in a window are no drift by chance', () => {
  const gate = { block0: { edges: [0, 1, 2], shares: [0.25, 0.25, 0.25, 0.25], skipRate: 0.5 } };
  const monitor = watch({ shadow: 0, window: 100, scores: gate });
  // One item of the window had its gate asked, all came to an exit.
  const asked = runEvent(context, [[5, 5, 5]]);
  const drifts = driftsOf(monitor, 1, (i) => (i === 0 ? asked : cameToExit(0.5, false)));
  expect(monitor.stats().watch.drift).toHaveLength(1);
  expect(drifts).toEqual([]);
});

test('a shadow run that fails is counted, and said once', async () => {
  const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const monitor = watch({ shadow: 1 });
  monitor.onAttach({
    runAgain: async () => ({}),
    runFull: async () => {
      throw new Error('no');
    },
    setFullDepth: () => {},
  });
  for (let i = 0; i < 2; i++) monitor.onRun(skipped(0));
  await monitor.settled();
  expect(monitor.stats().watch).toMatchObject({ failures: 2, checks: 0 });
  const texts = warned.mock.calls.map(([text]) => text);
  warned.mockRestore();
  expect(texts).toEqual(["watch() couldn't check an item, and counts it among the failures: no"]);
});

test('misspelt options are refused', () => {
  expect(() => watch({ shadwo: 1 } as never)).toThrow(/shadwo.*shadow/);
});

test('a model without class scores is reported once, and its drift is watched all the same', () => {
  const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const monitor = watch({ shadow: 1, window: 50 });
  monitor.onAttach(new FakeSession());
  const event = runEvent({ ...context, classScores: null }, [[1, -1, 1]]);
  for (let i = 0; i < 100; i++) monitor.onRun(event);
  expect(warned.mock.calls).toEqual([
    [expect.stringContaining('no output of class scores'), expect.anything()],
  ]);
  expect(monitor.stats().watch).toMatchObject({ items: 100, checks: 0, drift: [{}, {}, {}] });
  warned.mockRestore();
});

describe('by default, what the policy promises is tested', () => {
  /** A session with this promise, whose full network answers with the outputs given. */
  class Promising extends FakeSession {
    constructor(
      readonly promise: Promised | undefined,
      readonly full: readonly number[] = [0, 1],
    ) {
      super();
    }
    override async runFull(): Promise<TensorMap> {
      return { logits: new Tensor('float32', Float32Array.from(this.full), [1, 2]) };
    }
  }

  /** Watches items with these scores, of which every `period`-th has `odd` ones. */
  async function watched(session: Promising, checks: number, period: number, odd = [1, 0], options = {}) {
    const monitor = watch({ shadow: 1, ...options });
    monitor.onAttach(session);
    for (let i = 1; i <= checks && !session.fullDepth; i++) {
      const scores = Float32Array.from(i % period === 0 ? odd : session.full);
      monitor.onRun({ ...skipped(0), outputs: { logits: new Tensor('float32', scores, [1, 2]) } });
      await monitor.settled();
    }
    return monitor.stats().watch;
  }

  test('a policy that changes 5 % of the answers, as it may, is left alone; one that may change 1 % is not', async () => {
    const kept = await watched(new Promising(promiseOf('disagreement', 0.06)), 2000, 20);
    expect(kept).toMatchObject({ metric: 'disagreement', limit: 0.06, tripped: false, disagreements: 100 });
    const broken = await watched(new Promising(promiseOf('disagreement', 0.01)), 2000, 20);
    expect(broken).toMatchObject({ limit: 0.01, tripped: true });
    expect(await watched(new Promising(undefined), 1, 20)).toMatchObject({ limit: 0.01 });
  });

  test('the rate that the options allow comes first', async () => {
    const session = new Promising(promiseOf('probability', 0.2));
    const stats = await watched(session, 2000, 20, [1, 0], { maxDisagreement: 0.02 });
    expect(stats).toMatchObject({ metric: 'disagreement', limit: 0.02, tripped: true });
  });

  test('how far probabilities move', async () => {
    // Probabilities of 0.5 instead of 1 / (1 + e) and e / (1 + e): a loss of 0.231, where the answer stays the same.
    const loss = Math.E / (1 + Math.E) - 0.5;
    const stats = await watched(new Promising(promiseOf('probability', 0.05)), 400, 1, [1, 1]);
    expect(stats).toMatchObject({ metric: 'probability', limit: 0.05, tripped: true });
    expect(stats.disagreements / stats.checks).toBeCloseTo(loss, 6);
    expect(await watched(new Promising(promiseOf('probability', 0.25)), 400, 1, [1, 1])).toMatchObject({
      tripped: false,
    });
  });

  test('how far vectors turn, of which the most is 2', async () => {
    // Every tenth is turned round: a mean distance of 0.2.
    const stats = await watched(new Promising(promiseOf('cosine', 0.1)), 2000, 10, [0, -1]);
    expect(stats).toMatchObject({ metric: 'cosine', limit: 0.1, tripped: true });
    const kept = await watched(new Promising(promiseOf('cosine', 0.21)), 1000, 10, [0, -1]);
    expect(kept).toMatchObject({ tripped: false, disagreements: 200 });
    expect(kept.disagreement[0]).toBeLessThan(0.2);
    expect(kept.disagreement[1]).toBeGreaterThan(0.2);
    const relative = await watched(new Promising(promiseOf('relative', 0.05), [0, 2]), 1000, 10, [0, 1]);
    expect(relative).toMatchObject({ metric: 'relative', tripped: false, disagreements: 50 });
  });

  test('what takes labels or neighbours to test is said, and drift is watched', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const texts = () => warned.mock.calls.splice(0).map(([text]) => String(text));
    expect(await watched(new Promising(promiseOf('accuracy', 0.01)), 300, 2)).toMatchObject({
      ...{ metric: 'disagreement', limit: null, checks: 300, disagreements: 150, tripped: false },
    });
    expect(texts()).toEqual([
      expect.stringMatching(/tests no promise: .*accuracy, which needs labels; give maxD/),
    ]);
    const session = new Promising(promiseOf('accuracy', 0.01));
    expect(await watched(session, 300, 2, [1, 0], { maxDisagreement: 0.01 })).toMatchObject({
      tripped: true,
    });
    expect(texts()).toEqual([]);
    expect(await watched(new Promising(promiseOf('recall@10', 0.01)), 300, 2)).toMatchObject({ checks: 0 });
    expect(texts()).toEqual([
      expect.stringMatching(/checks no answers: .*'recall@10' that the policy promises/),
    ]);
    warned.mockRestore();
  });

  test('a limit of 0 allows nothing, and one of 1 everything', async () => {
    expect(await watched(new Promising(promiseOf('disagreement', 0)), 20, 20)).toMatchObject({
      tripped: true,
    });
    expect(await watched(new Promising(promiseOf('disagreement', 1)), 500, 2)).toMatchObject({
      tripped: false,
    });
  });
});
