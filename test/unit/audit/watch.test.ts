import { watch } from '../../../lib/audit/watch.js';
import type { SessionControl, TensorMap } from '../../../lib/skip/observer.js';
import { Tensor } from '../../../lib/tensor.js';
import { runContext, runEvent } from '../../helpers/run-event.js';

/** A session whose full network always answers with class 1. */
class FakeSession implements SessionControl {
  fullDepth = false;
  runs = 0;
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
  expect(monitor.stats().watch).toMatchObject({ checks: 0, tripped: false });
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

test('an item that ran in full is not checked', async () => {
  const session = new FakeSession();
  const monitor = watch({ shadow: 1 });
  monitor.onAttach(session);
  monitor.onRun(runEvent(context, [[1, 1, 1]]));
  await monitor.settled();
  expect(session.runs).toBe(0);
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

test('a shadow run that fails is counted', async () => {
  const monitor = watch({ shadow: 1 });
  monitor.onAttach({
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
