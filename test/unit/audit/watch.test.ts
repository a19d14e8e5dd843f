import type { Drift } from 'lib/audit/drift-monitor.js';
import { type Watch, watch } from 'lib/audit/watch.js';
import type { RunEvent, SessionControl, TensorMap } from 'lib/skip/observer.js';
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
  const blocks = item!.blocks.map((block) => ({ ...block, reason: 'tripped' as const }));
  monitor.onRun({ ...event, trace: { ...event.trace, items: [{ ...item!, blocks }] } });
  await monitor.settled();
  expect(monitor.stats().watch.checks).toBe(0);
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
  const exitProfile = { block0: { edges: [0.5], shares: [0.5, 0.5], skipRate: 0.1 } };
  const monitor = watch({ shadow: 0, window: 100, exitProfile });
  const drifts = driftsOf(monitor, 2, (i, round) => cameToExit(i / 100, i < (round === 0 ? 10 : 40)));
  expect(drifts).toHaveLength(1);
  const [{ psi, skipRatePsi, skipRate }] = drifts[0]! as [Drift];
  expect(psi).toBeCloseTo(0, 12);
  expect(skipRate).toBe(0.4);
  expect(skipRatePsi).toBeCloseTo(0.3 * Math.log(4) - 0.3 * Math.log(6 / 9), 12);
});

test('few scores in a window are no drift by chance', () => {
  const gate = { block0: { edges: [0, 1, 2], shares: [0.25, 0.25, 0.25, 0.25], skipRate: 0.5 } };
  const monitor = watch({ shadow: 0, window: 100, profile: gate });
  // One item of the window had its gate asked, all came to an exit.
  const asked = runEvent(context, [[5, 5, 5]]);
  const drifts = driftsOf(monitor, 1, (i) => (i === 0 ? asked : cameToExit(0.5, false)));
  expect(monitor.stats().watch.drift).toHaveLength(1);
  expect(drifts).toEqual([]);
});

test('a shadow run that fails is counted', async () => {
  const monitor = watch({ shadow: 1 });
  monitor.onAttach({
    runAgain: async () => ({}),
    runFull: async () => {
      throw new Error('no');
    },
    setFullDepth: () => {},
  });
  monitor.onRun(skipped(0));
  await monitor.settled();
  expect(monitor.stats().watch).toMatchObject({ failures: 1, checks: 0 });
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
